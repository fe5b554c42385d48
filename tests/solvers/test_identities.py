"""Where two samplers are one, and coefficients against computations of another kind."""

import itertools

import jax
import numpy as np
import pytest
from solver_cases import marginal_moments, pad, run_all, stack, table_moments

from diffusion import oracles, processes, solvers

GRID = np.array([0.95, 0.8, 0.55, 0.4, 0.22, 0.1, 0.03])


def same(first, second, process, grid=GRID, rtol=1e-10):
  """Two tables send two Gaussians to the same ones, which for tables of one length means equal
  coefficients."""
  for mean, variance in ((0.5, 0.05), (-1.0, 1.5)):
    start = marginal_moments(process, mean, variance, grid[0])
    outs = [table_moments(process, table, mean, variance, start) for table in (first, second)]
    np.testing.assert_allclose(
      *[[out.mean, out.variance] for out in outs], rtol=rtol, err_msg=f"{first.name} {second.name}"
    )


def built(name, process, grid=GRID, **options):
  return solvers.SOLVERS[name].builder(process, grid, dtype=np.float64, **options)


@pytest.mark.parametrize("name", processes.PROCESSES)
@pytest.mark.parametrize(
  "first, second",
  [
    (("deis", dict(r=0)), ("ddim", {})),
    (("deis", dict(r=0, clock="rho")), ("ddim", {})),
    (("lms", dict(order=1)), ("ddim", {})),
    (("ipndm", dict(order=1)), ("ddim", {})),
    (("dpm_solver", dict(order=1)), ("ddim", {})),
    (("unipc", dict(order=1, corrector=False)), ("ddim", {})),
    (("sa_solver", dict(tau=0.0, predictor=1, corrector=0)), ("ddim", {})),
    (("sa_solver", dict(tau=1.0, predictor=1, corrector=0)), ("ddim", dict(eta=1.0))),
    (("hb", dict(order=1, beta=1.0)), ("ddim", {})),
    (("lms", dict(order=3)), ("deis", dict(r=2, clock="rho"))),
    # UniP-2 with B2 is DPM-Solver++ 2M, UniP-3 the full 3M but for its second step, and SA-Solver without
    # noise UniPC.
    (("unipc", dict(order=2, corrector=False, lower_order_final=False)), ("dpmpp_2m", {})),
    (("sa_solver", dict(tau=0.0, predictor=3, corrector=0)), ("dpmpp_3m", {})),
    (("dpmpp_3m_sde", dict(eta=0.0)), ("dpmpp_3m", {})),
    (("sa_solver", dict(tau=0.7, predictor=3, corrector=0)), ("dpmpp_3m_sde", dict(eta=0.49))),
    (("hb", dict(order=3, beta=1.0)), ("ipndm", dict(order=3))),
    *[(("ghvb", dict(order=k, beta=1.0)), ("ipndm", dict(order=k))) for k in (1, 2, 3, 4)],
    (("heun_churn", dict(s_churn=0.0)), ("heun", {})),
    (("restart", dict(intervals=())), ("heun", {})),
    (("restart", dict(intervals=((0.06, 0.3, 0),), solver=solvers.unipc)), ("unipc", {})),
    (("deis", dict(view="eps")), ("deis", {})),
    (("dpm_solver", dict(view="eps")), ("dpm_solver", {})),
    (("pndm", dict(view="eps")), ("pndm", {})),
    (("ghvb", dict(view="eps", order=4)), ("ghvb", dict(order=4))),
  ],
  ids=lambda case: case[0],
)
def test_two_samplers_that_are_one(first, second, name):
  process = processes.PROCESSES[name]()
  grid = GRID * process.t_max
  same(
    built(first[0], process, grid, **first[1]), built(second[0], process, grid, **second[1]), process, grid
  )


def test_adams_bashforth_in_t_on_a_process_whose_sigma_is_t():
  """On EDM and equal steps every form of Adams-Bashforth is the classical one."""
  process, grid = processes.edm(), np.linspace(3.0, 1.0, 9)
  for r in (1, 2, 3):
    tables = [built("deis", process, grid, r=r, clock=clock) for clock in ("t", "rho")]
    tables.append(built("lms", process, grid, order=r + 1))
    for table in tables:
      np.testing.assert_allclose(table.A, tables[0].A, atol=1e-12)
    weights = np.append(tables[0].B[-1, 0], tables[0].A[-1, 0, 1:]) / -0.25
    expected = {1: [3 / 2, -1 / 2], 2: [23 / 12, -16 / 12, 5 / 12], 3: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}[
      r
    ]
    np.testing.assert_allclose(weights, expected, atol=1e-12)


