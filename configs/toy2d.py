"""Two-dimensional toy sets: `--config=configs/toy2d.py:moons`, or any other of `diffusion.data.TOY2D`."""

from ml_collections import ConfigDict

from diffusion.data import TOY2D


def get_config(name="checkerboard"):
  if name not in TOY2D:
    raise ValueError(f"there is no toy set '{name}': there are {', '.join(TOY2D)}")
  return ConfigDict(
    dict(
      seed=0,
      data=dict(factory="data.toy2d", name=name, size=100_000, held_out_size=10_000, num_classes=0),
      process=dict(factory="processes.edm", sigma_min=0.002, sigma_max=20.0),
      network=dict(factory="networks.MLP", width=128, depth=3, num_classes=0),
      denoiser=dict(factory="denoisers.edm", data_std=1.0),  # the points are standardised
      loss=dict(
        factory="losses.denoising_score_matching",
        target="x0",
        per_dimension=True,
        weight=dict(factory="losses.edm", data_std=1.0),
        times=dict(factory="losses.log_normal_sigma", mean=-1.2, std=1.2),
        condition_dropout=0.0,
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
        batch_size=512,
        steps=3000,
        ema_half_life_images=(50_000,),
        ema_ramp=0.05,
        accumulate=1,
        log_every=100,
        checkpoint_every=1000,
        keep=3,
        warm_start=None,
        layout="replicated",
      ),
      sampler=dict(solver="heun", steps=18, grid="", guidance=0.0, interval=(), options=dict(), denoise=True),
      evaluation=dict(num_samples=5000, batch=250, seed=0, held_out=512),
    )
  )
