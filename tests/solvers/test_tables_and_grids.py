"""Building tables and grids.

What is raised, what is printed, and coefficients as a differentiable function of the nodes.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes, solvers


@pytest.mark.parametrize("name", processes.PROCESSES)
@pytest.mark.parametrize("grid", solvers.GRIDS)
def test_grids_decrease_hit_their_ends_and_have_n_steps(name, grid):
  process = processes.PROCESSES[name]()
  build = solvers.GRIDS[grid]
  clean = float(process.marginal(0.0).sigma) == 0
  for n in (2, 3, 10, 101):
    t = build(process, n)
    assert t.dtype == np.float64 and t.shape == (n + 1,)
    assert (np.diff(t) < 0).all() and t[0] == process.t_max and t[-1] == process.t_min
    if clean:
      t = build(process, n, clean=True)
      assert t.shape == (n + 1,) and (np.diff(t) < 0).all() and t[0] == process.t_max and t[-1] == 0
      assert n == 2 or t[-2] == process.t_min
      t = build(process, n, t_min=0.0)
      assert t.shape == (n + 1,) and (np.diff(t) < 0).all() and t[-1] == 0
  if not clean:
    with pytest.raises(ValueError, match="still has noise"):
      build(process, 4, clean=True)


def test_grids_are_equal_steps_of_their_clock():
  process = processes.vp_linear()
  rho = lambda t: process.marginal(t).noise_to_signal
  np.testing.assert_allclose(np.diff(process.log_snr(solvers.grids.log_snr(process, 9)), 2), 0, atol=1e-9)
  np.testing.assert_allclose(np.diff(rho(solvers.grids.karras(process, 9)) ** (1 / 7), 2), 0, atol=1e-9)
  np.testing.assert_allclose(np.diff(solvers.grids.quadratic(process, 9) ** 0.5, 2), 0, atol=1e-12)
  np.testing.assert_allclose(np.diff(solvers.grids.uniform(process, 9), 2), 0, atol=1e-12)
  np.testing.assert_allclose(
    np.diff(np.arcsinh(rho(solvers.grids.asinh(process, 9, scale=0.2)) / 0.2) ** (1 / 1.3), 2), 0, atol=1e-9
  )
  # EDM's own 18 steps (arXiv:2206.00364, eq. 5).
  i = np.arange(18)
  edm = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
  np.testing.assert_allclose(
    solvers.grids.karras(processes.edm(), 18, clean=True), np.append(edm, 0.0), rtol=1e-12
  )
  # On VP, its own time; on EDM, VP's levels.
  vp = processes.vp_linear()
  for options in (dict(t_min=0.0), dict(), dict(clean=True, power=3.0)):
    np.testing.assert_allclose(
      solvers.grids.vp_time(vp, 9, **options), solvers.grids.quadratic(vp, 9, **options), atol=1e-12
    )
  levels = solvers.grids.vp_time(processes.edm(), 9, t_min=0.0)
  np.testing.assert_allclose(np.diff(vp.t_of_log_snr(-2 * np.log(levels[:-1])) ** 0.5, 2), 0, atol=1e-9)


@pytest.mark.parametrize("name", processes.PROCESSES)
@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_default_grids_make_no_evaluation_below_t_min(name, solver):
  process = processes.PROCESSES[name]()
  for n in (4, 20, 200):
    built = solvers.build(solver, process, n)
    table = getattr(built, "table", built)
    assert table.t[:-1].min() >= process.t_min * (1 - 1e-6)
    assert table.t[0] == np.float32(process.t_max)
    if float(process.marginal(0.0).sigma) == 0:
      assert table.t[-1] == 0


@pytest.mark.parametrize(
  "grid, says",
  [
    ([0.1, 0.5, 1.0], "strictly decrease"),
    ([1.0, 0.5, 0.5], "strictly decrease"),
    ([1.0, 0.5, 0.5 - 1e-12], "rounded to float32"),
    ([1.0, 0.5, -0.1], "not negative"),
    ([1.0, np.nan, 0.1], "finite"),
    ([1.0], "n >= 1"),
    ([[1.0, 0.5, 0.0], [1.0, 0.5, 0.1]], "some do not"),
  ],
)
@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_a_bad_grid_is_named(solver, grid, says):
  with pytest.raises(ValueError, match=says):
    solvers.SOLVERS[solver].builder(processes.vp_linear(), np.array(grid))


def test_grids_compose():
  process = processes.edm()
  grid = solvers.grids.karras(process, 20)
  parts = [
    solvers.grids.log_snr(process, 3, t_min=2.0),
    solvers.grids.karras(process, 5, t_max=2.0, clean=True),
  ]
  whole = solvers.grids.concatenate(*parts)
  np.testing.assert_array_equal(whole, np.append(parts[0], parts[1][1:]))
  cut = solvers.grids.truncate(process, whole, 0.05, clean=True)
  assert cut[-2:].tolist() == [0.05, 0.0] and cut[-3] > 0.05
  assert solvers.grids.truncate(process, grid, grid[7]).tolist() == grid[:8].tolist()
  for g in (whole, cut):
    np.testing.assert_array_equal(solvers.grids.from_nodes(process, list(g)), g)
    # A last step from a higher level is one denoising: the row returns D itself.
    table = solvers.dpmpp_2m(process, g)
    assert table.A[-1, 0].tolist() == [0, 0] and table.B[-1, 0] == 1
  # Every other node of the finest, again and again: which no spacing gives whose last step is of another
  # kind.
  halves = [solvers.grids.thinned(process, n, 8, clean=True) for n in (8, 4, 2, 1)]
  for fine, coarse in itertools.pairwise(halves):
    np.testing.assert_array_equal(fine[::2], coarse)
  np.testing.assert_array_equal(halves[0], solvers.grids.karras(process, 8, clean=True))
  assert halves[1][-2] > 2 * solvers.grids.karras(process, 4, clean=True)[-2]
  for bad, words in (
    ((process, 3, 8), "3 steps do not go into 8"),
    ((process, 4, 8, "karas"), "unknown spacing 'karas'"),
  ):
    with pytest.raises(ValueError, match=words):
      solvers.grids.thinned(*bad)
  with pytest.raises(ValueError, match="grid 1 starts at"):
    solvers.grids.concatenate(parts[1], parts[0])
  with pytest.raises(ValueError, match="t_min < t_max"):
    solvers.grids.truncate(process, grid, 100.0)
  with pytest.raises(ValueError, match="still has noise"):
    solvers.grids.truncate(processes.ve(), solvers.grids.uniform(processes.ve(), 4), 0.1, clean=True)
  with pytest.raises(ValueError, match="starts at 90"):
    solvers.grids.from_nodes(process, [90.0, 1.0])


def test_other_mistakes_are_named():
  flow, vp = processes.rectified_flow(), processes.vp_linear()
  with pytest.raises(ValueError, match="alpha = 0"):
    solvers.ddim(flow, np.array([1.0, 0.5, 0.0]), view="eps")
  with pytest.raises(ValueError, match="'x0' or 'eps'"):
    solvers.ddim(vp, np.array([1.0, 0.5]), view="v")
  with pytest.raises(ValueError, match="eta"):
    solvers.ddim(vp, np.array([1.0, 0.5]), eta=1.5)
  with pytest.raises(ValueError, match="did you mean 'heun'"):
    solvers.build("huen", vp, 3)
  with pytest.raises(ValueError, match="did you mean 'karras'"):
    solvers.build("heun", vp, 3, grid="karas")
  with pytest.raises(TypeError, match="churn"):
    solvers.build("heun", vp, 3, churn=1.0)
  with pytest.raises(ValueError, match="at least 1"):
    solvers.build("heun", vp, 0)
  with pytest.raises(ValueError, match="t_min < t_max"):
    solvers.grids.uniform(vp, 3, t_max=0.1, t_min=0.2)
  with pytest.raises(ValueError, match="already ends"):
    solvers.grids.uniform(vp, 3, t_min=0.0, clean=True)
  with pytest.raises(ValueError, match="2 slots"):
    solvers.predictor_corrector(vp, np.array([1.0, 0.5, 0.2]), predictor=solvers.dpmpp_2m)
  for name, options, says in (
    ("deis", dict(r=4), "degree r"),
    ("deis", dict(clock="lambda"), "clock"),
    ("deis", dict(view="v"), "'x0' or 'eps'"),
    ("lms", dict(order=5), "order of lms"),
    ("ipndm", dict(order=0), "order of ipndm"),
    ("hb", dict(beta=0.0), "damping beta of hb"),
    ("ghvb", dict(order=6), "order of ghvb"),
    ("dpm_solver", dict(order=4), "order of dpm_solver"),
    ("dpm_solver", dict(r1=0.8), "must increase"),
    ("exponential_rk3", dict(c2=0.7), "c2 < 2/3"),
    ("unipc", dict(order=5), "order of unipc"),
    ("unipc", dict(variant="bh3"), "'bh1' or 'bh2'"),
    ("sa_solver", dict(tau=-1.0), "at least 0"),
    ("sa_solver", dict(predictor=5), "1 to 4"),
    ("dpmpp_3m_sde", dict(eta=-1.0), "at least 0"),
    ("heun_churn", dict(s_churn=-1.0), "at least 0"),
    ("restart", dict(intervals=[(0.3, 0.06, 1)]), "low < high"),
  ):
    with pytest.raises(ValueError, match=says):
      solvers.build(name, vp, 5, **options)
  for name in ("deis", "dpm_solver", "pndm", "ghvb"):
    with pytest.raises(ValueError, match="alpha = 0"):
      solvers.build(name, flow, 5, view="eps")
  with pytest.raises(ValueError, match="norm"):
    solvers.predictor_corrector(vp, np.array([1.0, 0.5]), norm="paper")
  with pytest.raises(ValueError, match="0 < step"):
    solvers.annealed_langevin(processes.ve(), np.array([1.0, 0.5]), step=1e9)


@pytest.mark.parametrize(
  "name, rows",
  [
    ("ddim", 6),
    ("heun", 11),
    ("dpmpp_2m", 6),
    ("ancestral", 6),
    ("unipc", 6),
    ("dpm_solver", 16),
    ("dpmpp_2s", 11),
    ("pndm", 15),
    ("annealed_langevin", 31),
    ("predictor_corrector", 12),
  ],
)
def test_evaluations(name, rows):
  assert solvers.build(name, processes.edm(), 6).cost == rows
  if name == "heun":  # to sigma > 0 every step has two evaluations; from alpha = 0 the first has one
    assert solvers.build("heun", processes.edm(), 6, grid=np.geomspace(80, 0.1, 7)).cost == 12
    assert solvers.build("heun", processes.rectified_flow(), 6).cost == 10


def test_a_long_table_is_printed_in_part_with_its_order_and_evaluations():
  text = str(solvers.build("dpmpp_2m_sde", processes.vp_linear(), 50))
  assert text.startswith(
    "dpmpp_2m_sde(eta=1): order 2, 50 evaluations, asks for x0, 2 slots, 1 noise (process vp_linear)"
  )
  assert "38 more rows" in text and " z;" in text and len(text.splitlines()) == 15
  grids = np.array([[1.0, 0.5, 0.1], [0.9, 0.5, 0.1]])
  assert str(solvers.ddim(processes.vp_linear(), grids)).startswith("2 grids, of which the first:\nddim")
  assert "predictor reverse_diffusion" in str(solvers.build("predictor_corrector", processes.ve(), 3))


def test_coefficients_belong_to_the_rounded_nodes():
  """The float32 grid has the coefficients of its float32 nodes, not of the nodes that were asked for."""
  process = processes.edm()
  grid = np.array([1.0, 1.0 - 2.6e-7, 0.3])
  rounded = grid.astype(np.float32).astype(np.float64)
  table = solvers.ddim(process, grid)
  np.testing.assert_array_equal(table.t, rounded)
  np.testing.assert_allclose(
    table.B[:, 0], 1 - rounded[1:] / rounded[:-1], rtol=1e-7
  )  # the first differs by 8% unrounded


def traced(build, process, inner):
  """A table on nodes 1, inner, 0 with jax.numpy as the namespace."""
  times = jnp.concatenate([jnp.array([1.0]), inner, jnp.array([0.0])])
  return build(process, times, dtype=np.float64, xp=jnp)


ONE_EVALUATION = (
  "ddim",
  "euler",
  "dpmpp_2m",
  "ancestral",
  "dpmpp_2m_sde",
  "euler_maruyama",
  "reverse_diffusion",
)
ENDS = ("vp_linear", "rectified_flow")  # the second starts at alpha = 0
# Of the multistep solvers the two that go through the most of the code that they share.
# By default each solver on one of the two ends in turn; the rest, whose programs take long to compile, with
# -m slow.
DIFFERENTIABLE = [
  pytest.param(s, p, marks=() if (i + j) % 2 else pytest.mark.slow)
  for i, s in enumerate(ONE_EVALUATION)
  for j, p in enumerate(ENDS)
] + [
  pytest.param("deis", "rectified_flow", marks=pytest.mark.slow),
  pytest.param("sa_solver", "vp_linear", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("solver, name", DIFFERENTIABLE)
def test_coefficients_are_differentiable_in_the_nodes(name, solver, x64):
  """The same table under jax.numpy, whose gradient agrees with finite differences, with alpha = 0 and sigma =
  0 at the ends."""
  process, build = processes.PROCESSES[name](), solvers.SOLVERS[solver].builder
  grid = solvers.grids.quadratic(process, 4, t_min=0.0)  # deis combines four evaluations
  on_host = build(process, grid, dtype=np.float64)
  weights = [np.cos(np.arange(leaf.size)).reshape(leaf.shape) for leaf in jax.tree.leaves(on_host)]
  total = lambda table: sum((leaf * w).sum() for leaf, w in zip(jax.tree.leaves(table), weights))
  out = jax.jit(lambda inner: total(traced(build, process, inner)))
  inner = jnp.asarray(grid[1:-1])
  np.testing.assert_allclose(out(inner), total(on_host), rtol=1e-10)
  gradient = jax.grad(out)(inner)
  for i in range(3):
    step = 1e-6 * np.eye(3)[i]
    np.testing.assert_allclose(
      gradient[i], (out(inner + step) - out(inner - step)) / 2e-6, rtol=1e-5, atol=1e-7
    )


def test_samples_are_differentiable_in_the_nodes_and_coefficients(x64):
  """The gradient through the executor agrees with finite differences: what fitting a table needs."""
  process = processes.vp_linear()
  oracle = oracles.gaussian(process, [0.5], [0.3])
  x = jnp.ones((2, 1))

  def out(inner, B):
    table = traced(solvers.dpmpp_2m, process, inner)
    return jnp.sum(solvers.sample(oracle, table.replace(B=table.B * B), x))

  inner, B = jnp.array([0.5, 0.2]), jnp.ones((3, 2))
  value = jax.jit(out)
  by_nodes, by_b = jax.jit(jax.grad(out, argnums=(0, 1)))(inner, B)
  step = jnp.array([1e-6, 0.0])
  np.testing.assert_allclose(by_nodes[0], (value(inner + step, B) - value(inner - step, B)) / 2e-6, rtol=1e-5)
  step = jnp.zeros((3, 2)).at[1, 0].set(1e-6)
  np.testing.assert_allclose(by_b[1, 0], (value(inner, B + step) - value(inner, B - step)) / 2e-6, rtol=1e-5)


@pytest.mark.parametrize(
  "name, options, needs",
  [
    ("dpmpp_2m", {}, 2),
    ("dpmpp_2m_sde", {}, 2),
    ("dpmpp_3m", {}, 3),
    ("dpmpp_3m_sde", {}, 3),
    ("unipc", {}, 3),
    ("unipc", dict(order=4), 4),
    ("deis", {}, 4),
    ("deis", dict(r=1), 2),
    ("lms", dict(order=3), 3),
    ("ipndm", {}, 4),
    ("hb", {}, 4),
    ("ghvb", dict(order=3), 3),
    ("sa_solver", {}, 3),
    ("sa_solver", dict(predictor=1, corrector=2), 2),
  ],
)
def test_too_few_steps_for_an_order(name, options, needs):
  process = processes.vp_linear()
  assert solvers.build(name, process, needs, **options).num_steps == needs
  with pytest.raises(
    ValueError, match=f"combines {needs} evaluations and needs at least as many steps, got {needs - 1}"
  ):
    solvers.build(name, process, needs - 1, **options)


@pytest.mark.parametrize("name", [*solvers.SOLVERS, *solvers.ADAPTIVE])
def test_a_process_without_log_snr_is_named(name):
  """A path between two data sets, or any object, has no noise to remove."""

  class Bridge:
    kind, t_min, t_max, name = "gaussian", 0.0, 1.0, "bridge"

  with pytest.raises(
    TypeError, match="need a process with log-SNR, and Bridge has no marginal, log_snr, t_of_log_snr"
  ):
    if name in solvers.ADAPTIVE:
      solvers.build(name, Bridge())
    else:
      solvers.build(name, Bridge(), 4, grid=[1.0, 0.6, 0.3, 0.1, 0.01])
  with pytest.raises(TypeError, match="need a process with log-SNR"):
    solvers.grids.vp_time(Bridge(), 4)