def simpson(f, start, end, count=20_001):
  x = np.linspace(start, end, count)
  w = np.ones(count)
  w[1:-1:2], w[2:-1:2] = 4, 2
  return float(np.sum(w * f(x)) * (end - start) / (count - 1) / 3)


def lagrange(points, j):
  return lambda x: np.prod([(x - p) / (points[j] - p) for k, p in enumerate(points) if k != j], axis=0)


@pytest.mark.parametrize("name", ["vp_linear", "subvp", "edm", "rectified_flow"])
def test_weights_are_the_integrals_that_the_papers_write(name):
  """By Simpson's rule with 20001 points in the paper's own variable of integration."""
  process = processes.PROCESSES[name]()
  grid = GRID * process.t_max
  i = 4  # the step from grid[4] to grid[5]
  m = lambda t: process.marginal(t)
  newest = lambda count: [grid[i - j] for j in range(count)]

  # DEIS (arXiv:2204.13902, eq. 15): int Psi(t', tau) G G^T / (2 sigma) l_j d tau.
  def integrand(tau, j):
    _f, g2 = process.drift_diffusion(tau)
    return m(grid[i + 1]).alpha / m(tau).alpha * 0.5 * g2 / m(tau).sigma * lagrange(newest(4), j)(tau)

  table = built("deis", process, grid, view="eps")
  expected = [simpson(lambda tau: integrand(tau, j), grid[i], grid[i + 1]) for j in range(4)]
  np.testing.assert_allclose(np.append(table.B[i, 0], table.A[i, 0, 1:]), expected, rtol=1e-8)

  # 3M and SA-Solver (arXiv:2309.05019, eq. 15): sigma' (1 + tau^2) int e^(-tau^2 (lambda' - lambda) + lambda)
  # l_j d lambda.
  clock = [process.log_snr(t) / 2 for t in grid]
  for eta in (0.0, 0.6):

    def weight(j):
      inside = lambda x: (
        np.exp(-eta * (clock[i + 1] - x) + x) * lagrange([clock[i - k] for k in range(3)], j)(x)
      )
      return m(grid[i + 1]).sigma * (1 + eta) * simpson(inside, clock[i], clock[i + 1])

    table = built("dpmpp_3m_sde", process, grid, eta=eta, lower_order_final=False)
    np.testing.assert_allclose(
      np.append(table.B[i, 0], table.A[i, 0, 1:]), [weight(j) for j in range(3)], rtol=1e-10
    )


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_is_the_papers_linear_system(order, variant):
  """One step of arXiv:2302.04867, algorithms 5 and 6, written with divided differences and a matrix
  solved."""
  process = processes.vp_linear()
  t = GRID[: order + 2]
  clock = process.log_snr(t) / 2
  m = process.marginal(t)
  table = built("unipc", process, t, order=order, variant=variant, lower_order_final=False)
  rng = np.random.default_rng(0)
  D = rng.normal(size=order + 2)

  def update(x, k, new=None):
    """From node k to k + 1 with the evaluations D[:k+1], and with D at k + 1 if `new`."""
    p = min(order, k + 1)
    h = clock[k + 1] - clock[k]
    hh = -h
    B = hh if variant == "bh1" else np.expm1(hh)
    r = [(clock[k - j] - clock[k]) / h for j in range(1, p)] + ([1.0] if new is not None else [])
    d = [(D[k - j] - D[k]) / r[j - 1] for j in range(1, p)] + ([new - D[k]] if new is not None else [])
    q, b, value, factorial = len(r), [], np.expm1(hh) / hh - 1, 1.0
    for j in range(1, q + 1):
      factorial *= j
      b.append(value * factorial / B)
      value = value / hh - 1 / (factorial * (j + 1))
    rho = [0.5] if q == 1 else np.linalg.solve([[x**j for x in r] for j in range(q)], b) if q else []
    return m.sigma[k + 1] / m.sigma[k] * x - m.alpha[k + 1] * (np.expm1(hh) * D[k] + B * np.dot(rho, d))

  # The table's own recursion with D given.
  x, state = 0.3, table.start[:, 0] * 0.3
  corrected = x
  for k in range(order + 1):
    if k:
      corrected = update(corrected, k - 1, D[k])
    predicted = update(corrected, k)
    state = table.A[k] @ state + table.B[k] * D[k]
    np.testing.assert_allclose(table.w[k + 1] @ state, predicted, rtol=1e-10)


