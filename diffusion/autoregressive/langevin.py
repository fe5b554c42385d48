"""Samples of an autoregressive score by one-dimensional Langevin chains, with falling noise if wanted."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import mcmc
from diffusion.denoisers import Denoiser
from diffusion.losses.autoregressive import context_of, head_of
from diffusion.mcmc.base import fold

START, NOISE, CHAIN = 0, 1, 2  # purposes of a coordinate's keys


def langevin_sample(
  model: Denoiser,
  key: jax.Array,
  n: int,
  shape: tuple[int, ...],
  *,
  step_size: float,
  num_steps: int,
  t: Any = 0.0,
  cond: Any = None,
  process: Any = None,
  start: float = 1.0,
) -> jax.Array:
  """Samples of an autoregressive score by Langevin dynamics, coordinate by coordinate: [n, *shape].

  Each coordinate has a chain x_d <- x_d + step_size / 2 s_d + sqrt(step_size) z (arXiv:2010.12810, section
  4).

  Chains of one dimension are short, but they do not cross between modes that are apart, and have the bias of
  `mcmc.langevin`; where the score can be tabulated, `sample` has neither fault. Falling noise mends the
  first: with times t_1 > ... > t_L of a process, the chain of a coordinate runs at each level in turn, with
  steps in proportion to sigma(t)^2; the coordinates before it are noised to that level afresh, and stand as
  they are at the last.

  Args:
    model: a denoiser with the views `context` and `head`.
    key: a typed key; sample i depends on (key, i) alone.
    n, shape: number of samples, and the shape of one.
    step_size: of the last level, or the only one; a tenth of the smallest conditional variance is a start.
    num_steps: of each level.
    t: a number, or falling times [L] with `process`.
    cond: None, or a dict of [n, ...].
    process: a Gaussian process whose x_t the model has learned; needed for more than one time.
    start: standard deviation of the normal that chains start from.

  Raises ValueError for numbers that are not positive, times that do not fall, or several times without a
  process.

  >>> from diffusion import denoisers
  >>> model = denoisers.from_functions(
  ...   context=lambda params, x, t, cond: jnp.zeros((*x.shape, 1)),
  ...   head=lambda params, x, t, cond: 3.0 - x,
  ... )
  >>> x = langevin_sample(model, jax.random.key(0), 1000, (2,), step_size=0.2, num_steps=60)
  >>> x.shape, bool(jnp.abs(x.mean() - 3.0) < 0.1)
  ((1000, 2), True)
  """
  for name, number in (("n", n), ("num_steps", num_steps)):
    if not isinstance(number, int) or number < 1:
      raise ValueError(f"langevin_sample takes {name}=1 or more, got {number!r}")
  for name, number in (("step_size", step_size), ("start", start)):
    if not number > 0:
      raise ValueError(f"langevin_sample takes a positive {name}, got {number!r}")
  times = np.atleast_1d(np.asarray(t, np.float64))
  if times.ndim != 1 or (times.size > 1 and not np.all(np.diff(times) < 0)):
    raise ValueError(
      f"t is one time for all samples, or falling times [L] of annealing, got {np.asarray(t).tolist()}: sort "
      "them, largest first"
    )
  if times.size > 1 and process is None:
    raise ValueError(
      "several times anneal the noise of a process: pass process=..., the one that the model was trained on, "
      "or a single t"
    )
  levels = _levels(process, times, step_size)
  size = math.prod(shape)
  keys = fold(jnp.broadcast_to(key, (n,)), jnp.arange(n))
  draw = lambda keys, shape: jax.vmap(lambda k: jax.random.normal(k, shape, levels["t"].dtype))(keys)

  def coordinate(x, d):
    own = fold(keys, d)

    def level(value, part):
      number, at = part
      noise = draw(fold(fold(own, NOISE), number), (size,))
      seen = at["ratio"] * x + at["spread"] * noise
      time = jnp.broadcast_to(at["t"], (n,))
      context = context_of(model, seen.reshape(n, *shape), time, cond).reshape(n, size, -1)
      context = jax.lax.dynamic_slice_in_dim(context, d, 1, 1)
      score = jax.tree_util.Partial(_score, model, context, time, cond)
      chain = mcmc.run(
        mcmc.langevin(score, at["step_size"]),
        at["rescale"] * value,
        fold(fold(own, CHAIN), number),
        num_steps,
      )
      return chain.x, None

    first = start * draw(fold(own, START), ())
    value, _ = jax.lax.scan(level, first, (jnp.arange(times.size), levels))
    return jax.lax.dynamic_update_index_in_dim(x, value, d, 1), None

  x, _ = jax.lax.scan(coordinate, jnp.zeros((n, size), levels["t"].dtype), jnp.arange(size))
  return x.reshape(n, *shape)


def _score(model, context, t, cond, x):
  """The score [n] of one coordinate each at x [n], context [n, 1, C]."""
  return head_of(model, context, x[:, None], t, cond)[:, 0]


def _levels(process, times, step_size):
  """What each level of annealed Langevin dynamics needs, every entry [L].

  Per level: t, step_size, how x of the last level is noised up to this one, and how the chain's value is
  rescaled on entering.
  """
  dtype = jnp.result_type(float)
  one = np.ones_like(times)
  if process is None:
    alpha, sigma = one, one
  else:
    marginal = process.marginal(times)
    alpha, sigma = np.asarray(marginal.alpha, np.float64) * one, np.asarray(marginal.sigma, np.float64) * one
  if not (np.all(alpha > 0) and (times.size == 1 or sigma[-1] > 0)):
    raise ValueError(
      f"annealing needs a signal at its first time and noise at its last, got t={times.tolist()} of "
      f"{type(process).__name__}: "
      "keep away from both ends"
    )
  ratio = alpha / alpha[-1]
  spread = np.sqrt(np.maximum(sigma**2 - (ratio * sigma[-1]) ** 2, 0.0))
  steps = step_size * (sigma / sigma[-1]) ** 2 if times.size > 1 else step_size * one
  rescale = np.concatenate([[1.0], alpha[1:] / alpha[:-1]])
  return {
    name: jnp.asarray(value, dtype)
    for name, value in {
      "t": times,
      "step_size": steps,
      "ratio": ratio,
      "spread": spread,
      "rescale": rescale,
    }.items()
  }
