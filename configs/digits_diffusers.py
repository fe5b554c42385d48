"""The digits of `configs/digits.py` with a small UNet2DModel, whose weights diffusers opens.

    python train.py --config=configs/digits_diffusers.py --workdir=runs/digits_diffusers
    python sample.py --workdir=runs/digits_diffusers --to-diffusers=digits

DDPM's noise at 1,000 levels (arXiv:2006.11239), predicted by a network that is told the number of the level.
"""

from ml_collections import ConfigDict

from configs import digits


def get_config():
  config = digits.get_config()
  config.data = ConfigDict(dict(factory="data.digits", dequantization="none"))
  config.process = ConfigDict(dict(factory="processes.ddpm_ladder"))
  network = dict(
    sample_size=8,
    in_channels=1,
    out_channels=1,
    block_out_channels=(32, 64),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=8,
    attention_head_dim=32,
    num_class_embeds=10,
  )
  config.network = ConfigDict(dict(factory="weights.architectures.unet2d.build", config=network))
  config.denoiser = ConfigDict(dict(factory="denoisers.eps", time_scale=1000.0, time_shift=-1.0))
  config.loss = ConfigDict(
    dict(
      factory="losses.denoising_score_matching",
      target="eps",
      per_dimension=True,
      times=dict(factory="losses.ladder_times", num_steps=1000),
      condition_dropout=0.0,
    )
  )
  config.training.batch_size = 64
  config.training.steps = 3000
  config.sampler = ConfigDict(
    dict(solver="dpmpp_2m", steps=25, grid="", guidance=0.0, interval=None, options=dict(), denoise=True)
  )
  return config
