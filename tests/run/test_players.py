"""Several players in one run: who learns from what, what is kept, and that a run goes on bit for bit."""

import functools
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny

from diffusion import data, losses, oracles, processes
from diffusion.config.errors import UserError
from diffusion.run import ema, loop, sharding, step as steps
from diffusion.run.parts import assembly, players, roles
from diffusion.run.saved import checkpoints, workdir as workdirs

pytestmark = pytest.mark.standard_promotion

AVERAGES = ema.averages(dict(ema_half_life_images=64))
ANGLES = 2 * np.pi * np.arange(6) / 6
MEANS = tuple((float(np.cos(a)), float(np.sin(a))) for a in ANGLES)
TIMES = dict(factory="losses.log_normal_sigma", mean=-1.0, std=1.2)
ADAM = dict(learning_rate=1e-3, schedule="constant", b2=0.99)


def base(steps_=6, **training):
  config = tiny.get_config()
  config.data = ml_collections.ConfigDict(dict(factory="tiny.ring", classes=0))
  config.network = ml_collections.ConfigDict(dict(factory="networks.MLP", width=16, depth=1, num_classes=0))
  config.process = ml_collections.ConfigDict(dict(factory="processes.edm", sigma_max=10.0))
  config.optimizer = ml_collections.ConfigDict(ADAM)
  config.training.update(
    dict(steps=steps_, log_every=3, checkpoint_every=3, ema_half_life_images=(64,)) | training
  )
  del config.loss
  return config


def matching(steps_=6, every=2, **training):
  """Distribution matching: an exact teacher, and a critic that moves at every step."""
  config = base(steps_, **training)
  config.roles = ml_collections.ConfigDict(
    dict(
      teacher=dict(factory="oracles.gaussian_mixture", weights=None, means=MEANS, covariances=0.01),
      fake=dict(copy_of="model"),
    )
  )
  config.players = [
    dict(trains=("fake",), loss=dict(factory="losses.fake_matching", times=TIMES)),
    dict(trains=("model",), loss=dict(factory="losses.distribution_matching", times=TIMES), every=every),
  ]
  return config


def consistent(steps_=6, **training):
  """Consistency training: an average of the model as its own target."""
  config = base(steps_, **training)
  config.roles = ml_collections.ConfigDict(dict(target=dict(average_of="model", decay=0.9)))
  config.loss = ml_collections.ConfigDict(dict(factory="losses.consistency", halving_steps=2, times=TIMES))
  return config


SETS = {"matching": matching, "consistent": consistent, "one": lambda *a, **k: plain(*a, **k)}


def plain(steps_=6, **training):
  config = base(steps_, **training)
  config.loss = ml_collections.ConfigDict(dict(factory="losses.denoising_score_matching", times=TIMES))
  return config


def arrays(folder, step=None):
  return checkpoints.read_arrays(checkpoints.choose(str(folder / "checkpoints"), step))


def same_bits(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  for (key, a), (_, b) in zip(
    jax.tree_util.tree_leaves_with_path(first), jax.tree_util.tree_leaves_with_path(second)
  ):
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), jax.tree_util.keystr(key)


def one_device(monkeypatch):
  monkeypatch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))


def stepped(config, devices, number, accumulate=1):
  """(state, metrics) after some steps on so many devices."""
  parts = assembly.assemble(config)
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  shapes = assembly.shape_state(parts)
  places = sharding.state_sharding(mesh, shapes)
  playing = assembly.players_of(parts)
  step = steps.make_step(
    playing, parts.roles, AVERAGES, mesh=mesh, state_sharding=places, seed=1, accumulate=accumulate
  )
  state = jax.jit(lambda: assembly.init_state(parts), out_shardings=places)()
  state = roles.load(parts.roles, state, say=lambda text: None)
  stream = data.stream(parts.dataset, config.training.batch_size, 1, num_threads=0)
  history = []
  for _, batch in zip(range(number), stream):
    state, metrics = step(state, sharding.put_batch(batch, mesh))
    history.append(jax.device_get(metrics))
  return jax.device_get(state), history


QUICK = [pytest.param(name, marks=[pytest.mark.slow] * (name in ("one", "matching"))) for name in SETS]
"""A single player is what tests/run/test_resume.py and test_step.py run as well; matching takes
three times as long as a consistent pair."""


@pytest.mark.parametrize("name", QUICK)
def test_a_resumed_run_is_the_same_bit_for_bit(name, tmp_path, monkeypatch):
  one_device(monkeypatch)
  loop.train(SETS[name](), str(tmp_path / "whole"), quiet=True)
  shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
  shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "00000006")
  loop.train(SETS[name](), str(tmp_path / "resumed"), quiet=True)
  same_bits(arrays(tmp_path / "resumed"), arrays(tmp_path / "whole"))


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name == "matching" else pytest.mark.slow) for name in SETS]
)
@pytest.mark.slow
def test_eight_devices_and_parts_of_a_batch_give_what_one_gives(name):
  one, _ = stepped(SETS[name](), 1, 4)
  eight, _ = stepped(SETS[name](), 8, 4)
  parts, _ = stepped(SETS[name](), 1, 4, accumulate=2)
  for other in (eight, parts):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), one.params, other.params
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), one.emas, other.emas)


