"""Log-likelihoods of a data set in the units that are reported, each number with its error and its unit."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

UNITS = ("nats", "nats/dim", "bits/dim", "bits/char", "perplexity")


class Measured(NamedTuple):
  """A mean over records, in a unit.

  Attributes:
    value: the mean, of minus the log-likelihood unless the unit is perplexity.
    error: its standard error over the records.
    unit: one of `UNITS`.
  """

  value: float
  error: float
  unit: str

  def __str__(self) -> str:
    return f"{self.value:.4g} ± {self.error:.1g} {self.unit}"


def measured(log_prob: jax.Array | np.ndarray, shape: Sequence[int], unit: str) -> Measured:
  """Minus the mean log-likelihood of records of whole numbers, or of a bound of it, in a unit.

  - nats: of a record;
  - nats/dim: of one of its D coordinates (arXiv:1511.01844, section 3.1);
  - bits/dim: the same over log 2;
  - bits/char: the same number, where a coordinate is one character;
  - perplexity: exp of nats/dim, where a coordinate is one token; of a bound, an upper bound.

  Args:
    log_prob: [B] nats of records; two or more of them.
    shape: of one record; D is its size.
    unit: one of `UNITS`.

  Raises ValueError for an unknown unit, or fewer than two records.

  >>> nats = np.log(np.array([0.25, 0.25]))
  >>> measured(nats, (2,), "bits/char"), measured(nats, (2,), "perplexity").value
  (Measured(value=1.0, error=0.0, unit='bits/char'), 2.0)
  """
  if unit not in UNITS:
    raise ValueError(f"unit {unit!r} is unknown: choose one of {', '.join(UNITS)}")
  if len(log_prob) < 2:
    raise ValueError(f"a mean with its error takes two records or more, got {len(log_prob)}")
  size = math.prod(shape)
  nats = -np.asarray(log_prob, np.float64)
  mean, error = float(nats.mean()), float(nats.std(ddof=1) / np.sqrt(len(nats)))
  if unit == "nats":
    return Measured(mean, error, unit)
  mean, error = mean / size, error / size
  if unit == "perplexity":
    return Measured(math.exp(mean), math.exp(mean) * error, unit)
  per = 1.0 if unit == "nats/dim" else math.log(2.0)
  return Measured(mean / per, error / per, unit)
