"""Distillation: a model that learns what a teacher says of x_t, or where two of the teacher's steps end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.losses.base import Objective, terms
from diffusion.losses.denoising import check_gaussian, denoising_score_matching
from diffusion.losses.weights import VIEWS, noise_scale
from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import expand

SAMPLERS = ("ddim", "double_step")


def distillation(process: Any, target: str = "x0") -> Objective:
  """Distillation: the squared error of the model against the teacher at noised data, in units of eps.

  It is arXiv:2210.03142, eq. 3, weight aside.

  The teacher is a role of its own, and any denoiser that takes the same condition: with
  `guidance.by_condition()` around it and `random_guidance(...)` in the chain, this is stage one of guided
  distillation, one network for every weight at one evaluation in place of two. The least loss is nought, at
  the teacher. The paper's weight on x0 is `weight_by(truncated_snr())`.

  Args:
    process: the Gaussian process of both.
    target: the view in which the residual is taken: 'eps', 'x0', 'score', 'v' or 'velocity'; the value is the
      same.

  batch: a dict with 'x' [B, ...] and, if conditional, 'cond'. Raises ValueError for an unknown target.

  >>> from diffusion import losses, processes
  >>> stage_one = losses.chain(losses.distillation(processes.vp_cosine()), losses.random_guidance(0.0, 4.0))
  >>> sorted(stage_one.needs)
  ['model', 'teacher']
  """
  name = "distillation"
  if target not in VIEWS:
    raise ValueError(f"{name} has no target {target!r}: choose one of {', '.join(VIEWS)}")

  def evaluate(roles, placed, params, state, clock):
    said = _teacher(roles, placed.x_t, placed.t, placed.cond, target)[target]
    return _squared_error(process, target, said, roles, placed)

  return Objective(
    name=name,
    draw=_noised(process, name),
    evaluate=evaluate,
    process=process,
    needs={"model": {target: name}, "teacher": {target: name}},
  )


@struct.dataclass
class StudentSteps:
  """Steps i = 0..n-1 of a student, each with the two of its teacher that it is to make at once.

  See `student_steps`.

  Attributes:
    t: [n] times at which the student is called, from noise to data.
    middle: [n] times of the teacher's second evaluation.
    keep, pull: [n] the teacher's first step: x' = keep x_t + pull x0_hat.
    share: [n] of the second evaluation in the target: (a'' - a') / (a'' - a) with a = alpha / sigma at t, t'
      and t''.
  """

  t: Any
  middle: Any
  keep: Any
  pull: Any
  share: Any


def halved(grid: Any) -> np.ndarray:
  """Every other node of a grid: the student's, of half as many steps [n+1] -> [n/2+1].

  Raises ValueError where the number of steps is odd.

  >>> halved([1.0, 0.75, 0.5, 0.25, 0.0]).tolist()
  [1.0, 0.5, 0.0]
  """
  grid = np.asarray(grid, np.float64)
  if grid.ndim != 1 or grid.size < 3 or grid.size % 2 == 0:
    raise ValueError(
      "progressive distillation makes one step of two, so the teacher's grid has an even number of steps, "
      "got "
      f"{max(grid.size - 1, 0)}: take 2, 4, 8, ..."
    )
  return grid[::2]


def student_steps(process: Any, teacher_grid: Any, sampler: str = "ddim", grid: Any = None) -> StudentSteps:
  """The steps of a student, in float64 on the host.

  Args:
    process: a Gaussian process.
    teacher_grid: [n+1] decreasing times of the teacher's DDIM steps.
    sampler: what the student is for. 'ddim': half as many steps, each of two of the teacher's. 'double_step'
      (`solvers.double_step`): as many nodes as the teacher has; from each, two of the teacher's steps, and
      from the last its one.
    grid: the student's grid, if it is to be checked: the teacher's every other node for 'ddim', the teacher's
      own for the other.

  Raises:
    ValueError: an unknown sampler, a grid that does not decrease or has no signal or no noise inside, an odd
      number of steps, a student's grid that is not the one named.

  >>> from diffusion import processes
  >>> student_steps(processes.edm(), [4.0, 2.0, 1.0, 0.0]).share
  Traceback (most recent call last):
  ...
  ValueError: progressive distillation makes one step of two, so the teacher's grid has an even number of ...
  >>> student_steps(processes.edm(), [4.0, 2.0, 1.0, 0.5, 0.0]).share.round(3).tolist()
  [0.667, 1.0]
  """
  if sampler not in SAMPLERS:
    raise ValueError(f"a student is distilled for one of the samplers {', '.join(SAMPLERS)}, got {sampler!r}")
  teacher = np.asarray(teacher_grid, np.float64)
  expected = halved(teacher) if sampler == "ddim" else teacher
  if grid is not None and not np.array_equal(np.asarray(grid, np.float64), expected):
    steps = np.size(grid) - 1
    raise ValueError(
      f"a student for {sampler!r} of a teacher with {teacher.size - 1} steps has {expected.size - 1} steps, "
      "from every "
      f"{'other ' if sampler == 'ddim' else ''}node of the teacher's grid; got a grid with {steps}: leave "
      "grid out, or give "
      f"{'losses.halved(teacher_grid)' if sampler == 'ddim' else 'the teacher grid itself'}"
    )
  process = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), process)
  if teacher.ndim != 1 or teacher.size < 2 or np.any(np.diff(teacher) >= 0) or teacher[-1] < 0:
    raise ValueError(f"a grid runs from noise to data and strictly decreases, got {teacher.tolist()}")
  m = process.marginal(teacher)
  if np.any(m.alpha[1:] <= 0) or np.any(m.sigma[:-1] <= 0):
    raise ValueError(
      "only the first node of a grid may have no signal (alpha = 0) and only the last no noise (sigma = 0), "
      "got "
      f"alpha {m.alpha.tolist()} and sigma {m.sigma.tolist()}"
    )
  first = np.arange(0, teacher.size - 1, 2 if sampler == "ddim" else 1)
  alone = first == teacher.size - 2  # the last node of 'double_step': one step of the teacher's, its own x0
  middle, last = np.where(alone, first, first + 1), np.where(alone, first + 1, first + 2)
  keep = m.sigma[middle] / m.sigma[first]
  with np.errstate(divide="ignore", invalid="ignore"):
    a = m.alpha / m.sigma
    share = np.where(m.sigma[last] == 0, 1.0, (a[last] - a[middle]) / (a[last] - a[first]))
  return StudentSteps(
    teacher[first],
    teacher[middle],
    keep,
    m.alpha[middle] - keep * m.alpha[first],
    np.where(alone, 0.0, share),
  )


def progressive_distillation(
  process: Any, teacher_grid: Any, sampler: str = "ddim", grid: Any = None
) -> Objective:
  """Progressive distillation: one step of the student for two DDIM steps of the teacher.

  Source: arXiv:2202.00512, algorithm 2; with a weight in the condition, arXiv:2210.03142.

  Two steps t -> t' -> t'' from x_t, with the predictions x0_1 at t and x0_2 at t', end where one step with

      target = x0_1 + (a'' - a') / (a'' - a) (x0_2 - x0_1),    a = alpha / sigma

  ends: the papers' (x'' - (sigma''/sigma) x_t) / (alpha'' - (sigma''/sigma) alpha) without its cancellation,
  on any Gaussian process, with alpha = 0 at the first node and sigma'' = 0 at the last (there the target is
  x0_2). The value is the squared error of x0 against it in units of eps; chain `weight_by(truncated_snr())`
  for the papers' max(SNR, 1) on x0.

  The sampled time chooses the step: the last whose start is at or above it; `step_times(teacher_grid)` gives
  each the same share. With `random_guidance(...)` the model and the teacher share a random weight; without,
  it is the distillation of an unguided model.

  The minimiser differs from the teacher's denoiser by its change over a step, so the bias is of first order
  in the step.

  Args:
    process, teacher_grid, sampler, grid: see `student_steps`; in place of the grid a `StudentSteps`, which
      may be traced.

  batch: a dict with 'x' [B, ...] and, if conditional, 'cond'. Raises ValueError as `student_steps` does.

  >>> from diffusion import losses, processes
  >>> objective = losses.progressive_distillation(processes.vp_cosine(), [1.0, 0.75, 0.5, 0.25, 0.0])
  >>> sorted(objective.needs), objective.bias_order
  (['model', 'teacher'], 1)
  """
  name = "progressive_distillation"
  given = isinstance(teacher_grid, StudentSteps)
  steps = teacher_grid if given else student_steps(process, teacher_grid, sampler, grid)
  inner = _noised(process, name)

  def draw(key, batch, t, state):
    at = step_of(steps, t)
    return inner(key, batch, jnp.asarray(steps.t, t.dtype)[at], state).replace(targets={"step": at})

  def evaluate(roles, placed, params, state, clock):
    x, at = placed.x_t, placed.targets["step"]
    row = lambda leaf: jnp.asarray(leaf, x.dtype)[at]
    wide = lambda leaf: expand(row(leaf), x)
    first = _teacher(roles, x, placed.t, placed.cond).x0
    middle = jnp.asarray(steps.middle, placed.t.dtype)[at]
    second = _teacher(roles, wide(steps.keep) * x + wide(steps.pull) * first, middle, placed.cond).x0
    return _squared_error(process, "x0", first + wide(steps.share) * (second - first), roles, placed)

  return Objective(
    name=name,
    draw=draw,
    evaluate=evaluate,
    process=process,
    needs={"model": {"x0": name}, "teacher": {"x0": name}},
    bias_order=1,
    denoises=False,
    steps=None if given else (tuple(float(t) for t in np.asarray(teacher_grid)), sampler),
  )


def step_of(steps: StudentSteps, t: jax.Array) -> jax.Array:
  """The student's step [B] that each time belongs to.

  It is the last step whose start is at or above the time, and the first for times above all.
  """
  ascending = jnp.asarray(steps.t, t.dtype)[::-1]
  last = ascending.shape[0] - 1
  return last - jnp.clip(jnp.searchsorted(ascending, t, side="left"), 0, last)


def _noised(process, name):
  """The draw of denoising score matching, for the objective of that name.

  Raises a ValueError of the objective's own for what is no Gaussian process.
  """
  check_gaussian(process, name)
  return denoising_score_matching(process).draw


def _teacher(roles, x, t, cond, view="x0"):
  """What the teacher says, as a constant."""
  return jax.lax.stop_gradient(roles["teacher"](x, t, cond, views=(view,), train=False))


def _squared_error(process, view, target, roles, placed):
  """Terms of the model's error in a view [B, ...], scaled to eps."""
  prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=(view,), key=placed.key)
  predicted = prediction[view]
  width = at_least_single(predicted.dtype)
  factor = expand(noise_scale(process, placed.t, view).astype(width), predicted)
  square = sum_rows(jnp.square(factor * (predicted.astype(width) - target.astype(width))))
  collections = None if prediction.collections is None else {"model": prediction.collections}
  return terms(square, metrics={"eps_mse": square / predicted[0].size}, collections=collections)
