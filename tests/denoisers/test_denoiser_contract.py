"""What every denoiser keeps: a network, an oracle, guidance, a composition, a task's transform.

A new denoiser is covered by being listed in `DENOISERS`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from diffusion import denoisers, guidance, losses, networks, oracles, processes, solvers, tasks

SIZE, DIMENSIONS = 6, 2
PROCESS = processes.vp_cosine()
GAUSSIAN = ("x0", "eps", "score", "v", "velocity")
CALLS: list[int] = []
"""Batch sizes that networks were called with, since it was cleared."""
NULLS: list[bool] = []
"""Of the same calls, where classes were given, whether all of them were the null one."""


def network(params, x, t, cond):
  """x0 of a small network with a condition, whose calls are counted."""
  CALLS.append(x.shape[0])
  label = 0.0 * t if cond is None or "label" not in cond else cond["label"].astype(x.dtype)
  if not isinstance(label, jax.core.Tracer):
    NULLS.append(bool(np.all(np.asarray(label) == -1)))
  return params["gain"][None] * x + (params["shift"] * (1.0 + label))[:, None] * jnp.cos(t)[:, None]


def energy(params, x, t, cond):
  """An energy of the same parameters."""
  return 0.5 * jnp.sum(params["gain"][None] * x**2, axis=1) + t


class Module(nn.Module):
  """A Flax network, whose calls are counted, with an energy beside its output."""

  views = ("energy",)

  def setup(self):
    self.layer = nn.Dense(DIMENSIONS, kernel_init=nn.initializers.normal(0.5))

  def __call__(self, x, t, cond=None, train=False):
    CALLS.append(x.shape[0])
    return self.layer(x) + t[:, None]

  def energy(self, x, t, cond=None):
    return jnp.sum(jnp.square(self.layer(x)), axis=1)


def plain(gain=(0.4, 0.7)):
  """The counted network as a denoiser."""
  params = {"gain": jnp.asarray(gain, jnp.float32), "shift": jnp.float32(0.3)}
  return denoisers.from_function(network, PROCESS, denoisers.x0(), params)


def from_flax():
  module = Module()
  params = module.init(jax.random.key(0), jnp.ones((1, DIMENSIONS)), jnp.ones(1))["params"]
  return denoisers.from_flax(module, PROCESS, denoisers.x0(), params, methods=module.views)


def init_network(key, x, t, cond):
  return plain().params


def run_network(params, x, t, cond, key, train):
  return network(params, x, t, cond)


def from_network():
  """A network as two plain functions."""
  pair = networks.from_pair(init_network, run_network)
  return denoisers.from_network(pair, PROCESS, denoisers.x0(), plain().params)


def double(params, x, t, cond):
  """The counted network with as many channels again, for the variance of its steps."""
  mean = network(params, x, t, cond)
  return jnp.concatenate([mean, jnp.tanh(mean + x)], axis=-1)


def with_variance():
  return denoisers.from_function(double, PROCESS, denoisers.with_variance(denoisers.x0()), plain().params)


def together():
  """Two networks: one answers the views of the process, the other a Hessian's diagonal."""
  slope = lambda params, x, t, cond: CALLS.append(x.shape[0]) or params * x
  return denoisers.together(
    first=plain(), second=denoisers.from_functions(jnp.float32(0.2), process=PROCESS, hessian=slope)
  )


def mixture():
  means = [[-1.0, 0.3], [1.0, 0.0], [0.2, 1.5]]
  return oracles.gaussian_mixture(PROCESS, [0.2, 0.5, 0.3], means, 0.2, labels=[0, 1, 2], dtype=jnp.float32)


def log_prob(params, x, t, cond):
  return -0.5 * jnp.sum(jnp.square(x - params[None]), axis=1)


def masked_law():
  """Two coordinates of two values, masked."""
  law = np.array([[0.4, 0.1], [0.1, 0.4]])
  return oracles.masked_categorical(processes.masked(2, (DIMENSIONS,)), law, dtype=jnp.float32)


def log_prob_of_ones(params, x, t, cond):
  return jnp.sum(jnp.where(x == 1, params[None], -params[None]), axis=1)


def two_logits(params, x, t, cond):
  return jnp.stack([x[:, 0] * params[0], x[:, 1] * params[1]], axis=1)


