"""Class-conditional diffusion on the UCI handwritten digits, in the latent space of a small autoencoder.

Train configs/autoencoder_digits.py into runs/autoencoder first, or name its folder by --config.codec.run.
Latents are standardised, so data_std is 1; else it is configs/digits.py (arXiv:2206.00364, and
arXiv:2112.10752 for the latents).
"""

from ml_collections import ConfigDict


def get_config():
  data_std = 1.0  # of the latents
  return ConfigDict(
    dict(
      seed=0,
      data=dict(factory="data.digits", dequantization="uniform"),
      process=dict(factory="processes.edm", sigma_min=0.002, sigma_max=80.0),
      network=dict(factory="networks.MLP", width=384, depth=4, dropout=0.2, num_classes=10),
      codec=dict(factory="codecs.autoencoder", run="runs/autoencoder", ema=None),
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
        warmup_steps=100,
        b1=0.9,
        b2=0.99,
        eps=1e-8,
        clip=1.0,
        weight_decay=0.0,
      ),
      training=dict(
        batch_size=256,
        steps=2000,
        ema_half_life_images=(25_000,),
        ema_ramp=0.05,
        accumulate=1,
        log_every=50,
        checkpoint_every=500,
        keep=3,
        warm_start=None,
        layout="replicated",
      ),
      sampler=dict(
        solver="heun", steps=18, grid="", guidance=0.5, interval=(0.05, 0.6), options=dict(), denoise=True
      ),
      evaluation=dict(num_samples=1000, batch=250, seed=0, held_out=512),
    )
  )
