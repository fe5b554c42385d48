"""A conditional denoiser as a classifier of digits (arXiv:2303.16203), measured: accuracy against draws,
shared and own noise, evaluations."""

from typing import Any

import jax
import numpy as np

from diffusion import processes, tasks
from experiments import digit_models


def digits(config: Any, seed: int) -> dict[str, float]:
  """Accuracies on held-out digits of a small class-conditional model, by the number of draws of noise that
  all classes share.

  `own_noise` draws noise for every class by itself, at the same times; `in_rounds` gives up classes on the
  way.

  Args:
    config: width, depth, dropout, steps, batch, learning_rate: of the model; draws, low, high,
      own_noise_draws, rounds.
    seed: of the network, its training and the noise.
  """
  train, held = digit_models.images()
  process = processes.edm()
  model = digit_models.trained(config, process, train, seed)
  x, label = held
  accuracy = lambda found: float(np.mean(np.asarray(found.label) == label))
  key = jax.random.key(100 + seed)
  found = {}
  for draws in config.draws:
    out = tasks.classify(
      model, x, digit_models.CLASSES, key, tasks.strata(process, draws, config.low, config.high)
    )
    found |= {f"accuracy_{draws}": accuracy(out), f"evaluations_{draws}": float(out.evaluations)}
  times = tasks.strata(process, config.own_noise_draws, config.low, config.high)
  errors = np.stack(
    [
      np.asarray(
        tasks.classify(model, x, digit_models.CLASSES, jax.random.fold_in(key, c), times).errors[:, c]
      )
      for c in range(digit_models.CLASSES)
    ],
    axis=1,
  )
  own = float(np.mean(errors.argmin(axis=1) == label))
  found |= {
    f"own_noise_accuracy_{config.own_noise_draws}": own,
    f"shared_less_own_noise_{config.own_noise_draws}": found[f"accuracy_{config.own_noise_draws}"] - own,
  }
  times = tasks.strata(process, max(config.draws), config.low, config.high)
  out = tasks.classify(model, x, digit_models.CLASSES, key, times, rounds=tuple(map(tuple, config.rounds)))
  return found | {"in_rounds_accuracy": accuracy(out), "in_rounds_evaluations": float(out.evaluations)}
