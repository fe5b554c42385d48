"""Score matching by finite differences (arXiv:2007.03317)."""
