"""Each toy set has the support, the radii and the masses that its recipe says."""

import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.data import TOY2D, load, stream, toy2d

COUNT = 24_000


@pytest.fixture(scope="module")
def drawn():
  return {name: make(COUNT, np.random.default_rng(0)) for name, make in TOY2D.items()}


def test_checkerboard_fills_exactly_the_even_cells(drawn):
  x, _ = drawn["checkerboard"]
  cells = np.floor(x).astype(int)
  assert (cells.sum(1) % 2 == 0).all() and np.abs(x).max() <= 2
  _, counts = np.unique(cells, axis=0, return_counts=True)
  assert len(counts) == 8
  assert (
    (counts - COUNT / 8) ** 2 / (COUNT / 8)
  ).sum() < 29.9  # chi-square, 7 degrees of freedom, probability 1e-4
  assert abs(x.std() - np.sqrt(4 / 3)) < 0.02


@pytest.mark.parametrize("name, norm", [("rings", 2), ("squares", np.inf)])
def test_rings_and_squares_have_radii_one_two_three(drawn, name, norm):
  x, label = drawn[name]
  offset = np.linalg.norm(x, ord=norm, axis=1) - (1 + label)
  assert np.abs(offset).max() <= 0.25
  assert (np.bincount(label) == COUNT // 3).all()
  assert abs(offset.mean()) < 4 * 0.5 / np.sqrt(12 * COUNT)


@pytest.mark.parametrize(
  "name, norm, distance", [("olympic_rings", 2, 2.8), ("olympic_squares", np.inf, 3.0)]
)
def test_olympic_figures_stand_side_by_side(drawn, name, norm, distance):
  x, label = drawn[name]
  around = x - np.stack([distance * (label - 1), np.zeros(COUNT)], -1)
  assert np.abs(np.linalg.norm(around, ord=norm, axis=1) - 1).max() <= 0.25


@pytest.mark.parametrize(
  "name, modes, radius, std", [("eight_gaussians", 8, 2.0, 0.25), ("gmm4", 4, 2.0, 0.5)]
)
def test_mixtures_have_equal_masses_and_the_stated_deviation(drawn, name, modes, radius, std):
  x, label = drawn[name]
  counts = np.bincount(label)
  assert len(counts) == modes
  assert (
    (counts - COUNT / modes) ** 2 / (COUNT / modes)
  ).sum() < 29.9  # chi-square, at most 7 degrees, probability 1e-4
  angle = 2 * np.pi * label / modes
  rest = x - radius * np.stack([np.cos(angle), np.sin(angle)], -1)
  # A sample variance of 2n Gaussian numbers has relative deviation 1/sqrt(n); four of those.
  assert abs(rest.var() / std**2 - 1) < 4 / np.sqrt(COUNT)


def test_moons_lie_on_two_half_circles(drawn):
  x, label = drawn["moons"]
  centre = np.stack([label.astype(float), 0.5 * label], -1)
  distance = np.linalg.norm(x - centre, axis=1) - 1
  assert abs(distance.std() - 0.05) < 0.002 and abs(distance.mean()) < 0.005


def test_pinwheel_arms_are_turned_copies(drawn):
  x, label = drawn["pinwheel"]
  second_moment = [(x[label == arm] ** 2).sum(1).mean() for arm in range(5)]
  # E r^2 = 4 (1 + 0.3^2 + 0.1^2) for every arm.
  np.testing.assert_allclose(second_moment, 4 * 1.1, rtol=0.05)
  np.testing.assert_allclose(x.mean(0), 0, atol=0.06)


def test_swiss_roll_radius_grows_with_the_angle(drawn):
  x, _ = drawn["swiss_roll"]
  radius = np.linalg.norm(x, axis=1)
  # r^2 = angle^2 / 25 + noise; E angle^2 for U(1.5 pi, 4.5 pi) is 9.75 pi^2.
  assert abs((radius**2).mean() - (9.75 * np.pi**2 / 25 + 2 * 0.04)) < 0.05


@pytest.mark.parametrize("name", TOY2D)
def test_a_set_is_fixed_by_its_seed_and_standardised(name):
  first, again, other = (load(toy2d(name, 500, seed, held_out_size=100).train)["x"] for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)
  dataset = toy2d(name, 512, held_out_size=100)
  x = next(stream(dataset, 512, 0))["x"]
  assert abs(x.mean()) < 1e-3 and abs(x.std() - 1) < 1e-3
  np.testing.assert_allclose(
    np.sort(dataset.scaling.to_data(x), 0), np.sort(load(dataset.train)["x"], 0), atol=1e-5
  )
  assert not set(map(tuple, load(dataset.held_out)["x"])) & set(map(tuple, load(dataset.train)["x"]))


def test_an_unknown_set_is_answered_with_the_known_ones():
  with pytest.raises(UserError, match="checkerboard"):
    toy2d("chessboard")
