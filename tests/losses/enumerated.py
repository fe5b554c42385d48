"""Expectations of objectives of whole numbers by enumeration, in float64: a small joint, a tabular model."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, losses


def joint(size, values, seed=0):
  """A fixed random joint [K, ..., K] of D coordinates."""
  return np.random.default_rng(seed).dirichlet(np.full(values**size, 0.7)).reshape((values,) * size)


def entropy(p):
  return -float(np.sum(p * np.log(p)))


def states(values, size):
  """Every state, in the order of a table flattened row by row: [K^D, D]."""
  return np.array(list(itertools.product(range(values), repeat=size)), np.int32)


def integral(nodes, low=0.0, high=1.0):
  """Nodes and weights of Gauss and Legendre's rule."""
  u, w = np.polynomial.legendre.leggauss(nodes)
  return low + 0.5 * (high - low) * (u + 1.0), 0.5 * (high - low) * w


def smooth_integral(nodes, reach=3.0):
  """Nodes and weights on (0, 1) of the double exponential rule: for logarithms at the ends."""
  h = 2.0 * reach / (nodes - 1)
  s = np.linspace(-reach, reach, nodes)
  t = 0.5 * (1.0 + np.tanh(0.5 * np.pi * np.sinh(s)))
  return t, h * 0.25 * np.pi * np.cosh(s) / np.cosh(0.5 * np.pi * np.sinh(s)) ** 2


def pairs(p, transition):
  """Every (x_0, x_t) of positive probability: x_0 [N, D], x_t [N, D], their probability [N].

  transition: [K, S], q(x_t = j | x_0 = i) of each coordinate.
  """
  size, (values, outcomes) = p.ndim, transition.shape
  x0, x_t = states(values, size), states(outcomes, size)
  q = np.prod(transition[x0[:, None], x_t[None]], axis=-1) * p.reshape(-1)[:, None]
  i, j = np.nonzero(q)
  return x0[i], x_t[j], q[i, j]


def posterior(p, transition):
  """p(x_0 = k | x_t) of each coordinate: [S^D, D, K]; even where x_t has no probability."""
  size, (values, outcomes) = p.ndim, transition.shape
  found = []
  for d in range(size):
    table = p
    for axis in range(size):
      if axis != d:
        table = np.moveaxis(np.tensordot(table, transition, (axis, 0)), -1, axis)
    table = np.moveaxis(table, d, -1)[..., None, :] * transition.T  # [x_t but d, x_t of d, k]
    found.append(np.moveaxis(table, -2, d).reshape(outcomes**size, values))
  found = np.stack(found, axis=1)
  total = found.sum(-1, keepdims=True)
  return np.where(total > 0, found / np.where(total > 0, total, 1.0), 1.0 / values)


def tabular(process, logits, outcomes):
  """The denoiser whose logits [S^D, D, K] are read from a table, whatever the time."""
  size = logits.shape[1]
  powers = np.array([outcomes ** (size - 1 - d) for d in range(size)], np.int32)

  def look_up(logits, x, t, cond):
    return logits[jnp.sum(x * powers[None], axis=1)]

  return denoisers.from_function(look_up, process, denoisers.logits(), logits)


def expected(objective, process, outcomes):
  """A jitted function (logits, placed, weights) -> (sum of weights times values, its gradient in logits)."""

  @jax.jit
  def value(logits, placed, weights):
    roles = {"model": tabular(process, logits, outcomes)}
    terms = objective.evaluate(roles, placed, {}, {}, losses.START)
    return jnp.sum(weights * (terms.interior + terms.boundary))

  return jax.jit(jax.value_and_grad(value))


def placed(t, x0, x_t, **targets):
  """A placed draw at one time."""
  draw = losses.Draw(t=jnp.full(len(x0), t), x0=jnp.asarray(x0), targets=targets)
  return losses.placed_at(draw, jnp.asarray(x_t))


def masking(noised, values):
  """The transition [K, K + 1] of a mask of some probability."""
  return np.concatenate([(1 - noised) * np.eye(values), np.full((values, 1), noised)], axis=1)


def kernel(process, t):
  """q(x_t | x_0) of one coordinate, [K, S] in float64."""
  return np.asarray(process.transition(None, np.float64(t)))[: process.num_values]


def log_posterior(process, p, t):
  """The exact logits at t of data p: [S^D, D, K]."""
  return np.log(np.maximum(posterior(p, kernel(process, t)), 1e-300))


def bound(program, process, p, logits, rule):
  """The integral over t of an expected value, and of its gradient in the logits.

  Args:
    program: of `expected`.
    logits: t -> [S^D, D, K].
    rule: nodes and weights.
  """
  total, slope = 0.0, 0.0
  for t, weight in zip(*rule):
    x0, x_t, q = pairs(p, kernel(process, t))
    found = program(jnp.asarray(logits(t)), placed(t, x0, x_t), jnp.asarray(weight * q))
    total, slope = total + float(found[0]), slope + np.asarray(found[1])
  return total, slope