def test_dpm_solver_of_third_order_is_its_algorithm():
  """arXiv:2206.00927, algorithm 2, and DPM-Solver++ 2S (arXiv:2211.01095, algorithm 1) on a denoiser that is
  not linear."""
  process = processes.vp_linear()
  grid = np.array([0.6, 0.45])
  clock = process.log_snr(grid) / 2
  h = clock[1] - clock[0]
  at = lambda r: process.t_of_log_snr(2 * (clock[0] + r * h))
  m = lambda r: process.marginal(at(r))
  eps = lambda x, t: np.sin(3 * x) + t
  x = 0.4
  e0 = eps(x, at(0))
  u1 = m(1 / 3).alpha / m(0).alpha * x - m(1 / 3).sigma * np.expm1(h / 3) * e0
  d1 = eps(u1, at(1 / 3)) - e0
  k = 2 * h / 3
  u2 = m(2 / 3).alpha / m(0).alpha * x - m(2 / 3).sigma * (np.expm1(k) * e0 + 2 * (np.expm1(k) / k - 1) * d1)
  d2 = eps(u2, at(2 / 3)) - e0
  expected = m(1).alpha / m(0).alpha * x - m(1).sigma * (np.expm1(h) * e0 + 1.5 * (np.expm1(h) / h - 1) * d2)
  np.testing.assert_allclose(
    recursion(built("dpm_solver", process, grid, view="eps"), x, eps), expected, rtol=1e-10
  )

  D0 = eps(x, at(0))
  u = m(0.5).sigma / m(0).sigma * x - m(0.5).alpha * np.expm1(-h / 2) * D0
  expected = m(1).sigma / m(0).sigma * x - m(1).alpha * np.expm1(-h) * eps(u, at(0.5))
  np.testing.assert_allclose(recursion(built("dpmpp_2s", process, grid), x, eps), expected, rtol=1e-10)


def recursion(table, x, function):
  """What the executor does with one number, in NumPy."""
  state = table.start[:, 0] * x
  for i in range(table.num_steps):
    u = table.w[i] @ state
    state = table.A[i] @ state + table.B[i] * (table.g[i] * u + table.h[i] * function(u, table.t[i]))
  return table.w[-1] @ state


def test_exponential_rk3_satisfies_the_stiff_conditions_for_every_step():
  """sum b = phi_1, sum b c = phi_2, sum b c^2 = 2 phi_3, sum b psi_2 = 0 (Hochbruck and Ostermann 2005), and
  Kutta's rule at z = 0."""
  from diffusion.solvers.exponential_rk import stiff_third

  z = -np.array([1e-9, 0.1, 1.0, 5.0, 20.0])
  phi = [None] + [
    np.array([simpson(lambda u: np.exp((1 - u) * v) * u**k / [1, 1, 2][k], 0, 1) for v in z])
    for k in range(3)
  ]
  scaled = lambda c: np.array([simpson(lambda u: np.exp((1 - u) * c * v) * u, 0, 1) for v in z])
  c = [0 * z, 0.5 + 0 * z, 1.0 + 0 * z]
  a, b = stiff_third(z, c)
  np.testing.assert_allclose(sum(b), phi[1], rtol=1e-9)
  np.testing.assert_allclose(b[1] * c[1] + b[2] * c[2], phi[2], rtol=1e-9)
  np.testing.assert_allclose(b[1] * c[1] ** 2 + b[2] * c[2] ** 2, 2 * phi[3], rtol=1e-9)
  psi = [c[1] ** 2 * scaled(0.5), c[2] ** 2 * scaled(1.0) - a[1][1] * c[1]]
  np.testing.assert_allclose(b[1] * psi[0] + b[2] * psi[1], 0, atol=1e-10)
  np.testing.assert_allclose(
    [a[0][0][0], a[1][0][0], a[1][1][0], b[0][0], b[1][0], b[2][0]],
    [0.5, -1, 2, 1 / 6, 4 / 6, 1 / 6],
    atol=1e-6,
  )