def test_each_player_moves_its_own_roles_at_its_own_steps():
  """The critic at every step, the generator at every second: the model waits where it starts."""
  start, _ = stepped(matching(), 1, 0)
  same_bits(start.params["fake"], start.params["model"])
  first, metrics = stepped(matching(), 1, 1)
  same_bits(first.params["model"], start.params["model"])
  same_bits(first.opt_state["model"], start.opt_state["model"])
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), first.params["fake"], start.params["fake"])
  assert max(jax.tree.leaves(moved)) > 0
  assert metrics[0]["fake/moved"] == 1 and metrics[0]["moved"] == 0 and metrics[0]["loss"] == 0
  second, metrics = stepped(matching(), 1, 2)
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), second.params["model"], start.params["model"])
  assert max(jax.tree.leaves(moved)) > 0 and metrics[1]["moved"] == 1 and metrics[1]["loss"] > 0


@pytest.mark.parametrize("name", ["matching", "consistent"])
def test_no_gradient_reaches_what_another_player_trains(name):
  parts = assembly.assemble(SETS[name]())
  state = jax.jit(lambda: assembly.init_state(parts))()
  state = roles.load(parts.roles, state, say=lambda text: None)
  batch = next(data.stream(parts.dataset, 32, 1, num_threads=0))
  for player in assembly.players_of(parts):
    params, own = player.inputs(state)
    gradient = jax.jit(
      jax.grad(lambda p, player=player, own=own: player.loss(p, own, 0, jax.random.key(0), batch)[0])
    )(params)
    for role, leaves in gradient.items():
      if role != "loss":
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(leaves))
        assert (largest > 0) == (role in player.trains), (player.name, role)


@pytest.mark.slow
def test_the_average_role_follows_by_its_own_decay():
  """target_k+1 = 0.9 target_k + 0.1 model_k+1, from the model's start; averages by half-life differ."""
  states = [stepped(consistent(), 1, number)[0] for number in (0, 1, 2)]
  expected = states[0].params["model"]
  for state in states[1:]:
    expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, expected, state.params["model"])
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.emas["target"], expected
    )
  assert set(states[-1].emas) == {"64", "target"} and set(states[-1].params) == {"model", "loss"}


def test_the_generator_of_the_exact_law_rests(x64):
  """Data N(m, s^2): where the generator makes it and the critic is its denoiser, the gradient is nought at
  every draw; for a generator that is too wide it points inwards."""
  process = processes.edm(sigma_max=10.0)
  oracle = oracles.gaussian(process, [0.3], [0.25])
  objective = losses.distribution_matching(process)

  class Made:  # x0 = mean + width z at t_max, whatever else it is asked
    def __init__(self, width):
      self.width = width

    def __call__(self, x, t, cond=None, *, views, key=None, train=False):
      from diffusion.denoisers import Prediction

      return Prediction(x0=0.3 + self.width * x / 10.0)

  batch = {"x": jnp.zeros((4096, 1))}
  draw = objective.draw(jax.random.key(0), batch, jnp.full(4096, 1.0), {})

  def value(width, fake):
    return jnp.mean(objective({"model": Made(width), "teacher": oracle, "fake": fake}, draw).interior)

  assert abs(float(jax.grad(value)(0.5, oracle))) < 1e-12
  wide = oracles.gaussian(process, [0.3], [1.0])  # the law of width 1
  assert float(jax.grad(value)(1.0, wide)) > 0.1
  narrow = oracles.gaussian(process, [0.3], [0.04])
  assert float(jax.grad(value)(0.2, narrow)) < -0.1


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_consistency_rests_at_the_flow_as_the_gap_closes(t, x64):
  """Data N(0, s^2) under EDM: f(x, t) = x sqrt((s^2 + e^2) / (s^2 + t^2)). In the family f = a x the
  derivative at the exact a, over its slope in a, falls with the square of the gap."""
  variance, lowest = 0.25, 0.01
  process = processes.edm(sigma_min=lowest, sigma_max=10.0)
  x0, noise = np.polynomial.hermite_e.hermegauss(4)[0], np.polynomial.hermite_e.hermegauss(4)[0]
  weight = np.polynomial.hermite_e.hermegauss(4)[1] / np.sqrt(2 * np.pi)
  grid = np.stack(np.meshgrid(0.5 * x0, noise, indexing="ij"), -1).reshape(-1, 2)
  weights = jnp.asarray(np.outer(weight, weight).reshape(-1))
  exact = lambda level: jnp.sqrt((variance + lowest**2) / (variance + level**2))

  class Flow:  # the x0 whose DDIM step to t_min is (1 + off) times the exact end of the flow
    def __init__(self, off):
      self.off = off

    def __call__(self, x, t, cond=None, *, views, key=None, train=False):
      from diffusion.denoisers import Prediction

      keep = lowest / t[:, None]
      return Prediction(x0=((1 + self.off) * exact(t[:, None]) - keep) * x / (1 - keep))

  draw = losses.Draw(t=jnp.full(16, t), x0=jnp.asarray(grid[:, :1]), noise=jnp.asarray(grid[:, 1:]))
  off = []
  for gap in (0.1, 0.05, 0.025):
    objective = losses.consistency(process, first=gap, last=gap)
    value = lambda a, objective=objective: jnp.sum(
      weights * objective({"model": Flow(a), "target": Flow(0.0)}, draw).interior
    )
    off.append(abs(float(jax.grad(value)(0.0) / jax.hessian(value)(0.0))))
  assert off[0] < 0.01 and 3.6 < off[0] / off[1] < 4.6 and 3.8 < off[1] / off[2] < 4.4


