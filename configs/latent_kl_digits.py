"""A small DiT on the latents of an AutoencoderKL of the UCI handwritten digits, with their classes.

`config.codec.path` is the folder that configs/kl_digits.py tells how to make. EDM's process, preconditioning
and weight (arXiv:2206.00364) on latents whose deviation the autoencoder's scaling_factor makes 1.
"""

from ml_collections import ConfigDict

from configs import latent_digits


def get_config():
  config = latent_digits.get_config()
  config.data = ConfigDict(dict(factory="data.digits", dequantization="none"))
  config.network = ConfigDict(
    dict(factory="networks.DiT", width=96, depth=3, num_heads=4, patch=1, num_classes=10, dtype="float32")
  )
  config.codec = ConfigDict(dict(factory="weights.autoencoder_kl", path="vae"))
  config.training.batch_size = 128
  return config
