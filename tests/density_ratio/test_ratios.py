"""Ratios from the fields of oracles: every way of integrating them gives the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import density_ratio, oracles, processes

FIRST = ([0.3, 0.7], [[-1.0], [1.5]], [0.4, 0.2])
SECOND = ([0.6, 0.4], [[0.0], [1.0]], [0.3, 0.5])
X = np.linspace(-2.0, 2.0, 5)[:, None]


def oracle_and_truth(name):
  path = {
    "between": processes.trigonometric(),
    "to_data": processes.spherical(),
    "diffusion": processes.vp_linear(),
  }[name]
  oracle = oracles.path_mixture(
    path, None if name == "to_data" else FIRST, None if name == "diffusion" else SECOND
  )
  x = jnp.asarray(X)
  low, high = (jnp.full(x.shape[:1], float(t)) for t in (path.t_min, path.t_max))
  log_prob = jax.jit(oracle.log_prob)
  return oracle, path, x, np.asarray(log_prob(x, high) - log_prob(x, low))


@pytest.mark.standard_promotion
@pytest.mark.parametrize("name", ["between", "to_data"])
def test_quadrature_ode_and_curve_give_the_ratio(name, x64):
  """To 1e-6 in float64; the sign is that of log p_1 - log p_0, the end of the path over its start."""
  oracle, path, x, truth = oracle_and_truth(name)
  assert np.abs(truth).max() > 0.5
  np.testing.assert_allclose(density_ratio.log_ratio(oracle.time_score, path, x), truth, atol=1e-6)
  if name == "between":
    solved = density_ratio.log_ratio_ode(oracle.time_score, path, x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(solved.value, truth, atol=1e-6)
    assert solved.evaluations > 60
  along = density_ratio.log_ratio_along(oracle.time_score, oracle.score, path, x)
  np.testing.assert_allclose(along, truth, atol=1e-6)


def test_any_curve_gives_the_same_difference(x64):
  oracle, path, x, truth = oracle_and_truth("diffusion")
  z = 0.3 - x
  log_prob = jax.jit(oracle.log_prob)
  exact = log_prob(z, jnp.full(5, 0.9)) - log_prob(x, jnp.full(5, 0.2))
  bent = lambda place: x + place**2 * (z - x) + jnp.sin(np.pi * place) * jnp.cos(x)
  for curve in (None, bent):
    found = density_ratio.log_difference(
      oracle.time_score, oracle.score, path, (x, 0.2), (z, 0.9), curve=curve
    )
    np.testing.assert_allclose(found, exact, atol=1e-8)
  back = density_ratio.log_difference(oracle.time_score, oracle.score, path, (z, 0.9), (x, 0.2))
  np.testing.assert_allclose(back, -exact, atol=1e-8)
  # A known prior stands for the integral at the end: here the marginal's own density does.
  prior = lambda x: log_prob(x, jnp.full(5, 1.0))
  along = density_ratio.log_ratio_along(oracle.time_score, oracle.score, path, x, z, end_log_prob=prior)
  np.testing.assert_allclose(along, truth, atol=1e-6)


def test_a_peaked_end_needs_a_clock_that_sees_it(x64):
  """sigma_q = 1e-3: 200 nodes equal in t are off by more than a nat, 40 graded ones are exact to 1e-6."""
  path, deviation = processes.spherical(), 1e-3
  oracle = oracles.path_mixture(path, None, ([1.0], [[0.0]], [deviation**2]))
  x = jnp.linspace(-2.0, 2.0, 9)[:, None] * deviation
  truth = -np.log(deviation) - 0.5 * np.square(np.asarray(x))[:, 0] * (deviation**-2 - 1)
  plain = density_ratio.log_ratio(oracle.time_score, path, x, nodes=200)
  assert abs(plain[4] - 5.51) < 0.01 and abs(truth[4] - 6.908) < 1e-3
  nodes = density_ratio.gauss_legendre(path, 40, resolve=deviation**2)
  np.testing.assert_allclose(
    density_ratio.log_ratio(oracle.time_score, path, x, nodes=nodes), truth, atol=1e-6
  )


def test_a_path_in_the_log_variance_clock_keeps_its_digits_in_single_precision():
  deviation = 1e-3
  path = processes.log_variance()
  oracle = oracles.path_mixture(path, None, ([1.0], [[0.0]], [deviation**2]), dtype=jnp.float32)
  x = jnp.linspace(-2.0, 2.0, 9)[:, None] * deviation
  truth = -np.log(deviation) - 0.5 * np.square(np.asarray(x))[:, 0] * (deviation**-2 - 1)
  found = density_ratio.log_ratio(oracle.time_score, path, x, nodes=40)
  np.testing.assert_allclose(found, truth, atol=0.01)  # exp(-20) of blur is 0.2% of the variance
  with pytest.raises(ValueError, match="log_variance"):
    density_ratio.log_ratio(
      oracle.time_score,
      processes.spherical(),
      x,
      nodes=density_ratio.gauss_legendre(processes.spherical(), 40, resolve=1e-6),
    )


def test_nodes_integrate_what_is_smooth_in_their_clock():
  cases = (
    (processes.spherical(), 1e-6),
    (processes.from_process(processes.ve()), 1e-3),
    (processes.linear(bridge=1.0), 1e-5),
  )
  for path, resolve in cases:
    nodes = density_ratio.gauss_legendre(path, 60, resolve=resolve)
    np.testing.assert_allclose(nodes.weight.sum(), float(path.t_max) - float(path.t_min), rtol=1e-9)
    fine = density_ratio.gauss_legendre(path, 300, resolve=resolve)
    peaked = lambda nodes: np.sum(nodes.weight / (path.blend(nodes.t).variance + resolve))
    np.testing.assert_allclose(peaked(nodes), peaked(fine), rtol=1e-9)
  marks = density_ratio.bridges(processes.linear(), 3, power=2.0)
  np.testing.assert_allclose(marks.weight, np.diff([0, 1 / 9, 4 / 9, 1]))


@pytest.mark.slow
def test_the_ratio_is_the_same_through_a_map(x64):
  inner = processes.spherical()
  path = processes.through(inner, jnp.log, jnp.exp)
  oracle = oracles.path_mixture(inner, None, SECOND)
  x = jnp.exp(jnp.asarray(X))
  found = density_ratio.log_ratio(lambda x, t, cond: oracle.time_score(jnp.log(x), t), path, x)
  density = lambda t: (
    np.asarray(oracle.log_prob(jnp.log(x), jnp.full(5, t))) - X[:, 0]
  )  # log p(z) - log dx/dz
  np.testing.assert_allclose(found, density(1.0) - density(0.0), atol=1e-6)


def test_a_divergence_and_how_sure_it_is():
  """KL of N(1, 1) and N(0, 1) is 1/2; the truth lies within 4.5 standard errors."""
  values = np.random.default_rng(0).normal(1.0, 1.0, 20_000) - 0.5
  estimate = density_ratio.kl_divergence(values)
  assert abs(estimate.mean - 0.5) < 4.5 * estimate.standard_error < 0.05


@pytest.mark.parametrize(
  "call,words",
  [
    (lambda o, p, x: density_ratio.log_ratio(o, processes.PROCESSES, x), "densities that change smoothly"),
    (lambda o, p, x: density_ratio.log_ratio(o, p, x, nodes=0), "at least one node"),
    (
      lambda o, p, x: density_ratio.log_ratio(
        o, p, x, nodes=density_ratio.Nodes(np.array([0.5, 1.5]), np.ones(2))
      ),
      "leave spherical",
    ),
    (lambda o, p, x: density_ratio.log_ratio(lambda x, t, cond: x, p, x), "one number per example"),
    (lambda o, p, x: density_ratio.gauss_legendre(p, resolve=2.0), "leave resolve out"),
    (lambda o, p, x: density_ratio.gauss_legendre(processes.linear(), resolve=1e-3), "leave resolve out"),
    (lambda o, p, x: density_ratio.gauss_legendre(p, t_min=-0.1), "inside of spherical"),
    (lambda o, p, x: density_ratio.bridges(p, 0), "at least one bridge"),
    (lambda o, p, x: density_ratio.log_ratio_ode(o, p, x, rtol=1e-12), "in float64"),
    (lambda o, p, x: density_ratio.log_difference(o, o, p, (x, 0.0), (x, 1.5)), "runs from"),
    (lambda o, p, x: density_ratio.log_difference(o, o, p, (x, 0.0), (x[:2], 1.0)), "one shape"),
    (lambda o, p, x: density_ratio.kl_divergence(np.ones(1)), "at least two samples"),
    (
      lambda o, p, x: density_ratio.kl_divergence(np.arange(10.0), max_error=0.1),
      "average about 917 samples",
    ),
    (lambda o, p, x: density_ratio.kl_divergence(np.array([1.0, np.inf])), "not finite"),
  ],
)
def test_bad_input_raises_a_sentence(call, words):
  with pytest.raises(ValueError) as caught:
    call(lambda x, t, cond=None: t, processes.spherical(), jnp.ones((3, 1)))
  assert words in str(caught.value)
