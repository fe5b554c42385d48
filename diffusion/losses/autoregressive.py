"""Autoregressive score matching: the scores of all one-dimensional conditionals.

Their derivatives take one pass.
"""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.denoisers import Denoiser
from diffusion.losses.base import Objective, terms
from diffusion.losses.directions import check_process, noise_level, noised
from diffusion.losses.exact import matching_terms
from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import expand


def autoregressive_score_matching(process: Any = None) -> Objective:
  """Autoregressive score matching: the Fisher divergence of every p(x_d | x_<d), summed over d.

  The model is s_d = head(context(x)_d, x_d), the derivative of log p(x_d | x_<d) in x_d alone
  (arXiv:2010.12810, section 3). On x_t of a process, in units of eps,

      sigma^2 sum_d (s_d^2 + 2 ds_d/dx_d) + D,

  whose expectation is that of `autoregressive_denoising_score_matching`, value and gradient. On clean data
  (process=None) it is sum_d s_d^2 + 2 ds_d/dx_d, twice the paper's. All D derivatives are one forward-mode
  pass through the head with the context held
  fixed: exact, without random projections. Gradients of parameters flow through the context all the same.

  batch: a dict with 'x' [B, ...]; needs `context` and `head`. Raises ValueError for what is no process, and
  before compiling where the context is not [B, ..., C] or the head's output not like x. A context that sees
  x_d or what comes after it makes the value
  meaningless: `autoregressive.check_order` finds that out.

  >>> from diffusion import losses, processes
  >>> sorted(losses.autoregressive_score_matching(processes.edm()).needs["model"])
  ['context', 'head']
  """
  name = "autoregressive_score_matching"
  draw = noised(process, name)

  def evaluate(roles, placed, params, state, clock):
    sigma = expand(noise_level(process, placed), placed.x_t)
    score, slope = conditional_scores(roles["model"], placed.x_t, placed.t, placed.cond, along=sigma)
    return matching_terms(process, placed, sum_rows(jnp.square(sigma * score)), sum_rows(sigma * slope))

  return Objective(
    name=name, draw=draw, evaluate=evaluate, process=process, needs={"model": {"context": name, "head": name}}
  )


def autoregressive_denoising_score_matching(process: Any) -> Objective:
  """Autoregressive denoising score matching: sum_d (sigma s_d(x_t) + eps_d)^2.

  Noise is independent from coordinate to coordinate, so that given the noised x_<d the noise of x_d is
  regressed on x_d alone, and the minimiser is the conditional score of p_t. In units of eps, as
  `denoising_score_matching` is. Source: arXiv:2010.12810, section 3.3.

  batch: a dict with 'x' [B, ...]; needs `context` and `head`. Raises ValueError for what is no Gaussian
  process, and before compiling where the context is not [B, ..., C] or the head's output not like x.

  >>> from diffusion import losses, processes
  >>> losses.autoregressive_denoising_score_matching(processes.edm()).name
  'autoregressive_denoising_score_matching'
  """
  name = "autoregressive_denoising_score_matching"
  if process is None:
    raise ValueError(
      f"{name} regresses on the noise of a process such as processes.edm(); on clean data take "
      "autoregressive_score_matching()"
    )
  check_process(process, name)

  def evaluate(roles, placed, params, state, clock):
    score, _ = conditional_scores(roles["model"], placed.x_t, placed.t, placed.cond)
    wide = at_least_single(score.dtype)
    sigma = expand(noise_level(process, placed), placed.x_t).astype(wide)
    square = sum_rows(jnp.square(sigma * score.astype(wide) + placed.noise.astype(wide)))
    return terms(square, metrics={"eps_mse": square / placed.x_t[0].size})

  return Objective(
    name=name,
    draw=noised(process, name),
    evaluate=evaluate,
    process=process,
    needs={"model": {"context": name, "head": name}},
  )


def context_of(model: Denoiser, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
  """The context of each coordinate, [B, ..., C]: one vector of what comes before it."""
  return model(x, t, cond, views=("context",)).context


def head_of(model: Denoiser, context: jax.Array, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
  """The score of each coordinate alone with its context, [B, ...]: the context is part of the condition."""
  return model(x, t, {**(cond or {}), "context": context}, views=("head",)).head


def conditional_scores(
  model: Denoiser, x: jax.Array, t: jax.Array, cond: Any = None, *, along: Any = None
) -> tuple[jax.Array, Any]:
  """Conditional scores s_d = d log p(x_d | x_<d) / dx_d of a denoiser, and their derivatives if asked for.

  Returns (s [B, ...], derivative or None). The denoiser has the views `context` and `head`.

  Args:
    model: the denoiser.
    x, t, cond: [B, ...], [B], None or a dict. The order of coordinates is that of x flattened row by row,
      channels last.
    along: broadcasts to x; the derivative of s_d in x_d alone, times along_d, is then returned too, [B, ...].

  Raises ValueError where the context is not [B, ..., C] or the head's output not like x.

  >>> from diffusion import denoisers
  >>> model = denoisers.from_functions(
  ...   context=lambda params, x, t, cond: jnp.zeros((*x.shape, 1)),
  ...   head=lambda params, x, t, cond: -3.0 * x,
  ... )
  >>> conditional_scores(model, jnp.ones((1, 2)), jnp.zeros(1), along=1.0)[1].tolist()
  [[-3.0, -3.0]]
  """
  context = context_of(model, x, t, cond)
  if context.ndim != x.ndim + 1 or context.shape[:-1] != x.shape:
    raise ValueError(
      f"the context of x {x.shape} is one vector a coordinate, {(*x.shape, 'C')}; got {context.shape}: give "
      "x's own axes "
      "and one more"
    )

  def head(x):
    score = head_of(model, context, x, t, cond)
    if score.shape != x.shape:
      raise ValueError(
        f"the head of x {x.shape} returns one score a coordinate, {x.shape}; got {score.shape}: drop the "
        "axis of the context"
      )
    return score

  if along is None:
    return head(x), None
  return jax.jvp(head, (x,), (jnp.broadcast_to(along, x.shape).astype(x.dtype),))
