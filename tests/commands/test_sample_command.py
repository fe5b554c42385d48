"""`sample.py` on a small trained run.

Files, equal rows, costs, metrics, and one sentence for each mistake.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from diffusion import processes, sampling, solvers
from diffusion.commands import evaluation
from diffusion.config import loading
from diffusion.data import load, shards
from diffusion.run import loop, posthoc
from diffusion.run.opening import make_sampler, open_run
from diffusion.run.parts import assembly
from diffusion.run.saved import checkpoints
from tests.scripts import sample

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.standard_promotion


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run of the digits with a tiny network: enough to open, far from good."""
  folder = tmp_path_factory.mktemp("run")
  overrides = {
    "network.width": "16",
    "network.depth": "1",
    "training.steps": "20",
    "training.batch_size": "32",
    "training.checkpoint_every": "10",
    "training.log_every": "5",
    "sampler.steps": "3",
    "evaluation.num_samples": "40",
    "evaluation.batch": "40",
    "optimizer.warmup_steps": "2",
    "data.dequantization": "uniform",
    "network.dropout": "0.5",
  }
  config = loading.load(str(ROOT / "configs" / "digits.py"), list(overrides.items()))
  with config.unlocked():
    config.training.ema_snapshot_every = 4
  loop.train(config, str(folder), quiet=True)
  return folder


@pytest.mark.slow
def test_text_is_given_to_runs_of_text_alone(workdir, tmp_path):
  for flag in ("--prompt", "--infill"):
    status, said, err = sample(f"--workdir={workdir}", flag, "def", f"--out={tmp_path / 'out'}")
    assert status == 2 and f"{flag} gives a part of a text" in err and "is no text" in err
    assert said == "" and not list(tmp_path.iterdir())


def test_writes_pictures_and_arrays_and_says_the_cost(workdir, tmp_path):
  out = tmp_path / "deep" / "threes"
  status, said, err = sample(
    f"--workdir={workdir}",
    "--num=20",
    "--solver=dpmpp_2m",
    "--steps=4",
    "--guidance=1.5",
    "--label=3",
    "--batch=16",
    f"--out={out}",
  )
  assert (status, err) == (0, "")
  # Four evaluations, each of the conditional and of the unconditional network, for each of 20 samples.
  assert "4 denoiser calls" in said and "8 network evaluations" in said and "160 in all" in said
  arrays = np.load(f"{out}.npz")
  assert arrays["x"].shape == arrays["stored"].shape == (20, 8, 8, 1)
  assert set(arrays["label"]) == {3} and arrays["index"].tolist() == list(range(20))
  assert arrays["stored"].dtype == np.uint8 and arrays["stored"].max() <= 16
  from PIL import Image

  assert np.asarray(Image.open(f"{out}.png")).std() > 0


def test_a_solver_that_chooses_its_steps_and_options_by_flag(workdir, tmp_path):
  common = (f"--workdir={workdir}", "--num=8", "--batch=8")
  status, said, err = sample(
    *common,
    "--solver=dpm_solver_adaptive",
    "--tolerance=0.2",
    "--option",
    "order=2",
    f"--out={tmp_path}/adaptive",
  )
  assert (status, err) == (0, "")
  mean, low, high = map(float, re.search(r"(\S+) \((\d+) to (\d+)\) denoiser calls a sample", said).groups())
  # Two calls an attempt and one that removes the last noise; with guidance the network runs twice as often.
  assert (
    low % 2 == high % 2 == 1 and 3 <= low <= mean <= high and f"{2 * mean:.4g} network evaluations" in said
  )
  status, said, err = sample(*common, "--solver=ddim", "--steps=3", "--option=eta=0.5")
  assert (status, err) == (0, "") and "samples_ddim3_eta0.5_" in said and "3 denoiser calls" in said


def test_a_part_equals_the_whole(workdir, tmp_path):
  common = (f"--workdir={workdir}", "--batch=16", "--steps=4", "--solver=ancestral", "--seed=5")
  assert sample(*common, "--num=32", f"--out={tmp_path}/whole")[0] == 0
  assert sample(*common, "--num=8", "--first=8", f"--out={tmp_path}/part")[0] == 0
  whole, part = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "part.npz")
  for name in ("x", "stored", "label", "index"):
    np.testing.assert_array_equal(whole[name][8:16], part[name])


