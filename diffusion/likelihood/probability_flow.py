"""Log-likelihood by the probability-flow ODE: change of variables between data and the prior.

Along dx/dt = velocity(x, t) the log-density changes by minus the divergence of the velocity, so
log p(x at t_min) = log p(x at t_max) + integral of the divergence from t_min to t_max
(arXiv:2011.13456, appendix D.2; arXiv:1810.01367 for the estimate of the divergence).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.likelihood import divergence as divergences
from diffusion.likelihood.error_bars import over_draws
from diffusion.likelihood.flow_map import at_least_float32, transport
from diffusion.likelihood.steps import Steps, flow_steps


def log_likelihood(
  denoiser: Any,
  x: jax.Array,
  *,
  cond: Mapping[str, jax.Array] | None = None,
  keys: jax.Array | None = None,
  num_steps: int = 64,
  steps: Steps | None = None,
  divergence: str = "exact",
  probes: int = 1,
  t_min: float | None = None,
  t_max: float | None = None,
  prior_log_prob: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
  """log p(x) in nats of data at t_min, by fourth-order Runge-Kutta steps of equal length in log-SNR.

  Args:
    denoiser: a denoiser with a `process`.
    x: [B, ...] data in model units.
    cond: None, or a dict of arrays with leading axis B.
    keys: [B] typed keys for the estimate of the divergence; needed for 'rademacher' and 'gaussian'.
    num_steps: steps; each costs four evaluations.
    steps: `flow_steps` made before, in place of `num_steps`, `t_min` and `t_max`.
    divergence: 'exact' (one directional derivative a dimension), or an unbiased estimate with 'rademacher'
      or 'gaussian' probes, fixed along each path.
    probes: probes a sample.
    t_min, t_max: time at which x is taken to lie and time of the prior; the process's own by default, t_max
      cut at log-SNR -10.2.
    prior_log_prob: log-density [B, ...] -> [B] at the last time; `process.prior_log_prob` by default, which
      ignores what is left of the data in that marginal: see `prior_gap`.

  Returns:
    ([B] nats, [B] standard error over the probes: 0 if exact, NaN for a single probe, whose error shows
    over a batch: see `over_batch`).

  Raises:
    ValueError: an unknown divergence, missing keys, or ends without finite log-SNR.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.edm(), jnp.zeros(2), jnp.eye(2))
  >>> x = jnp.ones((1, 2))
  >>> value, _ = log_likelihood(oracle, x)
  >>> bool(abs(value - oracle.log_prob(x, jnp.full((1,), 0.002)))[0] < 1e-3)
  True
  """
  x = at_least_float32(x)
  divergences.check(divergence, keys, probes, x.shape[0])
  steps = (
    flow_steps(denoiser.process, num_steps, t_min=t_min, t_max=t_max, dtype=x.dtype)
    if steps is None
    else steps
  )
  z, gain = _carry(denoiser, x, cond, steps, keys, divergence, probes)
  prior = _prior(denoiser.process, z) if prior_log_prob is None else prior_log_prob(z)
  return _with_error(prior[None] + gain, divergence)


def decode_with_log_likelihood(
  denoiser: Any,
  z: jax.Array,
  *,
  cond: Mapping[str, jax.Array] | None = None,
  keys: jax.Array | None = None,
  num_steps: int = 64,
  steps: Steps | None = None,
  divergence: str = "exact",
  probes: int = 1,
  t_min: float | None = None,
  t_max: float | None = None,
  prior_log_prob: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Samples and their log-likelihood from one integration, noise to data.

  Args:
    z: [B, ...] noise at the last time, for example `process.prior`.
    steps: `flow_steps(..., backward=True)` made before.
    The rest as for `log_likelihood`.

  Returns:
    (x [B, ...], log p(x) [B] nats, standard error [B]).

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.vp_linear(), jnp.zeros(2), 1.0)
  >>> x, value, _ = decode_with_log_likelihood(oracle, jnp.ones((1, 2)), num_steps=16)
  >>> bool(abs(value[0] - oracle.log_prob(x, jnp.zeros(1))[0]) < 1e-3)
  True
  """
  z = at_least_float32(z)
  divergences.check(divergence, keys, probes, z.shape[0])
  if steps is None:
    steps = flow_steps(denoiser.process, num_steps, t_min=t_min, t_max=t_max, backward=True, dtype=z.dtype)
  prior = _prior(denoiser.process, z) if prior_log_prob is None else prior_log_prob(z)
  x, gain = _carry(denoiser, z, cond, steps, keys, divergence, probes)
  value, error = _with_error(prior[None] - gain, divergence)
  return x, value, error


def _carry(denoiser, x, cond, steps, keys, divergence, probes):
  noise = _draw(keys, x, divergence, probes)
  return transport(denoiser, x, cond, steps, noise, exact=divergence == "exact")


def _with_error(values: jax.Array, divergence: str) -> tuple[jax.Array, jax.Array]:
  """[P, B] -> mean and standard error, which is zero where nothing was drawn."""
  if divergence == "exact":
    return values[0], jnp.zeros_like(values[0])
  return over_draws(values)


_draw = jax.jit(
  lambda keys, x, divergence, probes: divergences.draw_probes(divergence, keys, x, probes),
  static_argnums=(2, 3),
)
_prior = jax.jit(lambda process, x: process.prior_log_prob(x))
