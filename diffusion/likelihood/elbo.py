"""The variational lower bound of log p(x) of a Gaussian process, in discrete and in continuous time.

Read as a hierarchical model z_T -> ... -> z_0 -> x whose reverse steps are q's own with x0 replaced by the
denoiser's (arXiv:2107.00630, eq. 7 and 11-17):

  log p(x) >= - KL(q(z_T | x), prior) + E log p(x | z_0) - L
  L_T   = sum over steps s < t of 1/2 (SNR(s) - SNR(t)) E |x - x0_hat(z_t, t)|^2
  L_inf = 1/2 int E |eps - eps_hat(z_t, t)|^2 d log-SNR

L_T is discrete, on any grid; L_inf is its limit, weighted by -d log SNR / dt.

With the exact denoiser, decoder and marginal at the last time in place of the prior, the continuous bound is
log p(x).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from diffusion.likelihood.decoders import Decoder, GaussianDecoder
from diffusion.likelihood.error_bars import over_draws
from diffusion.likelihood.flow_map import at_least_float32
from diffusion.likelihood.prior import prior_kl
from diffusion.likelihood.steps import log_snr_times, on_host
from diffusion.processes.base import expand


@struct.dataclass
class Bound:
  """A lower bound of log p(x) and its parts, each [B] nats.

  Attributes:
    total: reconstruction - prior - diffusion, the mean over the draws.
    error: its standard error over the draws; NaN for one draw, whose error shows over a batch (`over_batch`).
    prior: KL of q(z_T | x) from the prior.
    diffusion: L, what the denoiser's errors cost.
    reconstruction: E log p(x | z_0).
  """

  total: jax.Array
  error: jax.Array
  prior: jax.Array
  diffusion: jax.Array
  reconstruction: jax.Array


def discrete_elbo(
  denoiser: Any,
  x: jax.Array,
  grid: ArrayLike,
  *,
  keys: jax.Array,
  cond: Mapping[str, jax.Array] | None = None,
  draws: int = 1,
  decoder: Decoder | None = None,
) -> Bound:
  """The bound of a model with latents at the times of a grid; every step is evaluated, only eps is drawn.

  Args:
    denoiser: a denoiser with a `process`.
    x: [B, ...] data in model units.
    grid: [T + 1] ascending times; z_0 lies at the first. A DDPM or NCSN ladder of N rungs is np.arange(1, N +
      1) / N.
    keys: [B] typed keys; row i depends on keys[i] alone.
    cond: None, or a dict of arrays with leading axis B.
    draws: independent draws of the noise; T denoiser calls each.
    decoder: see `decoders`; `gaussian_decoder()` by default.

  Raises:
    ValueError: a grid that does not ascend, starts without noise, or ends without signal for a network that
      cannot give x0 there.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.vp_cosine(), jnp.zeros(1), 1.0)
  >>> keys = jax.random.split(jax.random.key(0), 4096)
  >>> bound = discrete_elbo(oracle, jnp.ones((4096, 1)), log_snr_times(oracle.process, 64), keys=keys)
  >>> log_prob = oracle.log_prob(jnp.ones((1, 1)), jnp.zeros(1))[0]
  >>> gap = float(log_prob - bound.total.mean())
  >>> 0.0 < gap < 2.0                     # a bound, and a tighter one for more steps
  True
  """
  x = at_least_float32(x)
  process = on_host(denoiser.process)
  times = np.asarray(grid, np.float64).astype(x.dtype).astype(np.float64)
  _check_grid(denoiser, process, times)
  m = process.marginal(times)
  drop = np.exp(process.log_snr(times[:-1])) - np.exp(process.log_snr(times[1:]))
  # In units of v, which a network can give at both ends: |x - x0_hat| = sigma / (alpha^2 + sigma^2) |v -
  # v_hat|.
  weight = 0.5 * drop * (m.sigma / (m.alpha**2 + m.sigma**2))[1:] ** 2
  wide = lambda a: np.broadcast_to(a[:, None], (draws, len(a), 1)).reshape(-1, 1).astype(x.dtype)
  rows = wide(times[1:]), wide(weight)
  return _bound(denoiser, x, cond, keys, rows, times[[0, -1]].astype(x.dtype), draws, decoder)


def continuous_elbo(
  denoiser: Any,
  x: jax.Array,
  *,
  keys: jax.Array,
  cond: Mapping[str, jax.Array] | None = None,
  num_times: int = 64,
  draws: int = 1,
  decoder: Decoder | None = None,
  t_min: float | None = None,
  t_max: float | None = None,
) -> Bound:
  """The limit of infinitely many steps between t_min and t_max.

  log-SNR is drawn once in each of `num_times` equal strata, each example's own (arXiv:2107.00630, appendix
  I.1, shares one draw): unbiased for any number of times, which sets the noise alone.

  Args:
    denoiser, x, keys, cond, decoder: as for `discrete_elbo`.
    num_times: strata; one denoiser call each.
    draws: independent draws of all times and noises.
    t_min, t_max: ends; the process's own by default, t_max cut at log-SNR -10.2.

  Raises:
    ValueError: ends without finite, decreasing log-SNR.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.vp_cosine(), jnp.zeros(1), 1.0)
  >>> keys = jax.random.split(jax.random.key(0), 4096)
  >>> bound = continuous_elbo(oracle, jnp.ones((4096, 1)), keys=keys)
  >>> log_prob = oracle.log_prob(jnp.ones((1, 1)), jnp.zeros(1))[0]
  >>> bool(abs(log_prob - bound.total.mean()) < 0.1)      # the exact denoiser's bound is tight
  True
  """
  x = at_least_float32(x)
  ends = log_snr_times(denoiser.process, 1, t_min, t_max).astype(x.dtype)
  high, low = on_host(denoiser.process).log_snr(ends.astype(np.float64))
  strata = np.linspace(high, low, num_times + 1)[:-1]
  strata = np.broadcast_to(strata, (draws, num_times)).reshape(-1).astype(x.dtype)
  rows = _continuous_rows(denoiser.process, keys, strata, np.asarray((high - low) / num_times, x.dtype))
  return _bound(denoiser, x, cond, keys, rows, ends, draws, decoder)


@jax.jit
def _continuous_rows(process, keys, strata, width):
  """(times [N, B], weights [N, B]) of one draw in each stratum, given by its upper log-SNR [N]."""
  draw = lambda key: jax.random.uniform(jax.random.fold_in(key, 0), strata.shape, strata.dtype)
  log_snr = strata[:, None] - width * jax.vmap(draw, out_axes=1)(keys)
  t = process.t_of_log_snr(log_snr)
  m = process.marginal(t)
  # |eps - eps_hat| = alpha / (alpha^2 + sigma^2) |v - v_hat|
  return t, 0.5 * width * (m.alpha / (m.alpha**2 + m.sigma**2)) ** 2


def _bound(denoiser, x, cond, keys, rows, ends, draws, decoder):
  decoder = GaussianDecoder() if decoder is None else decoder
  if not jax.tree.leaves(decoder) and not isinstance(decoder, GaussianDecoder):
    decoder = jax.tree_util.Partial(decoder)
  return _evaluate(denoiser, x, cond, keys, rows, ends, np.arange(draws), decoder)


@jax.jit
def _evaluate(denoiser, x, cond, keys, rows, ends, draws, decoder):
  process = denoiser.process

  def term(_, row):
    number, t, weight = row
    t = jnp.broadcast_to(t, x.shape[:1])
    eps = _noise(keys, 1, number, x)
    m = process.marginal(t)
    x_t = expand(m.alpha, x) * x + expand(m.sigma, x) * eps
    v = expand(m.alpha, x) * eps - expand(m.sigma, x) * x
    error = (denoiser(x_t, t, cond, views=("v",)).v - v).reshape(x.shape[0], -1)
    return None, weight * jnp.sum(error**2, axis=1)

  count = rows[0].shape[0]
  _, terms = jax.lax.scan(term, None, (jnp.arange(count), *rows))
  diffusion = jnp.sum(terms.reshape(draws.shape[0], -1, x.shape[0]), axis=1)
  first = process.marginal(ends[0])

  def reconstruct(draw):
    return decoder(x, first.alpha * x + first.sigma * _noise(keys, 2, draw, x), first)

  if isinstance(decoder, GaussianDecoder):
    nats = -0.5 * np.prod(x.shape[1:]).item() * (1.0 + jnp.log(2 * np.pi * first.noise_to_signal**2))
    reconstruction = jnp.full((draws.shape[0], x.shape[0]), nats)
  else:
    reconstruction = jax.lax.map(reconstruct, draws)
  prior = prior_kl(process, x, ends[1])
  total, error = over_draws(reconstruction - prior[None] - diffusion)
  return Bound(total, error, prior, jnp.mean(diffusion, axis=0), jnp.mean(reconstruction, axis=0))


def _noise(keys, purpose, number, x):
  """Standard normal [B, ...], row i from keys[i], the purpose and the number alone."""
  one = lambda key: jax.random.normal(
    jax.random.fold_in(jax.random.fold_in(key, purpose), number), x.shape[1:], x.dtype
  )
  return jax.vmap(one)(keys)


def _check_grid(denoiser, process, times):
  if times.ndim != 1 or times.size < 2 or not np.all(np.diff(times) > 0):
    raise ValueError(
      f"a grid is [T + 1] strictly ascending times, T at least 1; got shape {times.shape}: "
      "np.linspace(t_min, t_max, T + 1) is one"
    )
  log_snr = process.log_snr(times)
  if not np.isfinite(log_snr[0]):
    raise ValueError(
      f"the grid starts at t={times[0]} without noise, where z_0 is x itself: start above it, for example at "
      f"{float(process.t_min)}"
    )
  if not np.isfinite(log_snr[-1]) and denoiser.needs_signal:
    raise ValueError(
      f"the grid ends at t={times[-1]} without signal, where a network of eps or score says nothing of x0: "
      "end it earlier"
    )
