"""Ancestral sampling with the variance that a network has learned: DDPM's ladders, respaced or whole."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import expand
from diffusion.processes.views import VARIANCE_FRACTION
from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished, row_at
from diffusion.solvers.grid_nodes import nodes

STEP = 0  # purpose of a step's keys


@struct.dataclass
class LearnedAncestral(OnGrid):
  """See `learned_ancestral`. [...] is () or [B].

  Attributes:
    t: [..., N+1] times.
    of_x, of_x0: [..., N] what the mean of q(x' | x, x0) takes of x and of x0.
    log_small: [..., N] log beta~, minus infinity for a step to clean data.
    log_gap: [..., N] log beta - log beta~, 0 for a step to clean data.
    bound: [] x0 is clipped to [-bound, bound]; infinite for no clipping.
    about: name, order and process.
  """

  t: Any
  of_x: Any
  of_x0: Any
  log_small: Any
  log_gap: Any
  bound: Any
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("x0", VARIANCE_FRACTION)

  def begin(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
    """x: [B, ...] at the first time."""
    del keys
    return x

  def ask(self, state: jax.Array, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at node i."""
    return state, self.time(i, state), self.views

  def tell(
    self, state: jax.Array, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> jax.Array:
    """A draw of N(mean of q(x' | x, x0), exp((1 - v) log beta~ + v log beta))."""
    x = state
    of = lambda leaf: expand(row_at(leaf, i, 0, x.dtype), x)
    bound = jnp.asarray(self.bound, x.dtype)
    mean = of(self.of_x) * x + of(self.of_x0) * jnp.clip(prediction.x0.astype(x.dtype), -bound, bound)
    fraction = prediction[VARIANCE_FRACTION].astype(x.dtype)
    std = jnp.exp(0.5 * (of(self.log_small) + fraction * of(self.log_gap)))
    drawn = mean + std * randomness.normal(keys, i + 1, STEP, x)
    return finished(post_step, drawn, self.time(i + 1, x), keys, i + 1, prediction)

  def end(self, state: jax.Array) -> jax.Array:
    """The newest x: [B, ...]."""
    return state

  def __str__(self) -> str:
    return f"{self.name}: order {self.order}, {self.cost} evaluations, asks for {', '.join(self.views)}"


def learned_ancestral(
  process: Any, grid: Any, *, bound: float | None = None, dtype: Any = np.float32
) -> LearnedAncestral:
  """Ancestral sampling with the learned variance of improved DDPM (arXiv:2102.09672, eq. 15).

  x' ~ N(mean of q(x' | x, x0), exp(v log beta + (1 - v) log beta~)), with v the denoiser's view
  'variance_fraction'. beta is the variance of the forward step from x' to x, beta~ that of q(x' | x, x0), of
  the steps of this grid, as in the authors' respaced diffusions. `ancestral` has v = 0, or 1 with
  variance='large'. The step to clean data draws nothing. With the variance of x' given x it is exact for
  Gaussian data at any number of steps (arXiv:2201.06503).

  Args:
    process: the Gaussian process, usually a ladder of DDPM; `learned_ancestral_grid` are its authors' times.
    grid: [n+1] or [B, n+1] decreasing times.
    bound: x0 is clipped to [-bound, bound] before each step, as its authors do with images and 1; None for
      not.
    dtype: precision of the coefficients.

  Returns:
    A solver of n evaluations of the views 'x0' and 'variance_fraction': `denoisers.with_variance` has them.

  Raises:
    ValueError: a bad grid, or a bound that is not positive.

  >>> from diffusion import processes
  >>> process = processes.ddpm_ladder()
  >>> print(learned_ancestral(process, learned_ancestral_grid(process, 250), bound=1.0))
  learned_ancestral: order 1, 250 evaluations, asks for x0, variance_fraction
  """
  if bound is not None and not bound > 0:
    raise ValueError(f"bound={bound} is the largest |x0|, such as 1.0, or None for no clipping")
  n = nodes(process, grid, dtype)
  forward = n.a / n.a1  # x = forward x' + sqrt(beta) z
  beta = n.s**2 - (forward * n.s1) ** 2
  draws = n.s1 > 0
  inside = np.where(draws, n.s1, 1.0) ** 2
  log_small = np.where(draws, np.log(inside / n.s**2 * beta), -np.inf)
  log_gap = np.where(draws, np.log(n.s**2 / inside), 0.0)
  cast = lambda leaf: np.asarray(leaf, dtype)
  return LearnedAncestral(
    cast(n.t),
    cast(forward * n.s1**2 / n.s**2),
    cast(n.a1 * beta / n.s**2),
    cast(log_small),
    cast(log_gap),
    cast(np.inf if bound is None else bound),
    About("learned_ancestral", 1, process),
  )


def learned_ancestral_grid(process: Any, n: int) -> np.ndarray:
  """The authors' respacing of a ladder: n of its N rungs, last to first, and clean data. [n + 1].

  Rungs are those of a ladder of DDPM, at t = k/N with N = t_max / t_min; the first and the last are always
  among them, the others are the whole numbers nearest to even steps (openai/guided-diffusion's
  `space_timesteps`). A single step is from the last rung, where theirs is from the first.

  Raises:
    ValueError: more steps than rungs, or none.

  >>> from diffusion import processes
  >>> (1000 * learned_ancestral_grid(processes.ddpm_ladder(), 4)).round(6).tolist()
  [1000.0, 667.0, 334.0, 1.0, 0.0]
  """
  rungs = round(float(process.t_max) / float(process.t_min))
  if not 1 <= n <= rungs:
    raise ValueError(f"a ladder of {rungs} rungs is respaced to 1 to {rungs} steps, got {n}")
  if n == 1:
    return np.array([float(process.t_max), 0.0])
  # One by one, as theirs: at a half, rounding follows the sum's last digit.
  chosen = np.round(np.cumsum([0.0, *[(rungs - 1) / (n - 1)] * (n - 1)]))
  return np.append((chosen[::-1] + 1) / rungs * float(process.t_max), 0.0)
