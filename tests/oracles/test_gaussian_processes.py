"""Gaussian, mixture and atoms under every process: each quantity against its definition, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffusion import oracles, processes

EVENT = (2, 1)
KINDS = ("gaussian", "mixture", "atoms")
MEANS = np.array([[[-1.5], [0.5]], [[1.0], [1.0]], [[0.3], [-2.0]]])
COVARIANCES = np.array([[[0.5, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.9]], [[0.05, 0.0], [0.0, 0.1]]])
WEIGHTS = np.array([0.5, 0.2, 0.3])
LABELS = np.array([0, 1, 0])
VIEWS = ("x0", "eps", "score", "v", "velocity")


def make(kind, process, dtype=None):
  if kind == "gaussian":
    return oracles.gaussian(process, MEANS[0], COVARIANCES[0], dtype=dtype)
  if kind == "mixture":
    return oracles.gaussian_mixture(process, WEIGHTS, MEANS, COVARIANCES, labels=LABELS, dtype=dtype)
  return oracles.atoms(process, MEANS, WEIGHTS, labels=LABELS, dtype=dtype)


def make_1d(kind, process):
  """One dimension, with the density of the data beside it (none for atoms)."""
  weights, means, variances = {
    "gaussian": ([1.0], [0.7], [0.3]),
    "mixture": ([0.3, 0.7], [-1.0, 1.5], [0.2, 0.6]),
    "atoms": ([0.3, 0.7], [-1.0, 1.5], [0.0, 0.0]),
  }[kind]
  weights, means, variances = np.array(weights), np.array(means), np.array(variances)
  if kind == "gaussian":
    oracle = oracles.gaussian(process, means, variances[0])
  elif kind == "mixture":
    oracle = oracles.gaussian_mixture(process, weights, means[:, None], variances[:, None])
  else:
    oracle = oracles.atoms(process, means[:, None], weights)

  def density(x):
    square = (x[:, None] - means[None, :]) ** 2 / variances[None, :]
    return np.sum(weights * np.exp(-0.5 * square) / np.sqrt(2 * np.pi * variances), axis=1)

  return oracle, density


def times(process, kind):
  """Both ends, the noise-free one only where there is a density, and four times between: [6]."""
  lo, hi = process.t_min, process.t_max
  first = 0.0 if kind != "atoms" or process.marginal(0.0).sigma > 0 else 1e-5 * hi
  return np.array([first, lo, lo + 0.01 * (hi - lo), lo + 0.3 * (hi - lo), lo + 0.8 * (hi - lo), hi])


def noisy(oracle, t, seed=0):
  """One x_t for each time: draws of the data and fresh noise."""
  rng, m = np.random.default_rng(seed), oracle.process.marginal(np.asarray(t, np.float64))
  x0 = MEANS[rng.integers(1 if isinstance(oracle, oracles.Gaussian) else 3, size=len(t))]
  if not isinstance(oracle, oracles.Atoms):
    x0 = x0 + 0.5 * rng.standard_normal(x0.shape)
  column = lambda a: a.reshape(-1, 1, 1)
  return jnp.asarray(column(m.alpha) * x0 + column(m.sigma) * rng.standard_normal(x0.shape), t.dtype)


@struct.dataclass
class Tangent:
  """A schedule's value and slope at one time, carried on as a straight line in alpha and sigma^2.

  With it one compiled program serves every process: the process's numbers are data.
  """

  t0: jax.Array
  at: processes.Marginal

  def __call__(self, t):
    m, dt = self.at, t - self.t0
    variance = m.sigma**2 + m.d_variance * dt
    # At sigma = 0 the root has no slope: the where keeps its infinity out of the derivative of sigma^2.
    sigma = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
    return processes.Marginal(m.alpha + m.d_alpha * dt, sigma, m.d_alpha, m.d_sigma, m.d_variance)


def rows_of(oracle, t):
  """The oracle with its process replaced by one tangent a row."""
  tangent = Tangent(t, oracle.process.marginal(t))
  return oracle.replace(process=processes.GaussianProcess(tangent, 0.0, 1.0, 1.0))


@jax.jit
def quantities(oracle, x, t):
  """All outputs of an oracle."""
  return {
    **oracle(x, t, views=VIEWS).views,
    "score_method": oracle.score(x, t),
    "log_prob": oracle.log_prob(x, t),
    "hessian": oracle.hessian(x, t),
    "time_score": oracle.time_score(x, t),
    "covariance": oracle.posterior_covariance(x, t),
  }


@jax.jit
def derivatives(oracle, x, t):
  """Gradient, Hessian and time derivative of the log-density by autodiff, of an oracle with tangents."""
  axes = jax.tree.map(lambda _: None, oracle).replace(
    process=jax.tree.map(lambda a: 0 if jnp.ndim(a) else None, oracle.process)
  )

  def each(transform):
    def one(o, x, t):
      row = o.replace(process=jax.tree.map(lambda a: a[None], o.process))
      return transform(lambda x, t: row.log_prob(x[None], t[None])[0])(x, t)

    return jax.vmap(one, in_axes=(axes, 0, 0))(oracle, x, t)

  return {
    "d_x": each(jax.grad),
    "d_xx": each(jax.hessian).reshape(x.shape[0], 2, 2),
    "d_t": each(lambda f: jax.grad(f, 1)),
  }


def everything(oracle, x, t):
  return quantities(rows_of(oracle, t), x, t)


@pytest.mark.parametrize("name", processes.PROCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_quantity_is_what_it_is_defined_to_be(x64, kind, name):
  process = processes.PROCESSES[name]()
  oracle, t = make(kind, process), times(process, kind)
  x = noisy(oracle, t)
  rows = rows_of(oracle, jnp.asarray(t))
  got = {**everything(oracle, x, jnp.asarray(t)), **derivatives(rows, x, jnp.asarray(t))}
  got = {k: np.asarray(a) for k, a in got.items() if a is not None}
  x = np.asarray(x)
  m = process.marginal(t)
  column = lambda a: a.reshape(-1, 1, 1)
  alpha, sigma = column(m.alpha), column(m.sigma)

  def same(a, b, rtol=1e-8):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * (1 + np.abs(b).max()))

  # Derivatives of the log-density.
  same(got["score"], got["d_x"])
  same(got["score_method"], got["d_x"])
  same(got["hessian"], got["d_xx"])
  # Where sigma = 0 its square may still have a slope, but autodiff, which goes through sigma, cannot see it;
  # that end is tested as a limit.
  seen = (m.sigma > 0) | (m.d_variance == 0)
  same(got["time_score"][seen], got["d_t"][seen])
  # Views of one posterior mean (Tweedie's formula, orders one and two: arXiv:2111.04726, eq. 4 and 6).
  same(alpha * got["x0"], x + sigma**2 * got["d_x"])
  same(alpha * got["x0"] + sigma * got["eps"], x)
  same(got["v"], alpha * got["eps"] - sigma * got["x0"])
  finite = lambda a: a[np.isfinite(m.d_sigma)]
  same(
    finite(got["velocity"]),
    finite(column(m.d_alpha) * got["x0"]) + finite(column(m.d_sigma)) * finite(got["eps"]),
  )
  same(alpha**2 * got["covariance"], sigma**2 * (np.eye(2) + sigma**2 * got["d_xx"]))
  assert np.linalg.eigvalsh(got["covariance"]).min() > -1e-12
  # The same with the process itself, which the tangents stand for.
  np.testing.assert_allclose(oracle.log_prob(x, jnp.asarray(t)), got["log_prob"], rtol=1e-12)
  # Where alpha = 0 Tweedie says nothing of x0: the posterior is the data's own.
  if m.alpha[-1] == 0:
    weights, means = (WEIGHTS, MEANS) if kind != "gaussian" else ([1.0], MEANS[:1])
    same(got["x0"][-1], np.average(means, axis=0, weights=weights))
    spread = (
      np.cov(np.asarray(means).reshape(-1, 2).T, aweights=weights, ddof=0) if kind != "gaussian" else 0.0
    )
    within = 0.0 if kind == "atoms" else np.average(COVARIANCES[: len(weights)], axis=0, weights=weights)
    same(got["covariance"][-1], spread + within)


@jax.jit
def line(oracle, x, tangent, t):
  oracle = oracle.replace(process=processes.GaussianProcess(tangent, 0.0, 1.0, 1.0))
  return oracle.log_prob(x, t), oracle(x, t).x0[:, 0], oracle.posterior_covariance(x, t)[:, 0, 0]


def on_line(process, t):
  """Tangents at the times, and the times."""
  return Tangent(jnp.asarray(t), jax.tree.map(jnp.asarray, process.marginal(t))), jnp.asarray(t)


@pytest.mark.parametrize("name", processes.PROCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_density_is_the_integral_over_clean_data(x64, kind, name):
  """On a line: total mass one; density, posterior mean and variance by quadrature over x_0, or by sums over
  atoms."""
  process = processes.PROCESSES[name]()
  oracle, density = make_1d(kind, process)
  for t in times(process, kind):
    m = process.marginal(t)
    width = np.sqrt((2 * m.alpha) ** 2 + m.sigma**2)
    x = np.linspace(-12 * width, 12 * width, 4000)
    if kind == "atoms":  # all of the mass is within a few sigma of the points
      x = np.sort(np.concatenate([c * m.alpha + m.sigma * np.linspace(-10, 10, 2000) for c in (-1.0, 1.5)]))
    log_prob, x0, variance = line(
      oracle.replace(process=None), jnp.asarray(x[:, None]), *on_line(process, np.full(x.size, t))
    )
    p, x0, variance = (np.asarray(a) for a in (jnp.exp(log_prob), x0, variance))
    assert abs(np.trapezoid(p, x) - 1) < 2e-5

    if kind == "atoms":
      some = slice(None, None, 97)
      joint = np.array([0.3, 0.7]) * np.exp(
        -0.5 * (x[some, None] - m.alpha * np.array([-1.0, 1.5])) ** 2 / m.sigma**2
      )
      joint /= np.sqrt(2 * np.pi) * m.sigma
      total, atoms, step = joint.sum(1), np.array([-1.0, 1.5]), 1.0
    elif m.sigma > 0.02 * m.alpha:  # else the likelihood is too narrow for the quadrature
      some = slice(1200, 2800, 160)
      atoms = np.linspace(-20.0, 20.0, 8001)
      step = atoms[1] - atoms[0]
      joint = (
        density(atoms)
        * np.exp(-0.5 * (x[some, None] - m.alpha * atoms) ** 2 / m.sigma**2)
        / np.sqrt(2 * np.pi)
        / m.sigma
      )
      total = joint.sum(1) * step
    else:
      continue
    seen = total > 1e-100
    assert seen.sum() > 5
    np.testing.assert_allclose(p[some][seen], total[seen], rtol=1e-8)
    mean = (joint @ atoms)[seen] * step / total[seen]
    second = (joint @ atoms**2)[seen] * step / total[seen]
    np.testing.assert_allclose(x0[some][seen], mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(variance[some][seen], second - mean**2, atol=1e-8)


@pytest.mark.parametrize("name", processes.PROCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_keeps_its_digits_up_to_both_ends(x64, kind, name):
  """The same numbers as float64 at the same float32 inputs, for times down to 1e-5 of the range and the ends
  themselves."""
  process = processes.PROCESSES[name]()
  narrow, wide = make(kind, process, jnp.float32), make(kind, process, jnp.float64)
  t = times(process, kind)
  t[[2, 4]] = process.t_max * np.array([1e-5, 0.9999])
  t = t.astype(np.float32)
  x = noisy(narrow, t, seed=1)
  assert x.dtype == jnp.float32
  low = everything(narrow, x, jnp.asarray(t))
  high = everything(wide, x.astype(jnp.float64), jnp.asarray(t, jnp.float64))
  m = process.marginal(t.astype(np.float64))
  unit = 2.0**-24
  with np.errstate(divide="ignore"):
    # What one rounding of alpha m_k makes of eps: nothing for smooth data, 1/sigma for atoms.
    if kind == "atoms":
      variance = m.sigma**2
    else:
      variance = m.alpha**2 * 0.04 + m.sigma**2
    rounding = unit * (m.alpha * 2 + m.sigma) / np.sqrt(variance)
  for key in ("x0", "eps", "score", "v", "velocity", "log_prob", "hessian", "time_score", "covariance"):
    a, b = np.asarray(low[key], np.float64), np.asarray(high[key])
    assert low[key].dtype == jnp.float32
    a, b = a.reshape(len(t), -1), b.reshape(len(t), -1)
    assert np.all(np.isfinite(b)), key
    scale = np.abs(b).max(1) + {"score": 1 / np.sqrt(variance), "hessian": 1 / variance}.get(key, 1.0)
    if key == "velocity":
      scale = scale + np.abs(m.d_alpha) + np.abs(m.d_variance) / np.sqrt(variance)
    if key == "time_score":
      scale = (
        scale
        + (np.abs(m.d_alpha * m.alpha) + np.abs(m.d_variance)) / variance
        + np.abs(m.d_alpha) / np.sqrt(variance)
      )
    # Squares of standardised distances (up to about 40 here) carry rounding into the mixture's weights.
    assert np.all(np.abs(a - b).max(1) < 200 * (unit + rounding) * scale), (
      key,
      np.abs(a - b).max(1) / scale / (unit + rounding),
    )


@pytest.mark.parametrize("name", processes.PROCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_ends_are_limits(x64, kind, name):
  """Values at t = 0 and t_max against values next to them."""
  process = processes.PROCESSES[name]()
  oracle = make(kind, process)
  keys = ["x0", "covariance", "eps", "score", "v", "velocity", "log_prob", "hessian", "time_score"]
  for end, beside in ((0.0, 1e-13), (process.t_max, process.t_max * (1 - 1e-13))):
    if process.marginal(end).sigma == 0 and kind == "atoms":
      kept = keys[:2]
    else:
      kept = keys
    x = noisy(oracle, np.full(6, end), seed=2)
    at_end = everything(oracle, x, jnp.full(6, end))
    near = everything(oracle, x, jnp.full(6, beside))
    for key in kept:
      a, b = np.asarray(at_end[key]), np.asarray(near[key])
      # sigma of the VP process leaves zero like a square root, and eps with it.
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * (1 + np.abs(b).max()), err_msg=key)


def test_atoms_have_no_density_without_noise(x64):
  oracle = make("atoms", processes.edm())
  x, t = jnp.asarray(MEANS + 0.1), jnp.zeros(3)
  assert np.all(np.isnan(oracle.log_prob(x, t)))
  np.testing.assert_array_equal(oracle(x, t).x0, MEANS)
  np.testing.assert_array_equal(oracle.posterior_covariance(x, t), np.zeros((3, 2, 2)))


def test_a_singular_covariance_is_the_limit_of_regular_ones(x64):
  process = processes.vp_linear()
  string = oracles.gaussian(process, np.zeros(2), np.array([[1.0, 1.0], [1.0, 1.0]]))
  tube = oracles.gaussian(process, np.zeros(2), np.array([[1.0, 1.0], [1.0, 1.0]]) + 1e-12 * np.eye(2))
  x, t = jnp.array([[0.3, -0.7], [0.2, 1.0]]), jnp.array([0.5, 1e-2])
  expected = tube(x, t, views=VIEWS)
  for view, value in jax.jit(lambda o: o(x, t, views=VIEWS))(string).views.items():
    np.testing.assert_allclose(value, expected[view], rtol=1e-8)
  np.testing.assert_allclose(
    string(x, jnp.zeros(2)).x0, [[-0.2, -0.2], [0.6, 0.6]], atol=1e-12
  )  # the projection


def test_diagonal_isotropic_and_full_covariances_agree(x64):
  process, x, t = processes.subvp(), jnp.array([[0.3, -0.7]]), jnp.array([0.4])
  forms = [oracles.gaussian(process, np.ones(2), s) for s in (0.3, np.full(2, 0.3), 0.3 * np.eye(2))]
  forms += [
    oracles.gaussian_mixture(process, None, np.ones((1, 2)), s)
    for s in (0.3, [np.full(2, 0.3)], [0.3 * np.eye(2)])
  ]
  outputs = [jax.tree.leaves(quantities(o, x, t)) for o in forms]
  for output in outputs[1:]:
    for a, b in zip(output, outputs[0]):
      np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("name", processes.PROCESSES)
def test_gaussian_flow_solves_the_probability_flow(x64, name):
  process = processes.PROCESSES[name]()
  oracle, t = make("gaussian", process), jnp.asarray(times(process, "gaussian"))
  start = jnp.full(t.shape, 0.5 * process.t_max)
  x = noisy(oracle, start, seed=3)

  @jax.jit
  def moved(oracle, x):
    there, slope = jax.jvp(lambda s: oracle.flow(x, start, s), (t,), (jnp.ones_like(t),))
    velocity = oracle(there, t, views=("velocity",)).velocity
    return (
      slope,
      velocity,
      oracle.flow(there, t, start),
      oracle.log_prob(x, start) - oracle.log_prob(there, t),
    )

  slope, velocity, back, change = (np.asarray(a) for a in moved(oracle, x))
  m = process.marginal(np.asarray(t))
  smooth = np.isfinite(m.d_sigma)
  np.testing.assert_allclose(slope[smooth], velocity[smooth], rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-9)
  # A deterministic map of p_s onto p_t: log-densities differ by the log-determinant of the map.
  covariance = lambda m: (
    m.alpha[:, None, None] ** 2 * COVARIANCES[0] + m.sigma[:, None, None] ** 2 * np.eye(2)
  )
  log_det = lambda m: np.linalg.slogdet(covariance(m))[1]
  np.testing.assert_allclose(
    change, 0.5 * (log_det(m) - log_det(process.marginal(np.asarray(start)))), rtol=1e-9, atol=1e-9
  )


def test_vp_flow_is_the_known_one(x64):
  """Isotropic data of variance v under a VP process: distances scale with the root of the variance ratio."""
  process, v = processes.vp_linear(), 0.25
  oracle = oracles.gaussian(process, np.zeros(3), v)
  alpha2 = process.marginal(np.array([0.9, 0.2])).alpha ** 2
  scale = np.sqrt((alpha2[1] * v + 1 - alpha2[1]) / (alpha2[0] * v + 1 - alpha2[0]))
  x = jnp.array([[1.0, -2.0, 0.5]])
  np.testing.assert_allclose(oracle.flow(x, jnp.array([0.9]), jnp.array([0.2])), scale * x, rtol=1e-12)


def test_density_ratio_is_a_difference(x64):
  process = processes.rectified_flow()
  p, q = make("gaussian", process), make("mixture", process)
  x, t = noisy(p, np.array([0.1, 0.5])), jnp.array([0.1, 0.5])
  np.testing.assert_allclose(oracles.density_ratio(p, q)(x, t), p.log_prob(x, t) - q.log_prob(x, t))
  # KL(p_t || q_t) falls along the process and both densities meet at its end.

  @jax.jit
  def kl(t):
    draws = p.sample(jax.random.key(0), 4000, t)
    return jnp.mean(oracles.density_ratio(p, q)(draws, jnp.broadcast_to(t, 4000)))

  divergence = [float(kl(t)) for t in (0.0, 0.3, 0.7, 1.0)]
  assert divergence[0] > divergence[1] > divergence[2] > divergence[3]
  assert abs(divergence[3]) < 1e-12
