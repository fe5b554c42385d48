"""Posterior sampling by decoupled annealing: clean data given x_t and y at every level, then noise again."""

from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import struct
from jax.typing import ArrayLike, DTypeLike

from diffusion.mcmc.base import fold
from diffusion.mcmc.langevin_step import langevin_step
from diffusion.processes.base import AnyArray, GaussianProcess, Number, expand
from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished
from diffusion.solvers.grid_nodes import nodes
from diffusion.tasks.likelihood_guidance import data_variance, posterior_spread
from diffusion.tasks.measurement import Measurement


@struct.dataclass
class Daps(OnGrid):
  """A solver; see `daps`."""

  process: GaussianProcess
  measurement: Measurement
  y: jax.Array
  data_variance: Number
  t: AnyArray  # [N + 1]
  moves: int = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("x0",)

  def begin(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
    """x: [B, ...] itself, once its measurement fits."""
    del keys
    self.measurement.check(x.shape, self.y.shape)
    return x

  def ask(self, state: jax.Array, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at level i."""
    return state, self.time(i, state), self.views

  def tell(
    self, state: jax.Array, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> jax.Array:
    """A draw of x0 given y, and noise again up to the next level."""
    t = self.time(i + 1, state)
    x0 = self.clean(prediction.x0, self.time(i, state), keys, i)
    m = self.process.marginal(t)
    x = expand(m.alpha, x0) * x0 + expand(m.sigma, x0) * randomness.normal(keys, i + 1, 0, state)
    return finished(post_step, x, t, keys, i + 1, prediction)

  def end(self, state: jax.Array) -> jax.Array:
    """The newest x: [B, ...]."""
    return state

  def clean(self, mean: jax.Array, t: jax.Array, keys: jax.Array, i: Any) -> jax.Array:
    """A draw of x0 given y under the prior N(mean, r^2 I).

    It is exact for a linear measurement, by Langevin moves for any other.
    """
    y = self.y.astype(mean.dtype)
    spread = posterior_spread(self.process, t, self.data_variance)
    width = expand(jnp.sqrt(spread), mean)
    x0 = mean + width * randomness.normal(keys, i + 1, 1, mean)
    if self.measurement.linear:
      # A draw of the prior and of y's noise, moved by the gain of their difference, is a draw of the
      # posterior.
      noise = randomness.normal_like(randomness.fold(keys, i + 1, 2), y)
      gap = (
        y - self.measurement(x0) - jnp.asarray(self.measurement.noise, y.dtype) * self.measurement.seen(noise)
      )
      return x0 + expand(spread, x0) * self.measurement.adjoint(self.measurement.solve(spread, gap))
    slope = jax.grad(
      lambda x0: (
        jnp.sum(self.measurement.log_likelihood(y, x0)) - jnp.sum(0.5 * jnp.square((x0 - mean) / width))
      )
    )
    # Both terms bound the curvature, as far as the operator is straight, so a tenth of its inverse is a
    # stable step.
    curvature = self.measurement.steepness(mean) / jnp.square(jnp.asarray(self.measurement.noise, y.dtype))
    h = cast(jax.Array, expand(0.1 / (1.0 / spread + curvature), x0))
    own = randomness.fold(keys, i + 1, 3)

    def move(x0, number):
      return langevin_step(x0, slope(x0), randomness.normal_like(fold(own, number), x0), h), None

    return jax.lax.scan(move, x0, jnp.arange(self.moves))[0]


def daps(
  process: GaussianProcess,
  grid: npt.ArrayLike,
  measurement: Measurement,
  y: ArrayLike,
  *,
  data_std: Number = 1.0,
  moves: int = 50,
  dtype: DTypeLike = np.float32,
) -> Daps:
  """DAPS: posterior samples by decoupled annealing (arXiv:2407.01521, algorithm 1).

  At each level x0 ~ p(x0 | x_t, y) with p(x0 | x_t) taken as N(x0_hat, r^2 I), then x_next = alpha x0 +
  sigma z.

  Levels are decoupled: an error at a high level is forgotten, and nothing is differentiated through the
  network. r^2 is that of data N(m, data_std^2 I), for which a step is exact; for other data the Gaussian is
  an approximation. A linear measurement's x0 is drawn exactly, in place of the paper's Langevin moves.

  Args:
    process: the Gaussian process.
    grid: [n + 1] decreasing times; the last one may be 0.
    measurement: linear, or any differentiable one with noise above zero.
    y: [B, *measured].
    data_std: standard deviation of the data in the units of the model.
    moves: Langevin moves a level for a measurement that is not linear.
    dtype: of the times.

  Raises:
    ValueError: a bad grid, a data_std of nought or less, or a nonlinear measurement without noise.

  >>> from diffusion import oracles, processes, solvers, tasks
  >>> prior = oracles.gaussian(processes.edm(), [0.0, 0.0], [1.0, 1.0])
  >>> edm, y = prior.process, jnp.full((4, 2), jnp.array([3.0, 0.0]))
  >>> grid = solvers.grids.karras(edm, 10, clean=True)
  >>> solver = tasks.daps(edm, grid, tasks.inpainting([1, 0], noise=1.0), y)
  >>> noise = edm.prior(jax.random.split(jax.random.key(0), 4), (2,))
  >>> keys = jax.random.split(jax.random.key(1), 4)
  >>> x = solvers.sample(prior, solver, noise, keys=keys)
  >>> x.shape, solver.cost
  ((4, 2), 10)
  """
  grid = np.asarray(grid, np.float64)
  if grid.ndim != 1:
    raise ValueError(f"daps takes one grid for all samples, got shape {grid.shape}")
  nodes(process, grid, dtype)
  if not measurement.linear and not np.all(np.asarray(measurement.noise) > 0):
    raise ValueError(
      f"{measurement.name} is not linear, so daps needs its noise above zero: give it one, such as noise=0.05"
    )
  return Daps(
    process,
    measurement,
    jnp.asarray(y),
    data_variance(data_std),
    grid.astype(dtype),
    int(moves),
    About("daps", None, process),
  )
