"""Epsilon scaling: every view changes with eps, and the right factor undoes a wrong one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import guidance, oracles, processes, solvers
from diffusion.sampling import forward_passes

VIEWS = ("x0", "eps", "score", "v", "velocity")


@pytest.mark.parametrize("name", processes.PROCESSES)
def test_every_view_belongs_to_the_scaled_eps(name, x64):
  process = processes.PROCESSES[name]()
  oracle = oracles.gaussian(process, [0.5, -1.0], [0.05, 1.5])
  t = jnp.asarray([0.7, 0.3, 0.01]) * process.t_max
  x = oracle.sample(jax.random.key(0), 3, t=t)
  for constant, slope in ((1.02, 0.0), (1.0, 0.05)):
    out = guidance.epsilon_scaling(constant, slope)(oracle)(x, t, views=VIEWS)
    plain, m = oracle(x, t, views=VIEWS), jax.tree.map(lambda leaf: leaf[:, None], process.marginal(t))
    eps = plain.eps / (constant + slope * t)[:, None]
    x0 = (x - m.sigma * eps) / m.alpha
    expected = dict(
      eps=eps,
      x0=x0,
      score=-eps / m.sigma,
      v=m.alpha * eps - m.sigma * x0,
      velocity=m.d_alpha * x0 + m.d_sigma * eps,
    )
    for view in VIEWS:
      np.testing.assert_allclose(getattr(out, view), expected[view], rtol=1e-9, atol=1e-9, err_msg=view)
  assert guidance.epsilon_scaling(1.02)(oracle)(x, t, views=("x0",)).eps is None


def test_scaling_by_the_gain_recovers_the_sampler(x64):
  """A denoiser whose eps is 2% too large, divided by 1.02, samples as the true one; the factor is data."""
  process = processes.vp_linear()
  oracle = oracles.gaussian_mixture(process, [0.3, 0.7], [[-1.0, 0.2], [0.8, -0.5]], [0.05, 0.2])
  x = jax.random.normal(jax.random.key(0), (16, 2), jnp.float64)
  solver = solvers.unipc(process, solvers.grids.quadratic(process, 8, t_min=0.0), dtype=np.float64)
  wrong = guidance.epsilon_scaling(1 / 1.02)(oracle)
  true = solvers.sample(oracle, solver, x)
  assert float(abs(solvers.sample(wrong, solver, x) - true).max()) > 1e-3
  repaired = guidance.chain(guidance.epsilon_scaling(1 / 1.02), guidance.epsilon_scaling(1.02))(oracle)
  np.testing.assert_allclose(solvers.sample(repaired, solver, x), true, rtol=1e-10, atol=1e-12)
  assert forward_passes(repaired, solver) == solver.cost


def test_a_constant_must_be_positive():
  with pytest.raises(ValueError, match="positive"):
    guidance.epsilon_scaling(0.0)
