"""The map between data and latents along the probability-flow ODE, with its change of log-volume.

dx/dt = velocity(x, t) (arXiv:2011.13456, eq. 13) is deterministic and invertible: the latent of an example is
decided by the process and the scores alone, so two models of the same data encode alike (arXiv:2011.13456,
section 4.3).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffusion.likelihood import divergence as divergences
from diffusion.likelihood.steps import Steps, flow_steps


def encode(
  denoiser: Any,
  x: jax.Array,
  *,
  cond: Mapping[str, jax.Array] | None = None,
  num_steps: int = 64,
  steps: Steps | None = None,
  t_min: float | None = None,
  t_max: float | None = None,
) -> jax.Array:
  """Latents of data: x at t_min carried to t_max.

  Args:
    denoiser: a denoiser with a `process`.
    x: [B, ...] data in model units.
    cond: None, or a dict of arrays with leading axis B.
    num_steps: Runge-Kutta steps of equal length in log-SNR, four evaluations each; the error falls as
      num_steps^-4.
    steps: `flow_steps` made before, in place of `num_steps`, `t_min` and `t_max`.
    t_min, t_max: ends; the process's own by default, t_max cut at log-SNR -10.2.

  Returns:
    [B, ...] latents, nearly N(0, prior_std^2 I).

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.vp_linear(), jnp.zeros(2), 4.0)
  >>> z = encode(oracle, jnp.array([[2.0, -4.0]]), num_steps=32)
  >>> z.round(2).tolist()
  [[1.0, -2.0]]
  >>> decode(oracle, z, num_steps=32).round(3).tolist()
  [[2.0, -4.0]]
  """
  x = at_least_float32(x)
  steps = (
    flow_steps(denoiser.process, num_steps, t_min=t_min, t_max=t_max, dtype=x.dtype)
    if steps is None
    else steps
  )
  return transport(denoiser, x, cond, steps, None, exact=False)[0]


def decode(
  denoiser: Any,
  z: jax.Array,
  *,
  cond: Mapping[str, jax.Array] | None = None,
  num_steps: int = 64,
  steps: Steps | None = None,
  t_min: float | None = None,
  t_max: float | None = None,
) -> jax.Array:
  """Data of latents: z at t_max carried to t_min, the inverse of `encode` with the same arguments.

  Args:
    denoiser, cond, num_steps, t_min, t_max: as for `encode`.
    z: [B, ...] latents.
    steps: `flow_steps(..., backward=True)` made before.

  Returns:
    [B, ...] data in model units, at the noise level of t_min.
  """
  z = at_least_float32(z)
  if steps is None:
    steps = flow_steps(denoiser.process, num_steps, t_min=t_min, t_max=t_max, backward=True, dtype=z.dtype)
  return transport(denoiser, z, cond, steps, None, exact=False)[0]


@functools.partial(jax.jit, static_argnames="exact")
def transport(
  denoiser: Any,
  x: jax.Array,
  cond: Mapping[str, jax.Array] | None,
  steps: Steps,
  probes: jax.Array | None,
  *,
  exact: bool,
) -> tuple[jax.Array, jax.Array]:
  """Carries x along the steps, and the integral of the divergence with it.

  Args:
    denoiser: a denoiser.
    x: [B, ...] at the first time.
    cond: None, or a dict of arrays.
    steps: `Steps`.
    probes: [P, B, ...] for the estimated divergence, else None.
    exact: whether to take the exact divergence.

  Returns:
    (x at the last time, integral of the divergence [P, B], [1, B] if exact, [0, B] without either).
  """
  count = 1 if exact else 0 if probes is None else probes.shape[0]

  def evaluate(row, w):
    times = jnp.full(w.shape[:1], row.t)

    def velocity(w):
      return (
        row.scale / row.norm * denoiser(row.norm * w, times, cond, views=("velocity",)).velocity
        - row.shrink * w
      )

    if not count:
      return velocity(w), jnp.zeros((0, w.shape[0]), w.dtype)
    k, derivative = jax.linearize(velocity, w)
    if exact or probes is None:
      return k, divergences.exact(derivative, w)
    return k, divergences.estimates(derivative, probes)

  def stage(carry, row):
    u, w, moved, gain = carry
    k, change = evaluate(row, w)
    moved, gain = moved + row.weight * k, gain + row.weight * change
    w = u + jnp.where(row.last, moved, row.reach * k)
    return (jnp.where(row.last, w, u), w, jnp.where(row.last, 0.0, moved), gain), None

  u = x / steps.ends[0]
  none = jnp.zeros_like(u)  # which inside a shard_map varies as u does
  start = (u, u, none, jnp.broadcast_to(none.reshape(u.shape[0], -1)[:, 0][None], (count, u.shape[0])))
  rows = jax.tree.map(jnp.asarray, dataclasses.replace(steps, ends=jnp.zeros_like(steps.t)))
  (u, _, _, gain), _ = jax.lax.scan(stage, start, rows)
  return steps.ends[1] * u, gain + np.prod(x.shape[1:]).item() * jnp.log(steps.ends[1] / steps.ends[0])


def at_least_float32(x: ArrayLike) -> jax.Array:
  """The array in float32, or float64 if it is: 16 bits hold neither a latent nor a log-density."""
  x = jnp.asarray(x)
  return x if x.dtype == np.float64 else x.astype(jnp.float32)
