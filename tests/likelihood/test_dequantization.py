"""Stored values to model values: bounds with known answers, units, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from likelihood_cases import keys

from diffusion import data, likelihood

LEVELS, ROWS = 17, 3 * 256
# The density of model values: exponential from the lowest value on, so that bins, bounds and proposals are
# elementary.
SCALE = 0.15


def lowest(scaling):
  return -1.0 if scaling.centered else 0.0


def exponential(scaling):
  return lambda x, _: jnp.sum(-(x - lowest(scaling)) / SCALE, axis=1) - x.shape[1] * np.log(SCALE).item()


def bin_edges(values, scaling):
  """Model values where the bin of each stored value starts and ends."""
  width = (1.0 - lowest(scaling)) / scaling.levels
  return lowest(scaling) + width * values, lowest(scaling) + width * (values + 1)


def log_bin(values, scaling):
  """log of the integral of the density over each bin."""
  lower, upper = bin_edges(values, scaling)
  return np.log(np.exp(-(lower - lowest(scaling)) / SCALE) - np.exp(-(upper - lowest(scaling)) / SCALE))


def truncated(scaling):
  """The optimal proposal: q(n | v) in proportion to the model's own density inside the bin."""
  decay = (1.0 - lowest(scaling)) / scaling.levels / SCALE

  @jax.jit
  def proposal(keys, values):
    uniform, _ = likelihood.uniform_noise(keys, values)
    noise = -jnp.log1p(uniform * np.expm1(-decay).item()) / decay
    return noise, jnp.sum(-decay * noise + np.log(-decay / np.expm1(-decay)).item(), axis=1)

  return proposal


@pytest.mark.parametrize("centered", [True, False])
def test_the_optimal_proposal_gives_the_probability_of_the_bin(centered, x64):
  """The bound is tight and has no variance: each draw is log P(v) = log of the integral over the bin."""
  scaling = data.Scaling(LEVELS, centered=centered)
  values = np.array([[8.0, 9.0], [10.0, 12.0], [11.0, 8.0]])
  exact = log_bin(values, scaling).sum(axis=1)
  found, error = likelihood.log_likelihood_of_values(
    exponential(scaling),
    np.tile(values, (256, 1)),
    scaling,
    dequantization="variational",
    proposal=truncated(scaling),
    keys=keys(ROWS),
    draws=4,
  )
  np.testing.assert_allclose(found, np.tile(exact, 256), rtol=1e-9)
  np.testing.assert_allclose(error, 0, atol=1e-9)
  # Uniform noise gives a lower bound: the log-density, which is linear, at the middle of the bin.
  bound, error = likelihood.log_likelihood_of_values(
    exponential(scaling),
    np.tile(values, (256, 1)),
    scaling,
    dequantization="uniform",
    keys=keys(ROWS),
    draws=4,
  )
  lower, upper = bin_edges(values, scaling)
  closed = np.sum(
    np.log(upper - lower) - (0.5 * (lower + upper) - lowest(scaling)) / SCALE - np.log(SCALE), axis=1
  )
  assert np.all(closed < exact)
  each = np.asarray(bound).reshape(256, 3)
  # 3 means in units of their own error: beyond 4 one time in 5000.
  assert np.all(np.abs(each.mean(axis=0) - closed) < 4 * each.std(axis=0) / 16)
  np.testing.assert_allclose(np.mean(np.asarray(error) ** 2), np.mean(each.var(axis=0)), rtol=0.2)


def test_probabilities_of_all_levels_sum_to_one(x64):
  scaling = data.Scaling(LEVELS, centered=True)
  values = np.arange(LEVELS, dtype=np.float64)[:, None]
  found, _ = likelihood.log_likelihood_of_values(
    exponential(scaling),
    values,
    scaling,
    dequantization="variational",
    proposal=truncated(scaling),
    keys=keys(LEVELS),
  )
  np.testing.assert_allclose(np.exp(found).sum(), -np.expm1(-2.0 / SCALE), rtol=1e-9)


def test_uniform_noise_stays_in_its_bin_and_belongs_to_its_row():
  scaling = data.Scaling(256, centered=True)
  values = np.tile(np.array([[0, 1, 254, 255]], np.uint8), (64, 1))
  model = likelihood.dequantize(values, scaling, dequantization="uniform", keys=keys(64))
  stored = np.floor((np.asarray(model.x, np.float64) + 1) * 128 + np.array([1e-4, 1e-4, -1e-4, -1e-4]))
  np.testing.assert_array_equal(stored, values)
  part = likelihood.dequantize(values[8:16], scaling, dequantization="uniform", keys=keys(64)[8:16])
  np.testing.assert_array_equal(model.x[8:16], part.x)


def test_real_valued_data_have_a_density_in_their_own_units(x64):
  """Standardised or not, N(3, 2^2) data cost the same nats."""
  values = np.random.default_rng(0).normal(3, 2, (5, 2))
  standard = lambda x, _: jnp.sum(-0.5 * x**2 - 0.5 * np.log(2 * np.pi).item(), axis=1)
  found, error = likelihood.log_likelihood_of_values(
    standard, values, data.Standardize(3.0, 2.0), dequantization="none"
  )
  np.testing.assert_allclose(found, scipy.stats.norm(3, 2).logpdf(values).sum(axis=1), rtol=1e-12)
  assert np.isnan(error).all()


def test_bits_per_dim_of_a_uniform_density():
  """A uniform density over all levels costs log2(levels) bits a dimension, whatever the scaling."""
  for centered in (True, False):
    scaling = data.Scaling(17, centered=centered, dequantization="uniform")
    log_prob = np.full(3, -64 * np.log(2.0 if centered else 1.0))
    np.testing.assert_allclose(likelihood.bits_per_dim(log_prob, (8, 8, 1), scaling), np.log2(17), rtol=1e-6)


@pytest.mark.parametrize(
  ("scaling", "change", "message"),
  [
    (data.Scaling(17), dict(dequantization="none"), "real-valued"),
    (data.Scaling(17), dict(dequantization="gauss"), "choose uniform"),
    (data.Scaling(17), dict(dequantization="variational"), "proposal="),
    (data.Scaling(17), dict(dequantization="uniform", proposal=likelihood.uniform_noise), "take none"),
    (data.Scaling(17), dict(dequantization="uniform", keys=None), "give keys"),
    (data.Standardize(), dict(dequantization="uniform"), "take 'none'"),
  ],
)
def test_errors(scaling, change, message):
  with pytest.raises(ValueError, match=message):
    likelihood.dequantize(np.zeros((2, 3)), scaling, **{"keys": keys(2), **change})
