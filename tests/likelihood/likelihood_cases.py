"""Problems with closed forms that the likelihood tests share.

Shaped alike, so that one program serves them all.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion import likelihood, oracles, processes

EVERY_PROCESS = {**processes.PROCESSES, **processes.LADDERS}

MEANS = np.array([[1.0, -0.5], [-1.0, 0.3]])
COVARIANCES = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.15, 0.0], [0.0, 0.4]]])
# One Gaussian away from the origin: closed forms for everything.
MEAN, VARIANCES = np.array([1.5, -1.0]), np.array([0.3, 0.8])
NUM_STEPS = 48


def mixture(process, dtype=None):
  """Two Gaussians in two dimensions: curved paths."""
  return oracles.gaussian_mixture(process, np.array([0.3, 0.7]), MEANS, COVARIANCES, dtype=dtype)


def shifted(process, dtype=None):
  """N(MEAN, VARIANCES)."""
  return oracles.gaussian(process, MEAN, VARIANCES, dtype=dtype)


def shifted_twice(process, dtype=None):
  """The same model written as a mixture of two equal parts: another function, the same program as
  `mixture`."""
  return oracles.gaussian_mixture(
    process, np.array([0.3, 0.7]), [MEAN] * 2, [np.diag(VARIANCES)] * 2, dtype=dtype
  )


@struct.dataclass
class Recorded:
  """A schedule known at some times only; asking for another gives the nearest one's numbers, and wrong
  results."""

  t: Any  # [N] ascending
  at: processes.Marginal  # [N]

  def __call__(self, t):
    xp = jnp if isinstance(t, jax.Array) else np
    nearest = xp.searchsorted(0.5 * (self.t[1:] + self.t[:-1]), t)
    return jax.tree.map(lambda a: xp.asarray(a)[nearest], self.at)


def record(process, times):
  """The process with its numbers at ascending times as data, so that every process runs the same program."""
  times = np.asarray(times, np.float64)
  ends = float(process.t_min), float(process.t_max), float(process.prior_std)
  return processes.GaussianProcess(Recorded(times, process.marginal(times)), *ends, name="recorded")


class Case(NamedTuple):
  process: Any  # recorded at all nodes of the steps
  first: float
  last: float
  forward: likelihood.Steps
  backward: likelihood.Steps


@functools.cache
def case(name, num_steps=NUM_STEPS, t_min=None):
  """A process by name, recorded, with float64 steps; all of one shape: fewer steps are followed by steps of
  length 0."""
  process = EVERY_PROCESS[name]()
  make = functools.partial(likelihood.flow_steps, process, num_steps, t_min=t_min, dtype=np.float64)
  nodes = likelihood.log_snr_times(process, 2 * NUM_STEPS, t_min)
  return Case(
    record(process, nodes), nodes[0], nodes[-1], *(_filled(make(backward=b)) for b in (False, True))
  )


def _filled(steps):
  short = 4 * NUM_STEPS - len(steps.t)
  fill = dict(t=steps.t[-1], scale=0, norm=1, shrink=0, weight=0, reach=0, last=True)
  return steps.replace(
    **{
      name: np.concatenate([getattr(steps, name), np.full(short, value, getattr(steps, name).dtype)])
      for name, value in fill.items()
    }
  )


def keys(count, seed=0):
  """Typed keys, one a row."""
  return jax.random.split(jax.random.key(seed), count)


log_prob = jax.jit(lambda oracle, x, t: oracle.log_prob(x, jnp.full(x.shape[:1], t, x.dtype)))
flow = jax.jit(
  lambda oracle, x, start, stop: oracle.flow(x, *(jnp.full(x.shape[:1], t, x.dtype) for t in (start, stop)))
)


def normals(rows, dim, seed=0):
  """Standard normal numbers made on the host."""
  return np.random.default_rng(seed).standard_normal((rows, dim))


def draws(rows=8, seed=0):
  """Data of `mixture`, and likely points of `shifted`, made on the host: [rows, 2] float64."""
  which = (np.random.default_rng(seed).random(rows) > 0.3).astype(int)
  return MEANS[which] + np.einsum(
    "nij,nj->ni", np.linalg.cholesky(COVARIANCES)[which], normals(rows, 2, seed)
  )
