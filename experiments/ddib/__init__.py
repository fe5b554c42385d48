"""Dual diffusion implicit bridges (arXiv:2203.08382)."""
