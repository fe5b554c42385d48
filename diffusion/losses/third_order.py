"""Third-order denoising score matching, for few dimensions.

The third derivative of log p_t is learned from the noise.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Objective, terms
from diffusion.losses.denoising import denoising_score_matching
from diffusion.losses.second_order import check_gaussian, kind_of, needs_of, noise_of, plus, score_of
from diffusion.math.symmetric import as_symmetric

LARGEST = 32
"""Dimensions above which D^3 numbers a row are no longer small."""


def third_order_score_matching(process: Any, *, frozen_lower: bool = False) -> Objective:
  """Third-order denoising score matching: the third derivative of log p_t, learned from the noise.

  It is || sigma^3 (s3 + 3 sym(s2 x s1) + s1 x s1 x s1) + z x z x z - 3 sym(I x z) ||^2 over all D^3 entries.

  By the recursion of arXiv:2111.04726, in its centred form: with H_n the n-th derivative of p_t over p_t,
  H_(n+1) = grad H_n + H_n x s1, and H_n = E[(-1)^n He_n(z) | x_t] / sigma^n. Its minimiser is s3 = third
  derivative of log p_t where s1 and s2 are the lower ones; sigma^6 s3 / alpha^3 is the third cumulant of x0
  given x_t.

  Views needed: 'score', 'hessian' (any form, taken dense) and 'third_derivative', [B, D, D, D], symmetric.
  `frozen_lower` lets no gradient into the lower two. Raises ValueError for what is no Gaussian
  process, and above 32 dimensions.

  >>> from diffusion import losses, processes
  >>> sorted(losses.third_order_score_matching(processes.edm()).needs["model"])
  ['hessian', 'score', 'third_derivative']
  """
  name = "third_order_score_matching"
  check_gaussian(process, name, f"a {kind_of(process)}")
  squared = squared_error(process, frozen_lower, name)

  def evaluate(roles, placed, params, state, clock):
    value = squared(roles, placed)
    return terms(value, metrics={"third_order": value})

  return Objective(
    name=name,
    draw=denoising_score_matching(process).draw,
    evaluate=evaluate,
    process=process,
    needs=needs(name),
  )


def third_order(weight: Any = 1.0, *, frozen_lower: bool = True) -> Callable[[Objective], Objective]:
  """The transform that adds weight times `third_order_score_matching` on the objective's own draw.

  It goes after `second_order`, which learns s2; by default the lower orders learn nothing from it. Raises as
  there.

  >>> from diffusion import losses, processes
  >>> dsm = losses.denoising_score_matching(processes.edm())
  >>> losses.chain(dsm, losses.second_order(), losses.third_order(0.1)).name
  'third_order(second_order(denoising_score_matching))'
  """
  name = "third_order"

  def transform(objective):
    check_gaussian(objective.process, name, objective.name)
    return plus(objective, squared_error(objective.process, frozen_lower, name), weight, name, needs(name))

  return transform


def needs(who: str) -> dict[str, dict[str, str]]:
  """The three views."""
  return {"model": {**needs_of("model", "hessian", who)["model"], "third_derivative": who}}


def squared_error(process: Any, frozen_lower: bool, who: str) -> Callable[..., jax.Array]:
  """(roles, placed) -> [B]: the value above."""

  def squared(roles, placed):
    _, z = noise_of(placed, who)
    size = z.shape[1]
    if size > LARGEST:
      raise ValueError(
        f"{who} holds D^3 numbers a row, and D = {size} is above {LARGEST}: take second_order, whose low "
        "rank goes further"
      )
    sigma = process.marginal(placed.t).sigma.astype(z.dtype)
    x, t, cond = placed.x_t, placed.t, placed.cond
    first = score_of(process, roles, placed, "model", frozen_lower)(x)
    second = (
      as_symmetric(
        roles["model"](x, t, cond, views=("hessian",)).hessian, size, f"the view 'hessian' of {who}"
      )
      .rescaled(sigma)
      .dense()
      .astype(z.dtype)
    )
    second = jax.lax.stop_gradient(second) if frozen_lower else second
    third = roles["model"](x, t, cond, views=("third_derivative",)).third_derivative.astype(z.dtype)
    if third.shape != (z.shape[0], size, size, size):
      raise ValueError(
        f"{who}: third_derivative returned shape {third.shape}; it is [B, D, D, D], here "
        f"{(z.shape[0], size, size, size)}"
      )
    third = sigma[:, None, None, None] ** 3 * third
    identity = jnp.broadcast_to(jnp.eye(size, dtype=z.dtype)[None], second.shape)
    error = third + three(second, first) + cube(first) + cube(z) - three(identity, z)
    return jnp.sum(jnp.square(error), axis=(1, 2, 3))

  return squared


def cube(v: jax.Array) -> jax.Array:
  """v x v x v: [B, D] -> [B, D, D, D]."""
  return v[:, :, None, None] * v[:, None, :, None] * v[:, None, None, :]


def three(matrix: jax.Array, v: jax.Array) -> jax.Array:
  """M_ij v_k + M_ik v_j + M_jk v_i: [B, D, D] and [B, D] -> [B, D, D, D]."""
  return (
    matrix[:, :, :, None] * v[:, None, None, :]
    + matrix[:, :, None, :] * v[:, None, :, None]
    + matrix[:, None, :, :] * v[:, :, None, None]
  )
