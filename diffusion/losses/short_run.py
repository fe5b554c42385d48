"""Short Langevin chains, one an example: the negatives of contrastive objectives.

No gradient comes back from them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.mcmc.langevin_step import accepted, choose, langevin_step, log_acceptance


def short_run(
  energy: Callable[[jax.Array], jax.Array],
  known: Callable[[jax.Array], jax.Array],
  x: jax.Array,
  keys: jax.Array,
  size: Any,
  *,
  steps: int,
  adjusted: bool = False,
  first: Any = None,
) -> tuple[jax.Array, jax.Array]:
  """The end of a Langevin chain in exp(-energy - known) from x, with its gradient stopped.

    x <- x - size/2 (energy' + known') + sqrt(size) z

  The step is that of the kernels of `diffusion.mcmc`; here each row has its own size, the noise is the same
  in every precision, and the parameters that the energy closes over are held still.

  Args:
    energy: x [B, ...] -> [B], each entry of its own row; parameters that it closes over get no gradient, and
      the chain no tangents.
    known: the rest of the target's energy, without parameters.
    x: [B, ...] where the chains start.
    keys: [B] typed keys.
    size: squared steps, shaped to multiply x.
    steps: how many.
    adjusted: whether each is accepted or rejected by Metropolis' rule (MALA), which leaves the target as it
      is.
    first: None, or standard deviations v^0.5 shaped to multiply x: the chain then starts from a draw of N(x -
      v energy'(x), v).

  Returns:
    (the end [B, ...], share of accepted steps [B]).
  """
  energy, held = jax.closure_convert(energy, x)
  held = jax.lax.stop_gradient(held)
  x = jax.lax.stop_gradient(x)
  # In float32 whatever the precision of x, so that both see the same noise.
  normal = lambda key: jax.random.normal(key, x.shape[1:], jnp.float32).astype(x.dtype)

  def slope_of(function):
    def both(x):
      values = function(x)
      return jnp.sum(values), values

    return lambda x: jax.grad(both, has_aux=True)(x)

  given = slope_of(lambda x: energy(x, *held))
  target = slope_of(lambda x: energy(x, *held) + known(x).astype(x.dtype))
  fold = lambda number: jax.vmap(jax.random.fold_in, (0, None))(keys, number)
  if first is not None:
    x = x - jnp.square(first) * given(x)[0] + first * jax.vmap(normal)(fold(steps))
  if not steps:
    return x, jnp.ones(x.shape[0], jnp.float32)

  h = 0.5 * size

  def plain(carry, number):
    x, slope, _value, share = carry
    x = langevin_step(x, -slope, jax.vmap(normal)(fold(number)), h)
    return (x, *target(x), share), None

  def metropolis(carry, number):
    x, slope, value, share = carry
    noise_keys, uniform_keys = (keys for keys in jnp.moveaxis(jax.vmap(jax.random.split)(fold(number)), 1, 0))
    z = jax.vmap(normal)(noise_keys)
    proposed = langevin_step(x, -slope, z, h)
    new_slope, new_value = target(proposed)
    log_ratio = log_acceptance(value - new_value, x, z, proposed, -new_slope, h)
    taken = accepted(uniform_keys, log_ratio)
    return (
      *choose(taken, (proposed, new_slope, new_value), (x, slope, value)),
      share + taken.astype(jnp.float32),
    ), None

  start = (x, *target(x), jnp.zeros(x.shape[0], jnp.float32))
  (x, _, _, share), _ = jax.lax.scan(metropolis if adjusted else plain, start, jnp.arange(steps))
  return x, share / steps if adjusted else jnp.ones_like(share)
