"""Diffusion recovery likelihood (arXiv:2012.08125)."""
