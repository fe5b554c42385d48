"""A conditional denoiser as a classifier of digits (arXiv:2303.16203), measured: accuracy against draws,
shared and own noise, evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, losses, networks, processes, tasks
from diffusion.claims.fitting import fit
from diffusion.data import digits as digits_set, load

CLASSES = 10


def digits(config, seed):
  """Accuracies on held-out digits of a small class-conditional model, by the number of draws of noise that
  all classes share.

  `own_noise` draws noise for every class by itself, at the same times; `in_rounds` gives up classes on the
  way.

  Args:
    config: width, depth, dropout, steps, batch, learning_rate: of the model; draws, low, high,
      own_noise_draws, rounds.
    seed: of the network, its training and the noise.
  """
  train, held = images()
  process = processes.edm()
  model = trained(config, process, train, seed)
  x, label = held
  accuracy = lambda found: float(np.mean(np.asarray(found.label) == label))
  key = jax.random.key(100 + seed)
  found = {}
  for draws in config.draws:
    out = tasks.classify(model, x, CLASSES, key, tasks.strata(process, draws, config.low, config.high))
    found |= {f"accuracy_{draws}": accuracy(out), f"evaluations_{draws}": float(out.evaluations)}
  times = tasks.strata(process, config.own_noise_draws, config.low, config.high)
  errors = np.stack(
    [
      np.asarray(tasks.classify(model, x, CLASSES, jax.random.fold_in(key, c), times).errors[:, c])
      for c in range(CLASSES)
    ],
    axis=1,
  )
  own = float(np.mean(errors.argmin(axis=1) == label))
  found |= {
    f"own_noise_accuracy_{config.own_noise_draws}": own,
    f"shared_less_own_noise_{config.own_noise_draws}": found[f"accuracy_{config.own_noise_draws}"] - own,
  }
  times = tasks.strata(process, max(config.draws), config.low, config.high)
  out = tasks.classify(model, x, CLASSES, key, times, rounds=tuple(map(tuple, config.rounds)))
  return found | {"in_rounds_accuracy": accuracy(out), "in_rounds_evaluations": float(out.evaluations)}


def images():
  """((train [1438, 8, 8, 1] in [-1, 1], labels), (held out [359, ...], labels)) of the fixed split."""
  dataset = digits_set()
  parts = (load(dataset.train), load(dataset.held_out))
  return tuple(
    (jnp.asarray(dataset.scaling.to_model(np.asarray(part["x"])), jnp.float32), np.asarray(part["label"]))
    for part in parts
  )


def trained(config, process, data, seed, num_classes=CLASSES):
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
