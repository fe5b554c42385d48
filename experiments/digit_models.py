"""Small denoisers of the digits, trained in memory: what several experiments measure something of."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, losses, networks
from diffusion.data import digits as digits_set, load
from diffusion.run.fit import fit

CLASSES = 10


def images() -> tuple[tuple[jax.Array, np.ndarray], ...]:
  """((train [1438, 8, 8, 1] in [-1, 1], labels), (held out [359, ...], labels)) of the fixed split."""
  dataset = digits_set()
  parts = (load(dataset.train), load(dataset.held_out))
  return tuple(
    (jnp.asarray(dataset.scaling.to_model(np.asarray(part["x"])), jnp.float32), np.asarray(part["label"]))
    for part in parts
  )


def trained(
  config: Any, process: Any, data: tuple[jax.Array, np.ndarray | None], seed: int, num_classes: int = CLASSES
) -> Any:
  """A denoiser of images by denoising score matching with EDM's weight and levels; conditional on the label
  unless num_classes is 0."""
  x, label = data
  std = float(jnp.std(x))
  network = networks.MLP(
    width=config.width, depth=config.depth, dropout=config.dropout, num_classes=num_classes
  )
  template = denoisers.from_flax(network, process, denoisers.edm(data_std=std), None)
  cond = {"label": jnp.zeros(1, jnp.int32)} if num_classes else None
  start = jax.jit(lambda key: network.init(key, x[:1], jnp.zeros(1), cond)["params"])(jax.random.key(seed))
  loss = losses.chain(
    losses.denoising_score_matching(process, "x0", per_dimension=True),
    losses.weight_by(losses.edm(data_std=std)),
    losses.at_times(
      losses.low_discrepancy(losses.log_normal_sigma(-1.2, 1.2)),
      roles=losses.roles(model=template),
    ),
  )
  transform = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps), b2=0.99)
  labels = None if label is None else jnp.asarray(label, jnp.int32)

  def batch(key):
    rows = jax.random.randint(key, (config.batch,), 0, len(x))
    return {"x": x[rows]} | ({"cond": {"label": labels[rows]}} if num_classes else {})

  params, _, _ = fit(loss, start, transform, batch, steps=config.steps, seed=seed)
  return template.with_params(params["model"])
