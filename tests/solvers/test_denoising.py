"""The last evaluation that removes what noise a grid leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes, solvers
from diffusion.run.parts import sampler_config


def point(process):
  """Data that are one point: clean samples have no spread at all."""
  return oracles.atoms(process, jnp.asarray([[0.3, -0.7]]))


@pytest.mark.parametrize(
  "name", ["ddim", "euler_maruyama", "reverse_diffusion", "predictor_corrector", "dpmpp_2m"]
)
@pytest.mark.parametrize(
  "process", [processes.ve(), processes.ncsn_ladder(num_steps=100)], ids=["ve", "ncsn_ladder"]
)
def test_samples_of_a_point_are_the_point(name, process):
  section = dict(solver=name, steps=30, grid="uniform")
  keys = jax.random.split(jax.random.key(0), 64)
  start = process.prior(jax.random.split(jax.random.key(1), 64), (2,))
  left, removed = [
    solvers.sample(
      point(process), sampler_config.solver({**section, "denoise": denoise}, process), start, keys=keys
    )
    for denoise in (False, True)
  ]
  # Without it the noise of the last level, sigma_min = 0.01, stays on most samplers; with it only rounding
  # does.
  np.testing.assert_allclose(removed, jnp.broadcast_to(jnp.asarray([0.3, -0.7]), (64, 2)), atol=1e-5)
  assert np.abs(np.asarray(left) - np.asarray([0.3, -0.7])).max() > 1e-4


@pytest.mark.parametrize("view", ["x0", "eps"])
def test_it_is_the_posterior_mean_at_the_last_node(view, x64):
  process = processes.vp_linear()
  oracle = oracles.gaussian(process, jnp.asarray([0.5, -1.0]), jnp.asarray([0.3, 2.0]))
  table = solvers.ddim(process, solvers.grids.uniform(process, 6, t_min=0.1), view=view, dtype=np.float64)
  x = process.prior(jax.random.split(jax.random.key(0), 5), (2,)).astype(jnp.float64)
  before = solvers.sample(oracle, table, x)
  after = solvers.sample(oracle, solvers.with_denoising(table, process), x)
  np.testing.assert_allclose(after, oracle(before, jnp.full((5,), 0.1), views=("x0",)).x0, rtol=1e-10)


def test_errors():
  process = processes.edm()
  with pytest.raises(ValueError, match="already ends in clean data"):
    solvers.with_denoising(solvers.build("heun", process, 4), process)
  grids = np.stack([solvers.grids.uniform(process, 4)] * 2)
  with pytest.raises(ValueError, match="one grid for all"):
    solvers.with_denoising(solvers.ddim(process, grids), process)
