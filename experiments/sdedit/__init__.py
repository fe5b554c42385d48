"""Editing from a noisy guide (arXiv:2108.01073)."""