def logits(params, x0):
  return x0 @ params


def measured(count=1):
  """A measurement of the first entry, the same for every row."""
  return tasks.inpainting([1, 0], noise=0.5), jnp.broadcast_to(jnp.asarray([[0.4, 0.0]]), (SIZE, DIMENSIONS))


class Case(NamedTuple):
  """A denoiser and how it is called.

  Attributes:
    build: () -> the denoiser, without counting.
    networks: evaluations of networks in one call that asks for `views`; 0 for an oracle, which has none.
    views: what to ask for; None for all that it states.
    whole: whether x is of whole numbers.
  """

  build: Callable[[], Any]
  networks: int
  views: tuple[str, ...] | None = None
  whole: bool = False


def around(transform, networks, views=None):
  """A transform of the counted network."""
  return Case(lambda: transform(plain()), networks, views)


DENOISERS = {
  "from_flax": Case(from_flax, 1, GAUSSIAN),
  "from_flax, a method": Case(from_flax, 0, ("energy",)),
  "from_function": Case(plain, 1),
  "from_network": Case(from_network, 1),
  "with_variance": Case(with_variance, 1, (*GAUSSIAN, "variance_fraction")),
  "with_variance, guided": Case(
    lambda: guidance.chain(guidance.classifier_free(1.3), guidance.static_threshold(2.0))(with_variance()),
    2,
    ("x0", "variance_fraction"),
  ),
  "from_functions": Case(
    lambda: denoisers.from_functions(plain().params, process=PROCESS, energy=energy), 0, ("energy", "score")
  ),
  "extend": Case(lambda: denoisers.extend(plain(), energy=energy), 1),
  "untold": Case(lambda: denoisers.untold(plain()), 1),
  "together": Case(together, 2),
  "in training": Case(lambda: denoisers.InTraining(plain()), 1),
  "gaussian": Case(lambda: oracles.gaussian(PROCESS, [0.5, -1.0], [0.2, 1.5], dtype=jnp.float32), 0),
  "gaussian_mixture": Case(mixture, 0),
  "conditioned": Case(
    lambda: oracles.conditioned(PROCESS, None, [[0.0, 0.0]], 1.0, [[1.0, 0.0]], [1.0], 1.0), 0
  ),
  "atoms": Case(
    lambda: oracles.atoms(PROCESS, np.array([[0.3, -1.0], [1.2, 0.4], [-0.8, 0.1]]), dtype=jnp.float32), 0
  ),
  "path_mixture": Case(
    lambda: oracles.path_mixture(
      processes.spherical(), None, ([1.0], [[0.7, 0.2]], [[0.25, 0.3]]), dtype=jnp.float32
    ),
    0,
  ),
  "uniform_resample_categorical": Case(
    lambda: oracles.uniform_resample_categorical(np.full((3, 2), 1 / 6), dtype=jnp.float32), 0, None, True
  ),
  "masked_categorical": Case(lambda: masked_law(), 0, None, True),
  "discrete": Case(
    lambda: oracles.discrete(
      processes.uniform_resample(2, (DIMENSIONS,)), np.array([[0.4, 0.1], [0.1, 0.4]]), dtype=jnp.float32
    ),
    0,
    None,
    True,
  ),
  **{
    name: Case(lambda of=of: of(masked_law()), 0, ("logits", "probabilities"), True)
    for name, of in {
      "temperature": guidance.temperature(0.7),
      "nucleus": guidance.nucleus(0.9),
      "classifier, of whole numbers": guidance.classifier(log_prob_of_ones, jnp.asarray([0.3, 0.1])),
    }.items()
  },
  "classifier_free": around(guidance.classifier_free(1.3), 2),
  "classifier_free, negative, interval": around(
    guidance.classifier_free(1.3, interval=(0.1, 2.0), negative={"label": 2}), 2
  ),
  "by_condition": around(guidance.by_condition(), 2),
  "learned": around(guidance.learned(1.3), 1),
  "by_condition, learned": around(guidance.chain(guidance.by_condition(), guidance.learned(0.5)), 2),
  "autoguidance": around(lambda inner: guidance.autoguidance(plain((0.2, 0.1)), 0.8)(inner), 2),
  "autoguidance, guided": around(
    lambda inner: guidance.autoguidance(guidance.classifier_free(1.0)(plain((0.2, 0.1))), 0.8)(inner), 3
  ),
  "classifier": around(guidance.classifier(log_prob, jnp.asarray([0.3, 0.1]), 0.7), 1),
  "gradient_free": around(
    guidance.gradient_free(logits, 1.3, jnp.asarray([[0.2, 1.0, 0.3], [1.0, 0.1, 0.7]])), 2
  ),
  "conjunction": around(guidance.conjunction([{"label": 0}, {"label": 1}], (1.3, -0.5)), 3),
  "disjunction": around(
    guidance.disjunction([{"label": 0}, {"label": 1}], two_logits, jnp.asarray([0.4, -0.3])), 2
  ),
  "epsilon_scaling": around(guidance.epsilon_scaling(1.02, 0.01), 1),
  "static_threshold": around(guidance.static_threshold(0.4), 1),
  "dynamic_threshold": around(guidance.dynamic_threshold(0.9, 0.4), 1),
  "chain": around(
    guidance.chain(
      guidance.classifier_free(1.0),
      guidance.classifier(log_prob, jnp.zeros(2)),
      guidance.static_threshold(2.0),
    ),
    2,
  ),
  "around what was extended": Case(
    lambda: guidance.chain(guidance.classifier_free(1.0), guidance.static_threshold(2.0))(
      denoisers.extend(plain(), energy=energy)
    ),
    2,
  ),
  "around an oracle": Case(lambda: guidance.classifier_free(1.0)(mixture()), 0),
  "dps": around(lambda inner: tasks.dps(*measured())(inner), 1),
  "dps, normalized": around(lambda inner: tasks.dps(*measured(), normalized=True)(inner), 1),
  "pigdm": around(lambda inner: tasks.pigdm(*measured())(inner), 1),
  "swapped": around(tasks.swapped, 1),
}
ALL = pytest.mark.parametrize("name", DENOISERS)
KINDS = (
  "from_flax",
  "together",
  "gaussian_mixture",
  "classifier_free, negative, interval",
  "learned",
  "chain",
  "dps",
)
"""A network, several, an oracle, guidance of two calls and of one, a composition, and an outside gradient."""
QUICK = pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in DENOISERS]
)


