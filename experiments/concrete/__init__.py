"""Concrete score matching (arXiv:2211.00802)."""
