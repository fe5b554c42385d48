"""How near the text of samples is to text: the law of pairs of neighbouring values."""

import numpy as np


def evaluate_text(
  samples: np.ndarray, train: np.ndarray, held_out: np.ndarray, num_values: int
) -> dict[str, float]:
  """The total variation between the pairs of neighbours of samples and of held-out text.

  Beside it stands what as many records of training text have: a sample of n pairs of the very same law is not
  at zero. Pairs see spelling and no more; the likelihood sees all.

  Args:
    samples: [n, L] whole numbers below num_values.
    train, held_out: [m, L] likewise.
    num_values: K.
  Returns:
    {'pair_total_variation', 'pair_total_variation_floor'}; nothing without held-out records.

  >>> rows = np.array([[0, 1, 0], [1, 0, 1]])
  >>> evaluate_text(rows, rows, np.array([[0, 1, 1]]), 2)
  {'pair_total_variation': 0.5, 'pair_total_variation_floor': 0.5}
  """
  if not len(held_out):
    return {}
  law = pairs(held_out, num_values)
  distance = lambda records: float(0.5 * np.abs(pairs(records, num_values) - law).sum())
  return {
    "pair_total_variation": distance(samples),
    "pair_total_variation_floor": distance(np.asarray(train)[: len(samples)]),
  }


def pairs(records: np.ndarray, num_values: int) -> np.ndarray:
  """How often each pair of neighbours occurs in records [n, L], as shares: [K * K].

  >>> pairs(np.array([[0, 1, 1]]), 2).tolist()
  [0.0, 0.5, 0.0, 0.5]
  """
  records = np.asarray(records, np.int64)
  both = records[:, :-1] * num_values + records[:, 1:]
  counts = np.bincount(both.ravel(), minlength=num_values**2)
  return counts / max(counts.sum(), 1)
