"""A file of weights in place of a run: what the commands make of it is what its denoiser says."""

import functools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from diffusion import data, likelihood, sampling, solvers, weights
from diffusion.commands.evaluation import held_out
from diffusion.config.errors import UserError
from diffusion.run import loop, sharding
from diffusion.run.opening import open_run
from diffusion.run.published import open_weights
from diffusion.run.saved import checkpoints
from tests.scripts import sample

ROOT = pathlib.Path(__file__).parents[2]
EDM = ROOT / "tests" / "weights" / "recorded" / "edm.pkl"  # 4x4, three channels, four classes
EDM2 = EDM.with_name("edm2.pkl")  # latents
pytestmark = pytest.mark.standard_promotion


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  """For one device in place of eight, and without optimisation."""
  jax.config.update("jax_disable_most_optimizations", True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """An empty folder, where the command is called, with data of the model's shape."""
  numbers = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
  np.savez(tmp_path / "data.npz", x=numbers, label=np.arange(40) % 4)
  np.savez(tmp_path / "unlabelled.npz", x=numbers)
  np.savez(tmp_path / "five.npz", x=numbers, label=np.arange(40) % 5)
  np.savez(tmp_path / "small.npz", x=numbers[:, :2], label=np.arange(40) % 4)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_samples_are_those_of_its_denoiser_and_its_authors_sampler(folder):
  """Sample i by the key of (seed, i) and class i mod 4; the picture's values are those in [-1, 1]."""
  status, said, err = sample(f"--weights={EDM}", "--num=3", "--first=2", "--batch=8")
  assert status == 0, err
  assert str(EDM) in said and "35 denoiser calls" in said
  found = np.load(folder / "runs" / "edm" / "samples_heun35_seed0_from2.npz")
  model = weights.load(EDM)
  labels = lambda index: index % 4
  by_hand = sampling.generate(model.denoiser, model.sampler, model.shape, 3, first=2, labels=labels, batch=8)
  np.testing.assert_allclose(found["x"], by_hand.x, rtol=1e-5, atol=1e-5)
  assert found["label"].tolist() == [2, 3, 0]
  np.testing.assert_array_equal(found["stored"], np.clip(np.round((found["x"] + 1) * 127.5), 0, 255))
  assert (folder / "runs" / "edm" / "samples_heun35_seed0_from2.png").stat().st_size

  # In shards, the same samples; of another model, another folder.
  flags = "--num=8", "--batch=8", "--shard-size=4", "--shards=million"
  assert sample(f"--weights={EDM}", *flags)[0] == 0
  shard = np.load(folder / "million" / "000000000-000000003.npz")
  np.testing.assert_array_equal(shard["stored"][2:], found["stored"][:2])
  status, _, err = sample(f"--weights={EDM2}", *flags)
  assert status != 0 and "million" in err and len(err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.slow
def test_it_is_measured_on_data_that_are_given(folder):
  """The likelihood in metrics.json is that of the denoiser; what a file does not say is left out by name."""
  status, _, err = sample(
    f"--weights={EDM}", "--evaluate", "--data=data.npz", "--num=12", "--batch=12", "--workdir=measured"
  )
  assert status == 0, err
  found = json.loads((folder / "measured" / "metrics.json").read_text())
  assert found["model"] == "EDMPrecond" and found["weights"] == str(EDM) and found["nfe"] == 35
  assert found["weights_sha256"] == open_weights(str(EDM)).identity["weights"]
  assert set(found["left_out"]) == {"held_out_loss", "loss.png"}
  for name in ("samples.png", "trajectory.png"):
    assert (folder / "measured" / name).stat().st_size

  held = data.load(data.npz("data.npz").held_out)
  keys = jax.random.split(jax.random.key(2), len(held["x"]))
  cond = {"label": jnp.asarray(held["label"])}
  nats, _ = likelihood.log_likelihood_of_values(
    lambda x, keys: likelihood.log_likelihood(
      weights.load(EDM).denoiser, x, cond=cond, keys=keys, num_steps=24, divergence="rademacher"
    )[0],
    jnp.asarray(held["x"]),
    data.Scaling(256),
    dequantization="uniform",
    keys=keys,
  )
  np.testing.assert_allclose(
    found["bits_per_dim"], np.mean(likelihood.bits_per_dim(nats, (4, 4, 3))), rtol=1e-4
  )


@pytest.mark.slow
def test_tasks_take_it(folder):
  """Inpainting puts the known pixels back exactly."""
  status, _, err = sample(
    f"--weights={EDM}", "--task=inpaint", "--data=data.npz", "--label=1", "--num=2", "--draws=2", "--steps=3"
  )
  assert status == 0, err
  found = np.load(folder / "runs" / "edm" / "inpaint_seed0_from0.npz")
  kept = found["mask"] == 0
  np.testing.assert_array_equal(
    found["stored"][..., kept], np.broadcast_to(found["input"][:, None][..., kept], (2, 2, kept.sum()))
  )


@pytest.mark.slow
def test_a_fit_takes_it(folder):
  """The table is one of the model's process."""
  status, said, err = sample(
    f"--weights={EDM}", "--fit", "--steps=2", "--num=16", "--batch=8", "--solver=ddim"
  )
  assert status == 0, err
  table = folder / "runs" / "edm" / "solvers" / "ddim_2.npz"
  assert str(table.relative_to(folder)) in said
  assert solvers.load(str(table), weights.load(EDM).denoiser.process).cost >= 2


def test_a_schedulers_steps_are_its_own(tmp_path):
  """With --steps alone, the sampler is the scheduler's in so many steps, and not one of that name."""
  config = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "clip_sample": False}
  process, wanted = solvers.from_diffusers(config, 7)
  found, _ = weights.loading.sampler({"model": "UNet2DModel", "scheduler": config}, process, 7)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
  assert weights.loading.sampler({"model": "UNet2DModel", "scheduler": config}, process)[0].num_steps == 50


@pytest.mark.parametrize(
  "flags, words",
  [
    (["--evaluate"], ["comes with none", "--data"]),
    (["--data=five.npz"], ["5 classes", "EDM", "4"]),
    (["--data=small.npz"], ["[2, 4, 3]", "[4, 4, 3]"]),
    (["--data=nowhere"], ["nowhere"]),
    (["--checkpoint=3"], ["--checkpoint", "leave it out"]),
    (["--label=4"], ["0 to 3"]),
    (["--label=-1"], ["never saw a record without its class"]),
    (["--guidance=1"], ["without its condition"]),
    (["--guidance=1", "--guided-channels=4"], ["--guided-channels=4", "samples with 3"]),
    (["--guided-channels=2"], ["--guidance=W", "no guidance"]),
    (["--task=inpaint", "--label=1"], ["--input"]),
    (["--workdir=run"], ["run of train.py", "another folder"]),
    (["--option=eta=1"], ["options", "--solver"]),
    (["--grid=karras"], ["grid", "--solver"]),
  ],
)
def test_what_does_not_fit_is_one_sentence(folder, flags, words):
  (folder / "run").mkdir()
  (folder / "run" / "config.json").write_text("{}")
  before = {path for path in folder.rglob("*") if path.is_file()}
  status, _, err = sample(f"--weights={EDM}", *flags)
  assert status != 0 and len(err.splitlines()) == 1, err
  assert all(word.replace("EDM", str(EDM)) in err for word in words), err
  assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_a_file_that_is_no_model_is_one_sentence(folder):
  shutil.copy(EDM, "half.pkl")
  whole = pathlib.Path("half.pkl").read_bytes()
  pathlib.Path("half.pkl").write_bytes(whole[: len(whole) // 2])
  for path in ("missing.pkl", "half.pkl", "data.npz"):
    status, _, err = sample(f"--weights={path}")
    assert status != 0 and path in err and len(err.splitlines()) == 1, err
  assert not pathlib.Path("runs").exists()
  for flag in ("--data=data.npz", "--told=_class_name=DiT"):
    assert "--weights" in sample("--workdir=run", flag)[2]


def test_records_without_a_class_have_no_likelihood_of_a_model_with_classes(folder):
  run = open_weights(str(EDM), data_path="unlabelled.npz")
  assert run.parts.dataset.num_classes == 4
  with pytest.raises(ValueError, match="have no class"):
    held_out.held_out_likelihood(run, data.load(run.parts.dataset.held_out))


def training(**more):
  """A config that goes on from EDM's file for one step that changes nothing."""
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      data=dict(factory="data.npz", path="data.npz"),
      **weights.sections(EDM),
      optimizer=dict(learning_rate=0.0),
      sampler=dict(solver="heun", steps=2),
      training=dict(
        batch_size=8, steps=1, ema_half_life_images=(100,), log_every=1, checkpoint_every=1, keep=1, **more
      ),
    )
  )


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_goes_on_from_it_and_learns_from_it(folder):
  """The student starts at the file's weights, its teacher is the file's model, and neither needs it later."""
  shutil.copy(EDM, "teacher.pkl")
  config = training(warm_start=dict(weights="teacher.pkl"))
  config.roles = ml_collections.ConfigDict(dict(teacher=dict(weights="teacher.pkl")))
  config.loss = ml_collections.ConfigDict(dict(factory="losses.distillation"))
  loop.train(config, "run", quiet=True)
  model = weights.load(EDM)
  found = checkpoints.read_arrays(checkpoints.choose("run/checkpoints"))
  for tree in (found["params"]["model"], found["emas"]["100"], found["loss_state"]["fixed"]["teacher"]):
    jax.tree.map(np.testing.assert_array_equal, tree, jax.tree.map(np.asarray, model.denoiser.params))
  run = open_run("run")  # the student is its teacher, but for dropout in training
  assert held_out.held_out_loss(run, data.load(run.parts.dataset.held_out)) < 1e-10
  pathlib.Path("teacher.pkl").unlink()
  config.training.steps = 2
  loop.train(config, "run", quiet=True)
  assert open_run("run").step == 2


@pytest.mark.parametrize(
  "changes, words",
  [
    pytest.param(dict(warm_start=dict(weights="missing.pkl")), ["missing.pkl"], marks=pytest.mark.slow),
    pytest.param(dict(warm_start=dict(weight="a.pkl")), ["warm_start", "weights"], marks=pytest.mark.slow),
    (dict(warm_start=dict(weights=str(EDM2))), ["config.training.warm_start.weights", "networks differ"]),
  ],
)
def test_a_warm_start_that_does_not_fit_is_one_sentence(folder, changes, words):
  config = training(**changes)
  config.loss = ml_collections.ConfigDict(dict(factory="losses.denoising_score_matching"))
  with pytest.raises(UserError) as caught:
    loop.train(config, "run", quiet=True)
  assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value
