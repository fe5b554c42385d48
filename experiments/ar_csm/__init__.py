"""Autoregressive conditional score models (arXiv:2010.12810)."""
