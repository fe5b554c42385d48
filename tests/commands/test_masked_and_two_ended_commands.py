"""A masked process and one between two data sets, each trained, evaluated and sampled by the real commands.

The data are such that what a trained model must say is known: four equal pixels, whose entropy is that of
one, and pairs that differ by a constant, whose flow is a shift.
"""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from diffusion import data, denoisers, processes, solvers
from diffusion.commands import evaluation
from diffusion.config.errors import UserError
from diffusion.run import loop, sharding
from diffusion.run.opening import open_run
from diffusion.run.parts import sampler_config
from diffusion.run.saved import checkpoints
from tests import scripts

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.standard_promotion
LEVELS, SHIFT = 3, np.array([3.0, -1.0], np.float32)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  """For one device in place of eight, and without optimisation."""
  jax.config.update("jax_disable_most_optimizations", True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Paths of the data: 240 images of 2x2 equal pixels, whose value is the class, and 240 pairs."""
  folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
  label = np.arange(240) % LEVELS
  x = np.broadcast_to(label[:, None, None], (240, 2, 2)).astype(np.uint8)
  np.savez(folder / "masked.npz", x=x, label=label)
  x = rng.normal(size=(240, 2)).astype(np.float32)
  np.savez(folder / "pairs.npz", x=x, other=x + SHIFT)
  return folder


def config(files, kind, steps, **changes):
  masked = kind == "masked"
  section = dict(
    data=dict(factory="data.npz", path=str(files / f"{kind}.npz"), held_out=0.2)
    | (dict(levels=LEVELS, dequantization="categories") if masked else dict(pair="other")),
    process=dict(factory="processes.masked", num_values=LEVELS, shape=(2, 2, 1))
    if masked
    else dict(factory="processes.linear"),
    network=dict(factory="networks.TokenMLP", num_values=LEVELS, width=32, depth=1, num_classes=LEVELS)
    if masked
    else dict(factory="networks.MLP", width=16, depth=1),
    denoiser=dict(factory="denoisers.logits" if masked else "denoisers.velocity"),
    loss=dict(factory="losses.masked_cross_entropy", condition_dropout=0.2)
    if masked
    else dict(factory="losses.velocity_matching", per_dimension=True),
    optimizer=dict(learning_rate=1e-2, schedule="cosine", warmup_steps=5, clip=1.0),
    training=dict(
      batch_size=48, steps=steps, ema_half_life_images=(200.0,), log_every=10, checkpoint_every=20, keep=2
    ),
    sampler=dict(solver="masked_ancestral", steps=6, guidance=0.5) if masked else dict(steps=4),
    evaluation=dict(num_samples=48, batch=24, seed=0, held_out=512),
  )
  for key, value in changes.items():
    folder, name = key.split("__")
    section[folder][name] = value
  return ConfigDict(section)


@pytest.fixture(scope="module")
def runs(files, tmp_path_factory):
  """{kind: (workdir, metrics)} of trained and evaluated runs."""
  found = {}
  for kind, steps in (("masked", 200), ("pairs", 200)):
    workdir = tmp_path_factory.mktemp(kind)
    loop.train(config(files, kind, steps), str(workdir), quiet=True)
    found[kind] = workdir, evaluation.evaluate_run(str(workdir), quiet=True)
    assert json.loads((workdir / "metrics.json").read_text()) == found[kind][1]
  return found


def sample(workdir, *flags):
  """(exit status, stdout, stderr) of sample.py."""
  return scripts.sample(f"--workdir={workdir}", *flags)


def drawn(workdir, out, *flags):
  status, said, err = sample(workdir, f"--out={out}", *flags)
  assert (status, err) == (0, ""), err
  assert pathlib.Path(f"{out}.png").stat().st_size > 500
  with np.load(f"{out}.npz") as arrays:
    return said, dict(arrays)


@pytest.mark.slow
def test_a_masked_model_is_worth_what_theory_says(runs):
  """Given its class an image has no entropy left; the bound and the loss come near that."""
  workdir, found = runs["masked"]
  assert set(found["left_out"]) == {"neighbour_ratio"}  # all held-out images are copies of training images
  assert 0.0 <= found["bits_per_dim_bound"] < 0.05 and found["bits_per_dim_bound_error"] < 0.02
  assert found["class_accuracy"] > 0.95 and found["nfe"] == 6 and found["forward_passes"] == 12
  assert "bits per dimension" in evaluation.report(found) and "(a bound)" in evaluation.report(found)
  for picture in ("samples.png", "trajectory.png", "loss.png"):
    assert (workdir / picture).stat().st_size > 500
  # Without a class the entropy is log2(3) bits for four pixels, and no model has a lower mean.
  run = open_run(str(workdir))
  held = {**data.load(run.parts.dataset.held_out)}
  held["label"] = np.full_like(held["label"], -1)
  alone = evaluation.held_out_likelihood(run, held)
  assert np.log2(3) / 4 - 0.01 < alone["bits_per_dim_bound"] < np.log2(3) / 4 + 0.1


def test_masked_samples_are_values_and_each_depends_on_its_index_alone(runs, tmp_path):
  workdir, _ = runs["masked"]
  said, whole = drawn(workdir, tmp_path / "whole", "--num=24", "--batch=24", "--seed=3")
  assert "6 denoiser calls a sample, 12 network evaluations" in said
  assert whole["x"].dtype == np.int32 and whole["stored"].dtype == np.uint8
  assert set(np.unique(whole["x"])) <= set(range(LEVELS))  # and none is the mask, 3
  np.testing.assert_array_equal(whole["label"], np.arange(24) % LEVELS)
  np.testing.assert_array_equal(whole["stored"], whole["x"])
  _, part = drawn(workdir, tmp_path / "part", "--num=7", "--first=9", "--batch=4", "--seed=3")
  np.testing.assert_array_equal(part["x"], whole["x"][9:16])
  # Without a class and guidance the values differ from seed to seed; a class fixes them.
  free = [
    drawn(workdir, tmp_path / f"free{seed}", "--num=24", "--label=-1", "--guidance=0", f"--seed={seed}")[1][
      "x"
    ]
    for seed in (0, 1)
  ]
  assert (free[0] != free[1]).any() and len(np.unique(free[0])) == LEVELS
  said, ones = drawn(
    workdir, tmp_path / "ones", "--num=16", "--batch=8", "--label=1", "--steps=2", "--guidance=2"
  )
  assert "2 denoiser calls" in said and (ones["x"] == 1).mean() > 0.95
  status, said, err = sample(
    workdir, "--num=10", "--batch=8", "--shards", tmp_path / "shards", "--shard-size=6"
  )
  assert (status, err) == (0, "") and "2 shards written" in said


def test_a_run_between_two_sets_shifts_the_records_that_it_starts_from(runs, files, tmp_path):
  """A constant velocity: the samples are the starts less the shift, by any solver of it."""
  workdir, found = runs["pairs"]
  assert set(found["left_out"]) == {"nats_per_dim"} and "two data sets" in found["left_out"]["nats_per_dim"]
  assert found["sliced_wasserstein"] < 0.1 and found["sliced_wasserstein_starts"] > 1.5
  assert "before sampling" in evaluation.report(found) and found["nfe"] == 8  # Heun's method is the default
  said, whole = drawn(workdir, tmp_path / "whole", "--num=60", "--batch=32")
  held = data.load(data.npz(str(files / "pairs.npz"), held_out=0.2, pair="other").held_out)
  assert len(held["x"]) == 48  # in their order, and again from the first
  np.testing.assert_array_equal(whole["start"], held["other"][np.arange(60) % 48])
  np.testing.assert_allclose(whole["stored"], whole["start"] - SHIFT, atol=0.15)
  _, part = drawn(workdir, tmp_path / "part", "--num=5", "--first=46", "--batch=3", "--seed=9")
  np.testing.assert_array_equal(part["start"], whole["start"][46:51])
  np.testing.assert_allclose(part["x"], whole["x"][46:51], rtol=1e-5, atol=1e-6)
  said, euler = drawn(workdir, tmp_path / "euler", "--num=60", "--solver=euler_velocity", "--steps=3")
  assert "3 denoiser calls" in said
  np.testing.assert_allclose(euler["stored"], whole["start"] - SHIFT, atol=0.15)
  status, _, err = sample(workdir, "--num=6", "--batch=8", "--shards", tmp_path / "shards", "--shard-size=6")
  assert (status, err) == (0, "")
  with np.load(next((tmp_path / "shards").glob("*.npz"))) as arrays:
    np.testing.assert_array_equal(arrays["start"], whole["start"][:6])


FLAGS = {
  ("masked", "--solver=ddim"): "ddim is for processes of the kind gaussian, and 'masked' is discrete",
  ("masked", "--solver=heun_velocity"): "choose one of masked_ancestral",
  ("masked", "--grid=karras"): "leave it out for the process's own grid",
  ("masked", "--tolerance=0.1"): "takes the steps it is given",
  ("masked", "--option=eta=1"): "eta",
  ("masked", "--fit"): "--fit is for Gaussian processes",
  ("masked", "--task=inpaint", "--mask=half"): "--task=inpaint is for Gaussian processes",
  ("pairs", "--guidance=1"): "needs a model with classes",
  ("pairs", "--label=0"): "this model has no classes",
  (
    "pairs",
    "--solver=masked_ancestral",
  ): "and 'linear' is two_ended: choose one of euler_velocity, heun_velocity",
  ("pairs", "--solver=dpm_solver_adaptive", "--tolerance=0.1"): "is for processes of the kind gaussian",
  ("pairs", "--fit"): "--fit is for Gaussian processes",
}


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_what_a_run_cannot_do_is_said_in_a_sentence(runs, flags):
  kind, *rest = flags
  status, said, err = sample(runs[kind][0], *rest)
  assert status == 2 and said == "" and FLAGS[flags] in err and err.count("\n") == 1, err


MISTAKES = {
  "no pairs": ("pairs", dict(data__pair=""), "config.data.pair=NAME"),
  "another solver": ("masked", dict(sampler__solver="heun"), "choose one of masked_ancestral"),
  "a clock": ("masked", dict(denoiser__time_input="log_snr"), "set time_input='t'"),
  "an output": ("masked", dict(denoiser__factory="denoisers.edm"), "config.denoiser: 'masked' converts"),
  "a grid that leaves masks": ("masked", dict(sampler__grid=(1.0, 0.5)), "still masks: end it at t = 0"),
  "guidance": ("pairs", dict(sampler__guidance=1.0), "needs a model with classes"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_a_config_come_before_training(files, mistake, tmp_path):
  kind, changes, words = MISTAKES[mistake]
  with pytest.raises(UserError, match=words):
    loop.train(config(files, kind, 20, **changes), str(tmp_path / "run"), quiet=True)
  assert not (tmp_path / "run").exists()


def test_a_solver_of_a_view_that_the_model_lacks_is_named():
  """Three parts, two ends and noise: x0 alone says nothing of the velocity."""
  process = processes.linear(bridge=0.1)
  mean = denoisers.from_function(lambda params, x, t, cond: x, process, denoisers.x0())
  with pytest.raises(UserError, match="heun_velocity asks the model for velocity.*answers x0 on 'linear'"):
    sampler_config.check_asked(solvers.build("heun_velocity", process, 4), mean)


@pytest.mark.parametrize("kind", [pytest.param("masked", marks=pytest.mark.slow), "pairs"])
def test_a_resumed_run_has_the_same_bits(files, kind, tmp_path):
  for name, stops in (("whole", (40,)), ("parts", (20, 40))):
    for steps in stops:
      loop.train(config(files, kind, steps, optimizer__decay_steps=40), str(tmp_path / name), quiet=True)
  whole, parts = (
    checkpoints.read_arrays(checkpoints.choose(str(tmp_path / name / "checkpoints"), 40))
    for name in ("whole", "parts")
  )
  assert jax.tree.structure(whole) == jax.tree.structure(parts)
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts)):
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
