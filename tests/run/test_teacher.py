"""A run that learns from another.

What it starts from, what it keeps, what it is sampled with, and one sentence for each misfit.
"""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny

from diffusion import data, denoisers, guidance, processes, sampling, solvers
from diffusion.commands import evaluation
from diffusion.commands.tasks import run as task_run
from diffusion.config import loading
from diffusion.config.errors import UserError
from diffusion.data import Arrays, Dataset, Standardize
from diffusion.run import logging, loop, opening, sharding
from diffusion.run.parts import assembly, loss_config, roles, sampler_config, teacher
from diffusion.run.saved import checkpoints, workdir as workdirs

pytestmark = pytest.mark.standard_promotion

GRID = dict(factory="solvers.grids.thinned", of=4, spacing="vp_time", t_min=0.0)
WEIGHTS = dict(factory="losses.random_guidance", low=0.0, high=2.0)
SGD = dict(learning_rate=0.1, schedule="constant", scale=dict(factory="optax.identity"))


def base(steps):
  """Denoising score matching with batch statistics and dropout: a teacher."""
  config = tiny.get_config("everything")
  config.loss = ml_collections.ConfigDict(
    dict(
      factory="losses.denoising_score_matching",
      times=dict(factory="losses.log_normal_sigma"),
      weight=dict(factory="losses.edm", data_std=1.0),
      condition_dropout=0.1,
    )
  )
  config.optimizer = ml_collections.ConfigDict(dict(learning_rate=1e-2, schedule="constant"))
  config.training.update(dict(steps=steps, checkpoint_every=3, log_every=1, ema_half_life_images=(64,)))
  return config


def stage_one(folder, **section):
  config = base(6)
  config.network = ml_collections.ConfigDict(
    dict(factory="networks.MLP", width=32, depth=1, num_classes=3, guidance_size=4)
  )
  around = (dict(factory="guidance.by_condition", interval=None),)
  teacher = dict(run=str(folder), ema=None, guidance=around) | section
  config.roles = ml_collections.ConfigDict(dict(teacher=teacher))
  config.loss = ml_collections.ConfigDict(
    dict(factory="losses.distillation", times=dict(factory="losses.log_normal_sigma"), transforms=[WEIGHTS])
  )
  config.sampler = ml_collections.ConfigDict(dict(solver="ddim", steps=4, grid=GRID, guidance=1.0))
  return config


def stage_two(folder, steps=4):
  config = stage_one(folder)
  config.roles.teacher.guidance = ()
  config.loss = ml_collections.ConfigDict(
    dict(
      factory="losses.progressive_distillation",
      teacher_steps=steps,
      teacher_grid=GRID,
      sampler="ddim",
      transforms=[WEIGHTS],
    )
  )
  config.training.update(dict(steps=2, warm_start=str(folder)))
  config.sampler.steps = steps // 2
  return config


def arrays(folder, step=None):
  return checkpoints.read_arrays(checkpoints.choose(str(folder / "checkpoints"), step))


