"""Class-conditional MNIST through TFDS (`--config.data.download=true` fetches it the first time).

EDM's process, preconditioning, weight and noise levels (arXiv:2206.00364) around a small DDPM++ U-Net.
"""

from ml_collections import ConfigDict


def get_config():
  data_std = 0.6  # of the pixels in [-1, 1]
  return ConfigDict(
    dict(
      seed=0,
      data=dict(factory="data.tfds", name="mnist", data_dir="", download=False, held_out_split="test"),
      process=dict(factory="processes.edm", sigma_min=0.002, sigma_max=80.0),
      network=dict(
        factory="networks.UNet",
        width=32,
        channel_multipliers=(1, 2, 2),
        num_res_blocks=2,
        attention_resolutions=(7,),
        embedding="fourier",
        fourier_scale=1.0,
        dropout=0.1,
        num_classes=10,
        dtype="float32",
        remat=False,
      ),
      denoiser=dict(factory="denoisers.edm", data_std=data_std),
      loss=dict(
        factory="losses.denoising_score_matching",
        target="x0",
        per_dimension=True,
        weight=dict(factory="losses.edm", data_std=data_std),
        times=dict(factory="losses.log_normal_sigma", mean=-1.2, std=1.2),
        condition_dropout=0.1,
        uncertainty=False,
      ),
      optimizer=dict(
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=500,
        b1=0.9,
        b2=0.99,
        eps=1e-8,
        clip=1.0,
        weight_decay=0.0,
      ),
      training=dict(
        batch_size=128,
        steps=20_000,
        ema_half_life_images=(100_000,),
        ema_ramp=0.05,
        accumulate=1,
        log_every=50,
        checkpoint_every=1000,
        keep=3,
        warm_start=None,
        layout="replicated",
      ),
      sampler=dict(solver="heun", steps=18, grid="", guidance=0.5, interval=(), options=dict(), denoise=True),
      evaluation=dict(num_samples=1000, batch=250, seed=0, held_out=512),
    )
  )
