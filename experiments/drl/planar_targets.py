"""Two-dimensional sets as densities: samples, the exact density at every noise level, and exact masses of
blocks of the plane."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr

from diffusion import oracles


@dataclasses.dataclass(frozen=True)
class Target:
  """A set, standardised by its deviation of one coordinate.

  Attributes:
    sample: (key, n) -> [n, 2].
    log_prob: (x [B, 2], t [B]) -> [B] nats, of the set under the process.
    masses: [8, 8] of the clean set in equal blocks of [-reach, reach]^2.
    reach: of the blocks.
    inside: x [n, 2] -> [n] bool, whether a point lies where the clean set has its mass.
  """

  sample: Callable
  log_prob: Callable
  masses: np.ndarray
  reach: float
  inside: Callable


def target(name: str, process: Any) -> Target:
  """`checkerboard` or `eight_gaussians` of `data.TOY2D`. Raises ValueError for another name."""
  if name not in TARGETS:
    raise ValueError(f"there is no density of the set '{name}': there are {', '.join(TARGETS)}")
  return TARGETS[name](process)


def block_variation(x: jax.Array, target: Target) -> float:
  """Total variation between points [n, 2] and the clean set over 8 x 8 blocks, and what lies outside of
  them."""
  edges = np.linspace(-target.reach, target.reach, 9)
  counted = np.histogram2d(*np.asarray(x, np.float64).T, bins=[edges, edges])[0] / len(x)
  outside = abs(counted.sum() - target.masses.sum())
  return float(0.5 * (np.abs(counted - target.masses).sum() + outside))


def checkerboard(process: Any) -> Target:
  """Uniform on the eight unit cells of [-2, 2]^2 with an even sum of their corners; deviation sqrt(4/3)."""
  std = float(np.sqrt(4.0 / 3.0))
  cells = np.array([(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0], np.float64) / std

  def sample(key, n):
    which, place = jax.random.split(key)
    corner = jnp.asarray(cells, jnp.float32)[jax.random.randint(which, (n,), 0, 8)]
    return corner + jax.random.uniform(place, (n, 2)) / std

  def log_prob(x, t):
    m = process.marginal(t)
    alpha, sigma = m.alpha[:, None, None], m.sigma[:, None, None]
    low = (alpha * jnp.asarray(cells, x.dtype)[None] - x[:, None, :]) / sigma
    high = low + alpha / (std * sigma)
    # Of the interval's two tails the one without cancellation.
    left, right = jnp.where(low + high < 0, low, -high), jnp.where(low + high < 0, high, -low)
    upper, lower = log_ndtr(right), log_ndtr(left)
    mass = upper + jnp.log(-jnp.expm1(jnp.minimum(lower - upper, -1e-7)))
    return jax.nn.logsumexp(jnp.sum(mass + jnp.log(std / alpha), axis=2), axis=1) - float(np.log(8.0))

  def inside(x):
    x = np.asarray(x) * std
    return (np.abs(x).max(axis=1) < 2) & (np.floor(x).sum(axis=1) % 2 == 0)

  corner = np.floor(np.arange(-2.0, 2.0, 0.5))
  masses = np.where((corner[:, None] + corner[None]) % 2 == 0, 1.0 / 32.0, 0.0)
  return Target(sample, log_prob, masses, 2.0 / std, inside)


def eight_gaussians(process: Any) -> Target:
  """Eight equal Gaussians of deviation 1/4 on a circle of radius 2; a point is inside within three of their
  deviations."""
  std = float(np.sqrt(2.0 + 1.0 / 16.0))
  angles = 2 * np.pi * np.arange(8) / 8
  centres, width = 2.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1) / std, 0.25 / std
  oracle = oracles.gaussian_mixture(process, None, centres, width**2, dtype=jnp.float32)
  reach = 3.0 / std
  edges = np.linspace(-reach, reach, 9)
  along = np.diff(np.asarray(ndtr((edges[None, None] - centres[:, :, None]) / width), np.float64), axis=2)
  masses = np.einsum("ki,kj->ij", along[:, 0], along[:, 1]) / 8
  inside = lambda x: np.linalg.norm(np.asarray(x)[:, None] - centres[None], axis=2).min(axis=1) < 3 * width
  return Target(lambda key, n: oracle.sample(key, n), oracle.log_prob, masses, reach, inside)


TARGETS = {"checkerboard": checkerboard, "eight_gaussians": eight_gaussians}
