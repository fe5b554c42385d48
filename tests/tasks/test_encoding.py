"""A process with its ends swapped is the same process.

Every solver from noise to data becomes one from data to noise.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes, solvers, tasks

NAMES = ("vp_linear", "vp_cosine", "subvp", "edm", "rectified_flow")


@pytest.mark.parametrize("name", NAMES)
def test_views_and_derivatives_are_those_of_the_process(name, x64):
  """x_t, its slope and its velocity are the same curve, read in s = t_min t_max / t."""
  process = processes.PROCESSES[name]()
  oracle = oracles.gaussian_mixture(process, None, [[-1.0, 0.0], [1.0, 0.4]], 0.2)
  other = tasks.swapped(oracle)
  s = np.array([0.2, 0.5, 0.7]) * process.t_max
  t = process.t_min * process.t_max / s
  here, there = process.marginal(t), other.process.marginal(s)
  np.testing.assert_allclose(there.alpha, here.sigma, rtol=1e-12)
  np.testing.assert_allclose(there.sigma, here.alpha, rtol=1e-12)
  np.testing.assert_allclose(other.process.log_snr(s), -process.log_snr(t), atol=1e-9)
  np.testing.assert_allclose(other.process.t_of_log_snr(-process.log_snr(t)), s, rtol=1e-9)
  step = 1e-6 * s
  numeric = lambda of: (
    (of(other.process.marginal(s + step)) - of(other.process.marginal(s - step))) / (2 * step)
  )
  for field, of in (
    ("d_alpha", lambda m: m.alpha),
    ("d_sigma", lambda m: m.sigma),
    ("d_variance", lambda m: m.sigma**2),
  ):
    np.testing.assert_allclose(getattr(there, field), numeric(of), rtol=1e-5, atol=1e-7)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
  views = ("x0", "eps", "score", "v", "velocity")
  found = other(x, jnp.asarray(s), views=views)
  m = other.process.marginal(jnp.asarray(s))
  column = lambda a: a[:, None]
  np.testing.assert_allclose(column(m.alpha) * found.x0 + column(m.sigma) * found.eps, x, rtol=1e-9)
  np.testing.assert_allclose(found.score, -found.eps / column(m.sigma), rtol=1e-9)
  np.testing.assert_allclose(
    found.v, column(m.alpha) * found.eps - column(m.sigma) * found.x0, rtol=1e-9, atol=1e-12
  )
  np.testing.assert_allclose(
    found.velocity, column(m.d_alpha) * found.x0 + column(m.d_sigma) * found.eps, rtol=1e-9, atol=1e-12
  )


@pytest.mark.slow
def test_ddim_on_it_is_the_ddim_encoder(x64):
  process = processes.vp_linear()
  oracle = oracles.gaussian_mixture(process, None, [[-1.0, 0.0], [1.0, 0.4]], 0.2)
  grid = solvers.grids.log_snr(process, 6)
  x = oracle.sample(jax.random.key(0), 5)
  through = lambda encoder: tasks.translate(oracle, oracle, x, encoder=encoder).latent
  np.testing.assert_allclose(
    through(tasks.encoder("ddim", process, grid, dtype=np.float64)),
    through(tasks.ddim_encoder(process, grid, np.float64)),
    rtol=1e-8,
  )


ORDERS = {"ddim": (1, 160), "heun": (2, 40), "dpmpp_2m": (2, 80), "dpm_solver": (3, 40)}


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name == "heun" else pytest.mark.slow) for name in ORDERS]
)
def test_latents_of_a_gaussian_converge_at_the_solver_s_order(name, x64):
  """To x -> alpha' m + sqrt(v'/v) (x - alpha m), v = alpha^2 s^2 + sigma^2 at either end."""
  order, n = ORDERS[name]
  process = processes.vp_linear()
  mean, variance = np.array([1.0, -0.5]), np.array([4.0, 0.25])
  oracle = oracles.gaussian(process, mean, variance)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
  low, high = (process.marginal(float(t)) for t in (process.t_min, process.t_max))
  v = lambda m: m.alpha**2 * variance + m.sigma**2
  exact = high.alpha * mean + np.sqrt(v(high) / v(low)) * (np.asarray(x) - low.alpha * mean)
  errors = []
  for steps in (n, 2 * n):
    encoder = tasks.encoder(name, process, solvers.grids.log_snr(process, steps), dtype=np.float64)
    errors.append(float(jnp.abs(tasks.translate(oracle, oracle, x, encoder=encoder).latent - exact).max()))
  assert abs(np.log2(errors[0] / errors[1]) - order) < 0.25, errors


@pytest.mark.slow
def test_an_adaptive_solver_leads_there_and_back(x64):
  process = processes.vp_linear()
  first = oracles.gaussian_mixture(process, None, [[-1.0, 0.0], [1.0, 0.4]], 0.2)
  second = oracles.gaussian(process, [-2.0, 0.3], [0.1, 1.0])
  x = first.sample(jax.random.key(0), 16)
  errors = []
  for tolerance in (1e-3, 1e-6):
    there = tasks.encoder("dpm_solver_adaptive", process, tolerance=tolerance)
    back = solvers.build("dpm_solver_adaptive", process, tolerance=tolerance, denoise=False)
    moved = tasks.translate(first, second, x, encoder=there, decoder=back)
    errors.append(
      float(jnp.abs(tasks.translate(second, first, moved.x, encoder=there, decoder=back).x - x).max())
    )
  assert errors[0] < 2e-2 and errors[1] < 3e-5, errors


@pytest.mark.parametrize(
  "make,words",
  [
    (lambda p: tasks.encoder("ancestral", p, [0.01, 1.0]), "draws noise"),
    (lambda p: tasks.encoder("heun", p, [0.0001, 1.0]), "times are those of the process"),
    (lambda p: tasks.swapped(processes.vp_linear(t_min=0.0)), "no noise at t_min"),
    (
      lambda p: tasks.translate(
        *2 * [oracles.gaussian(p, [0.0], [1.0])],
        jnp.zeros((1, 1)),
        encoder=solvers.build("dpm_solver_adaptive", p),
      ),
      "from noise to data",
    ),
    (
      lambda p: solvers.sample(
        oracles.gaussian(p, [0.0], [1.0]), tasks.encoder("heun", p, [0.01, 1.0]), jnp.zeros((1, 1))
      ),
      "was built for the process",
    ),
  ],
)
def test_mistakes_are_named(make, words):
  with pytest.raises(ValueError, match=words):
    make(processes.vp_linear())