def inputs(name, denoiser):
  """(x, t, cond) of a case, t inside of the process."""
  generator = np.random.default_rng(1)
  x = generator.normal(size=(SIZE, DIMENSIONS))
  if DENOISERS[name].whole:
    x = generator.integers(0, 2, size=(SIZE, DIMENSIONS))
  low, high = float(denoiser.process.t_min), float(denoiser.process.t_max)
  t = low + (high - low) * np.linspace(0.2, 0.8, SIZE)
  cond = {"label": jnp.asarray([0, 1, 2, 1, 0, 2])}
  if name == "by_condition":
    cond["guidance"] = jnp.linspace(0.0, 2.0, SIZE)
  unconditional = (
    "gaussian",
    "conditioned",
    "atoms",
    "path_mixture",
    "uniform_resample_categorical",
    "masked_categorical",
    "discrete",
    "temperature",
    "nucleus",
    "classifier, of whole numbers",
  )
  return (
    jnp.asarray(x, jnp.int32 if DENOISERS[name].whole else jnp.float32),
    jnp.asarray(t, jnp.float32),
    None if name in unconditional else cond,
  )


@functools.cache
def made(name):
  """(denoiser, views, inputs) of a case."""
  denoiser = DENOISERS[name].build()
  views = DENOISERS[name].views or denoiser.views
  return denoiser, tuple(views), inputs(name, denoiser)


@functools.partial(jax.jit, static_argnames="views")
def ask(denoiser, x, t, cond, views):
  return denoiser(x, t, cond, views=views).views


def check_equal(found, expected, **tolerance):
  assert set(found) == set(expected)
  for view in expected:
    np.testing.assert_allclose(found[view], expected[view], err_msg=view, **tolerance)


def other(params):
  """Other parameters of the same form."""
  return jax.tree.map(lambda leaf: 1.1 * leaf + 0.1, params)


