"""Starts below t_max, whose first stretch is the flow of a round Gaussian."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes, solvers


@pytest.mark.parametrize("name", ["vp_linear", "edm", "subvp"])
def test_exact_where_the_data_are_that_gaussian(name):
  """Data N(0, std^2 I): the same end as from t_max, though nothing is evaluated above."""
  process, std = processes.PROCESSES[name](), 0.6
  oracle = oracles.gaussian(process, jnp.zeros(2), std**2 * jnp.eye(2))
  x = jnp.linspace(-1, 1, 8).reshape(4, 2) * np.float32(process.prior_std)
  rho = lambda t: process.marginal(t).noise_to_signal
  start = float(process.t_of_log_snr(-2 * np.log(0.1 * rho(float(process.t_max)))))
  table = solvers.unipc(process, solvers.grids.vp_time(process, 40, t_max=start))
  end = solvers.sample(oracle, solvers.late_start(table, process, std), x)
  exact = oracle.flow(x, jnp.full(4, process.t_max, jnp.float32), jnp.full(4, process.t_min, jnp.float32))
  np.testing.assert_allclose(end, exact, rtol=2e-3, atol=1e-4)


def test_standard_data_on_vp_start_as_they_are():
  process = processes.vp_linear()
  table = solvers.ddim(process, solvers.grids.uniform(process, 4, t_max=0.8))
  np.testing.assert_allclose(solvers.late_start(table, process).start, table.start, rtol=1e-6)


def test_mistakes_are_named():
  vp, cosine = processes.vp_linear(), processes.vp_cosine()
  table = solvers.ddim(vp, solvers.grids.uniform(vp, 4, t_max=0.8))
  with pytest.raises(ValueError, match="positive, got 0"):
    solvers.late_start(table, vp, 0.0)
  with pytest.raises(ValueError, match="no signal at t_max"):
    solvers.late_start(solvers.ddim(cosine, solvers.grids.uniform(cosine, 4, t_max=0.8)), cosine)


def test_the_listing_has_a_line_for_every_solver():
  head, *lines = solvers.listing().splitlines()
  assert head.split()[:2] == ["solver", "order"] and [line.split()[0] for line in lines] == [
    *solvers.SOLVERS,
    *solvers.BEYOND_GAUSSIAN,
    *solvers.FURTHER_VIEWS,
    *solvers.CHOOSE_STEPS,
  ]
  of = {line.split()[0]: line.split()[1:5] for line in lines}
  assert (
    of["unipc"][:3] == ["4", "ODE", "1"]
    and of["heun_churn"][:3] == ["2", "SDE", "2"]
    and of["pndm"][2:] == ["1", "(+"]
    and of["heun_velocity"][:3] == ["2", "ODE", "2"]
    and of["masked_ancestral"][:3] == ["1", "jumps", "1"]
  )