def same_bits(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  for (key, a), (_, b) in zip(
    jax.tree_util.tree_leaves_with_path(first), jax.tree_util.tree_leaves_with_path(second)
  ):
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), jax.tree_util.keystr(key)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  """For one device in place of eight, and without optimisation."""
  jax.config.update("jax_disable_most_optimizations", True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    yield
  jax.config.update("jax_disable_most_optimizations", False)


def saved(config, folder):
  """A finished run of that config whose every number is drawn at random, for none has to be any good."""
  shapes, generator = assembly.shape_state(assembly.assemble(config)), np.random.default_rng(0)
  state = jax.tree.map(
    lambda leaf: jnp.asarray(0.5 + 0.1 * generator.standard_normal(leaf.shape), leaf.dtype), shapes
  )
  workdirs.claim(str(folder), config)
  writer = checkpoints.Writer(str(folder / "checkpoints"))
  writer.save(state, dict(step=3, examples=96, seconds=1.0, unlogged=[]), loading.to_json(config))
  writer.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Folders 'teacher', 'one' (which learns its guidance) and 'two' (which learns to make two of its four
  steps at once)."""
  folder = tmp_path_factory.mktemp("chain")
  saved(base(3), folder / "teacher")
  for name, config in (("one", stage_one(folder / "teacher")), ("two", stage_two(folder / "one"))):
    loop.train(config, str(folder / name), quiet=True)
  return folder


@pytest.mark.slow
def test_the_teacher_is_kept_as_it_was_and_the_student_learns(runs):
  before, first, last = arrays(runs / "teacher"), arrays(runs / "one", 3), arrays(runs / "one", 6)
  for state in (first, last):
    same_bits(state["loss_state"]["fixed"]["teacher"], before["emas"]["64"])
    same_bits(state["loss_state"]["collections"]["teacher"], before["loss_state"]["collections"]["model"])
  assert np.abs(before["loss_state"]["collections"]["model"]["batch_stats"]["BatchNorm_0"]["mean"]).max() > 0
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first["params"]["model"], last["params"]["model"])
  assert sum(change > 0 for change in jax.tree.leaves(moved)) > 4
  assert set(last["params"]) == {"model", "loss"}  # no moments, no averages, no gradient for the teacher


def test_a_resumed_run_needs_no_teacher_and_is_the_same_bit_for_bit(runs, tmp_path):
  shutil.copytree(runs / "one", tmp_path / "one")
  shutil.rmtree(tmp_path / "one" / "checkpoints" / "00000006")
  shutil.copytree(runs / "teacher", tmp_path / "teacher")
  config = stage_one(tmp_path / "teacher")
  kept = json.loads((tmp_path / "one" / "config.json").read_text())
  kept["roles"]["teacher"]["run"] = config.roles.teacher.run
  (tmp_path / "one" / "config.json").write_text(json.dumps(kept))
  shutil.rmtree(tmp_path / "teacher")
  with pytest.raises(UserError, match="there is no run"):
    loop.train(config, str(tmp_path / "anew"), quiet=True)
  loop.train(config, str(tmp_path / "one"), quiet=True)
  same_bits(arrays(tmp_path / "one"), arrays(runs / "one"))
  with config.ignore_type():
    config.roles.teacher.ema = "none"
  with pytest.raises(UserError, match="another config: roles.teacher.ema is None there and 'none' here"):
    loop.train(config, str(tmp_path / "one"), quiet=True)


def test_who_can_be_the_teacher_learns_nothing_new(runs, tmp_path):
  """The network learns itself, at every weight: no error, no gradient, no change, all to rounding."""
  config = stage_one(runs / "one")
  config.roles.teacher.guidance = ()
  config.optimizer = ml_collections.ConfigDict(SGD)
  config.training.update(dict(steps=2, warm_start=str(runs / "one")))
  loop.train(config, str(tmp_path), quiet=True)
  for found in logging.read(str(tmp_path / "log.jsonl")):
    assert found["loss"] < 1e-11 and found["grad_norm"] < 1e-5
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    arrays(tmp_path)["params"]["model"],
    arrays(runs / "one")["emas"]["64"],
  )
  assert (
    logging.read(str(runs / "one" / "log.jsonl"))[0]["loss"] > 1e-3
  )  # another teacher has something to say


def test_the_target_is_where_two_steps_of_the_saved_teacher_end(runs):
  """The loss of a student is its distance from the x0 that leads, in one DDIM step, where two steps of the
  solver lead with the teacher's weights."""
  run, saved = opening.open_run(str(runs / "two")), opening.open_run(str(runs / "one"))
  loss, process = assembly.loss(run.parts), run.parts.process
  params, state = run.loss_inputs()
  batch = next(data.stream(run.parts.dataset, 16, 0, num_threads=0))
  grid = solvers.grids.thinned(process, 4, 4, "vp_time", t_min=0.0)
  t = np.repeat(grid[[0, 2]], 8).astype(np.float32)
  traces = []

  @jax.jit
  def value(params, draw):
    traces.append(1)
    roles = loss.roles(params, state["collections"])
    return loss.objective(roles, draw, params["loss"], state["objective"]).interior

  draw = jax.jit(loss.objective.draw)(jax.random.key(3), batch, t, state["objective"])
  found = value(params, draw)
  x_t = loss.objective.place({}, draw).x_t
  model_x0 = jax.jit(lambda denoiser: denoiser(x_t, draw.t, draw.cond, views=("x0",)).x0)(
    assembly.denoiser(run.parts, params["model"])
  )
  for i in (0, 1):
    rows = slice(8 * i, 8 * i + 8)
    x, cond = x_t[rows], jax.tree.map(lambda leaf: leaf[rows], draw.cond)
    end = solvers.sample(saved.denoiser, solvers.ddim(process, grid[2 * i : 2 * i + 3]), x, cond=cond)
    ratio = grid[2 * i + 2] / grid[2 * i]  # alpha = 1 and sigma = t
    target = (end - ratio * x) / (1 - ratio)
    expected = np.sum(np.square(model_x0[rows] - target), axis=1) / grid[2 * i] ** 2
    np.testing.assert_allclose(found[rows], expected, rtol=2e-3, atol=1e-9)
  # The teacher is an argument: another one gives another number and no other program.
  other = value({**params, "teacher": jax.tree.map(lambda leaf: 1.1 * leaf, params["teacher"])}, draw)
  assert len(traces) == 1 and np.abs(other - found).max() > 1e-6


def test_a_learned_weight_costs_one_evaluation_a_step(runs):
  calls = []

  def counted(params, x, t, cond):
    jax.debug.callback(lambda w: calls.append(w.tolist()), cond["guidance"])
    return params * x

  denoiser = denoisers.from_function(counted, processes.edm(), denoisers.x0(), jnp.float32(0.5))
  solver = solvers.build("ddim", processes.edm(), 3)
  jax.block_until_ready(solvers.sample(guidance.learned(1.5)(denoiser), solver, jnp.ones((2, 2))))
  jax.effects_barrier()
  assert calls == [[1.5, 1.5]] * 3
  for name, steps in (("one", 4), ("two", 2)):
    denoiser, solver = opening.make_sampler(opening.open_run(str(runs / name)), guidance=0.5)
    assert (solver.cost, denoiser.cost, denoiser.weight) == (steps, 1, 0.5)
  found = sampling.generate(denoiser, solver, (2,), 8, labels=lambda index: index % 3, batch=8)
  assert (found.nfe, found.forward_passes) == (2, 2) and np.isfinite(found.x).all()
  guided, _ = opening.make_sampler(opening.open_run(str(runs / "teacher")), guidance=0.5)
  assert guided.cost == 2


@pytest.mark.slow
def test_evaluation_of_a_student(runs, monkeypatch):
  """Held-out loss against the kept teacher; no likelihood of what is a denoiser at two times only."""
  run = opening.open_run(str(runs / "two"))
  held = {"x": run.parts.dataset.held_out.x[:16], "label": run.parts.dataset.held_out.label[:16]}
  assert 0 < evaluation.held_out_loss(run, held, 16) < np.inf
  monkeypatch.setattr(evaluation.samples.metrics, "evaluate_points", lambda *arrays, **options: {})
  monkeypatch.setattr(evaluation.held_out, "held_out_loss", lambda *arguments: 0.0)
  found = evaluation.evaluate_run(str(runs / "two"), quiet=True)
  assert "nats_per_dim" not in found and (found["nfe"], found["forward_passes"]) == (2, 2)
  assert "student of few steps is no denoiser" in found["left_out"]["nats_per_dim"]


@pytest.mark.parametrize(
  "name, changes, words",
  [
    ("one", dict(guidance=2.5), "guidance 2.5 is outside .* weights from 0 to 2: give --guidance"),
    ("one", dict(guidance=-1.0), "weights from 0 to 2"),
    ("one", dict(interval=(0.1, 1.0)), "learned guidance at the noise levels of its teacher, .*leave it out"),
    ("two", dict(steps=4), "student of 2 ddim steps and knows no other times.*leave out --solver, --steps"),
    ("two", dict(grid="uniform"), "student of 2 ddim steps"),
    ("two", dict(solver="heun"), "student of 2 ddim steps"),
    ("two", dict(options=dict(eta=0.5)), "student of 2 ddim steps"),
    ("two", dict(guidance=3.0), "weights from 0 to 2"),
  ],
)
def test_what_a_student_is_not_sampled_with(runs, name, changes, words):
  with pytest.raises(UserError, match=words):
    opening.make_sampler(opening.open_run(str(runs / name)), **changes)


def test_tasks_need_a_denoiser_at_every_noise_level(runs):
  class Args:
    workdir, weights, checkpoint, ema, batch, task = str(runs / "two"), None, None, None, 8, "inpaint"
    guide_weights = None

  with pytest.raises(
    UserError, match="--task=inpaint needs a denoiser at every noise level.* student of few steps"
  ):
    task_run.run(Args, {})


def line(classes=3):
  """Points on a line: data of another shape."""
  arrays = Arrays(
    np.linspace(-1, 1, 60, dtype=np.float32)[:, None], np.arange(60, dtype=np.int32) % max(classes, 1)
  )
  return Dataset(
    "line", arrays, arrays, (1,), classes, tuple("abc"[:classes]), Standardize(0.0, 1.0), "none held out"
  )


def changed(**values):
  """A change of a config: dotted keys with __ for dots."""

  def change(config):
    for key, value in values.items():
      *path, last = key.split("__")
      section = config
      for name in path:
        section = section[name]
      with section.ignore_type(), section.unlocked():
        section[last] = ml_collections.ConfigDict(value) if isinstance(value, dict) else value

  return change


def without(name):
  def change(config):
    del config[name]

  return change


NO_CLASSES = dict(
  data=dict(factory="tiny.ring", classes=0),
  network=dict(factory="networks.MLP", width=8, depth=1, guidance_size=4),
)
MISFITS = [
  # the teacher's run, the change of its config.json, the student's config, the change of it, the words
  ("nowhere", None, stage_one, None, "config.roles.teacher.run=.*nowhere: there is no run"),
  ("teacher", "no checkpoint", stage_one, None, "no checkpoint yet"),
  ("teacher", without("denoiser"), stage_one, None, "is no denoiser"),
  (
    "teacher",
    None,
    stage_one,
    changed(roles__teacher__emma="x"),
    "config.roles.teacher.emma.*did you mean 'ema'",
  ),
  ("teacher", None, stage_one, changed(roles__teacher__run=None), "config.roles.teacher.run is the folder"),
  (
    "teacher",
    None,
    stage_one,
    changed(roles__teacher__guidance=(dict(factory="guidance.by_conditon"),)),
    "did you mean 'by_condition'",
  ),
  ("teacher", None, stage_one, changed(roles__teacher__ema=7), "config.roles.teacher.ema=7: .*it has 64"),
  (
    "teacher",
    None,
    stage_one,
    changed(roles__teacher__guidance=(dict(factory="guidance.by_condition", interval=(2.0, 1.0)),)),
    "interval .* is empty",
  ),
  (
    "teacher",
    None,
    stage_one,
    changed(process=dict(factory="processes.vp_cosine")),
    "process is another than config.process, one lives on 'edm' and the other on 'vp_cosine'",
  ),
  (
    "teacher",
    changed(process=dict(factory="processes.edm", sigma_max=20.0)),
    stage_one,
    None,
    "process is another than config.process, .*up to t = 20",
  ),
  (
    "teacher",
    None,
    stage_one,
    changed(data=dict(factory="test_teacher.line")),
    r"have examples of shape \[2\], and config.data \[1\]",
  ),
  (
    "teacher",
    None,
    stage_one,
    changed(codec=dict(factory="codecs.scale", std=0.5)),
    "sees its data through another config.codec; take that run's config.codec",
  ),
  (
    "teacher",
    changed(codec=dict(factory="codecs.scale", std=0.5)),
    stage_one,
    changed(codec=dict(factory="codecs.scale", std=0.25)),
    "sees its data through another config.codec",
  ),
  (
    "teacher",
    changed(data=dict(factory="tiny.ring", classes=2)),
    stage_one,
    None,
    "have classes: 2, and config.data 3",
  ),
  (
    "teacher",
    changed(data=dict(factory="tiny.ring", classes=0)),
    stage_one,
    changed(loss__transforms=[], **NO_CLASSES),
    "guidance needs a conditional model, and that run's data have no classes",
  ),
  ("teacher", changed(loss__condition_dropout=0.0), stage_one, None, "was trained without condition dropout"),
  (
    "one",
    None,
    stage_one,
    None,
    "has learned guidance already, weights from 0 to 2; leave guidance out",
  ),
  (
    "teacher",
    None,
    stage_one,
    changed(loss__transforms=[]),
    "guidance.by_condition needs the weights to learn.*random_guidance",
  ),
  ("teacher", None, stage_one, changed(network__guidance_size=0), "set config.network.guidance_size"),
  ("teacher", None, stage_one, changed(**NO_CLASSES), "the data have no classes to guide towards"),
  (
    "teacher",
    None,
    stage_one,
    without("roles"),
    "losses.distillation learns from the role 'teacher' and config.roles has none",
  ),
  (
    "teacher",
    None,
    lambda folder: base(3),
    changed(roles=dict(teacher=dict(run="FOLDER"))),
    "config.roles.teacher: no loss asks for this role",
  ),
  ("teacher", None, stage_two, None, "has learned no weight of guidance: give its role guidance="),
  (
    "one",
    changed(network__guidance_size=0, loss__transforms=[]),
    stage_two,
    None,
    "has learned no weight of guidance",
  ),
  (
    "one",
    None,
    stage_two,
    changed(loss__transforms=[{**WEIGHTS, "high": 4.0}]),
    "knows weights from 0 to 2 and config.loss.transforms draws from 0 to 4",
  ),
  (
    "one",
    None,
    stage_two,
    changed(loss__teacher_steps=3, loss__teacher_grid=""),
    "even number of steps, got 3",
  ),
  ("one", None, stage_two, changed(loss__teacher_steps=None), "config.loss.teacher_steps is the number"),
  (
    "one",
    None,
    stage_two,
    changed(loss__teacher_grid="karas"),
    "config.loss.teacher_grid: unknown grid 'karas', did you mean 'karras'",
  ),
  ("one", None, stage_two, changed(loss__sampler="heun"), "one of the samplers ddim, double_step"),
  (
    "one",
    None,
    stage_two,
    changed(sampler__steps=4),
    "config.sampler must be .* solver='ddim', steps=2 and a grid with the times 80, 0.8717, 0 ",
  ),
  (
    "two",
    None,
    stage_one,
    changed(roles__teacher__guidance=()),
    "itself a student of 2 ddim steps .* learn its steps",
  ),
  ("two", None, stage_two, None, "makes 2 steps at 80, .*asks it for 4; set teacher_steps=2"),
  (
    "two",
    changed(loss__sampler="double_step"),
    stage_two,
    None,
    "student of 4 double_step steps .*where they are ddim steps",
  ),
]


@pytest.mark.parametrize(
  "name, there, config, here, words", MISFITS, ids=[words[:30] for *_, words in MISFITS]
)
def test_misfits_are_one_sentence_before_anything_is_compiled(
  runs, tmp_path, monkeypatch, name, there, config, here, words
):
  folder = runs / name
  if there is not None:
    folder = tmp_path / name
    shutil.copytree(runs / name, folder)
    if there == "no checkpoint":
      shutil.rmtree(folder / "checkpoints")
    else:
      saved = loading.from_json((folder / "config.json").read_text())
      there(saved)
      (folder / "config.json").write_text(loading.to_json(saved))
  config = config(folder)
  if here is not None:
    here(config)
  if (config.get("roles") or {}).get("teacher", {}).get("run") == "FOLDER":
    config.roles.teacher.run = str(folder)
  monkeypatch.setattr(
    loop.steps, "make_step", lambda *arguments, **options: pytest.fail("nothing should be built")
  )
  with pytest.raises(UserError, match=words) as error:
    loop.train(config, str(tmp_path / "run"), quiet=True)
  assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_config_with_a_teacher_is_resolved_first(runs):
  config = stage_one(runs / "teacher")
  with pytest.raises(UserError, match="config.roles.teacher has no 'saved'"):
    assembly.assemble(config)
  resolved = roles.resolve(config, "nowhere")
  assert (
    "saved" in resolved.roles.teacher
    and "saved" not in config.roles.teacher
    and (resolved.roles.teacher.saved.step, resolved.roles.teacher.saved.ema) == (3, "64")
  )


def test_stages_of_the_digits_fit_each_other(monkeypatch):
  """Each stage learns the steps that the one before makes, and is sampled with its own."""
  from pathlib import Path

  root = Path(__file__).parents[2]
  monkeypatch.syspath_prepend(root)
  stages = {
    name: loading.load(f"{root / 'configs' / 'distill_digits.py'}:{name}")
    for name in ("stage_one", "32", "16", "8", "4", "2", "1")
  }
  process = processes.edm()
  before = sampler_config.solver(stages["stage_one"].sampler, process)
  objective = loss_config.objective_of(stages["stage_one"], process, 10)
  assert objective.steps is None and stages["stage_one"].roles.teacher.guidance
  for name, config in list(stages.items())[1:]:
    objective = loss_config.objective_of(config, process, 10)
    grid, sampler = objective.steps
    assert teacher.same_numbers(solvers.ddim(process, np.asarray(grid)), before) and sampler == "ddim"
    assert not config.roles.teacher.guidance
    before = sampler_config.solver(config.sampler, process)
    assert teacher.same_numbers(before, teacher.own_solver(objective, process)) and before.cost == int(name)
    assert objective.conditions == {"guidance": (0.0, 4.0)}
    assert config.training.warm_start == config.roles.teacher.run
  with pytest.raises(UserError, match="there are stage_one, 32"):
    loading.load(f"{root / 'configs' / 'distill_digits.py'}:64")


@pytest.mark.slow
@pytest.mark.parametrize("sampler, steps", [("ddim", 2), ("double_step", 4)])
def test_an_unguided_model_without_classes(tmp_path, sampler, steps):
  """Progressive distillation alone: no weight, no condition, and the grid by name."""
  teachers, config = base(3), stage_two(tmp_path / "teacher")
  for one in (teachers, config):
    changed(
      data=dict(factory="tiny.ring", classes=0), network=dict(factory="networks.MLP", width=8, depth=1)
    )(one)
  del teachers.loss.condition_dropout
  saved(teachers, tmp_path / "teacher")
  changed(loss__transforms=[], loss__teacher_grid="log_snr", loss__sampler=sampler)(config)
  config.sampler = ml_collections.ConfigDict(dict(solver=sampler, steps=steps, grid="log_snr"))
  done = loop.train(config, str(tmp_path / "student"), quiet=True)
  run = opening.open_run(str(tmp_path / "student"))
  denoiser, solver = opening.make_sampler(run)
  found = sampling.generate(denoiser, solver, (2,), 8, batch=8)
  assert (
    (found.nfe, found.forward_passes) == (steps, steps)
    and np.isfinite(found.x).all()
    and int(done.state.step) == 2
  )
  with pytest.raises(UserError, match="guidance 1 needs a model with classes"):
    opening.make_sampler(run, guidance=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
  "changes", [dict(layout="fsdp"), dict(accumulate=2), dict(layout="fsdp", accumulate=2)], ids=str
)
def test_the_same_however_it_is_spread(runs, tmp_path, monkeypatch, changes):
  """The teacher is split like the model's own parameters, and in parts of a batch it says the same."""
  monkeypatch.setattr(sharding, "make_mesh", sharding.make_mesh.func)  # of all eight devices again
  for name, more in (("plain", {}), ("spread", changes)):
    config = stage_one(runs / "teacher")
    config.roles.teacher.run = str(runs / "one")
    config.roles.teacher.guidance = ()
    config.optimizer = ml_collections.ConfigDict(SGD)
    config.training.update(dict(steps=3, **more))
    done = loop.train(config, str(tmp_path / name), quiet=True)
  fixed, params = done.state.loss_state["fixed"]["teacher"], done.state.params["model"]
  assert jax.tree.map(lambda leaf: leaf.sharding.spec, fixed) == jax.tree.map(
    lambda leaf: leaf.sharding.spec, params
  )
  split = [leaf for leaf in jax.tree.leaves(fixed) if not leaf.sharding.is_fully_replicated]
  assert bool(split) == ("layout" in changes)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
    *(arrays(tmp_path / name)["params"] for name in ("plain", "spread")),
  )
  same_bits(
    arrays(tmp_path / "spread")["loss_state"]["fixed"], arrays(tmp_path / "plain")["loss_state"]["fixed"]
  )