@ALL
def test_it_states_what_the_contract_asks_for(name):
  denoiser, views, _ = made(name)
  assert isinstance(denoiser.views, tuple) and set(views) <= set(denoiser.views)
  assert isinstance(denoiser.cost, int) and denoiser.cost >= 1 and denoiser.needs_signal in (True, False)
  assert isinstance(denoiser.collections, dict) and denoiser.process.t_min < denoiser.process.t_max
  assert denoiser.inner is None or denoiser.inner.views
  with pytest.raises(ValueError, match="unknown view 'nothing'"):
    x, t, cond = made(name)[2]
    denoiser(x, t, cond, views=("nothing",))


@ALL
def test_parameters_go_around(name):
  denoiser, views, (x, t, cond) = made(name)
  expected = ask(denoiser, x, t, cond, views)
  check_equal(ask(denoiser.with_params(denoiser.params), x, t, cond, views), expected, rtol=0)
  if not jax.tree.leaves(denoiser.params):
    with pytest.raises(ValueError, match="has no parameters and was given some"):
      denoiser.with_params({"gain": jnp.ones(2)})
    return
  moved = denoiser.with_params(other(denoiser.params))
  jax.tree.map(np.testing.assert_array_equal, moved.params, other(denoiser.params))
  assert jax.tree.structure(moved) == jax.tree.structure(denoiser)
  found = ask(moved, x, t, cond, views)
  assert all(float(jnp.max(jnp.abs(found[view] - expected[view]))) > 1e-4 for view in views)
  check_equal(ask(moved.with_params(denoiser.params), x, t, cond, views), expected, rtol=0)


@ALL
def test_it_is_a_pytree_whose_parameters_are_data(name):
  denoiser, views, (x, t, cond) = made(name)
  leaves, tree = jax.tree.flatten(denoiser)
  again = jax.tree.unflatten(tree, leaves)
  check_equal(ask(again, x, t, cond, views), ask(denoiser, x, t, cond, views), rtol=0)
  traces = []

  @jax.jit
  def value(denoiser, x, t, cond):
    traces.append(1)
    return denoiser(x, t, cond, views=views).views

  for one in (denoiser, again, denoiser.with_params(other(denoiser.params)), DENOISERS[name].build()):
    value(one, x, t, cond)
  # What is built anew of the same functions is the same program, but for functions written where it is built.
  assert len(traces) == (2 if name == "together" else 1)


@ALL
def test_rows_do_not_meet(name):
  denoiser, views, (x, t, cond) = made(name)
  expected = ask(denoiser, x, t, cond, views)
  order = np.array([3, 1, 4, 0, 5, 2])
  rows = lambda tree: jax.tree.map(lambda leaf: leaf[order], tree)
  check_equal(ask(denoiser, *rows((x, t, cond)), views), rows(expected), rtol=2e-5, atol=1e-6)
  changed = ask(denoiser, x.at[1:].set(x[:1]), t, cond, views)  # the first row stays
  first = lambda tree: jax.tree.map(lambda leaf: leaf[:1], tree)
  check_equal(first(changed), first(expected), rtol=2e-5, atol=1e-6)


@QUICK
def test_a_view_is_the_same_whatever_else_is_asked_for(name):
  denoiser, views, (x, t, cond) = made(name)
  expected = ask(denoiser, x, t, cond, views)
  assert set(expected) == set(views)
  for view in views:
    check_equal(ask(denoiser, x, t, cond, (view,)), {view: expected[view]}, rtol=2e-5, atol=1e-6)


@ALL
def test_the_cost_is_the_calls_of_its_networks(name):
  denoiser, views, (x, t, cond) = made(name)
  CALLS.clear()
  denoiser(x, t, cond, views=views)
  expected = DENOISERS[name].networks
  assert [SIZE] * expected == CALLS
  if expected:
    assert denoiser.cost == expected
  if denoiser.inner is not None and name not in ("autoguidance", "autoguidance, guided"):
    CALLS.clear()
    weighed = {**cond, "guidance": 0.0 * t} if name == "by_condition, learned" else cond
    denoiser.inner(x, t, weighed, views=("logits",) if DENOISERS[name].whole else ("x0", "eps"))
    assert denoiser.cost % denoiser.inner.cost == 0 and (not expected or len(CALLS) == denoiser.inner.cost)


