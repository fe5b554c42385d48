"""D3PM's noise in discrete steps: one transition matrix a step (arXiv:2107.03006)."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import array_namespace, as_times
from diffusion.processes.contract import Rate, check_steps
from diffusion.processes.discrete import EXACT, CoordinateNoise, check_state_shape
from diffusion.processes.keeping import ladder_keep
from diffusion.processes.masked import Masked, masked
from diffusion.processes.rate_matrix import drawn_from_rows
from diffusion.processes.resample import UniformResample, uniform_resample

VIEWS = ("logits", "probabilities", "ratios")


@struct.dataclass
class StepLadder(CoordinateNoise):
  """See `d3pm`. Time t is the step round(t T) of T; a step has no jump rates.

  Attributes:
    steps: [T, S, S] one-step matrices.
    products: [T + 1, S, S] from the data to each step.
    shape: of a state.
    masks: whether the last state is a mask.
  """

  steps: Any
  products: Any
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  masks: bool = struct.field(pytree_node=False, default=False)
  name: str = struct.field(pytree_node=False, default="d3pm")

  ends: ClassVar[tuple[str, str]] = ("data", "noise")
  jumps: ClassVar[bool] = False
  follows: ClassVar[dict[str, tuple[str, ...]]] = {
    "logits": VIEWS,
    "probabilities": VIEWS,
    "ratios": ("ratios",),
  }
  t_max: ClassVar[float] = 1.0

  @property
  def num_steps(self) -> int:
    """T."""
    return self.steps.shape[0]

  @property
  def t_min(self) -> float:
    """The time 1 / T of the first step."""
    return 1.0 / self.num_steps

  @property
  def num_values(self) -> int:
    """K."""
    return self.steps.shape[-1] - self.masks

  @property
  def mask(self) -> int | None:
    """The last state where it is a mask, else None."""
    return self.num_values if self.masks else None

  def step_of(self, t: Any) -> Any:
    """The step round(t T) of a time, int32."""
    t = as_times(t)
    return array_namespace(t).round(t * self.num_steps).astype(np.int32)

  def rates(self, t: Any) -> dict[str, Rate]:
    """The share t of the steps, and its slope."""
    t = as_times(t)
    return {"step": Rate(t, array_namespace(t).ones_like(t))}

  def level(self, t: Any) -> Any:
    """The share t of the steps."""
    return 1.0 * as_times(t)

  def t_of_level(self, level: Any) -> Any:
    """The time of a share of the steps: itself."""
    return 1.0 * as_times(level)

  def default_grid(self, n: int) -> np.ndarray:
    """n + 1 times of steps, as even as whole steps are, from t_max to the data at t = 0.

    Raises ValueError for n below 1, or more steps than there are.
    """
    check_steps(n)
    if n > self.num_steps:
      raise ValueError(f"'{self.name}' has {self.num_steps} steps, got a grid of {n}: take as many at most")
    return np.round(np.linspace(self.num_steps, 0, n + 1)) / self.num_steps

  def transition(self, s: Any, t: Any, size: int | None = None) -> Any:
    """q(x_t = j | x_s = i) of one coordinate: [..., S, S], rows i sum to one; s is None for the data.

    Between two steps it is the product of the matrices on the way. Every coordinate has all values.
    """
    del size
    t = as_times(t)
    xp, last = array_namespace(t), self.step_of(t)
    if s is None:
      return xp.asarray(self.products, t.dtype)[last]
    first, last = xp.broadcast_arrays(self.step_of(s), last)
    eye = xp.asarray(np.eye(self.steps.shape[-1]), t.dtype)
    start = xp.broadcast_to(eye.reshape((1,) * first.ndim + eye.shape), (*first.shape, *eye.shape))
    steps = xp.asarray(self.steps, t.dtype)
    return _walk(xp, steps, start, first, last, lambda matrix, step: _product(xp, matrix, step))

  def generator(self, t: Any, size: int | None = None) -> Any:
    """Raises ValueError: steps have no jump rates."""
    raise ValueError(
      f"'{self.name}' goes in {self.num_steps} steps and has no jump rates: take its posterior, or a "
      "process in continuous time such as rate_matrix"
    )

  def likelihood(self, x: jax.Array, s: jax.Array | None, t: jax.Array) -> jax.Array:
    """q(x_t = x | x_s = k) of each coordinate for every state k: [B, ..., S]; s, t [B], s None for data."""
    if s is None:
      return CoordinateNoise.likelihood(self, x, s, t)
    # Backwards from x, step by step: vectors, not matrices.
    dtype = t.dtype
    start = jax.nn.one_hot(x, self.num_states, dtype=dtype)
    first, last = self.step_of(s), self.step_of(t)
    back = jnp.swapaxes(jnp.asarray(self.steps, dtype), 1, 2)[::-1]
    total = jnp.asarray(self.num_steps, jnp.int32)
    carry = lambda rows, step: jnp.einsum("b...j,bjk->b...k", rows, step, precision=EXACT)
    return _walk(jnp, back, start, total - last, total - first, carry)

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws of the last step's law from a uniform x_0: [B, *shape] int32, row i from keys[i] alone.

    Raises ValueError for a shape of another state.
    """
    check_state_shape(self, shape)
    law = jnp.asarray(self.products, jnp.float32)[-1, : self.num_values].mean(axis=0)
    draw = lambda key: jax.random.categorical(key, jnp.log(law), shape=self.shape, mode="high")
    return jax.vmap(draw)(keys).astype(jnp.int32)

  def prior_law(self, dtype: Any) -> jax.Array:
    """The last step's law from a uniform x_0, of each coordinate: [1, ..., S], to fit [B, ..., S]."""
    law = jnp.asarray(self.products, dtype)[-1, : self.num_values].mean(axis=0)
    return law.reshape((1,) * (len(self.shape) + 1) + (-1,))

  def noise(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
    """Uniform numbers in [0, 1) like x0: [B, ...], row i from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.uniform(key, x0.shape[1:], jnp.float32))(keys)

  def corrupt(self, x0: jax.Array, noise: jax.Array, t: jax.Array, x1: None = None) -> jax.Array:
    """x_t [B, ...] int given x_0 and the noise; t [B]."""
    del x1
    return drawn_from_rows(self.transition(None, t), x0, noise)

  def sources(self, x: jax.Array) -> jax.Array:
    """The states that all steps together turn into x, and x itself: bool, [B, ..., S]."""
    own = jax.nn.one_hot(x, self.num_states, dtype=bool)
    return own | (jnp.asarray(self.products)[-1].T[x] > 0)


def d3pm(steps: Any, shape: tuple[int, ...], *, mask: bool = False) -> StepLadder:
  """A ladder of given one-step transition matrices Q_1..Q_T, step k at t = k / T (arXiv:2107.03006, eq. 2).

  Args:
    steps: [T, S, S], rows sum to one.
    shape: of a state.
    mask: whether the last state is a mask, no value of the data.

  Raises ValueError for matrices that are no transitions, or a mask that data could come from.

  >>> walk = np.array([[0.8, 0.2], [0.2, 0.8]])
  >>> d3pm([walk, walk], (1,)).transition(0.0, 1.0).round(2).tolist()
  [[0.68, 0.32], [0.32, 0.68]]
  """
  steps = np.asarray(steps, np.float64)
  if steps.ndim != 3 or steps.shape[1] != steps.shape[2] or steps.shape[1] < 2 + mask or not steps.size:
    raise ValueError(
      f"d3pm takes one matrix [S, S] a step, [T, S, S] in all, S at least {2 + mask}, got shape {steps.shape}"
    )
  if steps.min() < 0 or np.abs(steps.sum(axis=-1) - 1.0).max() > 1e-6:
    k = int(np.argmax((steps.min(axis=(1, 2)) < 0) | (np.abs(steps.sum(-1) - 1).max(-1) > 1e-6)))
    raise ValueError(
      f"d3pm: the matrix of step {k + 1} is no transition: its numbers are 0 or above and its rows sum to 1"
    )
  products = [np.eye(steps.shape[1])]
  for step in steps:
    products.append(products[-1] @ step)
  return StepLadder(steps, np.stack(products), tuple(shape), bool(mask))


def d3pm_absorbing(num_values: int, shape: tuple[int, ...], num_steps: int = 1000) -> Masked:
  """D3PM's absorbing ladder: beta_k = 1 / (T - k + 1), so that k / T of the coordinates are masked at step k.

  Source: arXiv:2107.03006, appendix A.2.2 and section 3.1. A `masked` process that passes through its steps.

  >>> round(float(d3pm_absorbing(3, (2,), 4).level(0.25)), 12)
  0.25
  """
  betas = 1.0 / (num_steps - np.arange(num_steps))
  return masked(num_values, shape, schedule=ladder_keep(betas), t_min=1.0 / num_steps)


def d3pm_uniform(num_values: int, shape: tuple[int, ...], betas: Any) -> UniformResample:
  """D3PM's uniform ladder Q_k = (1 - beta_k) I + beta_k / K (arXiv:2107.03006, appendix A.2.1).

  A `uniform_resample` process that passes through its steps; betas [T] such as `cosine_betas(1000)`.

  >>> d3pm_uniform(2, (1,), [0.5, 0.5]).transition(0.0, 0.5).tolist()
  [[0.75, 0.25], [0.25, 0.75]]
  """
  betas = np.asarray(betas, np.float64)
  return uniform_resample(num_values, shape, schedule=ladder_keep(betas), t_min=1.0 / len(betas))


def d3pm_gaussian(num_values: int, shape: tuple[int, ...], betas: Any) -> StepLadder:
  """D3PM's discretised Gaussian ladder for ordered values (arXiv:2107.03006, appendix A.2.3, eq. 8).

  Off the diagonal Q_k is exp(-4 |i - j|^2 / ((K - 1)^2 beta_k)) over the sum of that for all distances from
  -(K - 1) to K - 1; the diagonal is the rest. It keeps the uniform law. betas [T] such as
  `ddpm_betas(1000)`. It holds 2 T K^2 numbers.

  Raises ValueError for betas that are not above 0.

  >>> ladder = d3pm_gaussian(3, (1,), [0.5])
  >>> ladder.steps[0].round(3).tolist()
  [[0.893, 0.106, 0.0], [0.106, 0.787, 0.106], [0.0, 0.106, 0.893]]
  """
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or not betas.size or not np.all(betas > 0):
    raise ValueError(f"d3pm_gaussian takes betas [T] above 0, got {betas.reshape(-1)[:8].tolist()}")
  distance = np.arange(-(num_values - 1), num_values)
  weight = np.exp(-4.0 * distance[None, :] ** 2 / ((num_values - 1) ** 2 * betas[:, None]))
  weight /= weight.sum(axis=1, keepdims=True)
  value = np.arange(num_values)
  steps = weight[:, value[None, :] - value[:, None] + num_values - 1]
  steps[:, value, value] = 0.0
  steps[:, value, value] = 1.0 - steps.sum(axis=-1)
  ladder = d3pm(steps, shape)
  return StepLadder(ladder.steps, ladder.products, ladder.shape, name="d3pm_gaussian")


def _product(xp, first, second):
  return first @ second if xp is np else jnp.matmul(first, second, precision=EXACT)


def _walk(xp, steps, start, first, last, carry):
  """`carry` over the one-step matrices first + 1..last of each row, which may have its own."""

  def one(i, state):
    at = first + xp.asarray(i, first.dtype)
    moved = carry(state, steps[xp.clip(at, 0, steps.shape[0] - 1)])
    inside = (at < last).reshape(at.shape + (1,) * (state.ndim - at.ndim))
    return xp.where(inside, moved, state)

  most = xp.max(last - first)
  if xp is jnp:
    return jax.lax.fori_loop(0, most, one, start)
  for i in range(int(most)):
    start = one(i, start)
  return start
