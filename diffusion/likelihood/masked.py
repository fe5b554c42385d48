"""The lower bound of log p(x) of a model that fills in masks."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.hiding import hide
from diffusion.processes.values import check_values


def masked_elbo(
  denoiser: Any, x: jax.Array, *, keys: jax.Array, cond: Any = None, draws: int = 32
) -> jax.Array:
  """An unbiased estimate of the lower bound of log p(x) of a model that fills masks in: [B] nats.

  The model fills them in one at a time, in an order of chance (arXiv:2110.02037, section 2). The bound is the
  integral of `losses.masked_cross_entropy` over all times (arXiv:2406.07524, eq. 10).

  The integral over times is that over the number n of masked coordinates, 1 to D, each as likely:
  log p(x) >= mean over n of D / n E sum over the n masked ones of log p(x_i | the others), with a variance
  that stays bounded where that of uniform times does not. n is spread evenly over the draws. The time of a
  state is the probability of the mask under which its uniform numbers mask n coordinates, not below t_min.

  The bound is reached where the conditionals belong to one joint law: at the exact denoiser it is log p(x).

  Args:
    denoiser: answers 'logits' on a process with masks, such as `processes.masked`.
    x: [B, ...] whole numbers below K, none of them masked.
    keys: [B] typed keys; row i depends on keys[i] alone.
    cond: None, or a dict of arrays with leading axis B.
    draws: evaluations of each row.

  Raises:
    ValueError: a process without masks, an x that is not of its values, no draws.

  >>> from diffusion import denoisers, likelihood, processes
  >>> even = lambda params, x, t, cond: jnp.zeros((*x.shape, 4))
  >>> denoiser = denoisers.from_function(even, processes.masked(4, (3,)), denoisers.logits())
  >>> x, keys = jnp.array([[0, 3, 1]]), jax.random.split(jax.random.key(0), 1)
  >>> bits = likelihood.bits_per_dim(likelihood.masked_elbo(denoiser, x, keys=keys), (3,))
  >>> bits.round(4).tolist()
  [2.0]
  """
  process = denoiser.process
  if process.ends[1] != "mask":
    raise ValueError(
      f"masked_elbo bounds the likelihood of a model that fills in masks, and '{process.name}' ends in "
      f"'{process.ends[1]}': it needs a process such as processes.masked(16, (64,))"
    )
  check_values(process, x)
  if draws < 1:
    raise ValueError(f"draws must be at least 1, got {draws}")
  return _bound(denoiser, x, keys, cond, draws)


@functools.partial(jax.jit, static_argnames="draws")
def _bound(denoiser, x, keys, cond, draws):
  process, size = denoiser.process, math.prod(x.shape[1:])
  uniform = jax.vmap(lambda key: jax.random.uniform(key, (size,), jnp.float32))
  offset = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), (), jnp.float32))(keys)

  def one(draw):
    place = (draw.astype(jnp.float32) + offset) / draws
    count = jnp.clip(1 + jnp.floor(place * size).astype(jnp.int32), 1, size)
    noise = uniform(jax.vmap(lambda key: jax.random.fold_in(key, 1 + draw))(keys))
    x_t, t = hide(process, x, noise, count)
    logits = denoiser(x_t, t, cond, views=("logits",)).logits
    log_p = jax.nn.log_softmax(logits.astype(at_least_single(logits.dtype)), axis=-1)
    of_truth = jnp.take_along_axis(log_p, x[..., None], axis=-1)[..., 0]
    nats = sum_rows(jnp.where(x_t == process.mask, of_truth, 0.0))
    return nats * (size / count.astype(nats.dtype))

  return jnp.mean(jax.lax.map(one, jnp.arange(draws)), axis=0)
