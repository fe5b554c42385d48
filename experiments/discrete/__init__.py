"""Discrete diffusion against laws that can be listed in full."""
