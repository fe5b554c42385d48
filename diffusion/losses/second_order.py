"""Second-order denoising score matching (D2SM): the Hessian of log p_t learned from the noise alone.

Its variance reduction is antithetic.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Objective, Placed, layer, terms
from diffusion.losses.denoising import denoising_score_matching
from diffusion.losses.directions import predicted_noise
from diffusion.losses.weights import check_weight
from diffusion.math.precision import at_least_single
from diffusion.math.symmetric import Diagonal, LowRank, as_symmetric, check_rank
from diffusion.processes.contract import is_gaussian


def second_order_score_matching(
  process: Any,
  rank: int | None = None,
  *,
  variance_reduced: bool = True,
  frozen_score: bool = False,
  residual: bool = False,
  score_role: str = "model",
) -> Objective:
  """Second-order denoising score matching alone: the Hessian of log p_t, learned from the noise.

  It is || sigma^2 (s2 + s1 s1^T) + I - z z^T ||_F^2 for x_t = alpha x0 + sigma z (arXiv:2111.04726).

  Its minimiser is s2 = Hessian of log p_t wherever s1 is the score of p_t. The value is sigma^4 times the
  paper's, which makes its target of order one at every noise level, as `denoising_score_matching` is sigma^2
  times the squared error of the score.

  The view 'hessian', [B, D, D] or a form of `diffusion.math.symmetric`, decides what is learned:
  full, the diagonal alone (then against the diagonal of the target alone), or a diagonal plus signed low
  rank, which costs O(D rank^2) and forms no D x D matrix.

  Args:
    process: a Gaussian process.
    rank: how many factors it must have: 0 for a diagonal, None for whatever it returns.
    variance_reduced: evaluate at mirrored noise and at the point without noise (D2SM-VR): the same
      expectation, three evaluations, and a gradient whose noise is smaller by a factor of order (sigma /
      alpha)^2 where the noise is small.
    frozen_score: no gradient through s1, which the derivation does not need; else both learn from it (joint
      training).
    residual: || sigma^2 s2 + I - r r^T ||^2 with the residual r = z + sigma s1 of the first order, and no
      gradient through s1. The minimiser is the same at the true score, and where s1 is off by d it is off by
      d d^T in place of -(s1 d^T + d s1^T): in many dimensions, where the norm of s1 is large, that decides
      (arXiv:2206.07309, there for variances).
    score_role: whose score is s1: 'model', or 'teacher' for one that was trained before.

  batch: a dict with 'x' [B, ...]. Raises ValueError for what is no Gaussian process, a rank above the
  dimension (as soon as the dimension is known, before anything is compiled), and a Hessian of another form.

  >>> from diffusion import losses, processes
  >>> sorted(losses.second_order_score_matching(processes.edm(), rank=2).needs["model"])
  ['hessian', 'score']
  """
  name = "second_order_score_matching"
  check_gaussian(process, name, f"a {kind_of(process)}")
  squared = squared_error(process, rank, variance_reduced, frozen_score, residual, score_role, name)

  def evaluate(roles, placed, params, state, clock):
    value = squared(roles, placed)
    return terms(value, metrics={"second_order": value})

  return Objective(
    name=name,
    draw=denoising_score_matching(process).draw,
    evaluate=evaluate,
    process=process,
    needs=needs_of(score_role, "hessian", name),
  )


def second_order(
  rank: int | None = None,
  weight: Any = 1.0,
  *,
  variance_reduced: bool = True,
  frozen_score: bool = False,
  residual: bool = False,
  score_role: str = "model",
) -> Callable[[Objective], Objective]:
  """Adds `second_order_score_matching` times a weight to an objective.

  It is evaluated on the objective's own draw: the same x_t and noise.

  Args:
    rank, variance_reduced, frozen_score, residual, score_role: see `second_order_score_matching`.
    weight: a number, or a weight of times such as `snr(2.0)`, by which VE has the paper's own scale.

  Raises ValueError on an objective whose noise is not Gaussian, where the weight does not fit, and as there.

  >>> from diffusion import losses, processes
  >>> dsm = losses.denoising_score_matching(processes.edm())
  >>> losses.chain(dsm, losses.second_order(rank=2, weight=0.5)).name
  'second_order(denoising_score_matching)'
  """
  name = "second_order"

  def transform(objective):
    check_gaussian(objective.process, name, objective.name)
    squared = squared_error(
      objective.process, rank, variance_reduced, frozen_score, residual, score_role, name
    )
    return plus(objective, squared, weight, name, needs_of(score_role, "hessian", name))

  return transform


def squared_error(
  process: Any,
  rank: int | None,
  variance_reduced: bool,
  frozen_score: bool,
  residual: bool,
  score_role: str,
  who: str,
) -> Callable[..., jax.Array]:
  """(roles, placed) -> [B]: the value above."""
  if rank is not None:
    check_rank(rank, np.inf, who)  # pyright: ignore[reportArgumentType] (no dimension is known yet)

  def squared(roles, placed):
    x0, z = noise_of(placed, who)
    sigma = process.marginal(placed.t).sigma.astype(z.dtype)
    if rank is not None:
      check_rank(rank, z.shape[1], who)
    scaled_score = score_of(process, roles, placed, score_role, frozen_score or residual)

    def at(x, noise):
      """The squared error at x with its noise, and the terms of its control variate, each [B].

      Returns (the squared error, what varies with the noise in it, the same with no model, its mean).
      """
      value = roles["model"](x, placed.t, placed.cond, views=("hessian",)).hessian
      hessian = as_symmetric(
        jax.tree.map(lambda leaf: leaf.astype(z.dtype), value), z.shape[1], f"the view 'hessian' of {who}"
      )
      check_form(hessian, rank, who)
      model, score = hessian.rescaled(sigma), scaled_score(x)
      model, noise = (model, noise + score) if residual else (model.plus_outer(score), noise)
      error = lambda model, noise: model.plus_outer(noise, -1).plus_identity(1.0).square_norm()
      constant = jnp.full_like(sigma, model.expected_target_square())
      return error(model, noise), model.trace() - model.quadratic(z), error(model.rescaled(0.0), z), constant

    if not variance_reduced:
      return at(placed.x_t, z)[0]
    mirrored, still = (
      process.corrupt(x0, noise, placed.t).astype(placed.x_t.dtype)
      for noise in (-placed.noise, jnp.zeros_like(placed.noise))
    )
    points, noises = jnp.stack([placed.x_t, mirrored, still]), jnp.stack([z, -z, jnp.zeros_like(z)])
    square, product, target, constant = jax.vmap(at)(points, noises)
    # E(I - z z^T) = 0, so the still point changes no mean: it takes away what both mirrored ones have in
    # common.
    return 0.5 * (square[0] + square[1]) - 2.0 * product[2] + constant[2] - target[2]

  return squared


def plus(
  objective: Objective,
  squared: Callable[..., jax.Array],
  weight: Any,
  name: str,
  needs: Mapping[str, Mapping[str, str]],
) -> Objective:
  """The objective with weight times squared(roles, placed) added to its interior.

  squared(roles, placed) is [B], and is added as the metric `name` too.
  """
  scheduled = callable(weight)
  if scheduled:
    check_weight(weight, objective.process, objective.name)

  def change(terms, roles, placed, params, state, clock):
    del state
    value = squared(roles, placed).astype(terms.interior.dtype)
    factor = weight(objective.process, placed.t).astype(value.dtype) if scheduled else weight
    return terms.replace(interior=terms.interior + factor * value, metrics={**terms.metrics, name: value})

  return layer(objective, change, name=name, needs=needs)


def score_of(
  process: Any, roles: Mapping[str, Any], placed: Placed, role: str, frozen: bool
) -> Callable[[jax.Array], jax.Array]:
  """The function x -> sigma times the role's score, flattened [B, D]."""
  predicted = predicted_noise(process, {"model": roles[role]}, placed)

  def scaled_score(x):
    value = predicted(x)[0]
    value = value.reshape(value.shape[0], -1).astype(at_least_single(value.dtype))
    return jax.lax.stop_gradient(value) if frozen else value

  return scaled_score