# The interval of stability on y' = -y: Adams-Bashforth 1 to 4, heavy ball multiplies it by (2 - beta)/beta
# (arXiv:2307.11118).
ADAMS = ((1, 2.0), (2, 1.0), (3, 6 / 11), (4, 0.3))
STABLE = [
  *[("hb", dict(order=k, beta=b), bound * (2 - b) / b) for k, bound in ADAMS for b in (1.0, 0.8, 0.5, 0.2)],
  *[("ghvb", dict(order=2, beta=b), 2 - b) for b in (0.8, 0.5, 0.2)],
  *[("ghvb", dict(order=3, beta=b), bound) for b, bound in ((0.8, 0.64), (0.5, 0.78), (0.2, 0.91))],
  *[("ghvb", dict(order=4, beta=b), bound) for b, bound in ((0.8, 0.35), (0.5, 0.43), (0.2, 0.50))],
]


@pytest.mark.parametrize("solver, options, bound", STABLE, ids=lambda value: str(value))
def test_stability_bound_of_momentum(solver, options, bound):
  """The spectral radius of the table's own recursion for eps = x, where x falls like y' = -y, crosses 1 at
  the bound."""
  process = processes.edm()

  def radius(step):
    grid = 500.0 - step * np.arange(9)
    table = built(solver, process, grid, view="eps", **options)
    matrix = table.A[-1] + np.outer(table.B[-1], table.w[-2])  # E = eps = u
    return abs(np.linalg.eigvals(matrix)).max()

  assert radius(0.97 * bound) < 1 < radius(1.03 * bound), (radius(0.97 * bound), radius(1.03 * bound))


@pytest.mark.slow
def test_published_errors_on_a_ring_of_six_gaussians(x64):
  """RMSE on nodes quadratic in t, within 20% of an independent implementation's (VP, 2000 noises), where it
  is stable in the seed.

  With more evaluations a few noises that end in another mode rule the RMSE, and it halves or doubles with the
  seed.
  """
  process = processes.vp_linear()
  angle = 2 * np.pi * np.arange(6) / 6
  means = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
  oracle = oracles.gaussian_mixture(process, np.arange(1, 7) / 21, means, 0.25**2)
  cases = [
    ("ddim", {}, (0.328, 0.224, 0.136)),
    ("deis", dict(r=1), (0.201, 0.119, 0.045)),
    ("deis", dict(r=2), (0.157, 0.073, 0.023)),
    ("deis", dict(r=3), (0.154, 0.051, 0.010)),
    ("dpmpp_2s", {}, (0.279, 0.153, 0.060)),
    ("heun", {}, (3.9, 0.574, 0.138)),
    ("dpmpp_2m", {}, (0.274, 0.103, 0.033)),
    ("unipc", dict(order=2), (0.172, 0.050, 0.0086)),
    ("unipc", dict(order=3), (0.184, 0.087, 0.013)),
    ("ghvb", dict(order=2, beta=0.8), (0.169, 0.104, 0.040)),
  ]
  counts = (6, 10, 20)
  steps = lambda solver, n: n // 2 if solver in ("dpmpp_2s", "heun") else n
  tables = [
    pad(built(s, process, solvers.grids.quadratic(process, steps(s, n)), **o), 20)
    for s, o, _ in cases
    for n in counts
  ]
  x = jax.random.normal(jax.random.key(0), (2000, 2))
  outs = np.asarray(run_all(oracle, stack(tables), x, jax.random.split(jax.random.key(0), 2000)))
  exact = np.asarray(solvers.sample(oracle, built("unipc", process, solvers.grids.log_snr(process, 400)), x))
  observed = np.sqrt(np.mean(np.sum((outs - exact) ** 2, axis=-1), axis=-1)).reshape(-1, 3)
  for (solver, options, claimed), row in zip(cases, observed):
    np.testing.assert_allclose(row[:2], claimed[:2], rtol=0.2, err_msg=f"{solver} {options}")
    np.testing.assert_allclose(row[2], claimed[2], rtol=0.3, err_msg=f"{solver} {options}")


