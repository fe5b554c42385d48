"""Scores of second order (arXiv:2111.04726)."""