def test_named_checkpoint_and_raw_weights_differ(workdir, tmp_path):
  common = (f"--workdir={workdir}", "--num=8", "--batch=8", "--steps=3", "--guidance=0")
  for name, flags in (("new", ()), ("old", ("--checkpoint=10",)), ("raw", ("--ema=none",))):
    assert sample(*common, *flags, f"--out={tmp_path}/{name}")[0] == 0
  x = {name: np.load(tmp_path / f"{name}.npz")["x"] for name in ("new", "old", "raw")}
  assert np.abs(x["new"] - x["old"]).max() > 0 and np.abs(x["new"] - x["raw"]).max() > 0


@pytest.mark.slow
@pytest.mark.slow
def test_a_length_that_is_chosen_afterwards(workdir):
  """The samples are those of the weighed sum of what is stored."""
  common = (f"--workdir={workdir}", "--num=8", "--batch=8", "--ema=0.150", "--seed=7")
  status, said, err = sample(*common)
  assert (status, err) == (0, "") and "average of relative length 0.15 made of 10 stored ones" in said
  (path,) = workdir.glob("samples_*_ema0.15_seed7_from0_step20.npz")  # no other average's file
  gammas = [posthoc.power_gamma(one) for one in (0.05, 0.1)]
  steps = np.repeat([4, 8, 12, 16, 20], 2)
  factors = posthoc.combine(steps, gammas * 5, 20, posthoc.power_gamma(0.15)).weights
  total = 0.0
  for step, name, factor in zip(steps, ["0.05", "0.1"] * 5, factors):
    stored = checkpoints.read_arrays(str(workdir / "snapshots" / f"{step:08d}"))["emas"][name]
    total = total + factor * np.asarray(ravel_pytree(stored)[0], np.float64)
  opened = open_run(str(workdir), ema="0.15")
  np.testing.assert_allclose(ravel_pytree(dict(opened.params))[0], total, rtol=2e-6, atol=2e-7)
  denoiser, solver = make_sampler(opened)
  labels = lambda index: index % 10
  drawn = sampling.generate(denoiser, solver, (8, 8, 1), 8, seed=7, batch=8, labels=labels)
  np.testing.assert_allclose(np.load(path)["x"], drawn.x, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--evaluate",), ("--fit", "--steps=2", "--num=64"), ("--task=classify",)])
def test_every_command_takes_a_length_that_is_chosen_afterwards(workdir, tmp_path, flags):
  out = () if flags[0] == "--evaluate" else (f"--out={tmp_path}/out",)
  status, _, err = sample(f"--workdir={workdir}", "--ema=0.15", *flags, *out)
  assert (status, err) == (0, "")
  assert (
    "none up to" not in err and "relative length" in sample(f"--workdir={workdir}", "--ema=0.4", *flags)[2]
  )


@pytest.mark.slow
def test_shards_know_of_what_their_average_is_made(workdir, tmp_path):
  """They have the samples of the same command without shards, and go on only while the snapshots are the
  same."""
  folder = pathlib.Path(shutil.copytree(workdir, tmp_path / "run"))
  common = (f"--workdir={folder}", "--num=8", "--batch=8", "--ema=0.15")
  assert sample(*common, f"--out={tmp_path}/whole")[0] == 0
  to = (*common, f"--shards={tmp_path}/shards", "--shard-size=8")
  assert sample(*to)[0] == 0
  (shard,) = shards.read(str(tmp_path / "shards"))
  np.testing.assert_array_equal(shard["stored"], np.load(tmp_path / "whole.npz")["stored"])
  shutil.rmtree(folder / "snapshots" / "00000008")
  status, _, err = sample(*to)
  assert status == 2 and "another command" in err


def test_evaluate_writes_all_metrics(workdir):
  by_protocol = {"edm": {"fid": 2.0}}
  (workdir / "metrics.json").write_text(json.dumps({"protocols": by_protocol}))
  status, said, err = sample(f"--workdir={workdir}", "--evaluate")
  assert (status, err) == (0, "")
  found = json.loads((workdir / "metrics.json").read_text())
  assert found.pop("protocols") == by_protocol  # what --protocol measured stays
  names = (
    "class_accuracy",
    "frechet_distance",
    "frechet_floor",
    "kernel_distance",
    "kernel_floor",
    "neighbour_ratio",
    "train_seconds",
    "images_per_second",
    "num_parameters",
    "nfe",
    "held_out_loss",
    "bits_per_dim",
  )
  assert all(np.isfinite(found[name]) for name in names)
  assert found["nfe"] == 5 and found["forward_passes"] == 10
  # Twenty steps teach nothing: far from the data, and no better at classes than chance would be by much.
  assert found["frechet_distance"] > 3 * found["frechet_floor"]
  assert "class accuracy" in said
  for picture in ("samples.png", "trajectory.png", "loss.png"):
    assert (workdir / picture).stat().st_size > 1000


@pytest.mark.slow
def test_held_out_loss_is_that_of_the_evaluated_network(workdir):
  """Half of the network drops out in training and none of it in evaluation: the mean over fixed draws says
  which was run."""
  run = open_run(str(workdir))
  # Twenty steps leave the blocks close to zero; random weights make the dropped units count.
  leaves, tree = jax.tree.flatten(run.denoiser.params)
  noisy = [
    leaf + 0.3 * jax.random.normal(jax.random.key(number), leaf.shape) for number, leaf in enumerate(leaves)
  ]
  noisy = jax.tree.unflatten(tree, noisy)
  run = dataclasses.replace(run, params=noisy, denoiser=run.denoiser.with_params(noisy))
  held = load(run.parts.dataset.held_out)
  player = assembly.model_player(run.parts)
  batch = evaluation.held_out.model_batch(run, evaluation.held_out.chosen(held, 64))
  params, state = run.loss_inputs()

  def mean(train):
    keys = [jax.random.fold_in(jax.random.key(1), number) for number in range(evaluation.LOSS_PASSES)]
    return np.mean(
      [player.loss.per_example(params, state, 0, key, batch, train=train)[0].mean() for key in keys]
    )

  found = evaluation.held_out_loss(run, held, 64)
  np.testing.assert_allclose(found, mean(False), rtol=1e-5)
  assert abs(mean(True) / found - 1) > 1e-3


@pytest.mark.parametrize(
  "flags, words",
  [
    (("--solver=dpmpp2m",), "did you mean 'dpmpp_2m'"),
    (("--grid=karas",), "did you mean 'karras'"),
    (("--solver=adaptive_sde", "--steps=5"), "chooses its own steps"),
    (("--solver=ddim", "--tolerance=0.1"), "a tolerance of 0.1 says nothing"),
    (("--solver=adaptive_sde", "--tolerance=-1"), "tolerances must be positive"),
    (("--solver=ddim", "--option=etta=1"), "etta"),
    (("--option=eta",), "NAME=VALUE"),
    (("--label=12",), "give 0 to 9"),
    (("--num=0",), "at least 1"),
    (("--batch=12",), "multiple of 8"),
    (("--checkpoint=7",), "no checkpoint of step 7"),
    (("--ema=123",), "no average of half-life 123"),
    (("--ema=0.4",), "relative length of an average is from 0.0001 to 0.2887"),
    (("--ema=0.01",), "snapshots up to step 20"),
    (("--interval", "2", "1", "--guidance=1"), "low < high"),
    (("--steps=0",), "at least 1"),
    (("--seed=99999999999999999999",), "from 0 to"),
    (("--first=3000000000",), "indices run"),
    (("--evaluate", "--num=5"), "--num has no place"),
    (("--stepz=3",), "--steps"),
  ],
)
def test_each_mistake_is_one_sentence(workdir, flags, words):
  status, said, err = sample(f"--workdir={workdir}", *flags)
  assert status == 2 and said == ""
  assert words in err and err.count("\n") == 1 and "Traceback" not in err


def test_missing_and_damaged_runs(workdir, tmp_path):
  status, _, err = sample(f"--workdir={tmp_path}/nothing")
  assert status == 2 and "train first" in err and err.count("\n") == 1
  empty = tmp_path / "empty"
  empty.mkdir()
  shutil.copy(workdir / "config.json", empty)
  status, _, err = sample(f"--workdir={empty}")
  assert status == 2 and "no checkpoint" in err and err.count("\n") == 1
  broken = tmp_path / "broken"
  shutil.copytree(workdir, broken)
  for file in broken.glob("checkpoints/*/state/**/*"):
    if file.is_file() and file.stat().st_size:
      file.write_bytes(file.read_bytes()[:-1])
  status, _, err = sample(f"--workdir={broken}")
  assert status == 2 and "damaged" in err and "Traceback" not in err


@pytest.mark.slow
def test_a_saved_solver_samples_with_its_own_steps(workdir, tmp_path):
  """The file's table is what samples; the wrong steps, process, guidance or file are each said in one
  sentence."""
  run = open_run(str(workdir))
  table = solvers.build("unipc", run.denoiser.process, 4)
  path = tmp_path / "mine.npz"
  solvers.save(path, table, run.denoiser.process, notes={"guidance": 0.5})
  status, said, err = sample(
    f"--workdir={workdir}", f"--solver={path}", "--num=8", "--batch=8", f"--out={tmp_path}/x"
  )
  assert (
    (status, err) == (0, "")
    and "4 denoiser calls" in said
    and "8 network evaluations" in said
    and "fitted at" not in said
  )
  denoiser, _ = make_sampler(run)
  x, _ = sampling.draw_noise(denoiser.process, 0, np.arange(8), (8, 8, 1))
  cond = {"label": np.arange(8, dtype=np.int32)}
  np.testing.assert_allclose(
    np.load(tmp_path / "x.npz")["x"], solvers.sample(denoiser, table, x, cond=cond), atol=1e-4
  )
  status, said, err = sample(
    f"--workdir={workdir}", f"--solver={path}", "--num=8", "--batch=8", "--guidance=1", f"--out={tmp_path}/y"
  )
  assert status == 0 and "was fitted at guidance 0.5 and sampled at 1" in said
  other = tmp_path / "other.npz"
  solvers.save(other, solvers.build("ddim", processes.vp_linear(), 3))
  (tmp_path / "text.npz").write_text("no table")
  for flags, words in (
    ((f"--solver={path}", "--steps=5"), "has 4 evaluations"),
    ((f"--solver={other}",), "not for 'edm'"),
    ((f"--solver={tmp_path}/text.npz",), "damaged"),
    ((f"--solver={tmp_path}/none.npz",), "no saved solver"),
    (("--fit", "--solver=ancestral", "--steps=3"), "draws noise"),
    (("--fit", "--num=4"), "at least 8"),
    (("--fit", "--evaluate"), "--evaluate has no place"),
  ):
    status, said, err = sample(f"--workdir={workdir}", *flags)
    assert status == 2 and said == "" and words in err and err.count("\n") == 1


@pytest.mark.slow
def test_fit_writes_a_solver_that_samples(workdir, tmp_path):
  """Fitted on the guided model, saved beside the checkpoint, and used by the name of its file."""
  status, said, err = sample(
    f"--workdir={workdir}", "--fit", "--solver=dpmpp_2m", "--steps=3", "--num=32", "--batch=24"
  )
  path = workdir / "solvers" / "dpmpp_2m_3_guidance0.5.npz"
  assert (status, err) == (0, "") and str(path) in said and "held-out error" in said
  notes = solvers.read_notes(path)
  assert notes["guidance"] == 0.5 and notes["error"] <= notes["start_error"] and notes["step"] == 20
  table = solvers.load(path)
  assert table.cost == 3 and table.about.process_name == "edm" and (np.diff(table.t) < 0).all()
  status, said, err = sample(
    f"--workdir={workdir}", f"--solver={path}", "--num=8", "--batch=8", f"--out={tmp_path}/x"
  )
  assert (status, err) == (0, "") and "3 denoiser calls" in said and "fitted at" not in said


SHARDS = ("--num=40", "--shard-size=16", "--batch=16", "--solver=ancestral", "--steps=3", "--seed=7")


def files(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npz"))}


@pytest.fixture(scope="module")
def sharded(workdir, tmp_path_factory):
  """The shards that one process writes."""
  folder = tmp_path_factory.mktemp("shards")
  status, said, err = sample(f"--workdir={workdir}", *SHARDS, f"--shards={folder}")
  assert (status, err) == (0, "") and "3 shards written" in said and "3 of the 3 shards of 40 samples" in said
  return folder


def test_shards_are_the_samples_of_one_call_whoever_writes_them(workdir, sharded, tmp_path):
  status, said, err = sample(
    f"--workdir={workdir}", *(flag for flag in SHARDS if "shard" not in flag), f"--out={tmp_path}/whole"
  )
  assert (status, err) == (0, "")
  whole, found = np.load(tmp_path / "whole.npz"), list(shards.read(sharded))
  for name in ("stored", "label", "index"):
    np.testing.assert_array_equal(np.concatenate([shard[name] for shard in found]), whole[name])
  for process in (2, 0, 1):
    status, said, err = sample(
      f"--workdir={workdir}", *SHARDS, f"--shards={tmp_path}/three", "--processes=3", f"--process={process}"
    )
    assert (status, err) == (0, "") and f"process {process} of 3: 1 shards written" in said
  assert files(tmp_path / "three") == files(sharded)
  assert list(files(sharded)) == [
    "000000000-000000015.npz",
    "000000016-000000031.npz",
    "000000032-000000039.npz",
  ]


def test_shards_go_on_after_a_stop_and_damaged_ones_are_made_again(workdir, sharded, tmp_path, monkeypatch):
  write = shards.write

  def stopped(path, *args, **arrays):
    write(path, *args, **arrays)
    os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(shards, "write", stopped)
  flags = (f"--workdir={workdir}", *SHARDS, f"--shards={tmp_path}")
  status, said, err = sample(*flags)
  assert (
    status == 143
    and said == ""
    and "1 shards were written" in err
    and "2 are left" in err
    and err.count("\n") == 1
  )
  assert len(files(tmp_path)) == 1
  monkeypatch.undo()
  # What a kill leaves behind, a file cut short, and one of the right range with a flipped byte.
  (tmp_path / "000000016-000000031.npz.tmp").write_bytes(b"half")
  (tmp_path / "000000016-000000031.npz").write_bytes(files(sharded)["000000016-000000031.npz"][:-100])
  content = bytearray(files(sharded)["000000032-000000039.npz"])
  content[300] ^= 4
  (tmp_path / "000000032-000000039.npz").write_bytes(content)
  status, said, err = sample(*flags)
  assert status == 0 and "2 shards written" in said and "1 were there" in said
  assert files(tmp_path) == files(sharded) and not list(tmp_path.glob("*.tmp"))
  status, said, _ = sample(*flags)
  assert status == 0 and "0 shards written" in said and "3 were there" in said


@pytest.mark.parametrize(
  "flags, words",
  [
    (("--seed=8",), "seed is 7 there and 8 here"),
    (("--guidance=2",), "sampler is"),
    (("--label=3",), "label is null there"),
    (("--checkpoint=10",), "checkpoint is 20 there and 10 here"),
    (("--ema=none",), "ema is"),
    (("--shard-size=8",), "size is 16 there and 8 here"),
    (("--num=56",), "000000032-000000039.npz is no shard"),
    (("--process=1",), "--processes=N"),
    (("--processes=2", "--process=2"), "counted from 0"),
    (("--coordinator=localhost:1",), "--distributed"),
    (("--out=x",), "--out has no place"),
    (("--shard-size=0",), "at least 1"),
  ],
  ids=lambda value: value[0].strip("-") if isinstance(value, tuple) else "",
)
def test_a_folder_of_another_command_is_one_sentence(workdir, sharded, flags, words):
  before = files(sharded)
  status, said, err = sample(f"--workdir={workdir}", *SHARDS, f"--shards={sharded}", *flags)
  assert status == 2 and said == "" and words in err and err.count("\n") == 1
  assert files(sharded) == before


def test_flags_of_shards_alone_are_one_sentence(workdir):
  for flag in ("--processes=2", "--distributed", "--shard-size=8"):
    status, _, err = sample(f"--workdir={workdir}", flag)
    assert status == 2 and "together with --shards" in err and err.count("\n") == 1
