"""Measurements and posterior sampling against dense linear algebra and posteriors known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import scipy.stats

from diffusion import oracles, processes, solvers, tasks

IMAGE = (4, 6, 2)
LINEAR = {
  "inpainting": lambda noise: tasks.inpainting(np.random.default_rng(0).integers(0, 2, IMAGE), noise),
  "super_resolution": lambda noise: tasks.super_resolution(IMAGE, 2, noise),
  "blur": lambda noise: tasks.blur(IMAGE, 0.7, noise),
  "colorization": lambda noise: tasks.colorization(IMAGE, noise),
  "compressed_sensing": lambda noise: tasks.compressed_sensing(IMAGE, 7, jax.random.key(0), noise),
  "linear": lambda noise: tasks.linear(np.random.default_rng(1).normal(size=(5, 48)) / 7.0, IMAGE, noise),
}


def dense(measurement):
  """The matrix [M, D] of a linear measurement, column by column."""
  size = int(np.prod(measurement.event))
  return (
    np.asarray(measurement(jnp.eye(size).reshape(size, *measurement.event)), np.float64).reshape(size, -1).T
  )


@pytest.mark.parametrize("name", LINEAR)
def test_adjoint_and_solve_are_those_of_the_matrix(name, x64):
  measurement = LINEAR[name](0.3)
  matrix = dense(measurement)
  rng = np.random.default_rng(2)
  y = measurement.seen(jnp.asarray(rng.normal(size=(3, *measurement.measured))))
  flat = np.asarray(y).reshape(3, -1)
  np.testing.assert_allclose(np.asarray(measurement.adjoint(y)).reshape(3, -1), flat @ matrix, atol=1e-6)
  spread = np.array([0.01, 1.0, 4.0])
  expected = np.stack(
    [np.linalg.solve(s * matrix @ matrix.T + 0.09 * np.eye(len(matrix)), row) for s, row in zip(spread, flat)]
  )
  np.testing.assert_allclose(
    np.asarray(measurement.solve(jnp.asarray(spread), y)).reshape(3, -1), expected, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("name", LINEAR)
def test_the_spectrum_undoes_the_measurement_in_what_it_sees(name, x64):
  """Coefficients: an orthogonal projection on the rows of the matrix; those told by y = A x + noise are those
  of x plus noise / s."""
  found, matrix = tasks.spectrum(LINEAR[name](0.3)), dense(LINEAR[name](0.3))
  x = jnp.asarray(np.random.default_rng(2).normal(size=(3, *IMAGE)))
  flat = np.asarray(x).reshape(3, -1)
  inside = np.asarray(found.back(found.into(x))).reshape(3, -1)
  np.testing.assert_allclose(inside, flat @ np.linalg.pinv(matrix, rcond=1e-4) @ matrix, atol=2e-6)
  np.testing.assert_allclose(
    np.sum(np.asarray(found.into(x)).reshape(3, -1) ** 2, 1), np.sum(inside**2, 1), rtol=1e-6
  )
  np.testing.assert_allclose(found.known(found.measurement(x)), found.into(x), atol=1e-6)
  told = np.asarray(found.known(jnp.eye(matrix.shape[0]).reshape(-1, *found.measurement.measured))).reshape(
    matrix.shape[0], -1
  )
  covariance = 0.09 * told.T @ told
  seen = np.diag(covariance) > 1e-9
  if name in (
    "inpainting",
    "super_resolution",
    "colorization",
  ):  # coefficients have the shape of y, one entry each
    np.testing.assert_allclose(covariance, found.noise**2 * np.diag(seen), atol=1e-8)
  else:
    np.testing.assert_allclose(
      covariance, np.diag(np.broadcast_to(found.noise, (1, len(covariance)))[0] ** 2), rtol=1e-5, atol=1e-6
    )


def test_the_noise_of_a_measurement_has_its_size_and_is_each_rows_own():
  measurement = tasks.super_resolution((4, 4, 1), 2, 0.5)
  keys = jax.random.split(jax.random.key(0), 4000)
  noise = measurement.observe(jnp.zeros((4000, 4, 4, 1)), keys)
  assert abs(float(noise.std()) - 0.5) < 4.5 * 0.5 / np.sqrt(2 * 16000)
  np.testing.assert_array_equal(measurement.observe(jnp.zeros((1, 4, 4, 1)), keys[7:8])[0], noise[7])
  # Magnitudes of a Fourier transform do not see a shift in a circle of the frame's size.
  magnitudes, x = tasks.phase_retrieval((4, 4, 1)), jax.random.normal(jax.random.key(1), (1, 4, 4, 1))
  framed = jnp.pad(x, ((0, 0), (0, 4), (0, 4), (0, 0)))
  expected = np.abs(np.fft.fft2(np.roll(framed[0, :, :, 0], (2, 3), (0, 1)))) / 4.0
  np.testing.assert_allclose(magnitudes(x)[0, :, :, 0], expected, atol=1e-3)


def test_a_blur_is_the_convolution_with_a_gaussian_of_that_many_pixels():
  """Against SciPy's, around the borders; and a wave of k periods over N pixels keeps exp(-2 (pi k width /
  N)^2) of its height."""
  event, width = (12, 10, 2), 0.9
  blur = tasks.blur(event, width)
  x = np.random.default_rng(0).normal(size=(2, *event)).astype(np.float32)
  np.testing.assert_allclose(
    blur(jnp.asarray(x)),
    scipy.ndimage.gaussian_filter(x, (0, width, width, 0), mode="wrap", truncate=5.0),
    atol=2e-5,
  )
  wave = np.broadcast_to(np.cos(2 * np.pi * np.arange(12) / 12)[None, :, None, None], (1, *event)).astype(
    np.float32
  )
  np.testing.assert_allclose(
    blur(jnp.asarray(wave)), np.exp(-2 * (np.pi * width / 12) ** 2) * wave, atol=2e-5
  )


MEANS, WEIGHTS = np.array([[1.0, 0.0, -1.0], [-1.0, 0.5, 0.3]]), np.array([0.3, 0.7])
COVARIANCES = [np.diag([0.2, 0.4, 0.1]), np.array([[0.5, 0.2, 0.0], [0.2, 0.4, 0.1], [0.0, 0.1, 0.3]])]
MATRIX, Y, NOISE = np.array([[1.0, 1.0, 0.0], [0.0, 0.5, -1.0]]), np.array([0.4, 0.9]), 0.3


def test_the_conditioned_mixture_obeys_bayes(x64):
  """log p(x | y) - log p(x) - log p(y | x) is the same number at every x."""
  process = processes.edm()
  prior = oracles.gaussian_mixture(process, WEIGHTS, MEANS, COVARIANCES)
  posterior = oracles.conditioned(process, WEIGHTS, MEANS, COVARIANCES, MATRIX, Y, NOISE)
  x, t = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3))), jnp.zeros(50)
  likelihood = tasks.linear(MATRIX, noise=NOISE).log_likelihood(jnp.asarray(Y)[None], x)
  constant = posterior.log_prob(x, t) - prior.log_prob(x, t) - likelihood
  np.testing.assert_allclose(constant, constant[0], atol=1e-4)  # the operator is in single precision


@pytest.mark.parametrize(
  "name",
  [
    "vp_cosine",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("edm", "vp_linear", "subvp", "rectified_flow", "ve")),
  ],
)
def test_pigdm_is_exact_for_isotropic_gaussian_data(name, x64):
  """Its score is that of the noised posterior at every level, and DPS's is not."""
  process, std, mean = processes.PROCESSES[name](), 0.8, np.array([0.5, -1.0, 0.2])
  prior = oracles.gaussian(process, mean, std**2 * np.eye(3))
  posterior = oracles.conditioned(process, None, mean[None], [std**2 * np.eye(3)], MATRIX, Y, NOISE)
  t = jnp.asarray([0.02, 0.2, 0.5, 0.9]) * min(process.t_max, 1.0)
  x, y = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3))), jnp.broadcast_to(jnp.asarray(Y), (4, 2))
  measurement = tasks.linear(MATRIX, noise=NOISE)
  truth = posterior(x, t, views=("score", "x0"))
  found = tasks.pigdm(measurement, y, std)(prior)(x, t, views=("score", "x0"))
  np.testing.assert_allclose(found.score, truth.score, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(found.x0, truth.x0, rtol=1e-4, atol=1e-4)
  assert np.abs(tasks.dps(measurement, y)(prior)(x, t).x0 - truth.x0)[-1].max() > 0.1


def test_dps_widened_by_the_spread_of_the_data_is_exact_where_all_is_seen():
  """A = I and data N(m, v I): p(y | x_t) is N(x0_hat, noise^2 + v sigma^2 / (alpha^2 v + sigma^2)), so the
  score is that of the noised posterior."""
  process, v, mean, noise, seen = (
    processes.vp_cosine(),
    0.64,
    np.array([0.5, -1.0]),
    0.3,
    np.array([0.4, 0.9]),
  )
  prior = oracles.gaussian(process, mean, v * np.eye(2), dtype=jnp.float32)
  left = 1.0 / (1.0 / v + 1.0 / noise**2)
  centre = left * (mean / v + seen / noise**2)
  t, x = np.array([0.05, 0.2, 0.5, 0.9]), np.random.default_rng(0).normal(size=(4, 2))
  guided = tasks.dps(
    tasks.inpainting([1, 1], noise), jnp.broadcast_to(jnp.asarray(seen, jnp.float32), (4, 2)), data_std=v**0.5
  )(prior)
  found = jax.jit(lambda denoiser, x, t: denoiser(x, t, views=("score",)).score)(
    guided, jnp.asarray(x, jnp.float32), jnp.asarray(t, jnp.float32)
  )
  alpha, sigma = (part[:, None] for part in (process.marginal(t).alpha, process.marginal(t).sigma))
  np.testing.assert_allclose(
    found, -(x - alpha * centre) / (alpha**2 * left + sigma**2), rtol=1e-4, atol=1e-4
  )


def moments(x):
  return np.asarray(x, np.float64).mean(0), np.cov(np.asarray(x, np.float64).T)


@pytest.mark.slow
def test_the_stiffness_of_dps_and_what_normalises_it(x64):
  """Of data N(0, v I) seen whole at sigma^2 = v a pull moves the prediction by v / (4 width^2) of the
  residual r: width is the noise, or at least the root mean square of r. So 15 steps of log rho 0.5 go astray
  by a noise of 0.1, and do not when normalised."""
  v, noise = 1.0, 0.1
  process = processes.edm(sigma_min=0.01, sigma_max=20.0)
  prior = oracles.gaussian(process, [0.0, 0.0], [v, v])
  whole = tasks.inpainting([1, 1], noise)
  x, t, y = jnp.array([[0.3, -0.2], [1.0, 0.5]]), jnp.full(2, v**0.5), jnp.array([[0.17, -0.08], [1.5, 0.0]])
  plain = prior(x, t).x0
  residual = np.asarray(y - plain)
  left = np.mean(residual**2, axis=1)
  assert left[0] < noise**2 < left[1]
  for normalized, width2 in ((False, np.full(2, noise**2)), (True, np.maximum(noise**2, left))):
    moved = v / (v + t[0] ** 2) * (tasks.dps(whole, y, normalized=normalized)(prior)(x, t).x0 - plain)
    np.testing.assert_allclose(moved, v / (4 * width2[:, None]) * residual, rtol=1e-9)
  table = solvers.ddim(process, solvers.grids.log_snr(process, 15), dtype=np.float64)
  ends = [
    np.abs(solvers.sample(tasks.dps(whole, y, normalized=flag)(prior), table, 20.0 * x) - y).max()
    for flag in (False, True)
  ]
  assert ends[0] > 100.0 and ends[1] < 0.6, ends


@pytest.mark.parametrize("linear", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_daps_samples_the_posterior_of_gaussian_data(linear):
  """Each level draws from the exact p(x0 | x_t, y): mean and covariance within 4.5 standard errors; with
  Langevin moves within a tenth."""
  process, std, mean, count = (
    processes.edm(sigma_min=0.01, sigma_max=20.0),
    0.8,
    np.array([0.5, -1.0, 0.2]),
    8192,
  )
  prior = oracles.gaussian(process, mean, std**2 * np.eye(3), dtype=jnp.float32)
  posterior = oracles.conditioned(process, None, mean[None], [std**2 * np.eye(3)], MATRIX, Y, NOISE)
  measurement = tasks.measurement(
    tasks.operators.projected, (3,), params=jnp.asarray(MATRIX, jnp.float32), noise=NOISE, linear=linear
  )
  y = jnp.broadcast_to(jnp.asarray(Y, jnp.float32), (count, 2))
  grid = solvers.grids.karras(process, 12, clean=True)
  solver = tasks.daps(process, grid, measurement, y, data_std=std, moves=100)
  x = solvers.sample(
    prior,
    solver,
    process.prior(jax.random.split(jax.random.key(0), count), (3,)),
    keys=jax.random.split(jax.random.key(1), count),
  )
  centre, covariance = moments(x)
  basis, eigenvalues = (
    np.asarray(posterior.basis[0], np.float64),
    np.asarray(posterior.eigenvalues[0], np.float64),
  )
  truth = basis @ np.diag(eigenvalues) @ basis.T
  slack = 1.0 if linear else 3.0
  assert np.all(
    np.abs(centre - np.asarray(posterior.means[0])) < slack * 4.5 * np.sqrt(np.diag(truth) / count)
  )
  scale = np.sqrt((np.outer(np.diag(truth), np.diag(truth)) + truth**2) / count)
  assert np.all(np.abs(covariance - truth) < 4.5 * scale + (0.0 if linear else 0.1) * np.diag(truth).max())


@pytest.mark.parametrize(
  "make",
  [
    lambda noise: tasks.inpainting([1, 0, 1], noise=noise),
    pytest.param(
      lambda noise: tasks.linear([[1.0, 0.4, 0.0], [0.0, 0.5, -0.3]], noise=noise), marks=pytest.mark.slow
    ),
  ],
  ids=["inpainting", "linear"],
)
def test_ddrm_keeps_the_noise_level_of_every_component(make):
  """For one possible x0 its steps are draws of N(alpha x0, sigma^2), where y is clearer than the level and
  where it is not.

  Over x_t and y: variances within 4.5 standard errors, for 16,384 rows and every component.
  """
  process, count, x0 = processes.vp_cosine(), 16_384, np.array([0.7, -0.4, 1.1])
  point = oracles.atoms(process, x0[None], dtype=jnp.float32)
  measurement = make(0.5)
  keys = jax.random.split(jax.random.key(0), count)
  truth = jnp.broadcast_to(jnp.asarray(x0, jnp.float32), (count, 3))
  y = measurement.observe(truth, keys)
  for high, low in ((0.9, 0.6), (0.3, 0.1)):  # noise levels above and below that of y
    solver = tasks.ddrm(process, [high, low], measurement, y, eta=0.6, eta_b=0.8)
    t = jnp.full(count, high)
    x = process.corrupt(truth, jax.random.normal(jax.random.key(1), truth.shape), t)
    out = solvers.sample(point, solver, x, keys=jax.random.split(jax.random.key(2), count))
    m = process.marginal(np.float64(low))
    unit = (np.asarray(out, np.float64) - m.alpha * x0) / m.sigma
    assert np.all(np.abs(unit.mean(0)) < 4.5 / np.sqrt(count))
    assert np.all(np.abs(unit.var(0) - 1.0) < 4.5 * np.sqrt(2.0 / count))


def test_ddrm_is_ddim_in_what_is_not_measured():
  """Data N(m, v I) of which one entry of three is measured. With eta = 0 the others are those of DDIM, to
  rounding.

  With eta a step is x' = alpha' x0_hat + sigma' (sqrt(1 - eta^2) eps_hat + eta z): affine, so their mean and
  variance follow step by step, and of 4,096 rows from one x they are met within 4.5 standard errors.
  """
  process, rows, mean, v, eta = processes.vp_cosine(), 4096, np.array([0.5, -1.0, 0.2]), 0.64, 0.6
  prior = oracles.gaussian(process, mean, v * np.eye(3), dtype=jnp.float32)
  start, grid = np.array([0.9, -0.4, 1.3]), np.array([0.8, 0.6, 0.4, 0.2, 0.1])
  x, y = (jnp.broadcast_to(jnp.asarray(one, jnp.float32), (rows, 3)) for one in (start, [0.0, 0.7, 0.0]))
  keys = jax.random.split(jax.random.key(0), rows)
  solver = lambda eta: tasks.ddrm(process, grid, tasks.inpainting([0, 1, 0], 0.1), y, eta=eta)
  run = lambda eta: np.asarray(solvers.sample(prior, solver(eta), x, keys=keys), np.float64)[:, [0, 2]]
  flow = solvers.sample(prior, solvers.ddim(process, grid), x)[:, jnp.array([0, 2])]
  np.testing.assert_allclose(run(0.0), flow, atol=1e-5)
  m = process.marginal(grid)
  centre, spread = start[[0, 2]], 0.0
  for a, s, a_next, s_next in zip(m.alpha[:-1], m.sigma[:-1], m.alpha[1:], m.sigma[1:]):
    gain = a * v / (a**2 * v + s**2)  # of x0_hat in x; that of eps_hat is (1 - a gain) / s
    pull = a_next * gain + s_next * np.sqrt(1 - eta**2) * (1 - a * gain) / s
    centre = a_next * mean[[0, 2]] + pull * (centre - a * mean[[0, 2]])
    spread = pull**2 * spread + (s_next * eta) ** 2
  found = run(eta)
  assert np.all(np.abs(found.mean(0) - centre) < 4.5 * np.sqrt(spread / rows)), (found.mean(0), centre)
  assert np.all(np.abs(found.var(0) / spread - 1.0) < 4.5 * np.sqrt(2.0 / rows)), (found.var(0), spread)


@pytest.mark.parametrize(
  "name",
  [
    "inpainting",
    *(
      pytest.param(n, marks=pytest.mark.slow)
      for n in ("super_resolution", "colorization", "compressed_sensing")
    ),
  ],
)
def test_replacement_ends_in_the_measured_values(name):
  measurement = LINEAR[name](0.0)
  process = processes.edm(sigma_min=0.01, sigma_max=20.0)
  prior = oracles.gaussian(process, np.zeros(IMAGE), np.full(48, 0.5), dtype=jnp.float32)
  y = measurement(jax.random.normal(jax.random.key(0), (2, *IMAGE)))
  keys = jax.random.split(jax.random.key(2), 2)
  x = solvers.sample(
    prior,
    solvers.build("dpmpp_2m", process, 6),
    process.prior(jax.random.split(jax.random.key(1), 2), IMAGE),
    keys=keys,
    post_step=tasks.replacement(process, measurement, y),
  )
  np.testing.assert_allclose(measurement(x), y, atol=1e-4)
  assert np.abs(x - measurement.adjoint(y)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blur", "inpainting"])
def test_replacement_is_exact_for_isotropic_gaussian_data(name):
  """A stochastic solver, 400 steps, 1,024 rows: means and variances of every pixel within 4.5 standard errors
  and 2% of the prior's."""
  event, rows, variance = (4, 4, 1), 1024, 0.5
  measurement = (
    tasks.blur(event, 0.6, 0.4) if name == "blur" else tasks.inpainting(np.arange(16).reshape(event) % 2, 0.4)
  )
  process = processes.edm(sigma_min=0.01, sigma_max=20.0)
  prior = oracles.gaussian(process, np.zeros(event), np.full(16, variance), dtype=jnp.float32)
  y = measurement.observe(
    jax.random.normal(jax.random.key(0), (1, *event)), jax.random.split(jax.random.key(4), 1)
  )
  x = solvers.sample(
    prior,
    solvers.build("dpmpp_2m_sde", process, 400),
    process.prior(jax.random.split(jax.random.key(1), rows), event),
    keys=jax.random.split(jax.random.key(2), rows),
    post_step=tasks.replacement(process, measurement, jnp.repeat(y, rows, 0)),
  )
  matrix = dense(measurement)
  gain = variance * matrix.T @ np.linalg.inv(variance * matrix @ matrix.T + 0.16 * np.eye(len(matrix)))
  mean, covariance = moments(np.asarray(x).reshape(rows, 16))
  truth = variance * (np.eye(16) - gain @ matrix)
  slack, level = 0.02, np.diag(truth)
  assert np.all(
    np.abs(mean - gain @ np.asarray(y, np.float64).ravel())
    < 4.5 * np.sqrt(level / rows) + slack * np.sqrt(variance)
  )
  assert np.all(np.abs(np.diag(covariance) - level) < 4.5 * level * np.sqrt(2.0 / rows) + slack * variance)


@pytest.mark.slow
def test_replacement_denoises_any_data_by_a_stochastic_solver():
  """All of x measured with noise: the reverse SDE from y, where the process is as noisy as y, samples the
  posterior of a mixture.

  Shares of the three modes and their means, of 4,096 rows: within 4.5 standard errors (and 0.005 for the
  means, of steps not infinitely small).
  """
  process, rows = processes.edm(sigma_min=0.01, sigma_max=20.0), 4096
  means = np.array([[-1.0, 0.0], [1.0, 0.3], [0.5, -1.0]])
  prior = oracles.gaussian_mixture(process, None, means, 0.1**2, dtype=jnp.float32)
  measurement, y = tasks.inpainting([1, 1], noise=0.7), jnp.array([[0.3, -0.2]])
  grid = np.concatenate([np.geomspace(20.0, 0.7, 25), np.geomspace(0.7, 0.01, 300)[1:], [0.0]])
  x = solvers.sample(
    prior,
    solvers.ancestral(process, grid),
    process.prior(jax.random.split(jax.random.key(1), rows), (2,)),
    keys=jax.random.split(jax.random.key(2), rows),
    post_step=tasks.replacement(process, measurement, jnp.repeat(y, rows, 0)),
  )
  nearest = np.argmin(np.linalg.norm(np.asarray(x, np.float64)[:, None] - means, axis=2), 1)
  gap = np.asarray(y, np.float64) - means
  shares = np.exp(-0.5 * np.sum(gap**2, 1) / (0.7**2 + 0.1**2))
  shares /= shares.sum()
  found = np.bincount(nearest, minlength=3) / rows
  assert np.all(np.abs(found - shares) < 4.5 * np.sqrt(shares * (1 - shares) / rows)), (found, shares)
  centres = np.stack([np.asarray(x, np.float64)[nearest == k].mean(0) for k in range(3)])
  assert np.all(
    np.abs(centres - means - gap * 0.01 / 0.5) < 0.005 + 4.5 * 0.1 / np.sqrt(rows * shares)[:, None]
  )


PHASE = {
  "daps": lambda prior, retrieval, y: (
    prior,
    tasks.daps(prior.process, solvers.grids.karras(prior.process, 25, clean=True), retrieval, y, moves=50),
  ),
  "dps": lambda prior, retrieval, y: (
    tasks.dps(retrieval, y)(prior),
    solvers.build("dpmpp_2m_sde", prior.process, 50),
  ),
  "dps, normalized": lambda prior, retrieval, y: (
    tasks.dps(retrieval, y, normalized=True)(prior),
    solvers.build("dpmpp_2m_sde", prior.process, 50),
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASE)
def test_images_are_found_from_the_magnitudes_of_their_spectrum(name):
  """Three images of 4 x 4 signs, their negatives, and both turned by half a circle: magnitudes tell the image
  and not which of its four forms.

  The posterior is a quarter for each form of the right image. Of four runs the one that leaves least of y,
  which is how DPS and DAPS report phase retrieval, is one of them in at least 95% of 384 measurements, with
  99.99% confidence; and of the single runs that are right, each form has a quarter within 4.5 standard
  errors. Single runs do not come to 95%: 78% (daps), 91% (dps) and 87% (dps, normalized) were measured, 33%
  being chance. And of data where the other forms of an image are no data, a run may settle on one of these
  and end at whatever is next to it: then DPS found one image in a quarter of its runs, others in half or in
  all.
  """
  groups, runs, noise, event = 384, 4, 0.1, (4, 4, 1)
  images = np.random.default_rng(7).choice([-1.0, 1.0], size=(3, *event))
  images = np.concatenate(
    [images, -images, images[:, ::-1, ::-1], -images[:, ::-1, ::-1]]
  )  # form f of image k is 3 f + k
  magnitudes = lambda x: np.abs(np.fft.fft2(x, s=(8, 8), axes=(-3, -2))) / 4.0
  y = magnitudes(images[:3]) + noise * np.random.default_rng(8).normal(size=(3, 8, 8, 1))
  fit = -0.5 * np.sum((y[:, None] - magnitudes(images)[None]) ** 2, axis=(2, 3, 4)) / noise**2
  posterior = np.exp(fit - scipy.special.logsumexp(fit, axis=1, keepdims=True))
  np.testing.assert_allclose(posterior, np.tile(np.eye(3), 4) / 4, atol=1e-6)
  process, truth = processes.edm(sigma_min=0.01, sigma_max=20.0), np.repeat(np.arange(groups) % 3, runs)
  seen = jnp.asarray(y[truth], jnp.float32)
  denoiser, solver = PHASE[name](
    oracles.atoms(process, images, dtype=jnp.float32), tasks.phase_retrieval(event, noise=noise), seen
  )
  noised, keys = (
    process.prior(jax.random.split(jax.random.key(2), len(truth)), event),
    jax.random.split(jax.random.key(3), len(truth)),
  )
  x = np.asarray(solvers.sample(denoiser, solver, noised, keys=keys), np.float64)
  distance = np.linalg.norm((x[:, None] - images[None]).reshape(len(x), 12, 16), axis=2)
  form, found = np.divmod(distance.argmin(axis=1), 3)
  right = (found == truth) & (distance.min(axis=1) < 0.5)
  left = np.sum((magnitudes(x) - np.asarray(seen)) ** 2, axis=(1, 2, 3)).reshape(groups, runs)
  best = right.reshape(groups, runs)[np.arange(groups), left.argmin(axis=1)]
  single = [round(float(right[truth == k].mean()), 3) for k in range(3)]
  said = f"right: {best.sum()} of {groups}, single runs {single}, forms {np.bincount(form[right])}"
  assert scipy.stats.binom.sf(best.sum() - 1, groups, 0.95) < 1e-4, said
  assert np.all(
    np.abs(np.bincount(form[right], minlength=4) / right.sum() - 0.25)
    < 4.5 * np.sqrt(0.25 * 0.75 / right.sum())
  ), said


KNOWN = np.array([0, 2])  # of three entries


def _cropped(params, x):
  del params
  return x[:, KNOWN]


def test_a_likelihood_does_not_depend_on_how_what_is_known_is_written():
  """Two known entries of three as a mask with zeros elsewhere, as those two alone, and as a matrix: one
  likelihood, however its width is found."""
  process = processes.vp_cosine()
  prior = oracles.gaussian(process, [0.5, -1.0, 0.2], [0.4, 0.6, 0.8], dtype=jnp.float32)
  x, t = (
    jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32),
    jnp.asarray([0.05, 0.3, 0.6, 0.9]),
  )
  call = jax.jit(lambda denoiser: denoiser(x, t, views=("x0",)).x0)
  known = np.random.default_rng(1).normal(size=(4, 2))
  padded = np.zeros((4, 3))
  padded[:, KNOWN] = known
  ways = [
    (tasks.inpainting([1, 0, 1], 0.2), padded),
    (tasks.measurement(_cropped, (3,), noise=0.2, linear=True, gram=1.0), known),
    (tasks.linear(np.eye(3)[KNOWN], noise=0.2), known),
  ]
  for options in (dict(normalized=True), dict(data_std=0.7)):
    first, *others = [
      np.asarray(call(tasks.dps(seen, jnp.asarray(y, jnp.float32), **options)(prior))) for seen, y in ways
    ]
    assert np.abs(first - call(prior)).max() > 0.01
    for other in others:
      np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-4)


def _cubed(params, x):
  del params
  return x**3


def _five_times(params, x):
  del params
  return 5.0 * x


def test_the_steepness_of_an_operator_is_its_largest_singular_value():
  """Squared; the Jacobian of x^3 is 3 x^2 on the diagonal. Power iteration comes from below, and arrives."""
  steepness = jax.jit(lambda measurement, x: measurement.steepness(x, moves=300))
  for name in ("super_resolution", "linear"):
    measurement = LINEAR[name](0.3)
    truth = np.linalg.svd(dense(measurement), compute_uv=False)[0] ** 2
    np.testing.assert_allclose(steepness(measurement, jnp.zeros((2, *IMAGE))), [truth, truth], rtol=1e-4)
    assert np.all(measurement.steepness(jnp.zeros((2, *IMAGE))) < truth * (1 + 1e-5))
  x = np.array([[0.1, -1.0, 0.5], [2.0, 0.3, 1.0]])
  np.testing.assert_allclose(
    steepness(tasks.measurement(_cubed, (3,)), jnp.asarray(x, jnp.float32)),
    9.0 * np.max(x**4, axis=1),
    rtol=1e-5,
  )


@pytest.mark.parametrize("method", ["daps", pytest.param("dps", marks=pytest.mark.slow)])
def test_a_steep_operator_leads_no_step_astray(method):
  """y = 5 x + noise, not said to be linear, of data N(0, 1): a step that took the slope for one would be 25
  times too long.

  The posterior is N(5 y / (25 + noise^2), noise^2 / (25 + noise^2)). Means of 2,048 rows within 4.5 standard
  errors and a tenth of its width, variances within 4.5 and a fifth.
  """
  process, noise, rows, seen = processes.edm(sigma_min=0.01, sigma_max=20.0), 0.2, 2048, np.array([3.0, -4.0])
  prior = oracles.gaussian(process, np.zeros(2), np.ones(2), dtype=jnp.float32)
  steep, y = (
    tasks.measurement(_five_times, (2,), noise=noise),
    jnp.broadcast_to(jnp.asarray(seen, jnp.float32), (rows, 2)),
  )
  if method == "daps":
    denoiser, solver = (
      prior,
      tasks.daps(process, solvers.grids.karras(process, 8, clean=True), steep, y, moves=60),
    )
  else:
    denoiser, solver = tasks.dps(steep, y, data_std=1.0)(prior), solvers.build("dpmpp_2m", process, 40)
  x = solvers.sample(
    denoiser,
    solver,
    process.prior(jax.random.split(jax.random.key(0), rows), (2,)),
    keys=jax.random.split(jax.random.key(1), rows),
  )
  centre, covariance = moments(x)
  width2 = noise**2 / (25.0 + noise**2)
  assert np.all(
    np.abs(centre - 5.0 * seen / (25.0 + noise**2)) < (4.5 / np.sqrt(rows) + 0.1) * np.sqrt(width2)
  ), centre
  assert np.all(np.abs(np.diag(covariance) / width2 - 1.0) < 4.5 * np.sqrt(2.0 / rows) + 0.2), (
    np.diag(covariance) / width2
  )


def solved(solver=None, post_step=None):
  """A sample of two entries on the linear VP process, by a solver or with a post_step that may have been made
  for something else."""
  process = processes.vp_linear()
  prior = oracles.gaussian(process, [0.0, 0.0], [1.0, 1.0], dtype=jnp.float32)
  keys = jax.random.split(jax.random.key(0), 1)
  return solvers.sample(
    prior, solver or solvers.build("ddim", process, 2), jnp.zeros((1, 2)), keys=keys, post_step=post_step
  )


@pytest.mark.parametrize(
  "make,words",
  [
    (lambda: tasks.inpainting([0.5, 1.0]), "a mask is 1"),
    (lambda: tasks.super_resolution((9, 8, 1), 2), "no whole blocks"),
    (lambda: tasks.super_resolution((8,), 2), "images of shape"),
    (lambda: tasks.blur((4, 4, 1), 0.0), "above 0"),
    (lambda: tasks.compressed_sensing((4,), 5, jax.random.key(0)), "1 to 4 independent"),
    (lambda: tasks.linear(np.ones((2, 3)), (4,)), r"\[M, 4\]"),
    (lambda: tasks.measurement(lambda params, x: x**2, (3,), linear=True), "was called linear"),
    (
      lambda: tasks.measurement(
        lambda params, x: x[:, :2] * jnp.array([[1.0, 2.0]]), (3,), linear=True, gram=1.0
      ),
      "leave gram out",
    ),
    (lambda: tasks.measurement(lambda params, x: x.sum(), (3,)), "first axis is the batch's"),
    (lambda: tasks.measurement(lambda params, x: x.reshape(-1, 7), (3,)), "does not take data"),
    (lambda: tasks.inpainting([1, 0], noise=-1.0), "0 or more"),
    (lambda: tasks.pigdm(tasks.phase_retrieval((4, 4, 1)), jnp.zeros((1, 8, 8, 1))), "linear operator"),
    (
      lambda: tasks.ddrm(
        processes.edm(), [1.0, 0.0], tasks.blur((65, 65, 1), 1.0), jnp.zeros((1, 65, 65, 1))
      ),
      "4225 entries of x are more than 4096: take pigdm or daps",
    ),
    (
      lambda: tasks.replacement(processes.edm(), tasks.phase_retrieval((4, 4, 1)), jnp.zeros((1, 8, 8, 1))),
      "replacement needs a linear operator",
    ),
    (lambda: tasks.dps(tasks.inpainting([1, 0]), jnp.zeros((1, 2))), "noise above zero"),
    (lambda: tasks.dps(tasks.inpainting([1, 0]), jnp.zeros((1, 2)), data_std=0.0), "above 0, got 0.0"),
    (lambda: tasks.pigdm(tasks.inpainting([1, 0]), jnp.zeros((1, 2)), -1.0), "above 0, got -1.0"),
    (
      lambda: tasks.ddrm(processes.edm(), [1.0, 0.0], tasks.inpainting([1, 0]), jnp.zeros((1, 2)), eta=2.0),
      "eta from 0 to 1, got 2.0",
    ),
    (
      lambda: solved(
        solver=tasks.ddrm(processes.edm(), [1.0, 0.0], tasks.inpainting([1, 0]), jnp.zeros((1, 2)))
      ),
      "the solver was built for the process 'edm'",
    ),
    (
      lambda: solved(
        solver=tasks.daps(
          processes.vp_linear(beta_max=5.0), [1.0, 0.0], tasks.inpainting([1, 0]), jnp.zeros((1, 2))
        )
      ),
      "the solver was built for a process",
    ),
    (
      lambda: solved(
        post_step=tasks.replacement(processes.edm(), tasks.inpainting([1, 0]), jnp.zeros((1, 2)))
      ),
      "the post_step was built for the process 'edm'",
    ),
    (
      lambda: solvers.sample(
        tasks.pigdm(tasks.inpainting([1, 0], 0.5), jnp.ones((1, 2)))(
          oracles.gaussian(processes.vp_cosine(), [0.0, 0.0], [1.0, 1.0])
        ),
        solvers.build("dpmpp_2m", processes.vp_cosine(), 4),
        jnp.zeros((1, 2)),
      ),
      "no signal .* no guidance that changes the score",
    ),
    (
      lambda: solved(
        post_step=tasks.replacement(processes.vp_linear(), tasks.inpainting([1, 0, 1]), jnp.zeros((1, 3)))
      ),
      "make it for their shape",
    ),
    (
      lambda: solved(
        post_step=tasks.replacement(processes.vp_linear(), tasks.inpainting([1, 0]), jnp.zeros((2, 2)))
      ),
      "one measurement a sample",
    ),
    (
      lambda: tasks.dps(tasks.inpainting([1, 0], 0.1), jnp.zeros((1, 2)), data_std=1.0, normalized=True),
      "give one of them",
    ),
    (
      lambda: tasks.dps(tasks.inpainting([1, 0], 0.1), jnp.zeros((1, 3)))(
        oracles.gaussian(processes.edm(), [0.0, 0.0], [1.0, 1.0])
      )(jnp.zeros((1, 2)), jnp.ones(1)),
      "one measurement a sample",
    ),
    (
      lambda: tasks.dps(tasks.inpainting([1, 0, 1], 0.1), jnp.zeros((1, 3)))(
        oracles.gaussian(processes.edm(), [0.0, 0.0], [1.0, 1.0])
      )(jnp.zeros((1, 2)), jnp.ones(1)),
      "make it for their shape",
    ),
  ],
)
def test_mistakes_are_named(make, words):
  with pytest.raises(ValueError, match=words):
    make()
