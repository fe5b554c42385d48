"""The variational lower bound of log p(x) of whole numbers under any discrete process.

  log p(x) >= - KL(q(x_T | x), prior) + E log p(x | x_first) - L

With steps (arXiv:2107.03006, eq. 1) L is the sum of KL(q(x_s | x_t, x) || p(x_s | x_t)); in continuous time,
its limit, the integral of the divergence of the model's reverse jump rates from those given x
(arXiv:2205.14987).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion.likelihood.elbo import Bound
from diffusion.likelihood.error_bars import over_draws
from diffusion.losses.chain_bounds import before_last, certain, rate_divergence
from diffusion.losses.d3pm import step_grid, step_kl
from diffusion.losses.whole_numbers import check_chain, check_jumps, log_p_of
from diffusion.math.divergence import generalised_kl
from diffusion.math.precision import sum_rows
from diffusion.processes.values import check_values

# Strata of continuous time are even in log(t + SHIFT t_max).
SHIFT = 1e-3


def categorical_elbo(
  denoiser: Any,
  x: jax.Array,
  *,
  keys: jax.Array,
  cond: Any = None,
  steps: int | ArrayLike | None = None,
  num_times: int = 64,
  draws: int = 1,
) -> Bound:
  """A lower bound of log p(x) of a model on any discrete process, with its parts: each [B] nats.

  With steps every step is evaluated and x_t alone is drawn. In continuous time, from the process's t_min to
  its t_max, log(t + t_max / 1000) is drawn once in each of `num_times` equal strata, each example's own, for
  jumps of little noise are rare and cost much, of the order of 1 / t; what is left at t_min is the
  reconstruction, whose coordinates are drawn apart. Both are unbiased for any number of evaluations.

  At the exact denoiser the bound in continuous time is log p(x), but for t_min; with steps it is lower, for
  coordinates of one step are drawn apart. Under masks `masked_elbo` has a smaller variance.

  Args:
    denoiser: answers 'probabilities', or in continuous time 'logits' and 'rates', on a discrete process.
    x: [B, ...] whole numbers below K.
    keys: [B] typed keys; row i depends on keys[i] alone.
    cond: None, or a dict of arrays with leading axis B.
    steps: None for continuous time; else T, or T + 1 times that increase from 0, the data.
    num_times: strata of continuous time, one evaluation each.
    draws: independent draws of all of it, T + 1 evaluations each, or num_times + 1.

  Raises:
    ValueError: a process that is no Markov chain, or has no jump rates and no steps are given; an x that is
      not of its values, steps that do not increase, no draws.

  >>> from diffusion import likelihood, oracles, processes
  >>> law = np.array([[0.4, 0.1], [0.1, 0.4]])
  >>> oracle = oracles.discrete(processes.uniform_resample(2, (2,), t_min=1e-3), law)
  >>> x, keys = jnp.zeros((256, 2), jnp.int32), jax.random.split(jax.random.key(0), 256)
  >>> bound = likelihood.categorical_elbo(oracle, x, keys=keys)
  >>> bool(abs(bound.total.mean() - np.log(0.4)) < 0.05)
  True
  >>> few = likelihood.categorical_elbo(oracle, x, keys=keys, steps=2)
  >>> bool(few.total.mean() < bound.total.mean())
  True
  """
  process, who = denoiser.process, "categorical_elbo"
  (check_jumps if steps is None else check_chain)(process, who)
  check_values(process, x)
  for name, value in (("num_times", num_times), ("draws", draws)):
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}")
  if steps is None:
    shift = SHIFT * float(process.t_max)
    low, high = float(process.t_min) + shift, float(process.t_max) + shift
    grid = np.geomspace(low, high, num_times + 1) - shift
  else:
    grid = step_grid(process, steps, who)
  rows = np.arange(draws * (len(grid) - 1))
  return (_continuous if steps is None else _stepwise)(
    denoiser, x, cond, keys, grid.astype(np.float32), rows.reshape(draws, -1)
  )


@jax.jit
def _stepwise(denoiser, x, cond, keys, grid, rows):
  process = denoiser.process

  def term(number):
    step = number % (grid.shape[0] - 1)
    s, t = (jnp.broadcast_to(grid[at], x.shape[:1]) for at in (step, step + 1))
    x_t = _noised(process, x, keys, number, t)
    probabilities = denoiser(x_t, t, cond, views=("probabilities",)).probabilities
    return step_kl(process, x, x_t, s, t, probabilities)

  nats = jax.lax.map(term, rows.reshape(-1)).reshape(*rows.shape, -1)
  return _summed(process, x, grid[-1], jnp.sum(nats[:, 1:], axis=1), -nats[:, 0])


@jax.jit
def _continuous(denoiser, x, cond, keys, grid, rows):
  process, count = denoiser.process, rows.shape[1]
  place = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), rows.shape), out_axes=-1)(keys)
  last = before_last(process, grid.dtype)

  shift = SHIFT * grid[-1]

  def term(row):
    number, place = row
    low, high = (grid[number % count + more] + shift for more in (0, 1))
    width = jnp.log(high / low)
    t = jnp.clip(low * jnp.exp(width * place) - shift, grid[0], last)
    x_t = _noised(process, x, keys, number, t)
    rates = denoiser(x_t, t, cond, views=("rates",)).rates
    return width * (t + shift) * rate_divergence(process, x, x_t, t, rates)

  def reconstruct(draw):
    t = jnp.broadcast_to(grid[0], x.shape[:1])
    x_t = _noised(process, x, keys, rows.size + draw, t)
    return sum_rows(log_p_of(denoiser(x_t, t, cond, views=("logits",)).logits, x))

  nats = jax.lax.map(term, (rows.reshape(-1), place.reshape(rows.size, -1))).reshape(*rows.shape, -1)
  reconstruction = jax.lax.map(reconstruct, jnp.arange(rows.shape[0]))
  return _summed(process, x, grid[-1], jnp.sum(nats, axis=1), reconstruction)


def _summed(process, x, last, diffusion, reconstruction):
  """The bound from its parts over the draws, [draws, B]."""
  prior = end_kl(process, x, last)
  total, error = over_draws(reconstruction - prior[None] - diffusion)
  return Bound(total, error, prior, jnp.mean(diffusion, axis=0), jnp.mean(reconstruction, axis=0))


def end_kl(process: Any, x: jax.Array, t: Any) -> jax.Array:
  """KL(q(x_t | x_0 = x) || where sampling starts) in nats, summed over coordinates: [B].

  Infinite where noise that ends in masks has not masked all.

  >>> from diffusion import processes
  >>> end_kl(processes.uniform_resample(2, (1,)), jnp.zeros((1, 1), int), 1.0).tolist()
  [0.0]
  """
  times = jnp.full(x.shape[:1], t, jnp.float32)
  start = certain(process, x, jnp.float32)
  start = jnp.pad(start, [(0, 0)] * x.ndim + [(0, process.num_states - process.num_values)])
  law = process.forward(start, None, times)
  prior = jnp.broadcast_to(process.prior_law(law.dtype), law.shape)
  never = jnp.any((prior == 0) & (law > 0), axis=-1)
  return sum_rows(jnp.where(never, jnp.inf, generalised_kl(law, prior)))


def _noised(process, x, keys, number, t):
  """x_t, row i from keys[i] and the number alone."""
  own = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 1), number))(keys)
  return process.corrupt(x, process.noise(own, x), t).astype(x.dtype)