def test_churn_is_its_algorithm():
  """arXiv:2206.00364, algorithm 2, on EDM's own variables, with a denoiser that is not linear and given
  noise."""
  process, grid = processes.edm(), np.array([3.0, 1.0, 0.4, 0.1, 0.0])
  options = dict(s_churn=1.2, s_tmin=0.2, s_tmax=2.0, s_noise=1.1)
  table = built("heun_churn", process, grid, **options)
  denoise = lambda x, t: np.tanh(x) / (1 + t)
  z = np.random.default_rng(0).normal(size=table.num_steps)
  x = expected = 2.0
  for i, (now, end) in enumerate(itertools.pairwise(grid)):
    raised = now * 1.3 if 0.2 <= now <= 2.0 else now
    if raised > now:
      expected += np.sqrt(raised**2 - now**2) * 1.1 * z[2 * i - 1]  # drawn by the last row of the step before
    slope = (expected - denoise(expected, raised)) / raised
    euler = expected + (end - raised) * slope
    expected = (
      euler if end == 0 else expected + (end - raised) / 2 * (slope + (euler - denoise(euler, end)) / end)
    )
  state = table.start[:, 0] * x
  for i in range(table.num_steps):
    u = table.w[i] @ state
    state = table.A[i] @ state + table.B[i] * denoise(u, table.t[i]) + table.C[i, :, 0] * z[i]
  np.testing.assert_allclose(table.w[-1] @ state, expected, rtol=1e-6)
  np.testing.assert_allclose(table.t, [3, 1, 1.3, 0.4, 0.52, 0.1, 0.1, 0], rtol=1e-12)


def test_restart_contracts_the_error_of_a_wrong_start():
  """A sample that starts too wide ends nearer the law of the data with every repetition, by the exact
  moments."""
  process = processes.edm()
  grid = solvers.grids.karras(process, 40, clean=True)
  start = marginal_moments(process, 0.5, 0.3, grid[0])
  start.variance *= 1.5
  errors = []
  for count in (0, 1, 2, 4):
    table = built("restart", process, grid, intervals=[(0.5, 5.0, count)])
    out = table_moments(process, table, 0.5, 0.3, start)
    errors.append(abs(out.variance - 0.3))
  assert errors[0] > 0.1 and errors[1] < 0.1 * errors[0] and (np.diff(errors) < 0).all(), errors
  assert table.num_steps > 79 and (np.diff(table.t) > 0).sum() == 4


def test_joined_tables_run_one_after_the_other():
  process = processes.vp_linear()
  grid = solvers.grids.quadratic(process, 8)
  parts = [
    built("unipc", process, grid[:4]),
    built("heun", process, grid[3:7]),
    built("sa_solver", process, grid[6:], predictor=2, corrector=2),
  ]
  start = marginal_moments(process, 0.5, 0.3, grid[0])
  step = start
  for part in parts:
    step = table_moments(process, part, 0.5, 0.3, step)
  whole = table_moments(process, solvers.join(parts, solvers.About("all", 1, process)), 0.5, 0.3, start)
  np.testing.assert_allclose([whole.mean, whole.variance], [step.mean, step.variance], rtol=1e-12)
  with pytest.raises(ValueError, match="one view"):
    solvers.join([parts[0], built("annealed_langevin", process, grid)], solvers.About())


def test_a_first_order_step_to_clean_data_is_ddim():
  """One stage and an infinitely long step: DPM-Solver-1 is DDIM there too, and `dpm_solver_fast` may end with
  it."""
  process = processes.vp_linear()
  grid = solvers.grids.quadratic(process, 4, t_min=0.0)
  ddim, first, fast = (
    built("ddim", process, grid),
    built("dpm_solver", process, grid, order=1),
    built("dpm_solver_fast", process, grid),
  )
  same(ddim, first, process, grid)
  assert (fast.A[-1, 0, 0], fast.B[-1, 0], fast.cost) == (0, 1, 10)
  assert [solvers.dpm_solver_fast(process, GRID, nfe=nfe).cost for nfe in (15, 16, 17)] == [15, 16, 17]
  with pytest.raises(ValueError, match="15, 16 or 17 evaluations, got nfe=18"):
    solvers.dpm_solver_fast(process, GRID, nfe=18)
