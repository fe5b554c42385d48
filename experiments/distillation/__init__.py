"""Distillation of guided diffusion models (arXiv:2210.03142)."""
