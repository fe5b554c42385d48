"""The built-in solvers by name, with what they promise, and the way to one from a command line."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion import processes
from diffusion.solvers import grids
from diffusion.solvers.adaptive_sde import adaptive_sde
from diffusion.solvers.ancestral import ancestral
from diffusion.solvers.annealed_langevin import annealed_langevin
from diffusion.solvers.annealed_metropolis import annealed_metropolis
from diffusion.solvers.block_by_block import block_by_block
from diffusion.solvers.confidence_unmasking import confidence_unmasking
from diffusion.solvers.d3pm_ancestral import d3pm_ancestral
from diffusion.solvers.ddim import ddim
from diffusion.solvers.deis import deis, lms
from diffusion.solvers.diffrax_bridge import diffrax_ode, diffrax_sde
from diffusion.solvers.double_step import double_step
from diffusion.solvers.dpm_solver import dpm_solver, dpm_solver_fast, dpmpp_2s
from diffusion.solvers.dpm_solver_adaptive import dpm_solver_adaptive
from diffusion.solvers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde
from diffusion.solvers.entropy_bound import confidence_threshold, entropy_bound
from diffusion.solvers.euler import euler
from diffusion.solvers.euler_maruyama import euler_maruyama
from diffusion.solvers.euler_rates import euler_rates
from diffusion.solvers.exponential_rk import exponential_rk3
from diffusion.solvers.first_hitting import first_hitting
from diffusion.solvers.flow_corrector import flow_predictor_corrector
from diffusion.solvers.gibbs_corrector import gibbs_corrector, informed_corrector
from diffusion.solvers.heun import heun, heun_churn
from diffusion.solvers.jump import masked_ancestral
from diffusion.solvers.momentum import ghvb, hb
from diffusion.solvers.path_planning import path_planning
from diffusion.solvers.pndm import ipndm, pndm
from diffusion.solvers.predictor_corrector import predictor_corrector
from diffusion.solvers.remasking import remasking
from diffusion.solvers.res_multistep import res_2m
from diffusion.solvers.restart import restart
from diffusion.solvers.reverse_diffusion import reverse_diffusion
from diffusion.solvers.sa_solver import sa_solver
from diffusion.solvers.tau_leaping import tau_leaping
from diffusion.solvers.unipc import unipc
from diffusion.solvers.velocity import euler_velocity, heun_velocity


def default_grid(process: Any, n: int) -> np.ndarray:
  """Nodes that serve few-step samplers well on a process: [n+1].

  EDM's own grid where sigma = t, equal steps on rectified flow, Karras on other variance-exploding processes,
  and for the rest (VP, subVP) steps quadratic in t, the best simple choice for it. They end in clean data
  where the process does, and make no evaluation below t_min.

  >>> from diffusion import processes
  >>> default_grid(processes.vp_linear(), 4).tolist()
  [1.0, 0.5625, 0.25, 0.0625, 0.0]
  """
  reaches_data = float(process.marginal(0.0).sigma) == 0
  if (
    float(process.marginal(process.t_max).noise_to_signal) < np.inf
    and float(process.marginal(process.t_max).alpha) == 1
  ):
    return grids.karras(process, n, clean=reaches_data)
  if process.name == "rectified_flow":
    return _to_data(grids.uniform, process, n, 1.0, reaches_data)
  return _to_data(grids.quadratic, process, n, 2.0, reaches_data)


def few_step_grid(process: Any, n: int) -> np.ndarray:
  """Nodes for multistep samplers of the probability flow, [n+1]: `grids.vp_time`, on every process.

  The best spacing of one shape for all problems of benchmarks/frontier.py; it ends in clean data where the
  process does, without an evaluation below t_min.

  >>> from diffusion import processes
  >>> few_step_grid(processes.edm(), 3).round(3).tolist()
  [80.0, 2.186, 0.353, 0.0]
  """
  if float(process.marginal(0.0).sigma) != 0:
    return grids.vp_time(process, n)
  grid = grids.vp_time(process, n, t_min=0.0)
  return grid if grid[-2] >= float(process.t_min) else grids.vp_time(process, n, clean=True)


def default_random_grid(process: Any, n: int) -> np.ndarray:
  """Nodes for many small stochastic steps: [n+1].

  They are equal steps in t as Score SDE takes, but EDM's own on sigma = t.
  """
  reaches_data = float(process.marginal(0.0).sigma) == 0
  if process.name == "edm":
    return grids.karras(process, n, clean=True)
  return _to_data(grids.uniform, process, n, 1.0, reaches_data)


def default_levels(process: Any, n: int) -> np.ndarray:
  """Nodes of geometric noise levels: [n + 1].

  The last is t = 0 where the process reaches clean data there.
  """
  reaches_data = float(process.marginal(0.0).sigma) == 0
  return grids.log_snr(process, n, clean=reaches_data)


def own_grid(process: Any, n: int) -> np.ndarray:
  """The process's own grid: [n + 1]."""
  return process.default_grid(n)


