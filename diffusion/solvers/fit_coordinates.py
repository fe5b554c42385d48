"""Any deterministic sampler as numbers that are good to vary.

They are its times, and how each step uses everything seen so far. With D_j = D(u_j, t_j) every table without
noise is u_i+1 = (sigma_i+1/sigma_i) u_i + sum_k W_ik D_i-k, k = 0..i, provided that it is exact for a
constant D, which fixes the first factor and sum_k W_ik = alpha_i+1 - alpha_i sigma_i+1/sigma_i. `of_table`
finds those weights; what a fit varies is better conditioned than they are:

- `gaps` [N]: logarithms of the steps in t up to a common number. Whatever they are, the times run strictly
  from the same first to the same last one, and as times are counted from the last, each acts relatively.
- `differences` [N, N-1]: W_i / sum W_i = e_0 + sum_k differences_ik d_ik. The first HIGHEST vectors d_ik are
  backward differences of order k over uneven nodes (Newton's), in a clock that is finite at both ends: a
  coefficient 1 extrapolates fully to the end of the step, and a classical multistep method keeps its order
  while the nodes move. The others compare neighbours far in the past. All of them vanish on a constant D, so
  no choice of numbers breaks that law.
"""

from typing import Any, NamedTuple

import numpy as np

from diffusion.processes.views import VIEWS
from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table, build

HIGHEST = 4  # backward differences of higher order amplify more than they tell
LATE, EARLY = 2e-2, 1e-3  # where the clock goes from logarithmic to linear in sigma/alpha, and in alpha/sigma


class Coordinates(NamedTuple):
  """What a fit varies: gaps [N] and differences [N, N-1], of which row i uses the first i."""

  gaps: Any
  differences: Any


class Steps(NamedTuple):
  """What a sampler runs on: t [N] times of the evaluations, ratio [N] and weights [N, N], newest first."""

  t: Any
  ratio: Any
  weights: Any


def clock(alpha: Any, sigma: Any, xp: Any = np) -> Any:
  """A clock of noise levels: log((alpha + EARLY sigma) / (sigma + LATE alpha)).

  It is log(alpha/sigma) in the middle, and finite without signal and without noise.
  """
  return xp.log((alpha + EARLY * sigma) / (sigma + LATE * alpha))


def noise_to_signal(clock_value: Any) -> Any:
  """The sigma/alpha at which `clock` has a value; infinite at its lower end.

  >>> rho = np.array([0.0, 0.3, 80.0])
  >>> bool(np.allclose(noise_to_signal(clock(np.ones(3), rho)), rho))
  True
  """
  e = np.exp(clock_value)
  with np.errstate(divide="ignore"):
    return np.maximum(1 - LATE * e, 0.0) / np.maximum(e - EARLY, 0.0)


def times(gaps: Any, first: Any, last: Any) -> np.ndarray:
  """N + 1 times from `first` to `last` with steps proportional to exp(gaps)."""
  steps = np.exp(gaps - gaps.max())
  left = np.cumsum(steps[::-1])[::-1] / steps.sum()
  return np.concatenate([[first], last + (first - last) * left[1:], [last]])


def steps_at(process: Any, t: Any, differences: Any) -> Any:
  """The steps of N + 1 times: (`Steps`, their derivatives by differences [N, N, N-1]), in float64.

  The times are not differentiated here.
  """
  m = process.marginal(t)
  ratio = m.sigma[1:] / m.sigma[:-1]
  gain = (m.alpha[1:] - m.alpha[:-1] * ratio)[:, None]
  basis = _basis(clock(m.alpha, m.sigma))
  shares = basis[:, 0] + np.einsum("ik,ikj->ij", differences, basis[:, 1:])
  return Steps(t[:-1], ratio, gain * shares), gain[:, :, None] * np.moveaxis(basis[:, 1:], 1, 2)


def steps_of(process: Any, coordinates: Any, first: Any, last: Any) -> Steps:
  """The sampler of coordinates between two times, in float64."""
  return steps_at(process, times(coordinates.gaps, first, last), coordinates.differences)[0]


def with_derivatives(process: Any, coordinates: Any, first: Any, last: Any, step: float = 1e-5) -> Any:
  """(`Steps`, [N + N + N^2, P]): the steps and their derivatives by all gaps and all differences, in float64.

  Those by the gaps are central differences, whose error is below that of one evaluation of a network in
  float32.
  """
  steps, by_differences = steps_at(process, times(coordinates.gaps, first, last), coordinates.differences)
  count = len(coordinates.gaps)
  flat = lambda steps: np.concatenate([np.ravel(leaf) for leaf in steps])
  moved = lambda gaps: flat(steps_of(process, coordinates._replace(gaps=gaps), first, last))
  by_gaps = [
    (moved(coordinates.gaps + e) - moved(coordinates.gaps - e)) / (2 * step) for e in step * np.eye(count)
  ]
  rest = np.zeros((count, count, count, count - 1))  # weight [i, j] by difference [l, k]: only i = l
  rest[np.arange(count), :, np.arange(count)] = by_differences
  rest = np.concatenate([np.zeros((2 * count, count * (count - 1))), rest.reshape(count**2, -1)])
  return steps, np.concatenate([np.stack(by_gaps, axis=1), rest], axis=1)


