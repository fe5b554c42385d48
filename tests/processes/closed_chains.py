"""q(x_t | x_0) of the listed chains on three values, as written in closed form: t -> [S, S] in float64."""

import numpy as np
from scipy.linalg import expm

LINE = np.array([[-1.0, 1.0, 0.0], [1.0, -2.0, 1.0], [0.0, 1.0, -1.0]])
AROUND = np.array([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 0.0, -1.0]])
EYE, UNIFORM = np.eye(3), np.full((3, 3), 1 / 3)


def kept_or_drawn(alpha, law):
  return alpha * np.eye(len(law)) + (1 - alpha) * np.asarray(law)[None, :]


def mixture_path(t):
  return kept_or_drawn((1 - t) ** 2, np.array([1, 2, 3]) / 6)


def path_with_masks(t):
  return kept_or_drawn(1 - 0.95 * t, np.array([1, 2, 3, 4]) / 10)


def walk_on_a_line(t):
  return expm(-np.log(1 - t) * LINE)


def walk_around(t):
  return expm(-np.log(1 - np.sin(0.5 * np.pi * t)) * AROUND)


def masked_uniform(t):
  seen, moved = (1 - t) ** 0.7, kept_or_drawn((1 - t) ** 0.3, np.full(3, 1 / 3))
  return np.block([[seen * moved, np.full((3, 1), 1 - seen)], [np.zeros((1, 3)), np.ones((1, 1))]])


def uniform_and_walk(t):
  return expm(-np.log(1 - t) * (0.5 * (UNIFORM - EYE) + AROUND))


def masked_by_value(t):
  hidden = t ** np.linspace(0.6, 2.0, 3)
  return np.block([[np.diag(1 - hidden), hidden[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])


def d3pm_absorbing(t):
  return kept_or_drawn(1 - t, np.eye(4)[3])


def d3pm_uniform(t):
  """Linear between the steps of the cosine ladder of 20 (arXiv:2102.09672, eq. 17)."""
  bar = np.cos((np.arange(21) / 20 + 0.008) / 1.008 * np.pi / 2) ** 2
  steps = np.maximum(bar[1:] / bar[:-1], 1 - 0.999)
  return kept_or_drawn(np.interp(t, np.arange(21) / 20, np.append(1, np.cumprod(steps))), np.full(3, 1 / 3))


def d3pm_gaussian(t):
  """The product of the matrices of arXiv:2107.03006, eq. 8, number by number."""
  product = EYE
  for beta in np.linspace(0.2, 0.6, 20)[: round(20 * t)]:
    step, total = np.zeros((3, 3)), sum(np.exp(-4 * n**2 / (4 * beta)) for n in range(-2, 3))
    for i in range(3):
      for j in range(3):
        if i != j:
          step[i, j] = np.exp(-4 * (i - j) ** 2 / (4 * beta)) / total
      step[i, i] = 1 - step[i].sum()
    product = product @ step
  return product
