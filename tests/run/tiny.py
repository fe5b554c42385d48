"""A model that trains in a second: points on a ring, a small network with dropout and batch statistics.

It is also what a reader's own module looks like: the config names its functions by dotted path.
"""

import time

import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn

from diffusion import losses
from diffusion.data import Arrays, Dataset, Standardize


class Slow(Arrays):
  """Records in memory that take `delay` seconds a batch, so that a run lasts long enough to be killed."""

  def __init__(self, x, label, delay):
    super().__init__(x, label)
    self.delay = delay

  def gather(self, indices):
    time.sleep(self.delay)
    return super().gather(indices)


def ring(delay=0.0, classes=3, seed=0):
  generator = np.random.default_rng(seed)
  angle = generator.uniform(0, 2 * np.pi, 500)
  x = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
  arrays = Slow(x, (angle * classes / (2 * np.pi)).astype(np.int32), delay)
  names = tuple("abc"[:classes])
  return Dataset(
    "ring", arrays, arrays, (2,), classes, names, Standardize(0.0, float(x.std())), "none held out"
  )


class Net(nn.Module):
  """Dropout and batch statistics: everything that a train state may have to carry."""

  num_classes: int = 3
  width: int = 16

  @nn.compact
  def __call__(self, x, t, cond=None, train=False):
    h = jnp.concatenate([x, t[:, None]], 1)
    if cond is not None:
      label = cond["label"]
      h = jnp.concatenate(
        [h, jnp.where(label[:, None] >= 0, nn.Embed(self.num_classes, 4)(jnp.maximum(label, 0)), 0.0)], 1
      )
    h = nn.swish(nn.Dense(self.width)(h))
    h = nn.BatchNorm(use_running_average=not train, momentum=0.9)(h)
    h = nn.Dropout(0.1, deterministic=not train)(h)
    return nn.Dense(x.shape[-1])(h)


def failing(process, at=None):
  """Denoising score matching that counts its steps and is NaN from step `at` on."""

  def change(terms, roles, placed, params, state, clock):
    bad = jnp.where(state["count"] >= (10**9 if at is None else at), jnp.nan, 1.0)
    return terms.replace(
      interior=terms.interior * bad, metrics={**terms.metrics, "own_term": terms.interior * bad}
    )

  return losses.layer(
    losses.denoising_score_matching(process),
    change,
    name="failing",
    init=lambda key: ({"bias": jnp.zeros(())}, {"count": jnp.zeros((), jnp.int32)}),
    update=lambda state, t, terms: {"count": state["count"] + 1},
  )


def at_the_centre(run, workdir, *, scale):
  """An evaluation of one's own: the time score at x = 0 and t = 1/2, times scale."""
  del workdir
  found = run.denoiser(jnp.zeros((1, 2)), jnp.full(1, 0.5), views=("time_score",))
  return {"centre": scale * float(found.time_score[0])}


def time_score():
  """A run whose network has no posterior mean, and whose weight is an argument of the objective."""
  config = get_config()
  del config.denoiser, config.sampler
  config.data = dict(factory="tiny.ring", classes=0)
  config.process = dict(factory="processes.spherical")
  config.network = dict(
    factory="networks.TimeScore", network=dict(factory="networks.MLP", width=16, depth=1, num_classes=0)
  )
  config.loss = dict(factory="losses.time_score_matching", weight=dict(factory="losses.both_ends"))
  config.evaluation = dict(held_out=64, own=dict(factory="tiny.at_the_centre", scale=2.0))
  config.training.steps = 20
  return config


def get_config(variant="plain"):
  if variant == "time_score":
    return time_score()
  network = (
    dict(factory="networks.MLP", width=16, depth=1, num_classes=3)
    if variant == "plain"
    else dict(factory="tiny.Net")
  )
  if variant not in ("plain", "everything"):
    raise ValueError(f"no variant '{variant}': there are plain, everything")
  kept = dict(ema_sigma_rel=(0.05, 0.1), ema_snapshot_every=20) if variant == "everything" else {}
  return ml_collections.ConfigDict(
    dict(
      seed=1,
      data=dict(factory="tiny.ring", delay=0.0),
      process=dict(factory="processes.edm"),
      network=network,
      denoiser=dict(factory="denoisers.edm", data_std=1.0),
      loss=dict(
        factory="tiny.failing",
        at=None,
        weight=dict(factory="losses.edm", data_std=1.0),
        times=dict(factory="losses.log_normal_sigma"),
        condition_dropout=0.1,
        uncertainty=True,
      ),
      optimizer=dict(learning_rate=1e-2, schedule="cosine", warmup_images=320, clip=1.0),
      training=dict(
        batch_size=32,
        steps=200,
        ema_half_life_images=(500, 2000),
        log_every=7,
        checkpoint_every=10,
        keep=3,
        accumulate=1,
        warm_start=None,
        layout="replicated",
        **kept,
      ),
      sampler=dict(solver="heun", steps=4, guidance=0.0),
    )
  )
