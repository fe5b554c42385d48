"""A table of coefficients from a rule written step by step.

The rule acts on unit vectors, and what comes out is its coefficients.

A sampler that is linear in what it has seen may be written as it would be run, `x + dt * e`, with names for
what it remembers. Handed the rows of an identity matrix in place of arrays, it returns the rows of the table.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.table import Table, build

Vector = np.ndarray
"""A combination of slots, of what is kept of a prediction, and of noises: [slots + 1 + noises]."""

Step = Callable[[int, list[Vector], Vector, list[Vector]], list[Vector]]
"""(row, slots, kept, noises) -> the slots after it, of which the first is the point of the next
evaluation."""


def linear_steps(
  t: np.ndarray,
  step: Step,
  slots: int,
  *,
  kept: tuple[Any, Any] = (0.0, 1.0),
  noises: int = 0,
  start: Sequence[float] = (1.0,),
  finishes: Any = True,
  moved: Sequence[float] = (1.0,),
  view: str = "x0",
  about: About = About(),
  dtype: Any = np.float32,
) -> Table:
  """The table of a rule.

  Args:
    t: [N+1] times of the rows and of the output.
    step: `Step`, linear in slots, kept and noises.
    slots: how many vectors are carried.
    kept: (g, h) of what a row keeps, g u + h D, each [N] or a number.
    noises: how many standard normal draws a row has.
    start: factors of x in the first slots before the first row; the others are zero.
    finishes: [N] whether a row finishes a step, or one for all.
    moved: factors in the first slots of what a `post_step` changes.
    view, about, dtype: as in `build`.

  Raises:
    ValueError: a coefficient that is not finite.

  >>> from diffusion import processes
  >>> sigma = np.array([2.0, 1.0, 0.0])
  >>> def two_step(i, slots, eps, noises):
  ...   x, previous = slots
  ...   slope = eps if i == 0 else 1.5 * eps - 0.5 * previous
  ...   return [x + (sigma[i + 1] - sigma[i]) * slope, eps]
  >>> print(linear_steps(sigma, two_step, 2, view="eps", about=About("two_step", 2, processes.edm())))
  two_step: order 2, 2 evaluations, asks for eps, 2 slots, no noise (process edm)
  row 0  t=2   S0 <- S0 - E; S1 <- E
  row 1  t=1   S0 <- S0 + 0.5 S1 - 1.5 E; S1 <- E
  output t=0   S0
  """
  rows = len(t) - 1
  unit = list(np.eye(slots + 1 + noises))
  with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
    after = np.array([step(i, unit[:slots], unit[slots], unit[slots + 1 :]) for i in range(rows)])
  entry = lambda k, j: after[:, k, j]
  padded = lambda values: [*values, *[0.0] * (slots - len(values))]
  done = np.broadcast_to(np.asarray(finishes, np.float64), rows)
  return build(
    t,
    A=[[entry(k, j) for j in range(slots)] for k in range(slots)],
    B=[entry(k, slots) for k in range(slots)],
    C=[[entry(k, slots + 1 + j) for j in range(noises)] for k in range(slots)] if noises else (),
    g=kept[0],
    h=kept[1],
    start=[[value] + [0.0] * noises for value in padded(start)],
    hook=[done * value for value in padded(moved)],
    view=view,
    about=about,
    dtype=dtype,
  )
