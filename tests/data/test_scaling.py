"""Scaling is undone exactly, noise stays in its bin, and the log-determinant is the slope."""

import math

import numpy as np
import pytest

from diffusion.data import Scaling, Standardize

SCALINGS = [
  Scaling(levels, centered, dequantization)
  for levels in (2, 3, 17, 255, 256, 1000, 65536)
  for centered in (True, False)
  for dequantization in ("uniform", "none")
]


def values(scaling):
  return np.arange(scaling.levels, dtype=np.uint8 if scaling.levels <= 256 else np.uint16)


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_every_level_comes_back_exactly(scaling):
  np.testing.assert_array_equal(scaling.to_data(scaling.to_model(values(scaling))), values(scaling))


@pytest.mark.parametrize("scaling", [s for s in SCALINGS if s.uses_noise], ids=str)
@pytest.mark.parametrize("noise", [0.0, 0.5, 1 - 2.0**-24])
def test_dequantised_values_stay_inside_their_bin(scaling, noise):
  x = scaling.to_model(values(scaling), np.full(scaling.levels, noise, np.float32))
  np.testing.assert_array_equal(scaling.to_data(x), values(scaling))
  low, high = (-1, 1) if scaling.centered else (0, 1)
  assert low < x.min() and x.max() < high and x.dtype == np.float32


def test_dequantised_noise_is_uniform_in_the_bin():
  count = 200_000
  noise = np.random.default_rng(0).random(count, dtype=np.float32)
  x = Scaling(256, False, "uniform").to_model(np.full(count, 255, np.uint8), noise).astype(np.float64)
  place = np.sort(x * 256 - 255)
  distance = np.abs(place - (np.arange(count) + 0.5) / count).max()
  assert distance < 2.2 / math.sqrt(count)  # Kolmogorov-Smirnov: exceeded with probability 1e-4


@pytest.mark.parametrize("scaling", SCALINGS + [Standardize(1.5, 0.25)], ids=str)
def test_the_log_determinant_is_the_slope(scaling):
  slope = float(
    scaling.to_model(np.array([1.0])).astype(np.float64)[0] - scaling.to_model(np.array([0.0]))[0]
  )
  assert math.isclose(scaling.log_det, math.log(slope), rel_tol=1e-3, abs_tol=1e-6)
  if scaling.uses_noise:
    assert math.isclose(scaling.bits_offset, -scaling.log_det / math.log(2), rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.parametrize(
  "levels, centered, bits", [(256, True, 7.0), (256, False, 8.0), (17, False, math.log2(17))]
)
def test_a_uniform_density_has_the_bits_of_the_levels(levels, centered, bits):
  scaling = Scaling(levels, centered).dequantized()
  assert scaling.bits_offset == bits
  log2_density = -1.0 if centered else 0.0  # of the uniform distribution on [-1, 1] or [0, 1]
  assert math.isclose(-log2_density + scaling.bits_offset, math.log2(levels))


def test_the_ends_without_dequantisation_are_the_ends_of_the_interval():
  assert Scaling(17, True).to_model(np.array([0, 16])).tolist() == [-1.0, 1.0]
  assert Scaling(17, False).to_model(np.array([0, 16])).tolist() == [0.0, 1.0]


def test_samples_outside_the_range_are_clipped():
  assert Scaling(17, True).to_data(np.array([-9.0, 9.0])).tolist() == [0, 16]


def test_bits_per_dimension_without_dequantisation_is_refused():
  with pytest.raises(ValueError, match="dequantized"):
    _ = Scaling(256).bits_offset


@pytest.mark.parametrize("wrong", [dict(levels=1), dict(levels=2**17), dict(dequantization="normal")])
def test_unknown_scalings_are_refused(wrong):
  with pytest.raises(ValueError, match="levels|dequantization"):
    Scaling(**wrong)
