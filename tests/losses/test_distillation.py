"""Distillation where the teacher is known.

The identity that defines a step's target, exact students, and the order of what they differ by.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, guidance, losses, oracles, processes, solvers
from diffusion.losses.distillation import step_of

QUICK = ("vp_cosine", "edm")
EACH_PROCESS = pytest.mark.parametrize(
  "name",
  [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in processes.PROCESSES],
)
MEANS, LABELS = [[-1.0, 0.3], [1.0, 0.0], [0.2, 1.5]], [0, 1, 0]


def guided(process):
  """The teacher: exact classifier-free guidance of a mixture of two classes, with the weight in the
  condition."""
  return guidance.by_condition()(
    oracles.gaussian_mixture(process, [0.2, 0.5, 0.3], MEANS, 0.1, labels=LABELS)
  )


def grid_of(process, n):
  """n steps over the whole process, from its last time (alpha = 0 on some) to clean data (sigma = 0) where it
  reaches them."""
  return solvers.grids.quadratic(process, n, t_min=0.0)


def target_of(objective, placed, teacher):
  """What the objective wants of the model's x0 [B, ...]: its value is factor^2 |x0 - target|^2, whose slope
  says the target."""

  def value(guess):
    roles = {"model": denoisers.from_functions(x0=lambda own, x, t, cond: guess), "teacher": teacher}
    return jnp.sum(objective.evaluate(roles, placed, {}, {}, losses.START).interior)

  slope = jax.jit(jax.grad(value))
  zero, one = slope(jnp.zeros_like(placed.x_t)), slope(jnp.ones_like(placed.x_t))
  return zero / (zero - one)


@EACH_PROCESS
@pytest.mark.parametrize("sampler", ["ddim", "double_step"])
def test_one_step_of_the_student_is_two_of_the_teacher(name, sampler, x64):
  """The defining identity, at every step of a grid that touches both ends, at weights from 0 to 4."""
  process = processes.PROCESSES[name]()
  teacher, grid = guided(process), grid_of(process, 6)
  objective = losses.progressive_distillation(process, grid, sampler)
  starts = grid[:-1:2] if sampler == "ddim" else grid[:-1]
  cond = {"label": jnp.arange(len(starts)) % 2, "guidance": jnp.linspace(0.0, 4.0, len(starts))}
  batch = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(len(starts), 2))), "cond": cond}
  draw = objective.draw(jax.random.key(0), batch, jnp.asarray(starts), {})
  np.testing.assert_array_equal(draw.t, starts)
  placed = objective.place({}, draw)
  target = np.asarray(target_of(objective, placed, teacher))
  run = functools.partial(solvers.sample, teacher)
  for i, t in enumerate(starts):
    first = np.flatnonzero(grid == t)[0]
    nodes = grid[first : first + 3]
    row = lambda leaf: jax.tree.map(lambda a: a[i : i + 1], leaf)
    end = run(solvers.ddim(process, nodes, dtype=np.float64), row(placed.x_t), cond=row(cond))
    here, there = process.marginal(nodes[0]), process.marginal(nodes[-1])
    ratio = there.sigma / here.sigma
    mine = ratio * row(placed.x_t) + (there.alpha - ratio * here.alpha) * target[i : i + 1]
    np.testing.assert_allclose(mine, end, rtol=1e-9, atol=1e-9 * float(process.prior_std))
    # The formula of the papers, which divides by what is small where steps are short.
    np.testing.assert_allclose(
      (end - ratio * row(placed.x_t)) / (there.alpha - ratio * here.alpha), target[i : i + 1], rtol=1e-6
    )
  if float(process.marginal(0.0).sigma) == 0:  # the last step ends in what was predicted last
    np.testing.assert_allclose(end[0], target[-1], rtol=1e-9)


@pytest.mark.parametrize("sampler", ["ddim", "double_step"])
def test_the_target_differs_from_the_teacher_by_the_order_that_is_declared(sampler, x64):
  process = processes.edm()
  oracle = oracles.gaussian_mixture(process, [0.2, 0.5, 0.3], MEANS, 0.1)
  x, t = jnp.asarray([[0.3, -0.4]]), jnp.asarray([1.0])
  gaps, steps = [], (0.02, 0.01, 0.005)
  for h in steps:
    objective = losses.progressive_distillation(process, [1.0, 1.0 - h, 1.0 - 2 * h], sampler)
    placed = losses.Placed(x_t=x, t=t, x0=x, noise=x, targets={"step": jnp.zeros(1, jnp.int32)})
    gaps.append(float(jnp.linalg.norm(target_of(objective, placed, oracle) - oracle(x, t).x0)))
  order = np.polyfit(np.log(steps), np.log(gaps), 1)[0]
  assert abs(order - objective.bias_order) < 0.05, (order, gaps)


def affine(params, x, t, cond):
  """x0 = gain x + shift at the nearest of a few log-spaced times."""
  del cond
  at = jnp.argmin(jnp.abs(params["t"][None, :] - t[:, None]), axis=1)
  return params["gain"][at][:, None] * x + params["shift"][at][:, None]


def exact_student(process, teacher, grid, sampler="ddim"):
  """The minimiser: the target is affine for a Gaussian teacher, so two points say it."""
  objective = losses.progressive_distillation(process, grid, sampler)
  starts = np.asarray(losses.student_steps(process, grid, sampler).t)
  draw = objective.draw(jax.random.key(0), {"x": jnp.zeros((len(starts), 1))}, jnp.asarray(starts), {})
  at = lambda x: np.asarray(target_of(objective, losses.placed_at(draw, jnp.full_like(draw.x0, x)), teacher))[
    :, 0
  ]
  shift, gain = at(0.0), at(1.0) - at(0.0)
  return denoisers.from_function(
    affine, process, denoisers.x0(), jax.tree.map(jnp.asarray, {"t": starts, "gain": gain, "shift": shift})
  )


def test_halving_to_one_step_keeps_the_teachers_four(x64):
  """Without a condition: the progressive distillation of an unguided model, whose exact students lose nothing
  of four DDIM steps."""
  process = processes.vp_cosine()
  teacher = oracles.gaussian(process, [0.7], 0.3)
  grid, x = grid_of(process, 4), jnp.linspace(-2.0, 2.0, 5)[:, None]
  four = solvers.sample(teacher, solvers.ddim(process, grid, dtype=np.float64), x)
  student = teacher
  while len(grid) > 2:
    student = exact_student(process, student, grid)
    grid = losses.halved(grid)
    found = solvers.sample(student, solvers.ddim(process, grid, dtype=np.float64), x)
    np.testing.assert_allclose(found, four, rtol=1e-10)
  np.testing.assert_allclose(found, student(x, jnp.ones(5)).x0, rtol=1e-12)


def test_the_stochastic_sampler_keeps_every_marginal_of_a_perfect_student():
  """A student whose double step is the exact flow of N(0, v): the variance after each step is that of p_t,
  however few steps."""
  v = 0.3
  for name in processes.PROCESSES:
    process = processes.PROCESSES[name]()
    for n in (1, 2, 3, 5):
      grid = grid_of(process, n)
      table, m = (
        solvers.double_step(process, grid, dtype=np.float64),
        process.marginal(np.asarray(grid, np.float64)),
      )
      total = m.alpha**2 * v + m.sigma**2
      variance = total[0]
      for i in range(n):
        far = min(i + 2, n)
        ratio = m.sigma[far] / m.sigma[i]
        gain = (np.sqrt(total[far] / total[i]) - ratio) / (m.alpha[far] - ratio * m.alpha[i])
        variance = (table.A[i, 0, 0] + table.B[i, 0] * gain) ** 2 * variance + table.C[i, 0, 0] ** 2
        # The grid is that of the table to float64, so to rounding.
        np.testing.assert_allclose(variance, total[i + 1], rtol=1e-9, err_msg=f"{name}, step {i} of {n}")


def test_the_minimiser_of_stage_one_is_classifier_free_guidance(x64):
  """In a family x0 = a x + (b + c w) mean_label the least loss is nought, and only at the guided teacher."""
  process, t = processes.vp_cosine(), 0.4
  means = jnp.asarray([[1.0, -0.5], [-0.3, 2.0], [0.0, 0.0]])  # the last is that of no label

  def teacher(own, x, t, cond):
    del t
    return own * (x - alpha * means[cond["label"]]) + means[cond["label"]]

  def family(own, x, t, cond):
    del t
    return own[0] * x + (own[1] + own[2] * cond["guidance"])[:, None] * means[cond["label"]]

  m = process.marginal(np.array(t))
  alpha, gain = float(m.alpha), 0.3
  objective = losses.chain(losses.distillation(process), losses.random_guidance(0.5, 4.0))
  roles = losses.roles(
    model=denoisers.from_function(family, process, denoisers.x0()),
    teacher=guidance.by_condition()(denoisers.from_function(teacher, process, denoisers.x0())),
  )
  batch = {
    "x": jnp.asarray(np.random.default_rng(0).normal(size=(32, 2))),
    "cond": {"label": jnp.arange(32) % 2},
  }
  draw = objective.draw(jax.random.key(0), batch, jnp.full(32, t), {})

  def value(own, taught):
    return jnp.mean(objective(roles({"model": own, "teacher": taught, "loss": {}}, {}), draw).interior)

  start, taught = jnp.asarray([1.0, -1.0, 0.5]), jnp.asarray(gain)
  slope = jax.jit(jax.grad(value, argnums=(0, 1)))
  at_start, of_teacher = slope(start, taught)
  assert float(of_teacher) == 0.0  # the teacher learns nothing
  hessian = jnp.stack([slope(start + step, taught)[0] - at_start for step in jnp.eye(3)])
  least = start - jnp.linalg.solve(hessian, at_start)
  np.testing.assert_allclose(least, [gain, 1 - gain * alpha, 1 - gain * alpha], rtol=1e-9)
  assert float(value(least, taught)) < 1e-18


def test_weights_have_their_law_and_leave_the_noise():
  """Mean and mean square of ((w - 0.5) / 2)^(1 / power) within 5 standard errors (6e-7 each) of those of a
  uniform number."""
  process, size = processes.edm(), 4096
  plain = losses.distillation(process)
  batch = {"x": jnp.zeros((size, 1)), "cond": {"label": jnp.zeros(size, jnp.int32)}}
  for power in (1.0, 2.0):
    one, other = (
      objective.draw(jax.random.key(0), batch, jnp.ones(size), {})
      for objective in (plain, losses.chain(plain, losses.random_guidance(0.5, 2.5, power)))
    )
    np.testing.assert_array_equal(plain.place({}, one).x_t, plain.place({}, other).x_t)
    u = ((np.asarray(other.cond["guidance"], np.float64) - 0.5) / 2.0) ** (1 / power)
    assert u.min() >= 0.0 and u.max() < 1.0
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / size)
    assert abs(((u - 0.5) ** 2).mean() - 1 / 12) < 5 * np.sqrt((1 / 80 - 1 / 144) / size)
  # Labels that are dropped outside of the weights leave these as they are; inside of them they take them
  # along.
  for transforms, kept in (
    ((losses.random_guidance(1.0, 2.0), losses.condition_dropout(1.0)), True),
    ((losses.condition_dropout(1.0), losses.random_guidance(1.0, 2.0)), False),
  ):
    cond = losses.chain(plain, *transforms).draw(jax.random.key(0), batch, jnp.ones(size), {}).cond
    assert np.all(cond["label"] == -1) and np.all((cond["guidance"] >= 1.0) == kept)
  with pytest.raises(ValueError, match="a power above 0"):
    losses.random_guidance(0.0, 4.0, 0.0)


def test_sampled_times_are_the_starts_of_steps():
  process = processes.vp_cosine()
  grid = grid_of(process, 8)
  for sampler, starts in (("ddim", grid[:-1:2]), ("double_step", grid[:-1])):
    steps = losses.student_steps(process, grid, sampler)
    times = losses.step_times(steps).quantile(
      jnp.asarray((np.arange(len(starts)) + 0.5) / len(starts), jnp.float32)
    )
    np.testing.assert_array_equal(times, np.sort(starts).astype(np.float32))
    np.testing.assert_array_equal(step_of(steps, times), np.arange(len(starts))[::-1])
  between = step_of(steps, jnp.asarray([0.9 * grid[3], 0.5 * grid[-2], 2.0 * grid[0]], jnp.float32))
  np.testing.assert_array_equal(between, [3, 7, 0])
