"""Concrete score matching beside closed forms.

Graphs that are no grids, the limit to the Stein score, the share of chance.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, oracles, processes
from diffusion.processes import neighbourhoods


def table_field():
  """concrete(table [K, N], x, t): a state of one coordinate looks its row up."""
  return losses.roles(
    model=denoisers.from_functions(concrete_score=lambda table, x, t, cond=None: table[x[:, 0]])
  )


def expected(objective, table, p):
  """The objective on clean data of law p, averaged exactly over the states."""
  x = jnp.arange(len(p), dtype=jnp.int32)[:, None]
  draw = objective.draw(jax.random.key(0), {"x": x}, jnp.zeros(len(p)), {})
  interior = objective(table_field()({"model": table}), draw).interior
  return jnp.sum(jnp.asarray(p, interior.dtype) * interior)


def order(errors):
  """The power of a step that halves from one error to the next."""
  return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


GRAPHS = {
  "star": neighbourhoods.graph([[1, 2, 3], [0, -1, -1], [0, -1, -1], [0, 2, -1]]),
  "line": neighbourhoods.grid(6, (1,), wrap=False),
  "two_steps": neighbourhoods.grid(7, (1, -2)),
}


@pytest.mark.parametrize(
  "name", ["star", *(pytest.param(name, marks=pytest.mark.slow) for name in ("line", "two_steps"))]
)
def test_the_objective_by_parts_is_the_squared_error_up_to_a_constant(name, x64):
  """At any table: sum_x p |c - c_p|^2 - sum_x p |c_p|^2, where moves have no inverse or several."""
  of = GRAPHS[name]
  size = of.sizes[0]
  p = np.random.default_rng(0).dirichlet(np.full(size, 2.0))
  y, exists = map(np.asarray, of.neighbours(jnp.arange(size, dtype=jnp.int32)[:, None]))
  truth = np.where(exists, p[y[:, :, 0]] / p[:, None] - 1.0, 0.0)
  table = np.random.default_rng(1).normal(size=truth.shape)
  value = jax.jit(lambda table: expected(losses.concrete_score_matching(None, of), table, p))
  for c in (table, truth):
    square = np.where(exists, (c - truth) ** 2 - truth**2, 0.0)
    np.testing.assert_allclose(value(jnp.asarray(c)), np.sum(p[:, None] * square), rtol=1e-12)


@pytest.mark.slow
def test_a_field_that_nothing_changes_leaves_nothing_to_chance(x64):
  """With the same output at a state and its reverse neighbours, every choice of them gives the exact
  value."""
  of, x = processes.neighbourhoods.grid([4, 5, 3], (1,)), jnp.array([[1, 4, 2]] * 3, jnp.int32)
  roles = losses.roles(
    model=denoisers.from_functions(
      concrete_score=lambda own, x, t, cond=None: jnp.broadcast_to(own[None], (x.shape[0], 3))
    )
  )({"model": jnp.arange(3.0)}, {})

  @jax.jit
  def everything(key):
    values, picked = [], []
    for m in (None, 1, 2, 3):
      objective = losses.concrete_score_matching(None, of, num_reverse=m)
      draw = objective.draw(key, {"x": x}, jnp.zeros(3), {})
      values.append(objective(roles, draw).interior)
      picked.append(draw.targets.get("reverse"))
    return values, picked[1:]

  values, picked = everything(jax.random.key(4))
  for m, rows in zip((1, 2, 3), picked):
    assert all(len(set(row)) == m for row in np.asarray(rows).tolist())
  np.testing.assert_allclose(values, np.full((4, 3), 0.0 + 1.0 + 4.0), rtol=1e-12)


# The limit of small steps: a line through the density of a mixture of two Gaussians.

MEANS, DEVIATIONS, SHARES = np.array([-1.0, 1.5]), np.array([0.6, 0.4]), np.array([0.4, 0.6])


def mixture(x):
  """Density, score and slope of the score, float64."""
  parts = SHARES / DEVIATIONS * np.exp(-0.5 * ((x[:, None] - MEANS) / DEVIATIONS) ** 2)
  weight = parts / parts.sum(1, keepdims=True)
  pull = -(x[:, None] - MEANS) / DEVIATIONS**2
  score = np.sum(weight * pull, 1)
  return parts.sum(1), score, np.sum(weight * (pull**2 - 1 / DEVIATIONS**2), 1) - score**2


def stepped(count):
  """The mixture at `count` places delta apart on [-6, 6), as a circle whose ends have next to no probability:
  (x, p, delta)."""
  delta = 12.0 / count
  x = -6.0 + delta * np.arange(count)
  p = mixture(x)[0]
  return x, p / p.sum(), delta


def test_the_concrete_score_goes_to_the_score_with_the_step(x64):
  """c / delta by the oracle of whole numbers: its error halves with delta (order one), that of the two-sided
  mean falls to a quarter."""
  one_sided, two_sided = [], []
  concrete = jax.jit(lambda oracle, x: oracle.concrete(x, jnp.zeros(x.shape[:1])))
  for count in (512, 1024, 2048):
    x, p, delta = stepped(count)
    rows = np.arange(0, count, count // 64)  # the same places for every step
    rows = rows[np.abs(x[rows]) < 3.0]
    c = np.asarray(concrete(oracles.uniform_resample_categorical(p), jnp.asarray(rows[:, None])))[:, 0]
    ahead, behind = (c[np.arange(len(rows)), rows + step] for step in (1, -1))
    score = mixture(x)[1][rows]
    one_sided.append(np.abs(ahead / delta - score).max())
    two_sided.append(np.abs((ahead - behind) / (2.0 * delta) - score).max())
  np.testing.assert_allclose(order(one_sided), 1.0, atol=0.1)
  np.testing.assert_allclose(order(two_sided), 2.0, atol=0.1)


def test_the_objective_goes_to_score_matching_with_the_step(x64):
  """The mean of the objective at c = delta s, s another smooth field, over delta^2: that of s^2 + 2 ds/dx, to
  order one."""
  fine = np.linspace(-6.0, 6.0, 20_001)
  density = mixture(fine)[0]
  weight = density / density.sum()
  exact = np.sum(weight * (np.sin(fine) ** 2 + 2.0 * np.cos(fine)))
  errors = []
  for count in (256, 512):
    x, p, delta = stepped(count)
    of = neighbourhoods.cycle(count)
    value = jax.jit(lambda table, of=of, p=p: expected(losses.concrete_score_matching(None, of), table, p))(
      delta * np.sin(x)[:, None]
    )
    errors.append(abs(float(value) / delta**2 - exact))
  np.testing.assert_allclose(order(errors), 1.0, atol=0.05)


@pytest.mark.slow
def test_the_denoising_target_averages_to_the_oracles_ratios(x64):
  """Over the posterior of the clean state, the kernel's ratios are those of p_t: bits and other sizes, jumps
  to every value."""
  sizes, t = (2, 3), 0.4
  joint = np.random.default_rng(2).dirichlet(np.full(6, 1.0)).reshape(sizes)
  oracle = oracles.uniform_resample_categorical(joint)
  of = neighbourhoods.build(
    np.array(sizes), lambda size: [np.roll(np.arange(size), -step) for step in range(1, size)], "jumps"
  )
  states = np.array(list(itertools.product(*map(range, sizes))))
  x_t, x0 = (jnp.asarray(a) for a in (np.repeat(states, 6, axis=0), np.tile(states, (6, 1))))
  process = processes.uniform_resample(sizes)

  @jax.jit
  def averaged(oracle):
    target, _ = losses.concrete_score.kernel_concrete(process, of, x0, x_t, jnp.full(36, t))
    posterior = jnp.exp(oracle.log_posterior(jnp.asarray(states), jnp.full(6, t))).reshape(6, 6)
    return jnp.sum(posterior[:, :, None] * target.reshape(6, 6, -1), axis=1), oracle.concrete(
      jnp.asarray(states), jnp.full(6, t)
    )

  found, truth = map(np.asarray, averaged(oracle))
  y = np.asarray(of.values(jnp.asarray(states))[0])
  np.testing.assert_allclose(
    found, truth[np.arange(6)[:, None], np.asarray(of.coordinate)[None], y], rtol=1e-10, atol=1e-12
  )
