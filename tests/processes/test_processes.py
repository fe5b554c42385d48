"""Every process.

Derivatives, clock, SDE coefficients and prior against closed forms and against each other.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import processes

ALL = {**processes.PROCESSES, **processes.LADDERS}
TIMES = {"edm": np.array([0.002, 0.1, 1.0, 7.3, 79.0])}
DEFAULT_TIMES = np.array([1e-3, 0.0317, 0.25, 0.7113, 0.999])


@pytest.fixture(params=sorted(ALL))
def process(request):
  return ALL[request.param]()


def times(process):
  return TIMES.get(process.name, DEFAULT_TIMES)


def test_derivatives_are_the_derivatives_of_the_values(process, x64):
  t = jnp.asarray(times(process))
  _, (alpha_dot, sigma_dot, variance_dot) = jax.jvp(
    lambda t: (lambda m: (m.alpha, m.sigma, m.sigma**2))(process.marginal(t)), (t,), (jnp.ones_like(t),)
  )
  m = process.marginal(t)
  np.testing.assert_allclose(m.d_alpha, alpha_dot, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(m.d_sigma, sigma_dot, rtol=1e-9)
  np.testing.assert_allclose(m.d_variance, variance_dot, rtol=1e-9)


def test_host_and_device_agree(process, x64):
  t = times(process)
  for host, device in zip(
    jax.tree.leaves(process.marginal(t)), jax.tree.leaves(process.marginal(jnp.asarray(t)))
  ):
    assert isinstance(host, np.ndarray) and isinstance(device, jax.Array)
    np.testing.assert_allclose(host, device, rtol=1e-12, atol=1e-15)


def test_float32_keeps_six_digits(process):
  t = times(process).astype(np.float32)
  exact = process.marginal(t.astype(np.float64))
  device = jax.jit(lambda p, t: p.marginal(t))(process, jnp.asarray(t))
  for name in ("alpha", "sigma", "d_alpha", "d_sigma"):
    # The clock itself is rounded to float32, hence the looser bound for the ladder's narrow cells.
    tolerance = 2e-4 if "ladder" in process.name else 5e-6
    np.testing.assert_allclose(
      getattr(device, name), getattr(exact, name), rtol=tolerance, atol=1e-7, err_msg=name
    )


def test_float32_keeps_its_digits_down_to_small_times(process):
  """Training goes down to t = 1e-5: sigma and the log-SNR clock must not cancel there."""
  t = np.geomspace(1e-5, process.t_max, 40).astype(np.float32)
  exact = process.marginal(t.astype(np.float64))
  device = process.marginal(jnp.asarray(t))
  tolerance = 1e-3 if "ladder" in process.name else 2e-5  # inside a ladder's cell the clock itself is rounded
  for name in ("sigma", "d_sigma", "d_variance"):
    np.testing.assert_allclose(getattr(device, name), getattr(exact, name), rtol=tolerance, err_msg=name)
  ends = process.t_max * 0.999
  inside = t[t < ends]
  back = process.t_of_log_snr(process.log_snr(jnp.asarray(inside)))
  np.testing.assert_allclose(back, inside, rtol=2e-3, atol=2e-6)


def test_log_snr_and_its_inverse_are_a_pair(process):
  t = times(process)
  np.testing.assert_allclose(process.t_of_log_snr(process.log_snr(t)), t, rtol=1e-9, atol=1e-12)
  assert np.all(np.diff(process.log_snr(t)) < 0)


def test_noise_free_end_is_finite_and_clean(process):
  m = process.marginal(0.0)
  assert m.alpha == pytest.approx(1.0)
  expected = {"ve": 0.01}.get(process.name, 0.0)
  if process.name != "ncsn_ladder":  # its first rung is at t = 1/N
    assert m.sigma == pytest.approx(expected, abs=1e-15)
    f, g2 = process.drift_diffusion(0.0)
    assert np.isfinite(f) and np.isfinite(g2)


def test_sde_moments_follow_the_marginal(process, x64):
  """d mean/dt = f mean and d var/dt = 2 f var + g2, so f and g2 must reproduce alpha and sigma^2 (RK4 in
  time)."""
  start, stop = (0.5, 20.0) if process.name == "edm" else (0.05, 0.95)
  # Ladders are piecewise linear: integrate inside one cell.
  if "ladder" in process.name:
    start, stop = 0.50001, 0.50099
  n = 400
  h = (stop - start) / n
  slope = lambda t, y: np.array(
    [
      process.drift_diffusion(t)[0] * y[0],
      2 * process.drift_diffusion(t)[0] * y[1] + process.drift_diffusion(t)[1],
    ]
  )
  m = process.marginal(start)
  y = np.array([m.alpha, m.sigma**2])
  for i in range(n):
    t = start + i * h
    k1 = slope(t, y)
    k2 = slope(t + h / 2, y + h / 2 * k1)
    k3 = slope(t + h / 2, y + h / 2 * k2)
    k4 = slope(t + h, y + h * k3)
    y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
  m = process.marginal(stop)
  np.testing.assert_allclose(y, [m.alpha, m.sigma**2], rtol=1e-6)


def test_diffusion_is_positive(process):
  assert np.all(process.drift_diffusion(times(process))[1] > 0)


def test_published_coefficients(x64):
  """g^2 of the three SDEs in the form of arXiv:2011.13456, eq. 30-33 and appendix C."""
  t = np.linspace(0.01, 1, 7)
  beta = 0.1 + t * 19.9
  integral = 0.1 * t + 0.5 * t**2 * 19.9
  f, g2 = processes.vp_linear().drift_diffusion(t)
  np.testing.assert_allclose(f, -beta / 2)
  np.testing.assert_allclose(g2, beta)
  f, g2 = processes.subvp().drift_diffusion(t)
  np.testing.assert_allclose(f, -beta / 2)
  np.testing.assert_allclose(g2, beta * (1 - np.exp(-2 * integral)))
  f, g2 = processes.ve().drift_diffusion(t)
  np.testing.assert_allclose(f, 0)
  np.testing.assert_allclose(g2, (0.01 * 5000**t) ** 2 * 2 * np.log(5000))


def test_ladders_pass_through_every_rung():
  betas = processes.ddpm_betas()
  rungs = np.arange(1, 1001) / 1000
  m = processes.ddpm_ladder().marginal(rungs)
  np.testing.assert_allclose(m.alpha**2, np.cumprod(1 - betas), rtol=1e-12)
  sigmas = processes.geometric_sigmas()
  np.testing.assert_allclose(processes.ncsn_ladder().marginal(rungs).sigma, sigmas, rtol=1e-12)
  # The continuous VP process is the limit of the ladder (arXiv:2011.13456, appendix B).
  coarse, fine = [
    np.abs(processes.ddpm_ladder(n).marginal(0.5).alpha - processes.vp_linear().marginal(0.5).alpha)
    for n in (500, 1000)
  ]
  assert coarse / fine == pytest.approx(2.0, rel=0.05)


def test_cosine_betas_rebuild_the_cosine_ladder():
  betas = processes.cosine_betas(1000)
  grid = np.arange(1001) / 1000
  alpha_bar = np.cos((grid + 0.008) / 1.008 * np.pi / 2) ** 2
  np.testing.assert_allclose(np.cumprod(1 - betas)[:-1], (alpha_bar / alpha_bar[0])[1:-1], rtol=1e-9)
  assert betas[-1] == 0.999


def test_bad_ladder_says_what_is_allowed():
  with pytest.raises(ValueError, match=r"\(0, 1\)"):
    processes.vp_ladder([0.1, 1.5])


def test_perturb_and_prior(process):
  key = jax.random.key(0)
  x0 = jax.random.normal(key, (5, 4, 3))
  eps = jax.random.normal(jax.random.key(1), (5, 4, 3))
  t = jnp.asarray(times(process), jnp.float32)
  m = process.marginal(t)
  x = process.corrupt(x0, eps, t)
  for i in range(5):
    np.testing.assert_allclose(x[i], m.alpha[i] * x0[i] + m.sigma[i] * eps[i], rtol=1e-6, atol=1e-6)
  sample = process.prior(jax.random.split(key, 20000), (2,))
  # The sample variance of 40000 normals is within 4 standard errors of the prior's, a 6e-5 event otherwise.
  assert np.var(np.asarray(sample)) / process.prior_std**2 == pytest.approx(1.0, abs=4 * np.sqrt(2 / 40000))


def test_prior_log_prob_is_the_normal_density(process, x64):
  from scipy import stats

  x = process.prior_std * jax.random.normal(jax.random.key(2), (4, 3, 2), jnp.float64)
  expected = stats.norm(scale=process.prior_std).logpdf(np.asarray(x)).sum((1, 2))
  np.testing.assert_allclose(process.prior_log_prob(x), expected, rtol=1e-12)


def test_parameters_are_leaves_so_a_new_schedule_does_not_recompile():
  traces = []

  @jax.jit
  def alpha(process, t):
    traces.append(1)
    return process.marginal(t).alpha

  for beta_max in (10.0, 20.0, 30.0):
    alpha(processes.vp_linear(beta_max=beta_max), jnp.ones(2))
  assert len(traces) == 1
