"""The digits of `configs/digits.py` in colour, each in one random hue.

A model to colourise with, in some minutes on a CPU.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config():
  config = digits.get_config()
  data_std = 0.5  # of the pixels in [-1, 1]
  config.data = ConfigDict(dict(factory="data.color_digits", dequantization="uniform"))
  config.denoiser.data_std = config.loss.weight.data_std = data_std
  config.training.steps = 3000
  return config
