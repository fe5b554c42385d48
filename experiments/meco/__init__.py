"""Compositional optimisation of unnormalised models (arXiv:2306.07485)."""