def noise_of(draw: Placed, who: str) -> tuple[jax.Array, jax.Array]:
  """(x0, noise flattened [B, D] in at least float32) of a draw. Raises ValueError where it has none."""
  if isinstance(draw, tuple) or draw.noise is None or draw.x0 is None:
    raise ValueError(
      f"{who} regresses on the noise of x_t, and the objective's draw has none: put it on "
      "denoising_score_matching(process), and sum objectives with add(...) afterwards"
    )
  return draw.x0, draw.noise.reshape(draw.noise.shape[0], -1).astype(at_least_single(draw.noise.dtype))


def check_gaussian(process: Any, who: str, on: str) -> None:
  """Raises ValueError for what is no Gaussian process."""
  if not is_gaussian(process):
    raise ValueError(
      f"{who} does not fit {on}, whose process is {kind_of(process)}: a Hessian is learned from Gaussian "
      "noise, "
      "x_t = alpha x0 + sigma z; take a process such as processes.vp_linear()"
    )


def kind_of(process: Any) -> str:
  """What to call a process in a message."""
  return "none" if process is None else process.name


def check_form(hessian: Any, rank: int | None, who: str) -> None:
  """Raises ValueError unless the Hessian is what the rank says."""
  if rank is None:
    return
  found = 0 if isinstance(hessian, Diagonal) else hessian.rank if isinstance(hessian, LowRank) else "full"
  if found != rank:
    raise ValueError(
      f"{who} was built with rank={rank}, and the view 'hessian' returned rank {found} "
      f"({type(hessian).__name__}): "
      "build both with one rank, or leave the rank out of the loss"
    )


def needs_of(score_role: str, view: str, who: str) -> dict[str, dict[str, str]]:
  """What a term of this order needs: the view from the model, the score from its role."""
  if score_role == "model":
    return {"model": {"score": who, view: who}}
  return {"model": {view: who}, score_role: {"score": who}}
