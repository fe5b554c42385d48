"""Schedules of orders, predictions and correctors: known samplers among them, and the order of each kind."""

import numpy as np
import pytest
from solver_cases import graded, marginal_moments, slope, table_moments

from diffusion import processes, solvers


def moments(process, table, grid, mean=0.5, variance=0.05):
  out = table_moments(process, table, mean, variance, marginal_moments(process, mean, variance, grid[0]))
  return np.array([out.mean, out.variance])


@pytest.mark.parametrize("name", processes.PROCESSES)
def test_schedules_that_are_known_samplers(name):
  process = processes.PROCESSES[name]()
  grid = process.t_max * np.array([0.95, 0.8, 0.55, 0.4, 0.22, 0.1, 0.03])
  options = dict(dtype=np.float64)
  schedule = lambda order, prediction, corrector: solvers.scheduled(
    process, grid, [order] * 6, [prediction] * 6, [corrector] * 6, **options
  )
  for one, other in (
    (schedule(1, "x0", False), solvers.ddim(process, grid, **options)),
    (schedule(1, "eps", False), solvers.ddim(process, grid, **options)),
    (schedule(3, "x0", False), solvers.dpmpp_3m(process, grid, lower_order_final=False, **options)),
    # SA-Solver without noise leaves its last step uncorrected too, and corrects with as many past
    # evaluations.
    (
      schedule(3, "x0", True),
      solvers.sa_solver(process, grid, tau=0.0, predictor=3, corrector=3, lower_order_final=False, **options),
    ),
  ):
    np.testing.assert_allclose(
      moments(process, one, grid),
      moments(process, other, grid),
      rtol=1e-9,
      err_msg=f"{one.name} {other.name}",
    )


@pytest.mark.parametrize("prediction", ["x0", "eps"])
@pytest.mark.parametrize("corrector", [False, True])
def test_order_of_convergence(prediction, corrector):
  """At least k; a corrector adds one, up to the four evaluations that are kept."""
  for name in ("vp_linear", "edm"):
    process = processes.PROCESSES[name]()
    for k in (1, 2, 3, 4):
      errors = []
      for n in (96, 192):
        grid, worst = graded(process, n), 0.0
        table = solvers.scheduled(process, grid, [k] * n, [prediction] * n, [corrector] * n, dtype=np.float64)
        for mean, variance in ((0.5, 0.05), (-1.0, 1.5), (0.2, 0.3)):
          end = marginal_moments(process, mean, variance, grid[-1])
          worst = max(
            worst, np.abs(moments(process, table, grid, mean, variance) - [end.mean, end.variance]).max()
          )
        errors.append(worst)
      expected = min(k + corrector, 4)
      assert slope((96, 192), errors) > expected - 0.35 and errors[0] < 0.1, (
        name,
        k,
        slope((96, 192), errors),
        errors,
      )


def test_mixed_rows_and_both_ends():
  """Any mixture, from alpha = 0 to sigma = 0, is exact on a point of data."""
  rng = np.random.default_rng(0)
  for name in ("rectified_flow", "vp_linear"):
    process = processes.PROCESSES[name]()
    grid = solvers.grids.quadratic(process, 7, t_min=0.0)
    for _ in range(20):
      rows = [
        rng.integers(1, 5, 7).tolist(),
        rng.choice(["x0", "eps"], 7).tolist(),
        rng.integers(0, 2, 7) > 0,
      ]
      table = solvers.scheduled(process, grid, *rows, dtype=np.float64)
      out = table_moments(process, table, 0.7, 0.0, marginal_moments(process, 0.7, 0.0, grid[0]))
      np.testing.assert_allclose([out.mean, out.variance], [0.7, 0.0], atol=1e-9, err_msg=table.name)


def test_mistakes_are_named():
  process, grid = processes.vp_linear(), np.array([1.0, 0.5, 0.1])
  with pytest.raises(ValueError, match="for each of the 2 steps"):
    solvers.scheduled(process, grid, [1], ["x0"], [False])
  with pytest.raises(ValueError, match="orders are 1 to 4"):
    solvers.scheduled(process, grid, [1, 5], ["x0"] * 2, [False] * 2)
  with pytest.raises(ValueError, match="'x0' or 'eps'"):
    solvers.scheduled(process, grid, [1, 2], ["x0", "v"], [False] * 2)
