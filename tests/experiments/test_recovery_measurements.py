"""The measurements of recovery likelihood, small.

What they return is what their claims are about, and the published scale is the energy's.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import networks, processes
from experiments.drl import checkerboard, mixture, recovery


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_the_mixture_is_learned():
  """The claim of experiments/drl/mixture.py with another seed."""
  found = recovery.mixture(mixture.get_config(), 7)
  assert found["log_density_correlation"] > 0.98 and found["kl_nats"] < 0.05


@pytest.mark.slow
@pytest.mark.standard_promotion
@pytest.mark.parametrize("variant", checkerboard.VARIANTS)
def test_every_variant_returns_its_metrics(variant, tmp_path):
  config = checkerboard.get_config(variant)
  config.update(dict(width=8, steps=2, batch=8, chain=1, sampler_chain=1))
  if config.long_chain:
    config.update(dict(long_chain=5, picture=str(tmp_path / "density.png")))
  found = recovery.plane(config, 0)
  assert {claim["metric"] for claim in config.claim} <= set(found)
  assert not config.long_chain or (tmp_path / "density.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_published_energy_is_f_over_the_squared_step():
  """So the drift of a Langevin step from it, step^2 / 2 times its slope, is half the slope of f, whatever the
  level."""
  process, network = processes.ddpm_ladder(), networks.Potential(width=8, depth=1, frequencies=())
  energy, _, weight = recovery.published(network, process, processes.T6_TIMES, 2e-4)
  x = jax.random.normal(jax.random.key(0), (6, 2))
  t = jnp.asarray(processes.T6_TIMES[:6], jnp.float32)
  variables = network.init(jax.random.key(1), x, t)
  variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
  squared = np.array([2.1e-5, 1.728e-3, 4.686e-3, 7.92e-3, 1.0742e-2, 1.9196e-2])
  f = network.apply(variables, x, recovery.clock(process, t), method="energy") - 0.5 * jnp.sum(x**2, axis=1)
  np.testing.assert_allclose(energy(variables["params"], x, t) * squared, f, rtol=5e-3)
  np.testing.assert_allclose(
    weight(process, t) / squared,
    0.32368 / np.array([0.32368, 0.51650, 0.63221, 0.71324, 0.77337, 0.99974]),
    rtol=5e-3,
  )
