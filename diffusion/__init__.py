"""Score-based and diffusion models in JAX and Flax, as pure functions."""
