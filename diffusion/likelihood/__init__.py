"""Log-likelihoods of data under a trained model."""

from diffusion.likelihood.probability_flow import bits_per_dim, log_likelihood
