"""A small AutoencoderKL of the UCI handwritten digits, of the kind that diffusers has: 8x8 pixels to 4x4x2.

    python train.py --config=configs/kl_digits.py --workdir=runs/kl_digits
    python sample.py --workdir=runs/kl_digits --to-diffusers=vae

The folder that comes out is for configs/latent_kl_digits.py. The loss is that of a variational autoencoder
whose encoder has one fixed deviation (arXiv:2112.10752, section 3.1).
"""

from ml_collections import ConfigDict

from configs import autoencoder_digits


def get_config():
  config = autoencoder_digits.get_config()
  config.data = ConfigDict(dict(factory="data.digits", dequantization="none"))
  network = dict(
    in_channels=1,
    out_channels=1,
    latent_channels=2,
    block_out_channels=(16, 32),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    layers_per_block=1,
    norm_num_groups=8,
    mid_block_add_attention=False,
  )
  config.network = ConfigDict(dict(factory="weights.architectures.autoencoder_kl.build", config=network))
  config.training.batch_size = 64
  config.training.steps = 1500
  return config