def of_table(table: Table, process: Any) -> Coordinates:
  """The coordinates of a table.

  Of a table that is not exact for a constant D (Euler's), they are those of its corrected steps.

  Raises:
    ValueError: a table with noise, with one grid a sample, of an unknown view, or with times that do not
      strictly decrease.
  """
  name = table.name or "this table"
  if table.noise:
    raise ValueError(
      f"{name} draws noise, and a fit follows one solution: take a deterministic one, such as dpmpp_2m, "
      "unipc or deis"
    )
  t = np.asarray(table.t, np.float64)
  if t.ndim != 1:
    raise ValueError(f"{name} has {t.shape[0]} grids: give one grid for all samples")
  if (np.diff(t) >= 0).any():
    raise ValueError(
      f"{name} evaluates at times that do not strictly decrease ({', '.join(f'{v:.4g}' for v in t)}): start "
      "from a multistep"
      " method, such as dpmpp_2m, unipc or deis, without a last denoising evaluation"
    )
  seen = unroll(table, process)
  m = process.marginal(t)
  ratio = m.sigma[1:] / m.sigma[:-1]
  taken = (seen[1:] - ratio[:, None] * seen[:-1])[:, 1:]
  basis = _basis(clock(m.alpha, m.sigma))
  count = len(ratio)
  differences = np.zeros((count, count - 1))
  for i in range(1, count):
    newest_first = taken[i, i::-1]
    shares = newest_first / newest_first.sum()
    differences[i, :i] = np.linalg.solve(basis[i, : i + 1, : i + 1].T, shares)[1:]
  gaps = np.log(-np.diff(t))
  return Coordinates(gaps - gaps.mean(), differences)


def to_table(
  process: Any, coordinates: Any, first: Any, last: Any, about: About = About(), dtype: Any = np.float32
) -> Table:
  """The `Table` of coordinates: slots x and all past D, newest first.

  >>> from diffusion import processes, solvers
  >>> process = processes.edm()
  >>> start = solvers.dpmpp_2m(process, np.array([4.0, 2.0, 1.0, 0.5, 0.0]))
  >>> print(to_table(process, of_table(start, process), 4.0, 0.0, About("the same", 2, process)))
  the same: order 2, 4 evaluations, asks for x0, 4 slots, no noise (process edm)
  row 0  t=4     S0 <- 0.5 S0 + 0.5 E; S1 <- E; S2 <- S1; S3 <- S2
  row 1  t=2     S0 <- 0.5 S0 - 0.25 S1 + 0.75 E; S1 <- E; S2 <- S1; S3 <- S2
  row 2  t=1     S0 <- 0.5 S0 - 0.25 S1 + 0.75 E; S1 <- E; S2 <- S1; S3 <- S2
  row 3  t=0.5   S0 <- E; S1 <- E; S2 <- S1; S3 <- S2
  output t=0     S0
  """
  n = nodes(process, times(coordinates.gaps, first, last), dtype)
  steps, _ = steps_at(process, n.t, coordinates.differences)
  weights = np.where(np.abs(steps.weights) < 1e-14, 0.0, steps.weights)
  m = len(steps.t)
  shift = [[float(j == k - 1 and k > 1) for j in range(m)] for k in range(1, m)]
  A = [[steps.ratio, *weights.T[1:]], *shift]
  B = [weights[:, 0], *[float(k == 1) for k in range(1, m)]]
  return build(n.t, A=A, B=B, about=about, dtype=dtype)


def unroll(table: Table, process: Any) -> Any:
  """Every point of a deterministic table as a linear combination: [N+1, 1+N], float64.

  Each point combines the table's start and its data predictions.
  """
  t, g, h, A, B, w, start = (
    np.asarray(getattr(table, name), np.float64) for name in ("t", "g", "h", "A", "B", "w", "start")
  )
  m = process.marginal(t)
  stack = np.zeros((B.shape[1], 1 + len(B)))
  stack[:, 0] = start[:, 0]
  points = [w[0] @ stack]
  for i in range(len(B)):
    of_x, of_data = VIEWS["x0"][table.view](
      m.alpha[i], m.sigma[i], m.d_alpha[i], m.d_sigma[i], m.d_variance[i]
    )
    prediction = of_x * points[-1]
    prediction[1 + i] += of_data
    stack = A[i] @ stack + np.outer(B[i], g[i] * points[-1] + h[i] * prediction)
    points.append(w[i + 1] @ stack)
  return np.array(points)


def _basis(s):
  """The vectors of weights e_0, d_1, d_2, ... of each step: [N, N, N].

  The last axis is newest first. s: [N+1] is the clock of the nodes.
  """
  count = s.shape[0] - 1
  ago = np.arange(count)
  exists = ago[:, None] >= ago[None, :]
  seen = s[np.maximum(ago[:, None] - ago[None, :], 0)]
  pairs = exists[:, :, None] & exists[:, None, :] & ~np.eye(count, dtype=bool)[None]
  gaps = np.where(pairs, seen[:, :, None] - seen[:, None, :], 1.0)
  ahead = np.where(exists, s[1:, None] - seen, 1.0)
  vectors, product, reach = [], np.ones((count, count)), np.ones((count, 1))
  for k in range(count):
    if k <= HIGHEST:  # the divided difference D[s_0..s_k] times prod_{j<k} (s' - s_j)
      product = product * gaps[:, :, k]
      vector = reach / product
      reach = reach * ahead[:, k, None]
    else:
      vector = (ago == k - 1) * 1.0 - (ago == k) * 1.0 + np.zeros((count, 1))
    vectors.append(np.where(exists[:, k, None] & (ago <= k)[None, :], vector, 0.0))
  return np.stack(vectors, axis=1)
