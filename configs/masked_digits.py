"""Class-conditional masked diffusion of the UCI handwritten digits as whole numbers: minutes on two cores.

Each pixel is masked with probability t, and a residual MLP of all pixels says what the masked ones are
(arXiv:2406.07524). In black and white, or with `:grey` in the 17 grey levels of the data, each a category.
Measured: class accuracy .996, Frechet distance 1.310 (training data: 1.035), at the most 0.309 bits a
held-out pixel; grey .996, 1.407 (0.989) and 2.010 bits.
"""

from ml_collections import ConfigDict


def get_config(form="binary"):
  sets = {
    "binary": (2, dict(factory="data.binary_digits")),
    "grey": (17, dict(factory="data.digits", dequantization="categories")),
  }
  if form not in sets:
    raise ValueError(f"there are no digits '{form}': there are {', '.join(sets)}")
  values, data = sets[form]
  return ConfigDict(
    dict(
      seed=0,
      data=data,
      process=dict(factory="processes.masked", num_values=values, shape=(8, 8, 1)),
      network=dict(
        factory="networks.TokenMLP",
        num_values=values,
        embedding_size=8,
        width=384,
        depth=4,
        dropout=0.2,
        num_classes=10,
      ),
      denoiser=dict(factory="denoisers.logits"),
      loss=dict(
        factory="losses.masked_cross_entropy",
        times=dict(factory="losses.low_discrepancy"),
        condition_dropout=0.1,
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
        solver="masked_ancestral",
        steps=64,
        grid="",
        guidance=0.5,
        interval=(),
        options=dict(),
        denoise=True,
      ),
      evaluation=dict(num_samples=1000, batch=250, seed=0, held_out=512),
    )
  )
