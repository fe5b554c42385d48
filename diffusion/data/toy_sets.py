"""Two-dimensional toy sets.

Each is a function (n, numpy Generator) -> (points [n, 2] float64, labels [n] or None).

Recipes: rings, squares and the olympic sets as in DDIB (arXiv:2203.08382), the checkerboard as in the code of
the density-ratio papers, swiss roll and pinwheel as in FFJORD (arXiv:1810.01367). Where there are labels they
name the component.
"""

from typing import TypeAlias

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data import sources
from diffusion.data.dataset import Dataset, describe

Points: TypeAlias = tuple[np.ndarray, np.ndarray | None]
"""Points [n, 2] and their labels [n], or None for a set without classes."""


def moons(n: int, rng: np.random.Generator) -> Points:
  """Two half circles of radius 1, noise 0.05."""
  label = np.arange(n) % 2
  angle = rng.uniform(0, np.pi, n)
  upper = np.stack([np.cos(angle), np.sin(angle)], -1)
  lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], -1)
  return np.where(label[:, None] == 0, upper, lower) + 0.05 * rng.standard_normal((n, 2)), label


def checkerboard(n: int, rng: np.random.Generator) -> Points:
  """Uniform on the 8 unit cells of [-2, 2]^2 with floor(x) + floor(y) even."""
  x = rng.uniform(-2, 2, n)
  y = rng.uniform(0, 1, n) - 2 * rng.integers(0, 2, n) + np.floor(x) % 2
  return np.stack([x, y], -1), None


def rings(n: int, rng: np.random.Generator) -> Points:
  """Circles of radius 1, 2, 3 with equally many points and radial jitter of width 0.5."""
  label = np.arange(n) % 3
  return (1 + label + _jitter(n, rng))[:, None] * _circle(n, rng), label


def squares(n: int, rng: np.random.Generator) -> Points:
  """Squares of half-side 1, 2, 3 with equally many points and jitter of width 0.5."""
  label = np.arange(n) % 3
  return (1 + label + _jitter(n, rng))[:, None] * _square(n, rng), label


def olympic_rings(n: int, rng: np.random.Generator) -> Points:
  """Three circles of radius 1 at (-2.8, 0), (0, 0), (2.8, 0), jitter of width 0.5."""
  label = np.arange(n) % 3
  centre = np.stack([2.8 * (label - 1), np.zeros(n)], -1)
  return centre + (1 + _jitter(n, rng))[:, None] * _circle(n, rng), label


def olympic_squares(n: int, rng: np.random.Generator) -> Points:
  """Three squares of half-side 1 at (-3, 0), (0, 0), (3, 0), jitter of width 0.5."""
  label = np.arange(n) % 3
  centre = np.stack([3.0 * (label - 1), np.zeros(n)], -1)
  return centre + (1 + _jitter(n, rng))[:, None] * _square(n, rng), label


def eight_gaussians(n: int, rng: np.random.Generator) -> Points:
  """Eight equal Gaussians of deviation 0.25 on a circle of radius 2."""
  label = rng.integers(0, 8, n)
  angle = label * np.pi / 4
  return 2 * np.stack([np.cos(angle), np.sin(angle)], -1) + 0.25 * rng.standard_normal((n, 2)), label


def gmm4(n: int, rng: np.random.Generator) -> Points:
  """Four equal Gaussians of deviation 0.5 at (2, 0), (0, 2), (-2, 0), (0, -2)."""
  label = rng.integers(0, 4, n)
  centres = np.array([[2, 0], [0, 2], [-2, 0], [0, -2]], dtype=np.float64)
  return centres[label] + 0.5 * rng.standard_normal((n, 2)), label


def swiss_roll(n: int, rng: np.random.Generator) -> Points:
  """Spiral r = angle / 5 for angles from 1.5 pi to 4.5 pi, noise 0.2."""
  angle = rng.uniform(1.5 * np.pi, 4.5 * np.pi, n)
  return (angle / 5)[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1) + 0.2 * rng.standard_normal(
    (n, 2)
  ), None


def pinwheel(n: int, rng: np.random.Generator) -> Points:
  """A pinwheel of five Gaussian arms in the plane.

  An arm has a radial Gaussian (1, 0.3) and a tangential one (0, 0.1), turned by 0.25 exp(radius), times 2.
  """
  label = np.arange(n) % 5
  radial, tangential = 1 + 0.3 * rng.standard_normal(n), 0.1 * rng.standard_normal(n)
  angle = label * 2 * np.pi / 5 + 0.25 * np.exp(radial)
  cos, sin = np.cos(angle), np.sin(angle)
  return 2 * np.stack([radial * cos - tangential * sin, radial * sin + tangential * cos], -1), label


TOY2D = {
  make.__name__: make
  for make in (
    moons,
    checkerboard,
    rings,
    squares,
    olympic_rings,
    olympic_squares,
    eight_gaussians,
    gmm4,
    swiss_roll,
    pinwheel,
  )
}


def toy2d(
  name: str,
  size: int = 100_000,
  seed: int = 0,
  *,
  held_out_size: int = 10_000,
  num_classes: int | None = None,
) -> Dataset:
  """A two-dimensional toy set, drawn once from a seed and standardised by one scalar mean and deviation.

  Args:
    name: one of `TOY2D`.
    size, held_out_size: number of training and held-out points (drawn independently).
    seed: integer >= 0; fixes the points, not the order of training.
    num_classes: None for the set's own labels, 0 to ignore them.
  Returns:
    `Dataset` with shape (2,).
  Raises:
    UserError: for an unknown name or a size below one.

  >>> dataset = toy2d("rings", size=300, held_out_size=30)
  >>> dataset.shape, dataset.num_classes, len(dataset.train), len(dataset.held_out)
  ((2,), 3, 300, 30)
  """
  if name not in TOY2D:
    raise UserError(f"there is no toy set {name!r}: choose one of {', '.join(TOY2D)}")
  if size < 1 or held_out_size < 0:
    raise UserError(
      f"size={size} and held_out_size={held_out_size}: a toy set needs at least one training point"
    )
  drawn = [
    TOY2D[name](count, np.random.default_rng([seed, part]))
    for part, count in enumerate((size, held_out_size))
  ]
  parts = [sources.Arrays(x.astype(np.float32), label) for x, label in drawn]
  count = 0 if drawn[0][1] is None else int(parts[0].label.max()) + 1
  return describe(
    name,
    *parts,
    split=f"{held_out_size} held-out points drawn independently of the {size} training points",
    class_names=tuple(map(str, range(count))),
    num_classes=num_classes,
  )


def _jitter(n, rng, width=0.5):
  return (rng.uniform(0, 1, n) - 0.5) * width


def _circle(n, rng):
  angle = rng.uniform(0, 2 * np.pi, n)
  return np.stack([np.cos(angle), np.sin(angle)], -1)


def _square(n, rng):
  """Uniform on the edge of [-1, 1]^2."""
  along, side = rng.uniform(-1, 1, n), rng.integers(0, 4, n)
  across = np.where(side % 2 == 0, 1.0, -1.0)
  return np.where((side < 2)[:, None], np.stack([across, along], -1), np.stack([along, across], -1))
