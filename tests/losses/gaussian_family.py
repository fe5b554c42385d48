"""Gaussian data in closed form, and the linear family of denoisers that holds its oracle at the origin."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, losses

MEAN = (0.4, -0.7)
COVARIANCE = ((0.6, 0.2), (0.2, 0.3))
# Off the oracle, where values and gradients are of order one.
ELSEWHERE = {"matrix": ((0.2, -0.1), (0.15, 0.3)), "offset": (0.5, -0.2)}


def params(values=None, dtype=jnp.float32):
  """The family's parameters: the oracle, or the given values."""
  values = {"matrix": np.zeros((2, 2)), "offset": np.zeros(2)} if values is None else values
  return {name: jnp.asarray(value, dtype) for name, value in values.items()}


def denoiser(process):
  """eps_hat = (sigma C(t)^-1 + matrix / std) (x - alpha m) + offset: the oracle's own at parameters zero."""
  def eps_hat(own, x, t, cond):
    del cond
    m = process.marginal(t)
    mean, covariance = jnp.asarray(MEAN, x.dtype), jnp.asarray(COVARIANCE, x.dtype)
    alpha, sigma = m.alpha.astype(x.dtype)[:, None], m.sigma.astype(x.dtype)[:, None]
    centred = x - alpha * mean[None]
    a, b = alpha[..., None], sigma[..., None]
    total = a**2 * covariance[None] + b**2 * jnp.eye(2, dtype=x.dtype)[None]
    # The inverse of a 2 x 2 matrix, by its adjugate.
    determinant = total[:, 0, 0] * total[:, 1, 1] - total[:, 0, 1] ** 2
    adjugate = jnp.stack([jnp.stack([total[:, 1, 1], -total[:, 0, 1]], -1),
                          jnp.stack([-total[:, 0, 1], total[:, 0, 0]], -1)], -2)
    precision = adjugate / determinant[:, None, None]
    scale = 1.0 / jnp.sqrt(alpha**2 + sigma**2)
    matrix = b * precision + scale[..., None] * own["matrix"][None]
    return jnp.sum(matrix * centred[:, None, :], -1) + own["offset"][None]
  return denoisers.from_function(eps_hat, process, denoisers.eps(), params())


def energy(process):
  """Minus log p_t at parameters zero; of the matrix it sees the symmetric part, and its score is then the denoiser's."""
  def function(own, x, t, cond=None):
    del cond
    m = process.marginal(t)
    mean, covariance = jnp.asarray(MEAN, x.dtype), jnp.asarray(COVARIANCE, x.dtype)
    alpha, sigma = m.alpha.astype(x.dtype)[:, None], m.sigma.astype(x.dtype)[:, None]
    centred = x - alpha * mean[None]
    a, b = alpha[..., None], sigma[..., None]
    total = a**2 * covariance[None] + b**2 * jnp.eye(2, dtype=x.dtype)[None]
    determinant = total[:, 0, 0] * total[:, 1, 1] - total[:, 0, 1] ** 2
    adjugate = jnp.stack([jnp.stack([total[:, 1, 1], -total[:, 0, 1]], -1),
                          jnp.stack([-total[:, 0, 1], total[:, 0, 0]], -1)], -2)
    precision = adjugate / determinant[:, None, None] + own["matrix"][None] / (b * jnp.sqrt(a**2 + b**2))
    quadratic = 0.5 * jnp.sum(precision * centred[:, None, :] * centred[:, :, None], (1, 2))
    linear = jnp.sum(own["offset"][None] * centred / sigma, 1)
    return quadratic + linear + 0.5 * jnp.log(determinant) + jnp.log(jnp.asarray(2.0 * np.pi, x.dtype))
  return function


def visible(objective):
  """Directions [n, 6] of the flat parameters that the objective's field depends on: all, or those that keep a symmetric matrix."""
  if "energy" not in objective.needs["model"]:
    return np.eye(6)
  return np.array([[1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1.0]])


def binder(process):
  return losses.fields(model={"denoise": denoiser(process), "energy": energy(process)})


def fields(process, own, loss_params=None):
  """{role: Field} at the family's parameters."""
  return binder(process)({"model": own, "loss": {} if loss_params is None else loss_params}, {})


def batch(size, dtype=jnp.float32, seed=0):
  """A sample of the data, with labels."""
  generator = np.random.default_rng(seed)
  x = generator.multivariate_normal(MEAN, COVARIANCE, size)
  return {"x": jnp.asarray(x, dtype), "cond": {"label": jnp.asarray(generator.integers(0, 5, size), jnp.int32)}}


def quadrature(objective, process, t):
  """A draw whose mean over its rows is the expectation over x0 and eps, exact to degree 3 in them.

  Where the objective projects on random directions, it is exact to degree 3 in these too.
  """
  signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
  x0 = np.asarray(MEAN) + signs[:, :2] @ np.linalg.cholesky(np.asarray(COVARIANCE)).T
  x0, eps = jnp.asarray(x0), jnp.asarray(signs[:, 2:])
  times = jnp.full((len(signs),), t)
  state = objective.init(jax.random.key(0))[1]
  cond = {"label": jnp.zeros(len(signs), jnp.int32)}
  draw = objective.draw(jax.random.key(0), {"x": x0, "cond": cond}, times, state)
  draw = draw.replace(eps=eps, x_t=process.perturb(x0, eps, times))
  if "direction" in draw.targets:
    corners = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # all of norm sqrt(2): E v v^T = I
    draw = jax.tree.map(lambda leaf: jnp.repeat(leaf, 4, axis=0) if leaf.ndim else leaf, draw)
    draw = draw.replace(targets={"direction": jnp.tile(corners, (16, 1))[:, None]})
  return draw