@ALL
def test_it_says_which_conditions_it_needs_and_takes(name):
  denoiser, views, (x, t, cond) = made(name)
  NULLS.clear()
  denoiser(x, t, cond, views=views)
  if NULLS:  # of the networks that take a class here
    assert denoiser.needs_unconditional == any(NULLS)
  assert denoiser.own_conditions == (("guidance",) if name == "by_condition" else ())


@QUICK
def test_it_is_a_role_of_a_loss(name):
  """As the teacher of a distillation where it answers x0, with nothing around it; else as a bound role."""
  denoiser, views, (x, t, cond) = made(name)
  if "x0" not in denoiser.views:
    bound = losses.roles(model=denoiser)({}, {}, True)["model"]
    check_equal(ask(bound, x, t, cond, views), ask(denoiser, x, t, cond, views), rtol=0)
    return
  gain = jnp.float32(0.3)
  student = denoisers.from_function(lambda gain, x, t, cond: gain * x, denoiser.process, denoisers.x0(), gain)
  low, high = float(t.min()), float(t.max())
  loss = losses.chain(
    losses.distillation(denoiser.process),
    losses.at_times(losses.uniform_times(low, high), roles=losses.roles(model=student, teacher=denoiser)),
  )
  loss_params, state = loss.init(jax.random.key(0))
  batch = {"x": x} if cond is None else {"x": x, "cond": cond}

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def value(params):
    return loss({**params, "loss": loss_params}, state, 0, jax.random.key(1), batch)

  (found, _), slope = value({"model": gain})
  assert np.isfinite(found) and found > 0 and np.isfinite(slope["model"]) and slope["model"] != 0
  # Its own parameters are those that are given, and no gradient comes back to them.
  (same, _), slope = value({"model": gain, "teacher": denoiser.params})
  assert same == found and not any(np.any(leaf) for leaf in jax.tree.leaves(slope["teacher"]))


def inner_types(denoiser):
  """The types of a denoiser and of all that it wraps."""
  while denoiser is not None:
    yield type(denoiser)
    denoiser = denoiser.inner


@pytest.mark.parametrize("module", [denoisers, guidance, oracles, tasks], ids=lambda m: m.__name__)
def test_every_public_denoiser_is_listed(module):
  bases = (denoisers.Wrapper, denoisers.WithoutParameters)
  own = (denoisers.NetworkDenoiser, denoisers.Together, denoisers.Extended, denoisers.InTraining)
  public = [one for one in vars(module).values() if isinstance(one, type) and one not in bases]
  wanted = {one for one in public if issubclass(one, bases) or one in own}
  listed = {one for name in DENOISERS for one in inner_types(made(name)[0])}
  assert wanted and not wanted - listed, (
    f"list {sorted(one.__name__ for one in wanted - listed)} in DENOISERS"
  )


# What a role can be, and what an objective can do with one.


def family(params, x, t, cond):
  """x0 of a linear model with a slope and an offset of the label: any guided `network` is one."""
  label = 0.0 * t if cond is None else cond["label"].astype(x.dtype)
  offset = (params["slope"] * label + params["offset"])[:, None]
  return params["gain"][None] * x + offset * jnp.cos(t)[:, None]


def test_an_oracle_teaches_without_anything_around_it(x64):
  """A student that can be the oracle has gradient nought there, and a finite one elsewhere."""
  oracle = oracles.gaussian(PROCESS, [0.4, -0.7], [0.6, 0.3])

  def posterior_mean(params, x, t, cond):
    m = PROCESS.marginal(t)
    alpha, sigma, v = m.alpha[:, None], m.sigma[:, None], params["variance"][None]
    gain = alpha * v / (alpha**2 * v + sigma**2)
    return params["mean"][None] + gain * (x - alpha * params["mean"][None])

  slopes = gradient_of(posterior_mean, oracle, {"x": jnp.ones((64, 2))})
  truth = {"mean": jnp.asarray([0.4, -0.7]), "variance": jnp.asarray([0.6, 0.3])}
  check_at_rest(slopes, truth, jax.tree.map(lambda leaf: leaf + 0.1, truth))