def _to_data(spacing, process, n, power, reaches_data):
  """A grid down to t = 0 if its last interior node stays above t_min, else one to t_min and then 0."""
  if not reaches_data or process.t_max * (1 / n) ** power >= process.t_min:
    return spacing(process, n, t_min=0.0 if reaches_data else None)
  return spacing(process, n, clean=True)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A built-in solver and its promises.

  Attributes:
    builder: (process, grid, **options) -> solver.
    order: order of convergence (weak if stochastic) at the default options, or None where there is none to
      claim.
    stochastic: whether it draws noise at its defaults.
    per_index: whether sample i depends on its own key and start alone.
    grid: (process, n) -> the grid that `build` takes when none is named.
    kinds: of processes that it takes (`Process.kind`).
    example: () -> a process that it takes, for the listing; None for that of its kind.
  """

  builder: Callable
  order: int | None
  stochastic: bool
  per_index: bool = True
  grid: Callable = default_grid
  kinds: tuple[str, ...] = ("gaussian",)
  example: Callable[[], Any] | None = None


# Of Gaussian processes.
SOLVERS = {
  "ddim": Entry(ddim, 1, False),
  "euler": Entry(euler, 1, False),
  "heun": Entry(heun, 2, False),
  "dpm_solver": Entry(dpm_solver, 3, False),
  "dpm_solver_fast": Entry(dpm_solver_fast, 2, False, grid=default_levels),
  "exponential_rk3": Entry(exponential_rk3, 3, False),
  "dpmpp_2s": Entry(dpmpp_2s, 2, False),
  "dpmpp_2m": Entry(dpmpp_2m, 2, False, grid=few_step_grid),
  "res_2m": Entry(res_2m, 2, False, grid=few_step_grid),
  "dpmpp_3m": Entry(dpmpp_3m, 3, False, grid=few_step_grid),
  "unipc": Entry(unipc, 4, False, grid=few_step_grid),
  "deis": Entry(deis, 4, False, grid=few_step_grid),
  "lms": Entry(lms, 4, False, grid=few_step_grid),
  "ipndm": Entry(ipndm, 2, False, grid=few_step_grid),
  "pndm": Entry(pndm, 2, False),
  "hb": Entry(hb, 1, False, grid=few_step_grid),
  "ghvb": Entry(ghvb, 2, False, grid=few_step_grid),
  "heun_churn": Entry(heun_churn, 2, True),
  "restart": Entry(restart, 2, True),
  "dpmpp_2m_sde": Entry(dpmpp_2m_sde, 2, True),
  "dpmpp_3m_sde": Entry(dpmpp_3m_sde, 2, True),
  "sa_solver": Entry(sa_solver, 2, True),
  "ancestral": Entry(ancestral, 1, True),
  "double_step": Entry(double_step, 1, True),
  "euler_maruyama": Entry(euler_maruyama, 1, True, grid=default_random_grid),
  "reverse_diffusion": Entry(reverse_diffusion, 1, True, grid=default_random_grid),
  "annealed_langevin": Entry(annealed_langevin, None, True, grid=default_levels),
  "predictor_corrector": Entry(predictor_corrector, None, True, grid=default_random_grid),
}

# Of processes of other kinds too, whose own grids they take.
BEYOND_GAUSSIAN = {
  "euler_velocity": Entry(euler_velocity, 1, False, grid=own_grid, kinds=("gaussian", "two_ended")),
  "heun_velocity": Entry(heun_velocity, 2, False, grid=own_grid, kinds=("gaussian", "two_ended")),
  "masked_ancestral": Entry(masked_ancestral, 1, True, grid=own_grid, kinds=("discrete",)),
  "remasking": Entry(remasking, None, True, grid=own_grid, kinds=("discrete",)),
  "confidence_unmasking": Entry(confidence_unmasking, None, True, grid=own_grid, kinds=("discrete",)),
  "path_planning": Entry(path_planning, None, True, grid=own_grid, kinds=("discrete",)),
  "d3pm_ancestral": Entry(d3pm_ancestral, 1, True, grid=own_grid, kinds=("discrete",)),
  "euler_rates": Entry(euler_rates, 1, True, grid=own_grid, kinds=("discrete",)),
  "tau_leaping": Entry(tau_leaping, 1, True, grid=own_grid, kinds=("discrete",)),
  "flow_predictor_corrector": Entry(flow_predictor_corrector, 1, True, grid=own_grid, kinds=("discrete",)),
  "gibbs_corrector": Entry(gibbs_corrector, 1, True, grid=own_grid, kinds=("discrete",)),
  "informed_corrector": Entry(informed_corrector, None, True, grid=own_grid, kinds=("discrete",)),
  "annealed_metropolis": Entry(
    annealed_metropolis,
    None,
    True,
    grid=own_grid,
    kinds=("discrete",),
    example=lambda: processes.uniform_resample(2, (1,)),
  ),
}

DEFAULT = {"gaussian": "dpmpp_2m", "two_ended": "heun_velocity", "discrete": "masked_ancestral"}
"""{kind of process: the solver of a command that names none}."""


@dataclasses.dataclass(frozen=True)
class AdaptiveEntry:
  """A built-in solver that sizes its own steps, each sample's by itself.

  Attributes:
    builder: (process, **options) -> solver; rtol and atol are among the options.
    order: of the result that is kept at the default options (weak if stochastic).
    stochastic: whether it draws noise.
    evaluations: denoiser calls of one attempt at a step.
    kinds: of processes that it takes.
  """

  builder: Callable
  order: int
  stochastic: bool
  evaluations: int
  kinds: tuple[str, ...] = ("gaussian",)


ADAPTIVE = {
  "dpm_solver_adaptive": AdaptiveEntry(dpm_solver_adaptive, 3, False, 3),
  "adaptive_sde": AdaptiveEntry(adaptive_sde, 1, True, 2),
  "diffrax_ode": AdaptiveEntry(diffrax_ode, 5, False, 6),
  "diffrax_sde": AdaptiveEntry(diffrax_sde, 1, True, 2),
}


@dataclasses.dataclass(frozen=True)
class UnmaskingEntry:
  """A built-in solver that takes out masks until there are none, each sample's by itself.

  Attributes:
    builder: (process, **options) -> solver.
    tolerance: the option that a tolerance is, or None where no error is made or bounded.
    stochastic: whether it draws noise.
    kinds: of processes that it takes.
  """

  builder: Callable
  tolerance: str | None
  stochastic: bool = True
  kinds: tuple[str, ...] = ("discrete",)


UNMASKING = {
  "first_hitting": UnmaskingEntry(first_hitting, None),
  "entropy_bound": UnmaskingEntry(entropy_bound, "bound"),
  "confidence_threshold": UnmaskingEntry(confidence_threshold, "threshold"),
  "block_by_block": UnmaskingEntry(block_by_block, None),
}

CHOOSE_STEPS: dict[str, AdaptiveEntry | UnmaskingEntry] = ADAPTIVE | UNMASKING
"""Those that take neither a number of steps nor a grid."""

EVERY: dict[str, Any] = SOLVERS | BEYOND_GAUSSIAN | CHOOSE_STEPS


def build(
  name: str,
  process: Any,
  n: int | None = None,
  *,
  grid: Any = None,
  tolerance: float | None = None,
  **options: Any,
) -> Any:
  """A solver by its name.

  It takes n steps on a good grid for the process, or steps as long as a tolerance lets them be.

  Args:
    name: a key of `SOLVERS`, of `BEYOND_GAUSSIAN`, of `ADAPTIVE` or of `UNMASKING`.
    process: the process of the denoiser.
    n: number of steps (of levels, for annealed Langevin); `solver.cost` says how many evaluations they take.
      None for an adaptive solver and for one that goes on until there are no masks.
    grid: None for the solver's default, a key of `GRIDS` (on a Gaussian process), or an array of times. None
      for an adaptive solver.
    tolerance: of an adaptive solver, both rtol and atol; of entropy_bound its bound in nats, of
      confidence_threshold its threshold; None for its own.
    **options: of the builder, for example eta=0.5.

  Raises:
    ValueError: an unknown solver or grid, with the allowed ones and the closest; a solver or a grid of
      another kind of process; steps or a grid for a solver that chooses them, none or a tolerance for one
      that does not.
    TypeError: an option that the builder does not have.

  >>> from diffusion import processes
  >>> build("heun", processes.edm(), 18).cost
  35
  >>> build("adaptive_sde", processes.edm(), tolerance=0.02).name
  'adaptive_sde'
  >>> build("dpmp_2m", processes.edm(), 18)
  Traceback (most recent call last):
  ...
  ValueError: unknown solver 'dpmp_2m', did you mean 'dpmpp_2m'? Choose one of ddim, euler, heun, ...
  """
  entry = _lookup(EVERY, "solver", name)
  if process.kind not in entry.kinds:
    fit = [other for other, one in EVERY.items() if process.kind in one.kinds]
    raise ValueError(
      f"{name} is for processes of the kind {' or '.join(entry.kinds)}, and '{process.name}' is "
      f"{process.kind}: choose one of {', '.join(fit)}"
    )
  if name in CHOOSE_STEPS:
    if n is not None or grid is not None:
      raise ValueError(
        f"{name} chooses its own steps, got {f'{n} of them' if n is not None else f'the grid {grid!r}'}: "
        "leave that out and give a tolerance"
      )
    return entry.builder(process, **_of_tolerance(name, tolerance) | options)
  if tolerance is not None:
    raise ValueError(
      f"{name} takes the steps it is given, and a tolerance of {tolerance} says nothing to it: "
      f"{', '.join(ADAPTIVE)} have one"
    )
  if n is None:
    raise ValueError(f"{name} needs a number of steps: only {', '.join(CHOOSE_STEPS)} choose their own")
  return entry.builder(process, times(name, process, n, grid), **options)


def _of_tolerance(name, tolerance):
  """The options that a tolerance stands for."""
  if tolerance is None:
    return {}
  if name in ADAPTIVE:
    return dict(rtol=tolerance, atol=tolerance)
  option = UNMASKING[name].tolerance
  if option is None:
    raise ValueError(f"{name} has no tolerance, got {tolerance}: leave it out, or use entropy_bound")
  return {option: tolerance}


def times(name: str, process: Any, n: int, grid: Any = None) -> np.ndarray:
  """The times [n+1] of a built-in solver's n steps, float64.

  The grid is the solver's own for None, a key of `GRIDS`, or times as they are.

  Raises ValueError for an unknown solver or grid.

  >>> times("ddim", processes.edm(), 2, "log_snr").round(3).tolist()
  [80.0, 0.4, 0.002]
  """
  grids.check_steps(n)
  if grid is None:
    return _lookup(SOLVERS | BEYOND_GAUSSIAN, "solver", name).grid(process, n)
  if isinstance(grid, str):
    if process.kind != "gaussian":
      raise ValueError(
        f"the grid {grid!r} is spaced by the noise of a Gaussian process, and '{process.name}' is "
        f"{process.kind}: leave it out for the process's own grid, or give times"
      )
    return _lookup(grids.GRIDS, "grid", grid)(process, n)
  return np.asarray(grid, np.float64)


def listing() -> str:
  """One line a built-in solver: its name, order, equation, evaluations a step on VP, and what it is.

  >>> print(listing().splitlines()[3])
  heun                      2  ODE    2                   Heun's method on dv/drho = eps, ...
  """
  examples = {"gaussian": processes.vp_linear(), "discrete": processes.masked(2, (1,))}
  lines = [f"{'solver':21}{'order':>6}  {'solves':7}{'evaluations a step':20}what it is"]

  def line(name, entry, cost):
    order = "-" if name in UNMASKING or entry.order is None else str(entry.order)
    about = (inspect.getdoc(entry.builder) or "").splitlines()[0]
    solves = "jumps" if entry.kinds == ("discrete",) else "SDE" if entry.stochastic else "ODE"
    lines.append(f"{name:21}{order:>6}  {solves:7}{cost:20}{about}")

  for name, entry in (SOLVERS | BEYOND_GAUSSIAN).items():
    process = examples[entry.kinds[0]] if entry.example is None else entry.example()
    spacing = grids.uniform if process.kind == "gaussian" else own_grid
    few, many = (entry.builder(process, spacing(process, n)).cost for n in (8, 16))
    each, once = (many - few) // 8, few - many + few
    line(
      name, entry, f"{each}" + (f" (+ {once} in all)" if once > 0 else f" (- {-once} in all)" if once else "")
    )
  for name, entry in ADAPTIVE.items():
    line(name, entry, f"{entry.evaluations}, steps by error")
  for name, entry in UNMASKING.items():
    line(name, entry, "1, until no masks")
  return "\n".join(lines)


def _lookup(table, what, name):
  if name in table:
    return table[name]
  close = difflib.get_close_matches(str(name), table, 1, 0.0)
  raise ValueError(f"unknown {what} {name!r}, did you mean {close[0]!r}? Choose one of {', '.join(table)}")
