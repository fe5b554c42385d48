"""Annealed importance sampling.

The normaliser of an unnormalised density with an error bar, from below and from above.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from diffusion.math.precision import sum_rows


@struct.dataclass
class LogNormalizer:
  """log Z in nats, and how far to trust it.

  Attributes:
    value: log Z.
    standard_error: of it, from the spread of the weights (delta method).
    effective: the number of equal weights with that spread, of C; below some ten neither value nor error
      means much.
    log_weights: [C] of the chains.
    x: [C, ...] their ends.
    acceptance: share of accepted moves.
  """

  value: jax.Array
  standard_error: jax.Array
  effective: jax.Array
  log_weights: jax.Array
  x: jax.Array
  acceptance: jax.Array


def annealed_importance(
  energy: Callable[..., jax.Array],
  x: ArrayLike,
  keys: jax.Array,
  *,
  std: float = 1.0,
  scale: float | None = None,
  num_steps: int = 1000,
  step: float = 0.5,
  leapfrog: int = 1,
  power: float = 4.0,
  reverse: bool = False,
  params: Any = None,
) -> LogNormalizer:
  """log of the integral of exp(-energy), by annealing from N(0, std^2 I) (arXiv:physics/9803008).

  Between the ends the energy is (1 - b) |x|^2 / (2 std^2) + b energy(x), with b_k = (k / num_steps)^power. A
  chain collects

    log w = sum_k (b_k+1 - b_k) (|x_k|^2 / (2 std^2) - energy(x_k))

  and makes one move at each b: `leapfrog` steps of Hamiltonian dynamics with Metropolis' rule, which for one
  step is MALA. E w is Z / Z_base whatever the moves, so log w tends to err downwards.

  With `reverse` the chains start from samples of the density at b = 1 and go to the base: E 1/w = Z_base / Z,
  so the value tends to err upwards, and two that agree enclose log Z (arXiv:1511.02543). Samples of a chain
  that has not mixed make it optimistic.

  Args:
    energy: x [C, ...] -> [C], or (params, x) -> [C] where `params` are given. Build it once: another function
      is another program.
    x: [C, ...] forwards an array of that shape; in reverse samples of the density.
    keys: [C] typed keys: chain c depends on its own alone.
    std: of the base, which should be as broad as the density or broader.
    scale: the smallest length over which the density changes; `std` by default. Moves have step^0.5 of the
      length where 1 / length^2 = (1 - b) / std^2 + b / scale^2.
    num_steps: moves, each with `leapfrog` gradients.
    step: the squared length of a leapfrog step as a share of that length squared; stable below 4 on a
      Gaussian.
    leapfrog: steps of a move. A move of leapfrog step^0.5 = 1.5 lengths mixes best on a Gaussian; one of 3
      only turns it over.
    power: how slowly b starts.
    reverse: see above.
    params: None, or a pytree of arrays: data, so that other parameters compile nothing.

  Raises:
    ValueError: counts below one, lengths that are not positive, keys that do not fit.

  >>> keys = jax.random.split(jax.random.key(0), 200)
  >>> energy, x = lambda x: 2.0 * jnp.sum(x**2, 1), jnp.zeros((200, 1))
  >>> found = annealed_importance(energy, x, keys, num_steps=50, scale=0.5)
  >>> bool(abs(found.value - 0.5 * np.log(np.pi / 2)) < 4 * found.standard_error)
  True
  """
  x = jnp.asarray(x)
  for name, count in (("num_steps", num_steps), ("leapfrog", leapfrog)):
    if not isinstance(count, int) or count < 1:
      raise ValueError(f"annealed importance sampling takes {name}=1 or more, got {count!r}")
  scale = std if scale is None else scale
  for name, length in (("std", std), ("scale", scale), ("step", step), ("power", power)):
    if not length > 0:
      raise ValueError(f"{name} is positive, got {length}")
  if x.ndim < 1 or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != x.shape[:1]:
    raise ValueError(
      f"x is [C, ...] with one typed key a chain, got x {x.shape} and keys {keys.dtype}{keys.shape}: take "
      "jax.random.split(jax.random.key(0), C)"
    )
  numbers = tuple(jnp.asarray(value, x.dtype) for value in (std, scale, step, power))
  return _anneal(
    energy,
    x,
    keys,
    numbers,
    params,
    num_steps=num_steps,
    leapfrog=leapfrog,
    reverse=bool(reverse),
    given=params is not None,
  )


@functools.partial(jax.jit, static_argnames=("energy", "num_steps", "leapfrog", "reverse", "given"))
def _anneal(energy, x, keys, numbers, params, *, num_steps, leapfrog, reverse, given):
  std, scale, step, power = numbers
  rows = lambda values: values.reshape(-1, *[1] * (x.ndim - 1))
  base = lambda x: 0.5 * sum_rows(jnp.square(x / std))
  inverse_temperature = lambda k: (k.astype(x.dtype) / num_steps) ** power

  def known(x):
    """The energy [C] at x and its gradient."""

    def total(x):
      values = energy(params, x) if given else energy(x)
      return jnp.sum(values), values

    slope, values = jax.grad(total, has_aux=True)(x)
    return values, slope

  def move(point, b, number):
    """One Hamiltonian move at inverse temperature b from (x, its energy, the gradient of that)."""
    length = jnp.sqrt(step / ((1.0 - b) / std**2 + b / scale**2))
    fold = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number + 1)))(keys)
    momentum = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(fold[:, 0])
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (), x.dtype, minval=1e-30))(fold[:, 1])
    force = lambda point: -(1.0 - b) * point[0] / std**2 - b * point[2]
    total = lambda point, momentum: (
      (1.0 - b) * base(point[0]) + b * point[1] + 0.5 * sum_rows(jnp.square(momentum))
    )

    def leap(carry, _):
      point, momentum = carry
      momentum = momentum + 0.5 * length * force(point)
      new = point[0] + length * momentum
      point = (new, *known(new))
      return (point, momentum + 0.5 * length * force(point)), None

    (proposed, turned), _ = jax.lax.scan(leap, (point, momentum), None, length=leapfrog)
    # A proposal that is not finite is refused.
    taken = jnp.log(uniform) < total(point, momentum) - total(proposed, turned)
    choose = lambda new, old: jnp.where(taken if new.ndim == 1 else rows(taken), new, old)
    return jax.tree.map(choose, proposed, point), taken.astype(x.dtype)

  def forwards(carry, k):
    point, log_weight, accepted = carry
    low, high = inverse_temperature(k), inverse_temperature(k + 1)
    log_weight = log_weight + (high - low) * (base(point[0]) - point[1])
    point, taken = move(point, high, k)
    return (point, log_weight, accepted + taken), None

  def backwards(carry, k):
    point, log_weight, accepted = carry
    low, high = inverse_temperature(k), inverse_temperature(k + 1)
    point, taken = move(point, high, k)
    return (point, log_weight + (high - low) * (point[1] - base(point[0])), accepted + taken), None

  if not reverse:
    first = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), x.shape[1:], x.dtype))(keys)
    x = std * first
  zero = jnp.zeros(x.shape[0], x.dtype)
  carry = ((x, *known(x)), zero, zero)
  (point, log_weights, accepted), _ = jax.lax.scan(
    backwards if reverse else forwards, carry, jnp.arange(num_steps)[:: -1 if reverse else 1]
  )
  count = x.shape[0]
  log_mean = jax.nn.logsumexp(log_weights) - np.log(count).item()
  relative = jnp.exp(log_weights - log_mean)  # of mean one
  spread = jnp.mean(jnp.square(relative - 1.0))
  size = x[0].size
  log_base = size * (jnp.log(std) + 0.5 * np.log(2 * np.pi).item())
  return LogNormalizer(
    log_base + (-log_mean if reverse else log_mean),
    jnp.sqrt(spread / max(count - 1, 1)),
    count / (1.0 + spread),
    log_weights,
    point[0],
    jnp.mean(accepted) / num_steps,
  )
