"""What a trained model is used for: short compositions of the parts below."""

from diffusion.tasks import posterior_covariance
