"""Bounds of the negative log-likelihood in continuous time, for any noise that is a Markov chain."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Objective, Placed, noised_by, terms
from diffusion.losses.whole_numbers import check_jumps, drawn_values, of_model
from diffusion.math.divergence import generalised_kl
from diffusion.math.precision import at_least_single, sum_rows


def continuous_time_bound(process: Any) -> Objective:
  """The cost in nats, per unit of t, of the model's reverse jump rates in place of those given x_0.

  With R(k) the rate at which the reverse chain given x_0 jumps from x_t to k in one coordinate, and R_m(k)
  the model's, each coordinate costs sum over k of R_m(k) - R(k) + R(k) log(R(k) / R_m(k)) (arXiv:2205.14987,
  proposition 2; arXiv:2211.03595). Its integral over t is an upper bound of -log p(x_0), up to the divergence
  of the end of the noise from where sampling starts; at the exact posterior it is the entropy of the data.

  Under masks it is `masked_cross_entropy`, example by example; under uniform noise it is UDLM's bound
  (arXiv:2412.10193, eq. 18); under a mixture of both, GIDD's (arXiv:2503.04482).

  Args:
    process: a discrete process that is a Markov chain in t, such as `processes.uniform_resample`.

  batch: a dict with 'x' [B, ...] int below K and, if conditional, 'cond'. The model is asked for 'rates'
  [B, ..., S], which follow from logits, probabilities or ratios.

  Raises ValueError for a process that is no such chain, or a batch without 'x' or of values that the process
  has not.

  >>> from diffusion import denoisers, losses, processes
  >>> process = processes.masked(2, (1,))
  >>> objective = losses.continuous_time_bound(process)
  >>> even = denoisers.from_function(
  ...   lambda params, x, t, cond: jnp.zeros((*x.shape, 2)), process, denoisers.logits())
  >>> draw = losses.Draw(t=jnp.full(1, 0.5), x0=jnp.array([[1]]), noise=jnp.zeros((1, 1)))
  >>> objective({"model": even}, draw).interior.round(3).tolist()  # log(2) / 0.5
  [1.386...]
  """
  name = "continuous_time_bound"
  check_jumps(process, name)

  def evaluate(roles, placed, params, state, clock):
    prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=("rates",), key=placed.key)
    nats = rate_divergence(process, placed.x0, placed.x_t, placed.t, prediction.rates)
    return terms(nats, collections=of_model(prediction.collections))

  return Objective(
    name=name,
    draw=drawn_values(process, name),
    place=before_the_end(process),
    evaluate=evaluate,
    process=process,
    needs={"model": {"rates": name}},
  )


def score_entropy(process: Any, *, weight: str = "generator") -> Objective:
  """Denoising score entropy: the divergence of ratios of probabilities from those of the noise given x_0.

  With r_k = q(x_t with the coordinate set to k | x_0) / q(x_t | x_0) and the model's ratio s_k, each
  coordinate costs sum over k of w_k (s_k - r_k log s_k + r_k (log r_k - 1)) (arXiv:2310.16834, eq. 5 and 7),
  over the states k that noise turns into x_t. The mean of r_k given x_t is the ratio of p_t, where the loss
  is least whatever the weights. Ratios have to be positive: let a network answer their logarithms.

  Args:
    process: a discrete process that is a Markov chain in t.
    weight: 'generator', w_k = Q_t[k, x_t], under which the integral over t is the bound in nats of
      `continuous_time_bound` for a model of ratios (there, theorem 3.6); or 'one', w_k = 1.

  batch: a dict with 'x' [B, ...] int below K and, if conditional, 'cond'. The model is asked for 'ratios'
  [B, ..., S].

  Raises ValueError for a process that is no such chain, another weight, or a batch without 'x' or of values
  that the process has not.

  >>> from diffusion import losses, processes
  >>> sorted(losses.score_entropy(processes.uniform_resample(4)).needs["model"])
  ['ratios']
  """
  name = "score_entropy"
  check_jumps(process, name)
  if weight not in ("generator", "one"):
    raise ValueError(f"{name} takes weight='generator' or 'one', got {weight!r}")

  def evaluate(roles, placed, params, state, clock):
    prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=("ratios",), key=placed.key)
    ratios = prediction.ratios
    truth = process.posterior_ratios(certain(process, placed.x0, ratios.dtype), placed.x_t, placed.t)
    inflow = process.inflow(placed.x_t, placed.t).astype(ratios.dtype)
    w = inflow if weight == "generator" else (inflow > 0).astype(ratios.dtype)
    return terms(
      sum_rows(generalised_kl(w * truth.astype(ratios.dtype), w * ratios)),
      collections=of_model(prediction.collections),
    )

  return Objective(
    name=name,
    draw=drawn_values(process, name),
    place=before_the_end(process),
    evaluate=evaluate,
    process=process,
    needs={"model": {"ratios": name}},
  )


def rate_divergence(process: Any, x0: jax.Array, x_t: jax.Array, t: jax.Array, rates: jax.Array) -> jax.Array:
  """The divergence of reverse jump rates from those given x_0, in nats per unit of t: [B].

  Args:
    process: a discrete process with jump rates.
    x0, x_t: [B, ...] int.
    t: [B], below the process's last.
    rates: the model's: [B, ..., S].
  """
  truth = process.posterior_rates(certain(process, x0, rates.dtype), x_t, t)
  return sum_rows(generalised_kl(truth.astype(rates.dtype), rates))


def before_the_end(process: Any) -> Callable[..., Placed]:
  """The place of a bound: x_t of the process, with times kept below its last; see `before_last`."""
  inner = noised_by(process)

  def place(roles, draw):
    return inner(roles, draw.replace(t=jnp.minimum(draw.t, before_last(process, draw.t.dtype))))

  return place


def before_last(process: Any, dtype: Any) -> jax.Array:
  """The last time at which rates are finite, one digit below t_max: [].

  At t_max they may be infinite, where nothing is left of the data. Nothing is lost: the divergence of rates
  falls to zero there.
  """
  return jnp.asarray(process.t_max, dtype) * (1.0 - float(jnp.finfo(dtype).eps))


def certain(process: Any, x0: jax.Array, dtype: Any) -> jax.Array:
  """p(x_0 = k) where x_0 is known: [B, ..., K], in at least float32."""
  return jax.nn.one_hot(x0, process.num_values, dtype=at_least_single(dtype))
