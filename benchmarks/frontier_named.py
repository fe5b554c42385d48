"""Solvers and grids that people know by name, on the problems of the frontier, as the library gives them.

Nothing is chosen: each name has one line, a solver on its own grid, or a grid under `dpmpp_2m`, from the
process's largest noise level to its least and from there to sigma = 0 by one denoising.
"""

import numpy as np

from diffusion import solvers

UNDER = "dpmpp_2m"
"""The solver of the grids."""

SHIFT, TOKENS = 3.0, 1024
"""Of `flow_shift`, as Stable Diffusion 3 has it, and of `dynamic_shift`, Flux's of pictures of 512x512."""

GRIDS = {
  "beta": {},
  "beta57": {},
  "flow_shift": dict(shift=SHIFT),
  "dynamic_shift": dict(tokens=TOKENS),
  "exponential": {},
  "linear_quadratic": {},
}
NAMES = ("res_2m", *GRIDS)


def table(name, process, nfe):
  """(table of so many evaluations in float64, its solver, its grid in words)."""
  if name not in GRIDS:
    return solvers.build(name, process, nfe, dtype=np.float64), name, "its own"
  times = solvers.GRIDS[name](process, nfe, clean=True, **GRIDS[name])
  said = name + "".join(f" {value:g}" for value in GRIDS[name].values())
  return solvers.SOLVERS[UNDER].builder(process, times, dtype=np.float64), UNDER, said


def rows(case, nfe, row, run):
  """A row a name.

  Args:
    case, nfe: problem and number of evaluations.
    row, run: those of `frontier` and of `frontier_ours`.
  """
  found = []
  for name in NAMES:
    made, solver, grid = table(name, case.denoiser.process, nfe)
    if made.cost != nfe:
      raise ValueError(f"{name} has {made.cost} evaluations in place of {nfe}")
    (end,) = run(case.denoiser, [made], case.x)
    found.append(row(case, nfe, solver, name, grid, end))
  return found
