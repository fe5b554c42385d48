"""Density ratios by infinitely many steps (arXiv:2111.11010)."""
