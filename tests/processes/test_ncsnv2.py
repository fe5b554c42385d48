"""NCSNv2's rules against published and derived numbers, brute force and simulation (arXiv:2006.09011)."""

import math

import numpy as np
import pytest

from diffusion.processes import ncsnv2

# dimensions, gamma to the printed digits, sigma_1, the number of levels that gamma implies
LADDERS = [
  (3072, 1.0398, 4, 50.0, 219),
  (12288, 1.0195, 4, 90.0, 472),
  (27648, 1.0129, 4, 140.0, 745),
  (49152, 1.00966, 5, 190.0, 1026),
  (196608, 1.00481, 5, 348.0, 2182),
  (64, 1.361, 3, 5.0, 21),
]
CIFAR_RATIO = 1.03756


@pytest.mark.parametrize("dim, gamma, digits, sigma_1, levels", LADDERS)
def test_spacing_of_the_papers_data_sets(dim, gamma, digits, sigma_1, levels):
  found = ncsnv2.spacing_ratio(dim)
  assert round(found, digits) == gamma
  assert abs(ncsnv2.level_overlap(found, dim) - 0.5) < 1e-9
  assert ncsnv2.num_levels(sigma_1, 0.01, found) == levels


@pytest.mark.parametrize(
  "sigma_1, dim, levels",
  [(50, 3072, 232), (90, 12288, 500), (140, 27648, 788), (190, 49152, 1086), (348, 196608, 2311)],
)
def test_overlap_of_the_ladders_that_the_paper_used(sigma_1, dim, levels):
  sigmas = ncsnv2.noise_levels(sigma_1, 0.01, levels)
  ratios = sigmas[:-1] / sigmas[1:]
  np.testing.assert_allclose(ratios, ratios[0], rtol=1e-10)
  assert 0.566 <= ncsnv2.level_overlap(ratios[0], dim) <= 0.567
  np.testing.assert_allclose(sigmas[[0, -1]], [sigma_1, 0.01])


def test_overlap_is_the_share_of_common_radii():
  """At large D the radius of N(0, I) is nearly N(sqrt(D), 1/2), which the rule integrates."""
  dim, gamma = 4000, 1.035
  rng = np.random.default_rng(0)
  radius = np.sqrt(rng.chisquare(dim, size=200_000))
  # Within three deviations, each gamma / sqrt(2), of the larger level's typical radius.
  share = np.mean(np.abs(radius - gamma * math.sqrt(dim)) < 3.0 * gamma / math.sqrt(2))
  # Five standard errors, and the Berry-Esseen distance of a chi variable from a normal one.
  error = 5 * 0.5 / math.sqrt(radius.size) + 0.5 / math.sqrt(dim)
  assert abs(share - ncsnv2.level_overlap(gamma, dim)) < error


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_spacing_is_vacuous_in_few_dimensions(dim):
  assert min(ncsnv2.level_overlap(g, dim) for g in np.geomspace(1, 1e6, 500)) > 0.5
  with pytest.raises(ValueError, match="D >= 5"):
    ncsnv2.spacing_ratio(dim)


@pytest.mark.parametrize("overlap", [0.1, 0.5, 0.9])
def test_spacing_solves_the_rule_for_any_overlap(overlap):
  for dim in (5, 30, 3072):
    assert abs(ncsnv2.level_overlap(ncsnv2.spacing_ratio(dim, overlap), dim) - overlap) < 1e-9


# steps to a level, epsilon to the printed digits, the value reached
LANGEVIN = [
  (1, 7.1e-6, 7, 1.071, 3),
  (3, 6.6e-6, 7, 1.062, 3),
  (5, 6.2e-6, 7, 1.0555, 4),
  (10, 5.3e-6, 7, 1.044, 3),
  (100, 1.66e-6, 8, 1.011, 3),
]


@pytest.mark.parametrize("steps, epsilon, places, value, digits", LANGEVIN)
def test_langevin_step_size_for_cifar10(steps, epsilon, places, value, digits):
  found = ncsnv2.langevin_step_size(CIFAR_RATIO, 0.01, steps)
  assert round(found, places) == pytest.approx(epsilon, rel=1e-9)
  assert round(ncsnv2.langevin_variance_ratio(found, CIFAR_RATIO, 0.01, steps), digits) == value


def test_langevin_step_size_for_other_ladders():
  celeba = (90 / 0.01) ** (1 / 499)
  found = ncsnv2.langevin_step_size(celeba, 0.01, 5)
  assert round(found, 7) == pytest.approx(3.3e-6)
  # The paper's rounded epsilon reaches the same value to the printed digits.
  assert round(ncsnv2.langevin_variance_ratio(3.3e-6, celeba, 0.01, 5), 3) == 1.031
  # Eight by eight images: sigma from 5 to 0.01 in 22 to 24 levels.
  epsilons, values = zip(
    *[
      (e, ncsnv2.langevin_variance_ratio(e, g, 0.01, 5))
      for g in ((5 / 0.01) ** (1 / (n - 1)) for n in (22, 23, 24))
      for e in [ncsnv2.langevin_step_size(g, 0.01, 5)]
    ]
  )
  assert min(epsilons) < 2.45e-5 and max(epsilons) > 2.35e-5
  assert min(values) < 1.185 and max(values) > 1.175


