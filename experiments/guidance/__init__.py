"""Autoguidance (arXiv:2406.02507), guidance intervals (arXiv:2404.07724), composition (arXiv:2302.11552)."""
