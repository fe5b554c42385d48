"""A conditional denoiser as a classifier (arXiv:2303.16203)."""