@pytest.mark.parametrize("ratio", [1.005, 1.04, 1.4, 3.0])
@pytest.mark.parametrize("steps", [1, 5, 100])
def test_langevin_step_size_is_the_best_of_a_grid(ratio, steps):
  sigma_L = 0.3
  best = ncsnv2.langevin_variance_ratio(
    ncsnv2.langevin_step_size(ratio, sigma_L, steps), ratio, sigma_L, steps
  )
  grid = np.geomspace(1e-8, 1.0, 5000) * sigma_L**2
  assert best <= min(ncsnv2.langevin_variance_ratio(e, ratio, sigma_L, steps) for e in grid) + 1e-12
  assert best > 1


@pytest.mark.parametrize("level", [0, 7])
def test_variance_ratio_is_the_variance_recursion(level):
  sigmas = ncsnv2.noise_levels(5.0, 0.01, 22)
  ratio, epsilon, steps = sigmas[0] / sigmas[1], 2.4e-5, 5
  before, sigma = sigmas[level], sigmas[level + 1]
  step = epsilon * sigma**2 / sigmas[-1] ** 2
  variance = before**2
  for _ in range(steps):
    variance = (1 - step / sigma**2) ** 2 * variance + 2 * step
  assert variance / sigma**2 == pytest.approx(
    ncsnv2.langevin_variance_ratio(epsilon, ratio, sigmas[-1], steps), rel=1e-12
  )


def test_variance_ratio_is_what_langevin_chains_have():
  """Chains in 8 dimensions; six standard errors of a variance from n Gaussian numbers, sqrt(2/n)."""
  rng = np.random.default_rng(1)
  ratio, sigma_L, steps = 1.36, 0.01, 5
  epsilon = ncsnv2.langevin_step_size(ratio, sigma_L, steps)
  sigma = 0.7  # any level
  step = epsilon * sigma**2 / sigma_L**2
  x = ratio * sigma * rng.standard_normal((25_000, 8))
  for _ in range(steps):
    x = x - step * x / sigma**2 + math.sqrt(2 * step) * rng.standard_normal(x.shape)
  claimed = ncsnv2.langevin_variance_ratio(epsilon, ratio, sigma_L, steps)
  assert abs(np.mean(x**2) / sigma**2 - claimed) < 6 * claimed * math.sqrt(2 / x.size)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_initial_sigma_is_the_largest_pairwise_distance(offset, chunk):
  rng = np.random.default_rng(2)
  data = offset + rng.standard_normal((300, 3, 2)) * np.exp(rng.standard_normal((300, 1, 1)))
  flat = data.reshape(300, -1)
  brute = max(np.linalg.norm(flat - row, axis=1).max() for row in flat)
  assert ncsnv2.initial_sigma(data, chunk=chunk) == pytest.approx(brute, rel=1e-14)


def test_initial_sigma_of_special_data():
  assert ncsnv2.initial_sigma(np.ones((5, 2))) == 0.0
  points = np.exp(2j * np.pi * np.arange(100) / 100)
  assert ncsnv2.initial_sigma(np.stack([points.real, points.imag], 1), chunk=9) == pytest.approx(2.0)
  rng = np.random.default_rng(3)
  data = rng.integers(0, 256, (200, 12)).astype(np.uint8)
  whole = ncsnv2.initial_sigma(data)
  assert whole == pytest.approx(ncsnv2.initial_sigma(data.astype(np.float64)))
  assert ncsnv2.initial_sigma(data, subsample=50) <= whole == ncsnv2.initial_sigma(data, subsample=200)
  with pytest.raises(ValueError, match="finite"):
    ncsnv2.initial_sigma(np.array([[0.0], [np.nan]]))
  with pytest.raises(ValueError, match="two or more"):
    ncsnv2.initial_sigma(np.zeros((1, 3)))


def test_ema_half_life_is_when_half_is_forgotten():
  decay, batch = 0.999, 128
  steps = ncsnv2.ema_half_life(decay, batch) / batch
  assert decay**steps == pytest.approx(0.5)
  assert ncsnv2.ema_decay(ncsnv2.ema_half_life(decay, batch), batch) == pytest.approx(decay, rel=1e-14)


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: ncsnv2.spacing_ratio(64, overlap=1.2), "overlap"),
    (lambda: ncsnv2.num_levels(0.01, 50.0, 1.1), "sigma_1"),
    (lambda: ncsnv2.num_levels(50.0, 0.01, 1.0), "above 1"),
    (lambda: ncsnv2.noise_levels(50.0, 0.01, 1), "two or more"),
    (lambda: ncsnv2.langevin_variance_ratio(1.0, 1.1, 0.01, 5), "stable"),
    (lambda: ncsnv2.langevin_step_size(0.9, 0.01, 5), "above 1"),
    (lambda: ncsnv2.langevin_step_size(1.1, 0.01, 0), "one Langevin step"),
    (lambda: ncsnv2.ema_half_life(1.0, 1), "decay"),
    (lambda: ncsnv2.ema_decay(0.0, 1), "half-life"),
  ],
)
def test_wrong_arguments_say_what_is_allowed(call, message):
  with pytest.raises(ValueError, match=message):
    call()
