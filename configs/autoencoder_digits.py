"""A small autoencoder of the UCI handwritten digits: 64 pixels to 16 numbers, for configs/latent_digits.py.

Half a minute of one CPU core. The loss is that of a variational autoencoder whose encoder has one fixed
deviation (arXiv:2112.10752, section 3.1).
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    dict(
      seed=0,
      data=dict(factory="data.digits", dequantization="uniform"),
      network=dict(
        factory="networks.AutoEncoder", shape=(8, 8, 1), latent_shape=(16,), width=256, depth=2, dropout=0.0
      ),
      loss=dict(factory="losses.reconstruction", kl=1e-3, noise=0.1),
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
        checkpoint_every=1000,
        keep=1,
        warm_start=None,
        layout="replicated",
      ),
      evaluation=dict(held_out=512),
    )
  )
