"""The digits of `configs/digits.py` with a small U-Net instead of the MLP.

Fewer parameters, slower on a CPU.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config():
  config = digits.get_config()
  config.network = ConfigDict(
    dict(
      factory="networks.UNet",
      width=32,
      channel_multipliers=(1, 2),
      num_res_blocks=1,
      attention_resolutions=(4,),
      embedding="fourier",
      fourier_scale=1.0,
      dropout=0.0,
      num_classes=10,
      dtype="float32",
      remat=False,
    )
  )
  config.training.batch_size = 64
  config.training.steps = 5000
  config.optimizer.clip = 1.0
  return config