def test_a_guided_model_teaches_without_anything_around_it(x64):
  """(1 + w) s (1 + l) - w s (1 - 1) is linear in the label l, so a linear student can be it."""
  w, gain, shift = 1.5, jnp.asarray([0.4, 0.7]), jnp.asarray(0.3)
  own = denoisers.from_function(network, PROCESS, denoisers.x0(), {"gain": gain, "shift": shift})
  batch = {"x": jnp.ones((64, 2)), "cond": {"label": jnp.arange(64) % 3}}
  slopes = gradient_of(family, guidance.classifier_free(w)(own), batch)
  truth = {"gain": gain, "slope": (1 + w) * shift, "offset": (1 + w) * shift}
  check_at_rest(slopes, truth, jax.tree.map(lambda leaf: leaf + 0.1, truth))


def gradient_of(fn, teacher, batch):
  """parameters of the student -> their gradient, jitted, by the loss as a user closes it."""
  roles = losses.roles(model=denoisers.from_function(fn, PROCESS, denoisers.x0()), teacher=teacher)
  loss = losses.chain(
    losses.distillation(PROCESS), losses.at_times(losses.uniform_times(0.1, 0.9), roles=roles)
  )
  loss_params, state = loss.init(jax.random.key(0))
  of = lambda own: loss({"model": own, "loss": loss_params}, state, 0, jax.random.key(1), batch)[0]
  return jax.jit(jax.grad(of))


def check_at_rest(slopes, truth, elsewhere):
  for leaf in jax.tree.leaves(slopes(truth)):
    np.testing.assert_allclose(leaf, 0.0, atol=1e-12)
  for leaf in jax.tree.leaves(slopes(elsewhere)):
    assert np.all(np.isfinite(leaf)) and np.all(np.abs(leaf) > 1e-4)


def energy_of_samples(process, solver):
  """An objective of one's own: the teacher's energy where the model's samples end, placed by a solver."""
  name = "energy_of_samples"

  def draw(key, batch, t, state):
    keys = losses.example_keys(key, batch)
    noise = jax.vmap(lambda k: jax.random.normal(k, batch["x"].shape[1:], batch["x"].dtype))(keys)
    return losses.Draw(t=t, x0=batch["x"], noise=noise, keys=keys)

  def place(roles, draw):
    start = process.prior_std * draw.noise
    return losses.placed_at(draw, solvers.sample(roles["model"], solver, start.astype(draw.x0.dtype)))

  def evaluate(roles, placed, params, state, clock):
    clean = jnp.full_like(placed.t, process.t_min)
    return losses.terms(roles["teacher"](placed.x_t, clean, views=("energy",)).energy)

  return losses.Objective(
    name,
    draw=draw,
    place=place,
    evaluate=evaluate,
    needs={"model": {"x0": name}, "teacher": {"energy": name}},
  )


def test_an_objective_may_place_by_a_solver(x64):
  """Its gradient through three steps of the solver is that of differences, jitted or not."""
  solver = solvers.ddim(PROCESS, solvers.grids.quadratic(PROCESS, 3, t_min=0.01), dtype=np.float64)
  teacher = oracles.gaussian(PROCESS, [0.4, -0.7], [0.6, 0.3])
  model = denoisers.from_function(network, PROCESS, denoisers.x0())
  loss = losses.chain(
    energy_of_samples(PROCESS, solver),
    losses.at_times(losses.uniform_times(0.0, 1.0), roles=losses.roles(model=model, teacher=teacher)),
  )
  loss_params, state = loss.init(jax.random.key(0))
  batch = {"x": jnp.ones((8, 2))}

  def value(own):
    return loss({"model": own, "loss": loss_params}, state, 0, jax.random.key(1), batch)[0]

  own = {"gain": jnp.asarray([0.4, 0.7]), "shift": jnp.asarray(0.3)}
  eager, compiled = jax.grad(value)(own), jax.jit(jax.grad(value))(own)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10), eager, compiled)
  flat, back = ravel_pytree(own)
  quick = jax.jit(lambda flat: value(back(flat)))
  steps = 1e-5 * np.eye(flat.size)
  differences = [(quick(flat + step) - quick(flat - step)) / 2e-5 for step in steps]
  found = np.asarray(ravel_pytree(compiled)[0])
  np.testing.assert_allclose(found, differences, rtol=1e-6)
  assert np.all(np.abs(found) > 1e-3)
