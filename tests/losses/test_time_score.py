"""Time score matching against the squared error that it stands for, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, oracles, processes

FIRST, SECOND = ([1.0], [[-0.5]], [0.6]), ([1.0], [[0.7]], [0.25])


def answering(**functions):
  """A denoiser of functions (x, t, cond) without parameters."""
  bind = lambda function: lambda own, x, t, cond: function(x, t, cond)
  return denoisers.from_functions({}, **{view: bind(function) for view, function in functions.items()})


def gauss(num):
  return np.polynomial.hermite_e.hermegauss(num)


def exact_draw(path, first, second, edges, num=20, per_panel=6):
  """(batch, eps, t, weights): rows whose weighted mean is the expectation over both ends and uniform
  times."""
  z, w = gauss(num)
  w = w / w.sum()
  u, v = np.polynomial.legendre.leggauss(per_panel)
  edges = np.asarray(edges)
  t = (0.5 * (edges[1:] + edges[:-1])[:, None] + 0.5 * np.diff(edges)[:, None] * u).reshape(-1)
  wt = (0.5 * np.diff(edges)[:, None] * v).reshape(-1) / (edges[-1] - edges[0])
  one, two, t = (a.reshape(-1) for a in np.meshgrid(z, z, t, indexing="ij"))
  weights = (w[:, None, None] * w[None, :, None] * wt[None, None, :]).reshape(-1)
  scale = lambda end, z: jnp.asarray(end[1][0][0] + np.sqrt(end[2][0]) * z)[:, None]
  batch = {"x": scale(second, two)}
  if path.ends == ("data", "data"):
    batch = ({"x": scale(first, one)}, batch)
  return batch, jnp.asarray(one)[:, None], jnp.asarray(t), jnp.asarray(weights)


def wrong(oracle):
  return lambda x, t, cond=None: (
    oracle.time_score(x, t) + 0.3 * jnp.sin(x[:, 0] + 2.0 * t) - 0.2 * x[:, 0] * t
  )


CASES = {
  "linear": (processes.linear(), {}, (0.0, 1.0)),
  "linear_uniform": (processes.linear(), dict(weight=losses.uniform()), (0.0, 1.0)),
  "linear_both_ends": (processes.linear(), dict(weight=losses.both_ends()), (0.0, 1.0)),
  "trigonometric_part": (
    processes.trigonometric(),
    dict(weight=losses.uniform(), t_min=0.2, t_max=0.7),
    (0.2, 0.7),
  ),
  "to_data": (processes.spherical(), {}, (0.0, 1.0)),
  "to_data_g2": (
    processes.spherical(t_min=0.1, t_max=0.9),
    dict(weight=losses.diffusion_coefficient()),
    (0.1, 0.9),
  ),
  "history": (
    processes.spherical(),
    dict(history=losses.loss_history(4, 3)),
    (0.0, 0.125, 0.375, 0.625, 0.875, 1.0),
  ),
  "history_polynomial": (
    processes.linear(),
    dict(weight=losses.uniform(), history=losses.loss_history(4, 3, "polynomial")),
    (0.0, 1.0),
  ),
}


@pytest.mark.parametrize("name", CASES)
def test_by_parts_is_the_squared_error_less_a_constant(name, x64):
  """Both sides by quadrature, with a field that is far from the true one; the boundary terms are those of the
  objective."""
  path, arguments, edges = CASES[name]
  objective = losses.time_score_matching(path, **arguments)
  oracle = oracles.path_mixture(path, None if path.ends[0] == "normal" else FIRST, SECOND)
  batch, eps, t, weights = exact_draw(path, FIRST, SECOND, edges, per_panel=16 if len(edges) == 2 else 8)
  state = objective.init(jax.random.key(0))[1]
  weight, history = arguments.get("weight", losses.noise_variance()), arguments.get("history")
  if history is not None:  # a history that is full, so that the weights are not one
    state = state.replace(
      losses=jnp.asarray(np.random.default_rng(0).uniform(0.5, 3.0, (4, 3))), count=state.count + 3
    )
  field = wrong(oracle)

  @jax.jit
  def both(batch, eps, t):
    draw = objective.draw(jax.random.key(0), batch, t, state).replace(noise=eps)
    x_t = path.corrupt(draw.x0, eps, t, draw.x1)
    terms = objective({"model": answering(time_score=field)}, draw, state=state)
    inner = path.replace(t_min=edges[0], t_max=edges[-1])
    true = oracle.time_score(x_t, t)
    w = weight(inner, t) * (
      1.0 if history is None else history(state, (t - edges[0]) / (edges[-1] - edges[0]))
    )
    square = w * (jnp.square(field(x_t, t) - true) - jnp.square(true))
    return terms.interior + terms.boundary, square

  given, expected = (float(jnp.sum(weights * side)) for side in both(batch, eps, t))
  assert abs(given - expected) < 2e-7 * (1.0 + abs(expected))


def test_the_boundary_is_left_out_only_where_the_weight_is_zero():
  seen = []

  def time_score(x, t, cond=None):
    seen.append(t)
    return jnp.sum(x, 1) * t

  for weight, calls in ((losses.both_ends(), 1), (losses.noise_variance(), 2), (losses.uniform(), 3)):
    objective = losses.time_score_matching(processes.spherical(), weight=weight)
    draw = objective.draw(jax.random.key(0), {"x": jnp.ones((4, 2))}, jnp.full(4, 0.5), {})
    seen.clear()
    objective({"model": answering(time_score=time_score)}, draw)
    assert len(seen) == calls


@pytest.mark.slow
def test_data_terms_agree_in_expectation():
  """Denoising, sliced and exact gradients of the data term are equal in expectation: within 4.5 standard
  errors of each other."""
  path, size = processes.spherical(t_max=0.95), 8192
  x = 0.5 * jax.random.normal(jax.random.key(0), (size, 2)) + jnp.array([[0.3, -0.2]])
  t = jax.random.uniform(jax.random.key(1), (size,)) * 0.95

  def gradients(data):
    objective = losses.joint_score_matching(path, data)
    draw = objective.draw(jax.random.key(2), {"x": x}, t, {})

    def values(scale):
      field = answering(
        time_score=lambda x, t, cond=None: 0.0 * t,
        score=lambda x, t, cond=None: -scale * (x * jnp.array([[1.0, 0.5]]) + 0.3 * jnp.roll(x, 1, 1)),
      )
      return objective({"model": field}, draw).interior

    return np.asarray(jax.jit(jax.jacfwd(values))(0.7), np.float64)

  all_three = {data: gradients(data) for data in ("sliced", "exact", "denoising")}
  for data in ("sliced", "denoising"):
    difference = all_three[data] - all_three["exact"]
    assert abs(difference.mean()) < 4.5 * difference.std() / np.sqrt(size), data
    assert difference.std() > 0


def test_loss_history_waits_until_every_slot_is_full_then_follows_the_losses():
  history = losses.loss_history(4, 2)
  state = history.init()
  place, loss = jnp.array([0.1, 0.3, 0.6, 0.9, 0.95]), jnp.array([1.0, 2.0, -3.0, 4.0, 2.0])
  for step in range(3):
    np.testing.assert_allclose(
      history(state, place) < 1.0,
      np.array([True, True, True, False, False]) if step > 1 else np.zeros(5, bool),
    )
    state = history.update(state, place, loss)
  root = np.array([1.0, 2.0, 3.0, np.sqrt(10.0)])
  mixed = root / root.sum() * 0.75 + 1 / 16
  np.testing.assert_allclose(history.at_slots(state), mixed / mixed.max(), rtol=1e-6)
  missed = history.update(state, place[:1], loss[:1] * 5.0)
  np.testing.assert_array_equal(missed.losses[1:], state.losses[1:])
  # The loss's own update goes through the objective.
  objective = losses.time_score_matching(processes.spherical(), history=history)
  roles = losses.roles(
    model=denoisers.from_functions(time_score=lambda params, x, t, cond=None: params * jnp.sum(x, 1) * t)
  )
  loss = losses.chain(objective, losses.at_times(losses.low_discrepancy(), roles=roles))
  params, state = loss.init(jax.random.key(0))
  step = jax.jit(loss)
  for i in range(2):
    _, (state, _) = step(
      {"model": jnp.ones(()), "loss": params}, state, i, jax.random.key(1), {"x": jnp.ones((8, 2))}
    )
  assert (
    state["objective"].count.tolist() == [2, 2, 2, 2]
    and float(history.at_slots(state["objective"]).min()) < 1.0
  )


@pytest.mark.slow
def test_a_map_changes_where_the_path_goes_and_not_its_time_score(x64):
  """log p_t(x) of x = exp(z) is that of z less log x: the slope in t is the same, so the latent oracle is the
  answer."""
  inner = processes.spherical()
  path = processes.through(inner, jnp.log, jnp.exp)
  oracle = oracles.path_mixture(inner, None, SECOND)
  objective = losses.time_score_matching(path, weight=losses.uniform())
  size = 2048
  x = jnp.exp(0.7 + 0.5 * jax.random.normal(jax.random.key(0), (size, 1)))
  t = jnp.linspace(0.0, 1.0, size + 1)[:-1] + 0.5 / size
  draw = objective.draw(jax.random.key(1), {"x": x}, t, {})
  z = jnp.log(objective.place({}, draw).x_t)
  np.testing.assert_allclose(z, inner.corrupt(None, draw.noise, t, jnp.log(x)), rtol=1e-10)

  def rows(shift):
    field = lambda x, t, cond=None: oracle.time_score(jnp.log(x), t) + shift * jnp.log(x)[:, 0]
    terms = objective({"model": answering(time_score=field)}, draw)
    return terms.interior + terms.boundary

  slopes = jax.jit(jax.jacfwd(rows))
  slope = np.asarray(slopes(0.0))
  assert abs(slope.mean()) < 4.5 * slope.std() / np.sqrt(size)
  off = np.asarray(slopes(1.0))
  assert abs(off.mean()) > 10 * off.std() / np.sqrt(size)


def close(objective, **times):
  roles = losses.roles(model=denoisers.from_functions(time_score=lambda params, x, t, cond=None: t))
  return losses.chain(objective, losses.at_times(losses.uniform_times(**times), roles=roles))


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: losses.time_score_matching(None), "densities that change smoothly"),
    (lambda: losses.time_score_matching(processes.linear(), t_max=1.5), "inside of it"),
    (lambda: losses.time_score_matching(processes.vp_linear(), t_max=1.5), "inside of it"),
    (lambda: losses.time_score_matching(processes.linear(), t_min=0.5, t_max=0.5), "t_min below t_max"),
    (lambda: losses.time_score_matching(processes.linear(), weight=2.0), "is a function"),
    (lambda: losses.time_score_matching(processes.linear(), weight=losses.min_snr(5.0)), "do not fit"),
    (
      lambda: losses.time_score_matching(processes.linear(), weight=losses.diffusion_coefficient()),
      "both_ends",
    ),
    (lambda: losses.time_score_matching(processes.linear(), history=5), "loss_history"),
    (lambda: losses.loss_history(1), "two slots"),
    (lambda: losses.loss_history(fit="spline"), "'linear' or 'polynomial'"),
    (lambda: losses.joint_score_matching(processes.linear(), "noise"), "no data term"),
    (lambda: losses.joint_score_matching(processes.linear(), "denoising"), "data='sliced'"),
    (
      lambda: losses.chain(
        losses.time_score_matching(processes.linear()), losses.weight_by(losses.both_ends())
      ),
      "pass weight=...",
    ),
    (
      lambda: losses.chain(losses.time_score_matching(processes.linear()), losses.uncertainty()),
      "contains the time weight",
    ),
    (
      lambda: close(losses.time_score_matching(processes.linear()), t_min=0.0, t_max=0.9),
      "the same t_min and t_max",
    ),
  ],
)
def test_misfits_raise_a_sentence_at_build_time(build, words):
  with pytest.raises(ValueError) as caught:
    build()
  assert words in str(caught.value)


def test_batches_that_do_not_fit_raise_a_sentence():
  two, one = losses.time_score_matching(processes.linear()), losses.time_score_matching(processes.spherical())
  t, x = jnp.full(4, 0.5), jnp.ones((4, 2))
  for objective, batch, words in (
    (two, {"x": x}, "pair of batches"),
    (two, ({"x": x}, {"x": x[:3]}), "as many"),
    (one, ({"x": x}, {"x": x}), "a dict with 'x'"),
  ):
    with pytest.raises(ValueError, match=words):
      objective.draw(jax.random.key(0), batch, t, {})
  draw = one.draw(jax.random.key(0), {"x": x}, t, {})
  with pytest.raises(ValueError, match="one number per example"):
    one({"model": answering(time_score=lambda x, t, cond: x)}, draw)
