"""The effective sample size of autoregressive chains, whose autocorrelations are known."""

import numpy as np
import pytest

from diffusion import mcmc


def autoregressive(rho, number=4000, chains=8, seed=0):
  """[N, C, 1] stationary chains x <- rho x + sqrt(1 - rho^2) z; sum of autocorrelations rho / (1 - rho)."""
  rng = np.random.default_rng(seed)
  x = [rng.normal(size=chains)]
  for z in rng.normal(size=(number - 1, chains)):
    x.append(rho * x[-1] + np.sqrt(1 - rho**2) * z)
  return np.array(x)[:, :, None]


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.97, -0.4])
@pytest.mark.parametrize("chains", [1, 8])
def test_autoregressive_chains_have_the_known_size(rho, chains):
  """C N (1 - rho) / (1 + rho), within 12% at 32,000 draws."""
  draws = autoregressive(rho, chains=chains, number=32_000 // chains)
  found = mcmc.effective_sample_size(draws)[0] / (32_000 * (1 - rho) / (1 + rho))
  assert abs(found - 1.0) < 0.12, found


def test_each_coordinate_has_its_own_and_scale_and_place_do_not_matter():
  fast, slow = autoregressive(0.2), autoregressive(0.95, seed=1)
  both = np.concatenate([1e6 + 1e-2 * fast, -3.0 * slow], axis=2)
  sizes = mcmc.effective_sample_size(both)
  np.testing.assert_allclose(
    sizes, [mcmc.effective_sample_size(fast)[0], mcmc.effective_sample_size(slow)[0]], rtol=1e-4
  )
  assert sizes.argmin() == 1


def test_chains_that_disagree_are_worth_little():
  """Eight chains, each well mixed about its own place: no more than a few draws in all, where each alone is
  worth hundreds."""
  stuck = autoregressive(0.5) + 10.0 * np.arange(8)[None, :, None]
  assert mcmc.effective_sample_size(stuck)[0] < 20.0
  assert mcmc.effective_sample_size(stuck[:, :1])[0] > 500.0


def test_what_is_worth_nothing():
  assert mcmc.effective_sample_size(np.ones((10, 3, 2))).tolist() == [0.0, 0.0]
  assert mcmc.effective_sample_size(np.full((10, 3), np.nan)) == 0.0
  with pytest.raises(ValueError, match="at least 4 draws"):
    mcmc.effective_sample_size(np.ones((3, 2)))
