"""Log-likelihood by the probability-flow ODE: change of variables from data to the prior.

Along dx/dt = velocity(x, t) the log-density changes by minus the divergence of the velocity, so
log p(x at t_min) = log p(x at t_max) + integral of the divergence from t_min to t_max
(arXiv:2011.13456, appendix D.2; arXiv:1810.01367 for the estimate of the divergence).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


# Where the integral starts from if the process ends without any signal: half log-SNR -5.1.
LOWEST_LOG_SNR = -10.2


def time_nodes(process, num_steps, t_min=None, t_max=None):
  """Times, equally spaced in log-SNR, of the ends and middles of the steps: [2 num_steps + 1] float64, ascending."""
  t_min = process.t_min if t_min is None else t_min
  t_max = process.t_max if t_max is None else t_max
  high, low = float(process.log_snr(t_min)), max(float(process.log_snr(t_max)), LOWEST_LOG_SNR)
  if not np.isfinite(high) or high <= low:
    raise ValueError(f"t_min={t_min} and t_max={t_max} must have finite, decreasing log-SNR (got {high} and {low}): raise t_min above 0")
  return process.t_of_log_snr(np.linspace(high, low, 2 * num_steps + 1))


def log_likelihood(denoiser, x, *, cond=None, keys=None, num_steps=64, divergence="exact", probes=1, t_min=None, prior_log_prob=None):
  """log p(x) in nats of data at t_min, by fourth-order Runge-Kutta steps of equal length in log-SNR.

  Args:
    denoiser: a denoiser with a `process`.
    x: [B, ...] data in model units.
    cond: None, or a dict of arrays with leading axis B.
    keys: [B] typed keys for the estimate of the divergence; needed for 'rademacher' and 'gaussian'.
    num_steps: steps; each costs four evaluations.
    divergence: 'exact' (one directional derivative a dimension), or an unbiased estimate with 'rademacher'
      or 'gaussian' probes, fixed along each path.
    probes: probes a sample.
    t_min: time at which x is taken to lie; the process's own by default.
    prior_log_prob: log-density [B, ...] -> [B] at the last time; `process.prior_log_prob` by default, which
      ignores what is left of the data in that marginal.

  Returns:
    ([B] nats, [B] standard error over the probes: 0 if exact, NaN for a single probe).

  Raises:
    ValueError: an unknown divergence, or missing keys.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.edm(), jnp.zeros(2), jnp.eye(2))
  >>> x = jnp.ones((1, 2))
  >>> value, _ = log_likelihood(oracle, x)
  >>> bool(abs(value - oracle.log_prob(x, jnp.full((1,), 0.002)))[0] < 1e-3)
  True
  """
  if divergence not in ("exact", "rademacher", "gaussian"):
    raise ValueError(f"divergence {divergence!r} is unknown: choose exact, rademacher or gaussian")
  if divergence != "exact" and keys is None:
    raise ValueError(f"divergence={divergence!r} draws probes: give keys=jax.random.split(jax.random.key(0), {x.shape[0]})")
  nodes = jnp.asarray(time_nodes(denoiser.process, num_steps, t_min), x.dtype)
  noise = _probes(divergence, keys, x, probes)
  x, gain = _integrate(denoiser, x, cond, noise, nodes, exact=divergence == "exact")
  prior = (prior_log_prob or denoiser.process.prior_log_prob)(x)
  values = prior[None] + gain  # [probes, B]
  if divergence == "exact":
    return values[0], jnp.zeros_like(values[0])
  count = values.shape[0]
  error = jnp.std(values, axis=0, ddof=1) / np.sqrt(count).item() if count > 1 else jnp.full_like(values[0], jnp.nan)
  return jnp.mean(values, axis=0), error


def bits_per_dim(log_prob, shape, scaling):
  """Bits per dimension of stored values from nats of model values.

  Args:
    log_prob: [B] nats in model units, of dequantised data.
    shape: shape of one example.
    scaling: `diffusion.data.Scaling`, which knows the width of a bin in model units.

  Returns:
    [B] bits/dim (arXiv:1511.01844, section 3.1).
  """
  return -log_prob / (np.prod(shape).item() * np.log(2).item()) + scaling.bits_offset


def _probes(divergence, keys, x, probes):
  """[P, B, ...]: the probes of each sample, or the D unit vectors for the exact divergence."""
  if divergence == "exact":
    size = int(np.prod(x.shape[1:]))
    units = jnp.eye(size, dtype=x.dtype).reshape(size, 1, *x.shape[1:])
    return jnp.broadcast_to(units, (size, *x.shape))
  draw = jax.random.rademacher if divergence == "rademacher" else jax.random.normal
  one = lambda key: draw(key, (probes, *x.shape[1:]), x.dtype)
  return jnp.moveaxis(jax.vmap(one)(keys), 1, 0)


@functools.partial(jax.jit, static_argnames="exact")
def _integrate(denoiser, x, cond, noise, nodes, *, exact):
  """(x at the last node, integral of the divergence [P, B], or [1, B] if exact)."""

  def slope(t, x):
    """Derivatives by log-SNR of x and of each probe's share of the divergence."""
    times = jnp.full(x.shape[:1], t)
    m = denoiser.process.marginal(t)
    # dt / d log-SNR
    rate = 0.5 / (m.d_alpha / m.alpha - m.d_sigma / m.sigma)
    velocity = lambda x: rate * denoiser(x, times, cond, views=("velocity",)).velocity
    dx, derivative = jax.linearize(velocity, x)

    def share(probe):
      return jnp.sum((probe * derivative(probe)).reshape(x.shape[0], -1), axis=1)

    shares = jax.lax.map(share, noise, batch_size=min(16, noise.shape[0]))
    return dx, jnp.sum(shares, axis=0, keepdims=True) if exact else shares

  def step(carry, ends):
    x, gain = carry
    start, middle, stop = ends
    h = denoiser.process.log_snr(stop) - denoiser.process.log_snr(start)
    k1, g1 = slope(start, x)
    k2, g2 = slope(middle, x + 0.5 * h * k1)
    k3, g3 = slope(middle, x + 0.5 * h * k2)
    k4, g4 = slope(stop, x + h * k3)
    return (x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), gain + h / 6 * (g1 + 2 * g2 + 2 * g3 + g4)), None

  gain = jnp.zeros((1 if exact else noise.shape[0], x.shape[0]), x.dtype)
  (x, gain), _ = jax.lax.scan(step, (x, gain), (nodes[:-1:2], nodes[1::2], nodes[2::2]))
  return x, gain
