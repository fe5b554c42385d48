"""The base holds what the estimators to come need: toy ones, each with one demand of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, processes
from losses import gaussian_family as family

PROCESS = processes.vp_linear()


def run(objective, roles, params, batch, *, steps=1, **closing):
  loss = losses.chain(objective, losses.at_times(losses.uniform_times(0.1, 0.9), roles=roles, **closing))
  loss_params, state = loss.init(jax.random.key(0))
  params = {"loss": loss_params, **params}
  compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
  for step in range(steps):
    (value, (state, metrics)), gradient = compiled(params, state, step, jax.random.key(1), batch)
  return value, state, metrics, gradient


def curvature(weight):
  """A term on the draw of the denoising loss: (-h - (1 - eps^2) / sigma^2 + s^2) against a diagonal Hessian
  h."""

  def change(terms, roles, placed, params, state, clock):
    sigma = PROCESS.marginal(placed.t).sigma[:, None]
    found = roles["model"](placed.x_t, placed.t, placed.cond, views=("score", "hessian"))
    error = sigma**2 * (found.hessian + found.score**2) + 1.0 - placed.noise**2
    extra = jnp.sum(error**2, -1)
    return terms.replace(
      interior=terms.interior + weight * extra, metrics={**terms.metrics, "curvature": extra}
    )

  def transform(objective):
    if objective.process is None:
      raise ValueError(f"curvature does not fit {objective.name}: it has no Gaussian process")
    return losses.layer(objective, change, name="curvature", needs={"model": {"hessian": "curvature"}})

  return transform


def test_a_second_term_shares_the_draw_of_the_first():
  dsm = losses.denoising_score_matching(PROCESS)
  roles = losses.roles(
    model=denoisers.together(
      first=family.denoiser(PROCESS),
      second=denoisers.from_functions(hessian=lambda p, x, t, cond: p * jnp.ones_like(x)),
    )
  )
  own = {"model": {"first": family.params(), "second": jnp.float32(-1.0)}}
  batch = family.batch(16)
  _, _, alone, _ = run(dsm, roles, own, batch)
  _, _, both, gradient = run(losses.chain(dsm, curvature(0.5)), roles, own, batch)
  np.testing.assert_allclose(both["loss"], alone["loss"] + 0.5 * both["curvature"], rtol=1e-5)
  assert float(gradient["model"]["second"]) != 0.0
  with pytest.raises(ValueError, match="curvature needs 'hessian' of the role 'model'"):
    losses.chain(dsm, curvature(0.5), losses.at_times(roles=losses.roles(model=family.denoiser(PROCESS))))
  with pytest.raises(ValueError, match="curvature does not fit"):
    losses.chain(dsm.replace(process=None), curvature(0.5))


def antithetic(objective):
  """The mean of an objective at the draw and at its mirrored noise."""

  def evaluate(roles, placed, params, state, clock):
    noise = -placed.noise
    mirrored = placed.replace(noise=noise, x_t=PROCESS.corrupt(placed.x0, noise, placed.t))
    pair = [objective.evaluate(roles, p, params, state, clock) for p in (placed, mirrored)]
    return jax.tree.map(lambda a, b: 0.5 * (a + b), *pair)

  return objective.replace(name=f"antithetic({objective.name})", evaluate=evaluate)


def test_a_term_is_evaluated_at_mirrored_noise():
  dsm = losses.denoising_score_matching(PROCESS)
  spread = []
  for objective in (dsm, losses.chain(dsm, antithetic)):
    draw = objective.draw(jax.random.key(0), family.batch(512), jnp.full(512, 0.05), {})
    # A field with an offset has a gradient linear in eps, which mirroring cancels; most of it at low noise.
    value = lambda b: (
      objective(
        family.bound(PROCESS, {"matrix": jnp.zeros((2, 2)), "offset": b * jnp.ones(2)}), draw
      ).interior
    )
    spread.append(np.std(np.asarray(jax.jit(jax.jacfwd(value))(jnp.float32(0.0)))))
  assert spread[1] < 0.6 * spread[0]


def loss_history(length=3):
  """Keeps the last losses of each slot of the batch, ordered by time, without the boundary."""

  def change(terms, roles, placed, params, state, clock):
    slot = jnp.argsort(jnp.argsort(placed.t))
    weight = jnp.where(state["count"] < length, 1.0, jnp.sqrt(jnp.mean(state["past"] ** 2, 1)))
    return terms.replace(
      interior=weight[slot] * terms.interior,
      metrics={**terms.metrics, "raw": terms.interior, "slot": slot.astype(jnp.float32)},
    )

  def update(state, t, terms):
    raw = terms.metrics["raw"][jnp.argsort(t)]
    return {"count": state["count"] + 1, "past": jnp.concatenate([state["past"][:, 1:], raw[:, None]], 1)}

  init = lambda key: ({}, {"count": jnp.int32(0), "past": jnp.zeros((16, length))})
  return lambda objective: losses.layer(
    objective, change, name="loss_history", init=init, update=update, coupled=True
  )


def test_a_layer_keeps_state_and_sees_its_own_terms():
  dsm = losses.denoising_score_matching(PROCESS)
  objective = losses.chain(dsm, loss_history(), losses.scale(10.0), losses.uncertainty(8))
  roles, own = family.roles(PROCESS), {"model": family.params(family.ELSEWHERE)}
  _, state, metrics, _ = run(objective, roles, own, family.batch(16), steps=2)
  history = state["objective"]["inner"]["own"]
  assert objective.coupled and int(history["count"]) == 2
  # The raw losses, before the scale that is applied outside of the layer.
  np.testing.assert_allclose(np.mean(history["past"][:, -1]), metrics["raw"], rtol=1e-5)
  np.testing.assert_allclose(metrics["unweighted"], 10.0 * metrics["raw"], rtol=1e-5)
  assert np.all(np.asarray(history["past"][:, 0]) == 0.0)


def time_score_matching(weight):
  """By parts in t, with boundary terms and a weight of its own, between N(0, 1) and N(0, 4)
  (arXiv:2111.11010)."""

  def draw(key, batch, t, state):
    noise, data = batch
    return losses.Draw(t=t, x0=noise, x1=data, keys=losses.example_keys(key, batch))

  def between(draw, t):
    return jnp.sqrt(1 - t**2) * draw.x0 + t * draw.x1

  def place(roles, draw):
    return losses.placed_at(draw, between(draw, draw.t))

  def evaluate(roles, placed, params, state, clock):
    score = lambda x, t: roles["model"](x, t, views=("time_score",)).time_score
    value, slope = jax.jvp(lambda t: score(placed.x_t, t), (placed.t,), (jnp.ones_like(placed.t),))
    lam, d_lam = jax.jvp(weight, (placed.t,), (jnp.ones_like(placed.t),))
    zero, one = jnp.zeros_like(placed.t), jnp.ones_like(placed.t)
    boundary = 2 * weight(zero) * score(between(placed, zero), zero) - 2 * weight(one) * score(
      between(placed, one), one
    )
    return losses.terms(2 * lam * slope + 2 * d_lam * value + lam * value**2, boundary)

  return losses.Objective(
    "time_score_matching",
    draw=draw,
    place=place,
    evaluate=evaluate,
    needs={"model": {"time_score": "time_score_matching"}},
    takes_weight=True,
  )


def test_boundary_terms_are_not_reweighted_and_find_the_time_score():
  """Of p_t = N(0, 1 + 3 a t^2) at a = 1: gradient within 4.5 standard errors of zero; batch is a pair of data
  sets."""

  def time_score(a, x, t, cond=None):
    variance, slope = 1 + 3 * a * t**2, 6 * a * t
    return slope / (2 * variance) * (x**2 / variance - 1)

  size = 20000
  keys = jax.random.split(jax.random.key(0))
  batch = (jax.random.normal(keys[0], (size,)), 2 * jax.random.normal(keys[1], (size,)))
  objective = time_score_matching(lambda t: 2 - t**2)
  roles = losses.roles(model=denoisers.from_functions(time_score=time_score))
  sampler = losses.low_discrepancy(losses.logit_normal(0.0, 1.5, 0.0, 1.0))
  loss = losses.chain(objective, losses.at_times(sampler, roles=roles, reweight=True))
  value = jax.jit(
    lambda a: loss.per_example(
      {"model": a, "loss": {}}, loss.init(jax.random.key(0))[1], 0, jax.random.key(5), batch
    )[0]
  )
  for a, zero in ((1.0, True), (0.5, False)):
    slope = np.asarray(jax.jacfwd(value)(jnp.float32(a)), np.float64)
    z = slope.mean() / (slope.std() / np.sqrt(size))
    assert (abs(z) < 4.5) == zero
  with pytest.raises(ValueError, match="pass weight=..."):
    losses.weight_by(losses.uniform())(objective)


def compositional():
  """The logarithm of a mean: couples the batch, and keeps an inner estimate as state (extended by each
  batch)."""

  def evaluate(roles, placed, params, state, clock):
    ratio = jnp.exp(roles["model"](placed.x_t, placed.t, views=("energy",)).energy)
    return losses.terms(ratio / jax.lax.stop_gradient(state["mean"]), metrics={"ratio": ratio})

  update = lambda state, t, terms: {"mean": 0.5 * state["mean"] + 0.5 * jnp.mean(terms.metrics["ratio"])}
  return losses.Objective(
    "compositional",
    init=lambda key: ({"log_z": jnp.zeros(())}, {"mean": jnp.ones(())}),
    update=update,
    draw=lambda key, batch, t, state: losses.Draw(t=t, x0=batch["x"]),
    evaluate=evaluate,
    needs={"model": {"energy": "compositional"}},
    coupled=True,
    bias_order=1,
  )


def test_a_coupled_objective_keeps_its_inner_estimate_also_in_a_sum():
  roles = losses.roles(model=denoisers.from_functions(energy=lambda p, x, t, cond=None: p * x[:, 0]))
  total = losses.add(compositional(), losses.chain(compositional(), losses.scale(2.0)))
  assert total.coupled and total.bias_order == 1 and total.process is None
  value, state, metrics, gradient = run(total, roles, {"model": jnp.zeros(())}, {"x": 3 * jnp.ones((4, 1))})
  assert float(value) == 3.0 and float(metrics["1/value"]) == 2.0
  assert [float(own["mean"]) for own in state["objective"]] == [1.0, 1.0]
  assert float(gradient["model"]) == 9.0
  assert [float(own["log_z"]) for own in gradient["loss"]] == [0.0, 0.0]


def distillation():
  """The student's eps against the teacher's, at the draw of the denoising loss."""
  base = losses.denoising_score_matching(PROCESS)

  def evaluate(roles, placed, params, state, clock):
    student, teacher = (
      roles[role](placed.x_t, placed.t, placed.cond, views=("eps",)).eps for role in ("model", "teacher")
    )
    return losses.terms(jnp.sum((student - teacher) ** 2, -1))

  return base.replace(
    name="distillation",
    evaluate=evaluate,
    needs={role: {"eps": "distillation"} for role in ("model", "teacher")},
  )


def test_a_teacher_is_an_argument_without_gradient():
  roles = losses.roles(model=family.denoiser(PROCESS), teacher=family.denoiser(PROCESS))
  batch, off = family.batch(8), family.params(family.ELSEWHERE)
  same, _, _, _ = run(distillation(), roles, {"model": off, "teacher": off}, batch)
  other, _, _, gradient = run(distillation(), roles, {"model": family.params(), "teacher": off}, batch)
  assert float(same) == 0.0 < float(other)
  assert all(np.all(np.asarray(leaf) == 0.0) for leaf in jax.tree.leaves(gradient["teacher"]))
  assert any(np.any(np.asarray(leaf) != 0.0) for leaf in jax.tree.leaves(gradient["model"]))
  with pytest.raises(ValueError, match="needs 'eps' of the role 'teacher'"):
    losses.chain(distillation(), losses.at_times(roles=family.roles(PROCESS)))


def test_a_role_keeps_its_own_parameters_where_none_are_given():
  oracle = family.denoiser(PROCESS)
  roles = losses.roles(model=oracle, teacher=oracle)
  bound = roles({"model": family.params(family.ELSEWHERE)})
  np.testing.assert_array_equal(bound["teacher"].params["offset"], 0.0)
  np.testing.assert_array_equal(bound["model"].params["offset"], family.params(family.ELSEWHERE)["offset"])


def scheduled():
  """A weight that grows with the run: the step, and the examples seen."""

  def change(terms, roles, placed, params, state, clock):
    grown = clock.images + clock.step.astype(jnp.float32)
    return terms.replace(interior=grown * jnp.ones_like(terms.interior))

  return lambda objective: losses.layer(objective, change, name="scheduled")


def test_the_clock_is_the_step_and_the_examples_seen():
  objective = losses.chain(losses.denoising_score_matching(PROCESS), scheduled())
  loss = losses.chain(objective, losses.at_times(losses.uniform_times(0.1, 0.9), roles=family.roles(PROCESS)))
  loss_params, state = loss.init(jax.random.key(0))
  params = {"model": family.params(), "loss": loss_params}
  value = jax.jit(lambda step: loss(params, state, step, jax.random.key(1), family.batch(16))[0])
  assert [float(value(jnp.int32(step))) for step in (0, 3)] == [0.0, 3.0 + 3 * 16]
  # A part of a batch is told how large the whole is.
  part = jax.tree.map(lambda leaf: leaf[:4], family.batch(16)) | {"index": jnp.arange(4)}
  values, _ = loss.per_example(params, state, jnp.int32(3), jax.random.key(1), part, t=jnp.ones(4), size=16)
  np.testing.assert_array_equal(values, 51.0)


def at_the_teachers_step(objective):
  """The objective with x_t moved by one Euler step of the teacher, as in consistency training."""

  def place(roles, draw):
    placed = objective.place(roles, draw)
    later = 0.9 * draw.t
    slope = roles["teacher"](placed.x_t, draw.t, draw.cond, views=("velocity",)).velocity
    return placed.replace(x_t=placed.x_t + (later - draw.t)[:, None] * slope, t=later)

  needs = losses.merge_needs(objective.needs, {"teacher": {"velocity": "at_the_teachers_step"}})
  return objective.replace(name="at_the_teachers_step", place=place, needs=needs)


def seen(found):
  """A layer that says where it was placed."""

  def change(terms, roles, placed, params, state, clock):
    found.append((placed.x_t, placed.t))
    return terms

  return lambda objective: losses.layer(objective, change, name="seen")


def test_a_role_may_place_x_and_later_layers_see_where():
  found = []
  dsm = losses.denoising_score_matching(PROCESS)
  objective = losses.chain(dsm, at_the_teachers_step, losses.weight_by(losses.snr(-1.0)), seen(found))
  roles = {"model": family.denoiser(PROCESS), "teacher": family.denoiser(PROCESS)}
  t = jnp.linspace(0.2, 0.8, 16)
  draw = objective.draw(jax.random.key(0), family.batch(16), t, {})
  objective(roles, draw)
  x = PROCESS.corrupt(draw.x0, draw.noise, t)
  moved = x - 0.1 * t[:, None] * roles["teacher"](x, t, views=("velocity",)).velocity
  np.testing.assert_allclose(found[0][0], moved, rtol=1e-6)
  np.testing.assert_allclose(found[0][1], 0.9 * t)
  with pytest.raises(ValueError, match="at_the_teachers_step needs 'velocity' of the role 'teacher'"):
    losses.chain(objective, losses.at_times(roles=family.roles(PROCESS)))
