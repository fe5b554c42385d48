"""What the person at the keyboard sees: help, one sentence for each mistake, and nothing saved is lost."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import networks
from diffusion.commands import train as command
from diffusion.config import loading
from diffusion.config.errors import UserError
from diffusion.run import logging, opening
from diffusion.run.parts import assembly, warm_start
from diffusion.run.saved import checkpoints, weights
from tests import scripts

ROOT = pathlib.Path(__file__).parents[2]
TINY = ROOT / "tests" / "run"
pytestmark = pytest.mark.standard_promotion


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def train():
  return scripts.module("train").main


@pytest.fixture(autouse=True)
def paths(monkeypatch):
  monkeypatch.syspath_prepend(ROOT)
  monkeypatch.syspath_prepend(TINY)


@pytest.fixture
def call(train, capsys):
  """(exit status, stderr) of train.py on the tiny config."""

  def run(*argv, config=f"{TINY / 'tiny.py'}"):
    capsys.readouterr()
    status = command.run(train, [f"--config={config}", "--no-evaluate", "--quiet", *map(str, argv)])
    return status, capsys.readouterr().err

  return run


def check_sentence(status, err, words):
  assert status == 2 and err.count("\n") == 1 and err.startswith("error: ") and "Traceback" not in err, err
  assert all(word in err for word in words), err


@pytest.mark.parametrize(
  "change,words",
  [
    ("--config.training.stesp=3", ["--config.training.stesp", "'steps'"]),
    ("--config.training.steps=3.5", ["must be int", "'3.5'"]),
    ("--config.training.steps=0", ["config.training.steps must be a whole number", "0"]),
    ("--config.process.factory=processes.emd", ["config.process", "'edm'"]),
    ("--config.process.sigma_mx=3", ["unknown config key", "'sigma_max'"]),
    (
      "--config.network={'factory': 'networks.MLP', 'widht': 8}",
      ["config.network", "no argument 'widht'", "'width'"],
    ),
    ("--config.loss.factory=losses.denoising", ["config.loss", "denoising_score_matching"]),
    ("--config.network.num_classes=5", ["config.network.num_classes=5", "has 3 classes"]),
    (
      "--config.network={'factory': 'networks.UNet', 'num_classes': 3}",
      ["config.network does not take", "[2]"],
    ),
    ("--config.optimizer.schedule=cosin", ["'cosine'"]),
    ("--config.training.batch_size=33", ["cannot be split", "multiple of 8"]),
    ("--config.training.keep=0", ["config.training.keep must be"]),
    ("--wrokdir=x", ["unrecognized", "--workdir"]),
  ],
)
def test_mistakes_are_one_sentence(call, tmp_path, change, words):
  check_sentence(*call(f"--workdir={tmp_path / 'run'}", change), words)


def test_no_config_and_unknown_config(train, capsys, call):
  assert command.run(train, ["--workdir=x"]) == 2
  assert "--config" in capsys.readouterr().err
  check_sentence(
    *call("--workdir=x", config=str(ROOT / "configs" / "digit.py")), ["no such file", "'digits.py'"]
  )
  check_sentence(*call("--workdir=x", config=f"{TINY / 'tiny.py'}:none"), ["there are plain, everything"])


def test_the_real_command(tmp_path):
  """Help and a mistake through the operating system: exit status, stderr, no traceback."""
  command_line = [sys.executable, str(ROOT / "train.py")]
  shown = subprocess.run([*command_line, "--help"], capture_output=True, text=True)
  assert shown.returncode == 0
  assert all(
    word in shown.stdout
    for word in ("--config", "--workdir", "--config.training.steps=", "configs/digits.py", "exit status")
  )
  wrong = subprocess.run(
    [*command_line, f"--config={ROOT / 'configs' / 'digits.py'}", f"--workdir={tmp_path}", "--config.sed=1"],
    capture_output=True,
    text=True,
  )
  check_sentence(wrong.returncode, wrong.stderr, ["unknown config key --config.sed", "'seed'"])
  assert not os.listdir(tmp_path)


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
  """A finished run of 20 steps, made once."""
  workdir = tmp_path_factory.mktemp("trained") / "run"
  sys.path.insert(0, str(TINY))
  try:
    assert (
      command.run(
        train,
        [
          f"--config={TINY / 'tiny.py'}:everything",
          f"--workdir={workdir}",
          "--no-evaluate",
          "--quiet",
          "--config.training.steps=20",
        ],
      )
      == 0
    )
  finally:
    sys.path.remove(str(TINY))
  return workdir


def test_what_a_run_leaves(trained):
  assert checkpoints.steps(str(trained / "checkpoints")) == [10, 20]
  assert loading.from_json((trained / "config.json").read_text()).training.steps == 20
  log = logging.read(str(trained / "log.jsonl"))
  assert [line["step"] for line in log] == [7, 14, 20] and log[-1]["images"] == 640
  assert set(log[0]) >= {"loss", "eps_mse", "grad_norm", "learning_rate", "images_per_second", "seconds"}
  assert list((trained / "tensorboard").iterdir())


def test_a_finished_run_is_not_trained_again(call, trained, capsys):
  before = (trained / "log.jsonl").read_bytes()
  status, err = call(
    f"--workdir={trained}", "--config.training.steps=20", config=f"{TINY / 'tiny.py'}:everything"
  )
  assert (status, err) == (0, "") and (trained / "log.jsonl").read_bytes() == before


def test_workdir_of_another_config(call, trained):
  before = (trained / "config.json").read_bytes()
  status, err = call(f"--workdir={trained}", "--config.seed=5", config=f"{TINY / 'tiny.py'}:everything")
  check_sentence(status, err, ["another config", "seed is 1 there and 5 here", "--workdir"])
  assert (trained / "config.json").read_bytes() == before


def test_trained_denoiser_uses_the_averages(trained):
  """The denoiser of a checkpoint, in evaluation mode, is the network with the first average and the saved
  batch statistics."""
  config = loading.from_json((trained / "config.json").read_text())
  parts = assembly.assemble(config)
  arrays = checkpoints.read_arrays(checkpoints.choose(str(trained / "checkpoints")))
  shapes = assembly.shape_state(parts)
  template = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    ),
    shapes,
  )
  state = checkpoints.read_state(checkpoints.choose(str(trained / "checkpoints")), template)
  for name, params in (
    ("500", arrays["emas"]["500"]),
    ("2000", arrays["emas"]["2000"]),
    ("none", arrays["params"]["model"]),
  ):
    denoiser = assembly.trained_denoiser(parts, state, name)
    jax.tree.map(np.testing.assert_array_equal, dict(denoiser.params), params)
  denoiser = assembly.trained_denoiser(parts, state)
  jax.tree.map(np.testing.assert_array_equal, dict(denoiser.params), arrays["emas"]["500"])
  statistics = arrays["loss_state"]["collections"]["model"]
  assert np.abs(statistics["batch_stats"]["BatchNorm_0"]["mean"]).max() > 0
  x, t = jnp.ones((2, 2)), jnp.ones(2)
  cond = {"label": jnp.zeros(2, jnp.int32)}
  direct = parts.network.apply({"params": arrays["emas"]["500"], **statistics}, x / 2**0.5, 0.0 * t, cond)
  np.testing.assert_allclose(
    denoiser(x, t, cond).x0, x / 2 + direct / 2**0.5, rtol=1e-5
  )  # c_skip = 1/2, c_out = 1/sqrt 2 at sigma = data_std = 1


def test_warm_start_from_nothing(tmp_path):
  with pytest.raises(UserError, match="no config.json in .*not the folder of a run"):
    warm_start.load(str(tmp_path), None)


@pytest.mark.slow
def test_warm_start_takes_the_averaged_weights(call, trained, tmp_path):
  # No learning: what is saved is what was started from.
  status, err = call(
    f"--workdir={tmp_path / 'b'}",
    f"--config.training.warm_start={trained}",
    "--config.training.steps=1",
    "--config.optimizer.learning_rate=0",
    config=f"{TINY / 'tiny.py'}:everything",
  )
  assert status == 0, err
  theirs, ours = (
    checkpoints.read_arrays(checkpoints.choose(str(place / "checkpoints")))
    for place in (trained, tmp_path / "b")
  )
  for tree in (ours["params"]["model"], ours["emas"]["500"], ours["emas"]["2000"]):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), tree, theirs["emas"]["500"]
    )
  assert int(ours["step"]) == 1
  check_sentence(
    *call(f"--workdir={tmp_path / 'c'}", f"--config.training.warm_start={trained}"),
    ["the networks differ", "absent"],
  )


def test_warm_start_keeps_a_new_guidance_embedding_at_zero():
  """A network with guidance_size goes on from one without, and is the same function at every weight."""
  nets = [networks.MLP(width=8, depth=1, num_classes=3, guidance_size=size) for size in (0, 4)]
  x, t = jnp.ones((2, 2)), jnp.zeros(2)
  old, new = (jax.jit(net.init)(jax.random.key(seed), x, t)["params"] for seed, net in enumerate(nets))
  old = jax.tree.map(lambda leaf: leaf + 0.1, old)
  going_on = warm_start.fit(old, new, "runs/old")
  label, weight = jnp.asarray([0, 2]), jnp.asarray([0.3, 4.0])
  np.testing.assert_array_equal(
    jax.jit(nets[1].apply)({"params": going_on}, x, t, {"label": label, "guidance": weight}),
    jax.jit(nets[0].apply)({"params": old}, x, t, {"label": label}),
  )
  with pytest.raises(UserError, match="the networks differ"):
    warm_start.fit(going_on, old, "runs/new")


def test_nan_stops_and_keeps_the_last_good_checkpoint(call, tmp_path):
  status, err = call(f"--workdir={tmp_path}", "--config.loss.at=33")
  check_sentence(
    status,
    err,
    ["stopped at step 34", "own_term", "not finite", "the checkpoint of step 30 is kept", "learning_rate"],
  )
  folder = str(tmp_path / "checkpoints")
  assert checkpoints.steps(folder) == [10, 20, 30] and checkpoints.choose(folder).endswith("00000030")
  assert [line["step"] for line in logging.read(str(tmp_path / "log.jsonl"))] == [7, 14, 21, 28]
  # The damaged newest is passed over, and said.
  os.truncate(tmp_path / "checkpoints" / "00000030" / "meta.json", 5)
  status, err = call(f"--workdir={tmp_path}", "--config.loss.at=33")
  assert (
    status == 2
    and "00000030 is damaged (meta.json is not as it was written)" in err
    and "stopped at step 34" in err
  )


@pytest.mark.slow
def test_full_disk(call, tmp_path, monkeypatch):
  real, count = checkpoints.digests.write, []

  def write(folder):
    count.append(folder)
    if len(count) > 1:
      raise OSError(28, "No space left on device")
    real(folder)

  monkeypatch.setattr(checkpoints.digests, "write", write)
  status, err = call(f"--workdir={tmp_path}", "--config.training.steps=20")
  check_sentence(status, err, ["disk is full", "step 20", "(10)", "free some space"])
  monkeypatch.undo()
  assert checkpoints.choose(str(tmp_path / "checkpoints")).endswith("00000010")


@pytest.mark.parametrize(
  "name",
  [
    "digits.py",
    "digits_unet.py",
    "digits_color.py",
    "toy2d.py:moons",
    "toy2d.py:checkerboard",
    "masked_digits.py",
    "masked_digits.py:grey",
    "two_sets.py",
    "two_sets.py:moons,rings",
  ],
)
def test_configs_build(name, monkeypatch):
  config = loading.load(str(ROOT / "configs" / name))
  json.loads(loading.to_json(config))
  parts = assembly.assemble(config)
  shapes = assembly.shape_state(parts)
  assert set(shapes.emas) == {f"{int(config.training.ema_half_life_images[0])}"}
  batch = assembly.example_batch(parts, 8)
  value = jax.eval_shape(
    lambda state, batch: assembly.loss(parts)(
      state.params, state.loss_state, state.step, jax.random.key(0), batch
    )[0],
    shapes,
    batch,
  )
  assert value.shape == () and value.dtype == np.float32


def test_every_toy_set_has_a_variant():
  from diffusion.data import TOY2D

  for name in TOY2D:
    assert loading.load(f"{ROOT / 'configs' / 'toy2d.py'}:{name}").data.name == name


@pytest.mark.slow
@pytest.mark.slow
def test_a_network_without_a_posterior_mean_is_trained_saved_and_measured(train, tmp_path, capsys):
  workdir = tmp_path / "run"
  assert (
    command.run(train, [f"--config={TINY / 'tiny.py'}:time_score", f"--workdir={workdir}", "--quiet"]) == 0
  )
  found = json.loads((workdir / "metrics.json").read_text())
  run = opening.open_run(str(workdir))
  # The time score is that of the averaged weights, called with t itself.
  params, _ = weights.read_weights(run.checkpoint, average="500")
  expected = run.parts.network.apply(
    {"params": params}, np.zeros((1, 2), np.float32), np.full(1, 0.5, np.float32), method="time_score"
  )
  assert (
    found["own"]["centre"] == pytest.approx(2.0 * float(expected[0]), rel=1e-6)
    and found["own"]["centre"] != 0.0
  )
  assert found["step"] == 20 and np.isfinite(found["held_out_loss"]) and (workdir / "loss.png").stat().st_size
  assert "centre" in capsys.readouterr().out
  # The objective got the weight: both ends have a boundary term less.
  weighted = assembly.loss(run.parts).objective
  assert weighted.takes_weight and weighted.name == "time_score_matching"
  with pytest.raises(UserError, match="gives time_score and no posterior mean"):
    opening.make_sampler(run)


def test_a_network_without_anything_to_learn_is_a_mistake(call, tmp_path):
  check_sentence(
    *call(f"--workdir={tmp_path}", "--config.denoiser={}"),
    ["no section 'denoiser'", "MLP", "denoisers.eps", "time_score"],
  )