def changed(config, **values):
  for key, value in values.items():
    with config.unlocked(), config.ignore_type():
      config[key] = value
  return config


MISFITS = [
  (
    lambda: changed(consistent(), roles=dict(target=dict(average_of="model"))),
    "its own decay .* or half_life_images",
  ),
  (
    lambda: changed(consistent(), roles=dict(target=dict(average_of="modle", decay=0.9))),
    "of the role 'modle', which there is not",
  ),
  (
    lambda: changed(consistent(), roles=dict(target=dict(average_of="model", decay=1.0))),
    "at least 0 and below 1",
  ),
  (
    lambda: changed(consistent(), roles=dict(target=dict(average_of="model", deacy=0.9))),
    "did you mean 'decay'",
  ),
  (lambda: changed(consistent(), roles=dict(target=dict(decay=0.9))), "give exactly one"),
  (lambda: changed(consistent(), roles=dict(target=3)), "is a section such as"),
  (lambda: changed(consistent(), roles=dict()), "learns from the role 'target' and config.roles has none"),
  (
    lambda: changed(plain(), roles=dict(target=dict(average_of="model", decay=0.9))),
    "config.roles.target: no loss asks",
  ),
  (
    lambda: changed(
      plain(), roles=dict(critic=dict(network=dict(factory="networks.MLP", width=8, depth=1, num_classes=0)))
    ),
    "no loss asks",
  ),
  (
    lambda: changed(matching(), players=[dict(trains=("fake",), loss=dict(factory="losses.fake_matching"))]),
    "trains the role 'model'",
  ),
  (lambda: changed(matching(), players=[dict(trains="fake")]), "names the roles that it trains"),
  (lambda: changed(matching(), players=[dict(trains=("fake",))]), "has no loss"),
  (
    lambda: changed(
      matching(), players=[dict(trains=("teacher",), loss=dict(factory="losses.fake_matching"))]
    ),
    "of the kind factory and learns nothing",
  ),
  (
    lambda: changed(matching(), players=[dict(trains=("judge",), loss=dict(factory="losses.fake_matching"))]),
    "role 'judge', and there are",
  ),
  (lambda: changed(matching(), players=[dict(trains=("fake",), evry=2)]), "did you mean 'every'"),
  (lambda: matching(every=0), "every is a whole number"),
  (
    lambda: changed(matching(), players=matching().to_dict()["players"] * 2),
    "trains the role 'fake' already",
  ),
  (lambda: changed(plain(), teacher=dict(workdir="runs/a")), "config.teacher is config.roles.teacher now"),
  (lambda: changed(consistent(), roles=dict(target=dict(run="/nowhere/at/all"))), "there is no run"),
]


@pytest.mark.parametrize("make,words", MISFITS, ids=[words[:30] for _, words in MISFITS])
def test_misfits_are_one_sentence_before_anything_is_compiled(make, words, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "jit", lambda *a, **k: pytest.fail("something is compiled"))
  with pytest.raises(UserError, match=words):
    loop.train(make(), str(tmp_path), quiet=True)


def test_a_single_player_is_the_config_itself():
  (section,) = players.sections(plain())
  assert section["trains"] == ("model",) and section["every"] == 1 and section["where"] == "config.loss"


def test_a_run_that_was_saved_with_a_teacher_of_its_own_section_is_read():
  old = ml_collections.ConfigDict(
    dict(teacher=dict(workdir="a", ema=None, guided=True, interval=(0.1, 1.0), saved=dict(step=3)))
  )
  new = workdirs.upgraded(old)
  assert "teacher" not in new and new.roles.teacher.run == "a" and new.roles.teacher.saved.step == 3
  assert dict(new.roles.teacher.guidance[0]) == dict(factory="guidance.by_condition", interval=(0.1, 1.0))
