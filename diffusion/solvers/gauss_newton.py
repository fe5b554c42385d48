"""Residuals of a sampler against a fine solution, and their derivatives, for Gauss-Newton steps.

The residual at one noise is the error of the sample and, times `guide`, the root mean square over the
evaluations of the error of the predicted data against the prediction on the exact path at the same time. The
end alone says nothing of a noise that fell into another mode; the predictions along the way do, and they do
not ask for what the flow forgets.

All derivatives of D residuals by P coordinates would be D backward passes a noise, or P forward ones. A few
directions a noise are enough: the first is the residual's own, so that the gradient is exact, and the others
are random and make the matrix of the normal equations unbiased. Derivatives are taken by each noise's own
copy of times and weights, so one backward pass over the batch serves one direction of every noise.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes import expand
from diffusion.solvers import fit_coordinates


def _run(denoiser, steps, x, cond):
  """The sample [B, ...] and all data predictions [N, B, ...].

  Leaves of steps are each noise's own: [B, N, ...].
  """

  def row(carry, now):
    u, past = carry
    t, ratio, weights = now
    seen = denoiser(u, t, cond, views=("x0",)).x0.astype(u.dtype)
    past = (seen, *past[:-1])
    total = expand(ratio, u) * u
    for k, value in enumerate(past):
      total = total + expand(weights[:, k], u) * value
    return (total, past), seen

  rows = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), steps)
  (u, _), seen = jax.lax.scan(row, (x, (jnp.zeros_like(x),) * steps.t.shape[1]), rows)
  return u, seen


def _residuals(denoiser, steps, x, cond, target, guide):
  """[N, B, ...]: guide/sqrt(N-1) times the errors of D_1, ..., D_N-1, then the error of the sample."""
  sample, predictions = _run(denoiser, steps, x, cond)
  end, clocks, data = target
  last = (sample - end)[None]
  count = predictions.shape[0]
  if count == 1:
    return last
  m = denoiser.process.marginal(steps.t[:, 1:])
  place = (fit_coordinates.clock(m.alpha, m.sigma, jnp) - clocks[0]) / (clocks[1] - clocks[0])
  below = jnp.clip(
    jnp.floor(place[0]).astype(jnp.int32), 0, len(clocks) - 2
  )  # copies of one sampler have equal times
  part = jnp.moveaxis(place - below.astype(place.dtype)[None], 1, 0)
  part = part.reshape(part.shape + (1,) * (data.ndim - 2))
  exact = (1 - part) * data[below] + part * data[below + 1]
  return jnp.concatenate([guide / np.sqrt(count - 1).item() * (predictions[1:] - exact), last])


def _copies(steps, count):
  return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), steps)


@jax.jit
def sizes(denoiser: Any, steps: Any, x: Any, cond: Any, target: Any, guide: Any) -> Any:
  """The sizes of each noise's residual and of its sample's error: [B], [B].

  Both are root mean squares over the entries of x.
  """
  found = _residuals(denoiser, _copies(steps, x.shape[0]), x, cond, target, guide)
  square = jnp.mean(found**2, axis=tuple(range(2, found.ndim)))
  return jnp.sqrt(jnp.sum(square, axis=0)), jnp.sqrt(square[-1])


@functools.partial(jax.jit, static_argnames="directions")
def derivatives(
  denoiser: Any, steps: Any, x: Any, cond: Any, target: Any, guide: Any, key: jax.Array, *, directions: int
) -> Any:
  """Residuals along a few directions and their derivatives by each noise's own steps.

  Args:
    denoiser: a pytree, called with x and t.
    steps: `fit_coordinates.Steps` of one sampler.
    x: [B, ...] starts.
    cond: None or a dict of arrays.
    target: (end [B, ...], clocks [M], data [M, B, ...]) as in `Reference`.
    guide: weight of the predictions, a traced number.
    key: for the random directions.
    directions: how many, at least 1; as many as there are residuals are exact.

  Returns:
    residuals [directions, B] and derivatives [directions, B, L], L the entries of steps in a row, both
    divided by the root of the number of entries of a sample.
  """
  batch, shape = x.shape[0], x.shape
  found, back = jax.vjp(
    lambda copies: _residuals(denoiser, copies, x, cond, target, guide), _copies(steps, batch)
  )
  flat = jnp.moveaxis(found, 1, 0).reshape(batch, -1)
  size = flat.shape[1]
  count = min(directions, size)
  if count == size:
    along = jnp.broadcast_to(jnp.eye(size, dtype=x.dtype)[:, None, :], (size, batch, size))
  else:
    own = flat / jnp.maximum(jnp.sqrt(jnp.sum(flat**2, axis=1, keepdims=True)), jnp.finfo(x.dtype).tiny)
    random = jax.random.normal(key, (count - 1, batch, size), x.dtype)
    random = random - jnp.sum(random * own[None], axis=2, keepdims=True) * own[None]
    along = jnp.concatenate([own[None], random / np.sqrt(max(count - 1, 1)).item()])

  def one(direction):
    cotangent = jnp.moveaxis(direction.reshape(batch, found.shape[0], *shape[1:]), 1, 0)
    return jnp.concatenate([leaf.reshape(batch, -1) for leaf in back(cotangent)[0]], axis=1)

  unit = 1 / np.sqrt(np.prod(shape[1:])).item()
  return unit * jnp.sum(along * flat[None], axis=2), unit * jax.lax.map(one, along)


def damped_step(rows: jax.Array, residual: Any, scale: Any, damping: Any, pull: Any, away: Any) -> Any:
  """argmin_z |residual + rows z|^2 + damping |scale z|^2 + pull |away + z|^2, by least squares in float64.

  Args:
    rows: [R, P] derivatives.
    residual: [R].
    scale: [P] units of the coordinates.
    damping, pull: numbers.
    away: [P] how far the coordinates are from where they are pulled to.

  >>> step = damped_step(np.array([[1.0], [1.0]]), np.array([1.0, 3.0]), np.ones(1), 0.0, 0.0, np.zeros(1))
  >>> step.round(12).tolist()
  [-2.0]
  """
  size = len(scale)
  stacked = np.concatenate([rows, np.sqrt(damping) * np.diag(scale), np.sqrt(pull) * np.eye(size)])
  wanted = np.concatenate([residual, np.zeros(size), np.sqrt(pull) * away])
  return -np.linalg.lstsq(stacked, wanted, rcond=None)[0]
