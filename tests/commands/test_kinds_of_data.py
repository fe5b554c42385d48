"""Every kind of data is trained, evaluated and sampled by the real commands.

What can be measured is, with the value that theory gives where it gives one; what cannot is left out with a
sentence."""

import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion import losses
from diffusion.commands import evaluation
from diffusion.commands.evaluation import held_out
from diffusion.config.errors import UserError
from diffusion.data import load, npz, stream
from diffusion.run import loop, sharding
from diffusion.run.opening import open_run
from tests import scripts

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.standard_promotion
RNG = np.random.default_rng(0)
BYTES = lambda *shape: RNG.integers(0, 256, (120, *shape)).astype(np.uint8)
REAL = lambda *shape: RNG.normal(size=(120, *shape)).astype(np.float32)
PIXELS = BYTES(4, 4)
LABEL = np.arange(120) % 3
DISTANCES = ("frechet_distance", "kernel_distance", "neighbour_ratio")
POINTS = ("sliced_wasserstein", "kernel_distance")


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  """For one device in place of eight, and without optimisation."""
  jax.config.update("jax_disable_most_optimizations", True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    yield
  jax.config.update("jax_disable_most_optimizations", False)


class Upsampled(nn.Module):
  """The small image of the condition as the answer, and a correction that begins at zero: super-resolution.

  The small image is a channel of the input too."""

  @nn.compact
  def __call__(self, x: Any, t: Any, cond: Any = None, train: bool = False) -> Any:
    small = cond["low_resolution"]
    large = jnp.repeat(jnp.repeat(small, 2, axis=1), 2, axis=2)
    h = jnp.concatenate([x / (1.0 + t[:, None, None, None]), large], axis=-1)
    return large + nn.Conv(x.shape[-1], (1, 1), kernel_init=nn.initializers.zeros)(h)


class Reader(nn.Module):
  """A mean of embedded tokens, and a vector beside them, in a small network."""

  @nn.compact
  def __call__(self, x: Any, t: Any, cond: Any = None, train: bool = False) -> Any:
    words = nn.Embed(12, 8)(jnp.maximum(cond["tokens"], 0)).mean(axis=1)
    h = jnp.concatenate([x / (1.0 + t[:, None]), words, cond["vector"]], axis=-1)
    return nn.Dense(x.shape[-1])(nn.swish(nn.Dense(16)(h)))


def between_halves(process):
  """Flow matching from the other half of each pair to x: the place of the noise is x1's."""
  inner = losses.denoising_score_matching(process, target="velocity", per_dimension=True)

  def draw(key, batch, t, state):
    found = inner.draw(key, batch, t, state)
    return found.replace(noise=batch["x1"])

  return inner.replace(draw=draw)


def config(data, classes=0, rate=1e-3, **network):
  return ConfigDict(
    dict(
      seed=0,
      data=data,
      process=dict(factory="processes.edm", sigma_min=0.002, sigma_max=20.0),
      network=network or dict(factory="networks.MLP", width=8, depth=1, num_classes=classes),
      denoiser=dict(factory="denoisers.edm", data_std=1.0),
      loss=dict(
        factory="losses.denoising_score_matching",
        target="x0",
        per_dimension=True,
        weight=dict(factory="losses.edm", data_std=1.0),
        times=dict(factory="losses.log_normal_sigma", mean=-1.2, std=1.2),
        condition_dropout=0.1 if classes else 0.0,
      ),
      optimizer=dict(learning_rate=rate, schedule="constant", warmup_steps=1, clip=1.0),
      training=dict(
        batch_size=16, steps=20, ema_half_life_images=(100.0,), log_every=10, checkpoint_every=20, keep=1
      ),
      sampler=dict(solver="ddim", steps=2, guidance=0.0),
      evaluation=dict(num_samples=12, batch=12, seed=0, held_out=512),
    )
  )


def saved(folder, name, **arrays):
  np.savez(folder / f"{name}.npz", **arrays)
  return dict(factory="data.npz", path=str(folder / f"{name}.npz"), held_out=0.2)


def sample(workdir, *flags):
  """(exit status, stdout, stderr) of sample.py."""
  return scripts.sample(f"--workdir={workdir}", "--batch=12", *flags)


def through_all(made, workdir):
  """(metrics, arrays of sample.py) of a config trained for 20 steps, evaluated and sampled."""
  loop.train(made, str(workdir), quiet=True)
  found = evaluation.evaluate_run(str(workdir), quiet=True)
  assert json.loads((workdir / "metrics.json").read_text()) == found
  status, said, err = sample(workdir, "--num=12", f"--out={workdir / 'drawn'}")
  assert (status, err) == (0, "") and "12 samples" in said
  with np.load(workdir / "drawn.npz") as arrays:
    return found, dict(arrays)


KINDS = {
  # name: (arrays, options of data.npz, classes of the network, what is measured, what is left out)
  "pixels": (dict(x=PIXELS, label=LABEL), {}, 3, ("class_accuracy", *DISTANCES, "bits_per_dim"), ()),
  "four channels": (dict(x=BYTES(4, 4, 4)), {}, 0, (*DISTANCES, "bits_per_dim"), ()),
  "float images": (dict(x=REAL(4, 4, 3)), {}, 0, (*DISTANCES, "nats_per_dim"), ()),
  "latents": (dict(x=REAL(4, 4, 4)), {}, 0, (*DISTANCES, "nats_per_dim"), ()),
  "signals": (dict(x=REAL(16, 2)), {}, 0, (*DISTANCES, "nats_per_dim"), ()),
  "volumes": (dict(x=REAL(3, 4, 4, 1)), {}, 0, (*DISTANCES, "nats_per_dim"), ()),
  "vectors of 1": (dict(x=REAL(1)), {}, 0, (*POINTS, "nats_per_dim"), ()),
  "vectors of 2": (dict(x=REAL(2)), {}, 0, (*POINTS, "total_variation", "nats_per_dim"), ()),
  "vectors of 5": (dict(x=REAL(5)), {}, 0, (*POINTS, "nats_per_dim"), ()),
  "booleans": (dict(x=PIXELS > 127), {}, 0, (*DISTANCES, "bits_per_dim"), ()),
  "30 images": (
    dict(x=PIXELS[:30]),
    dict(held_out=0.1),
    0,
    ("neighbour_ratio", "bits_per_dim"),
    ("frechet_distance", "kernel_distance"),
  ),
  "none held out": (dict(x=PIXELS), dict(held_out=0.0), 0, (), (*DISTANCES, "held_out_loss", "bits_per_dim")),
  "copies": (
    dict(x=np.concatenate([PIXELS[:40]] * 3)),
    {},
    0,
    ("frechet_distance", "kernel_distance"),
    ("neighbour_ratio",),
  ),
  "blank": (dict(x=np.zeros((120, 4, 4), np.uint8)), {}, 0, ("bits_per_dim",), DISTANCES),
  "labels from one": (dict(x=PIXELS, label=1 + LABEL % 2), {}, 3, ("class_accuracy", *DISTANCES), ()),
  "labels with gaps": (dict(x=PIXELS, label=2 * (LABEL % 2)), {}, 3, ("class_accuracy", *DISTANCES), ()),
  "one class": (dict(x=PIXELS, label=0 * LABEL), {}, 1, DISTANCES, ("class_accuracy",)),
}


ALIKE = (
  *("four channels", "latents", "volumes", "vectors of 1", "vectors of 2", "vectors of 5"),
  *("none held out", "copies", "labels from one", "labels with gaps", "one class"),
  *("booleans", "float images", "30 images", "blank"),
)
"""Kinds that take the way of others up to a shape, or to one choice, which is made in `data` or in an
evaluation."""


@pytest.mark.parametrize(
  "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in ALIKE else ()) for kind in KINDS]
)
def test_every_kind_is_trained_evaluated_and_sampled(kind, tmp_path):
  arrays, options, classes, measured, missing = KINDS[kind]
  made = config(saved(tmp_path, "data", **arrays) | options, classes)
  found, drawn = through_all(made, tmp_path / "run")
  assert all(np.isfinite(found[name]) for name in (*measured, "nfe", "train_loss"))
  assert set(found["left_out"]) == set(missing), found["left_out"]
  assert not set(missing) & set(found)
  assert all(why and "\n" not in why and "Error" not in why for why in found["left_out"].values())
  assert "held_out_loss" in {**found, **found["left_out"]}
  for picture in ("samples.png", "loss.png", "drawn.png"):
    assert (tmp_path / "run" / picture).stat().st_size > 500
  x = arrays["x"]
  shape = (*x.shape[1:], 1) if x.ndim == 3 and x.dtype.kind in "ub" else x.shape[1:]
  assert drawn["stored"].shape == (12, *shape) and drawn["x"].dtype == np.float32
  whole = x.dtype.kind in "ub"
  assert drawn["stored"].dtype == (np.uint8 if whole else np.float32)
  assert kind != "booleans" or set(np.unique(drawn["stored"])) <= {0, 1}
  if classes:  # in turn over the classes that training records have, and no others
    present = np.unique(arrays["label"])
    assert drawn["label"].tolist() == [int(present[i % len(present)]) for i in range(12)]
  with np.load(tmp_path / "run" / "samples.npz") as kept:
    assert kept["stored"].shape == (12, *shape)


@pytest.mark.slow
@pytest.mark.slow
def test_a_far_offset_costs_no_digits(tmp_path):
  """A network of zeros in EDM's form is the exact denoiser of N(0, 1): loss and likelihood are known."""
  offset, scale = 1e8, 3.0
  x = offset + scale * np.random.default_rng(1).normal(size=(500, 5))
  made = config(saved(tmp_path, "data", x=x), rate=1e-12)
  found, drawn = through_all(made, tmp_path / "run")
  dataset = open_run(str(tmp_path / "run")).parts.dataset
  z = (held_out.chosen(load(dataset.held_out))["x"] - dataset.scaling.mean) / dataset.scaling.std
  assert found["subsets"]["held_out_loss"] == {"records": 100, "of": 100, "seed": 0} and z.shape == (100, 5)
  exact = 0.5 * np.log(2 * np.pi) + 0.5 * np.mean(z**2) + np.log(dataset.scaling.std)
  # The prior N(0, 20^2) stands for N(0, 1 + 20^2), and 24 steps for the flow.
  assert found["nats_per_dim"] == pytest.approx(exact, abs=0.01)
  # The weight makes the target of the network one of unit variance at every level.
  assert found["held_out_loss"] == pytest.approx(
    1.0, abs=0.15
  )  # of 500 numbers: a deviation of 0.06 and less
  assert drawn["stored"].dtype == np.float64
  # Two steps of the solver make them too wide, but about the mean, and float32 holds multiples of 8 there.
  assert abs(drawn["stored"].mean() - offset) < 5 * drawn["stored"].std() / np.sqrt(60)
  assert len(np.unique(drawn["stored"])) == 60
  batch = next(stream(dataset, 400, 0, num_threads=0))["x"]
  assert abs(batch.mean()) < 1e-6 and abs(batch.std() - 1.0) < 1e-5
  assert 0.0 < found["sliced_wasserstein_floor"] < scale  # 12 points against 100 of one distribution


def test_subsets_are_drawn_and_written_down(tmp_path):
  """Records sorted by class: a subset holds each class in its share, whatever their order."""
  label = np.repeat(np.arange(2), 1500)
  x = np.where(label[:, None, None] == 0, 120, RNG.integers(0, 256, (3000, 4, 4))).astype(np.uint8)
  dataset = npz(saved(tmp_path, "sorted", x=x, label=label)["path"], held_out=0.4)
  held = load(dataset.held_out)
  assert held["label"][:512].sum() == 0  # the first ones are of one class
  for seed in range(3):
    drawn = held_out.chosen(held, 512, seed)["label"]
    # Hypergeometric, 512 of 1,200 of which half are ones: a deviation of 8.6, so 4.5 of them.
    assert abs(drawn.sum() - 256) < 39 and len(drawn) == 512
  train, real, counts = evaluation.samples.real_data(dataset, seed=5, most=600)
  assert counts == {
    "training": {"records": 600, "of": 1800, "seed": 5},
    "held_out": {"records": 600, "of": 1200, "seed": 5},
  }
  # 600 of 1,800: a deviation of 10; 600 of 1,200: of 8.7.
  assert abs(train["label"].sum() - 300) < 45 and abs(real["label"].sum() - 300) < 39
  whole, _, _ = evaluation.samples.real_data(dataset, seed=5)
  np.testing.assert_array_equal(whole["x"], load(dataset.train)["x"])  # a set taken whole keeps its order


@pytest.mark.slow
def test_whole_numbers_are_trained_and_evaluated_without_a_sampler(tmp_path):
  made = config(
    saved(tmp_path, "bits", x=(PIXELS > 127).astype(np.uint8)) | dict(levels=2, dequantization="categories")
  )
  made.process = dict(factory="processes.uniform_resample", sizes=2, shape=(4, 4, 1), t_min=0.01)
  made.network = dict(
    factory="networks.ConcreteFlips", network=dict(factory="networks.MLP", width=8, depth=1)
  )
  made.loss = dict(
    factory="losses.denoising_concrete_score_matching",
    neighbourhood=dict(factory="processes.neighbourhoods.bit_flips", shape=(4, 4, 1)),
    weight=dict(factory="losses.balanced"),
  )
  del made.denoiser, made.sampler
  loop.train(made, str(tmp_path / "run"), quiet=True)
  found = evaluation.evaluate_run(str(tmp_path / "run"), quiet=True)
  assert np.isfinite(found["held_out_loss"]) and found["left_out"] == {}
  status, said, err = sample(tmp_path / "run")
  assert status == 2 and said == "" and "no posterior mean" in err and err.count("\n") == 1


def test_super_resolution_is_told_the_right_small_image(tmp_path):
  """x is its small image, enlarged, and the network says just that: so samples are the held-out records."""
  small = RNG.integers(0, 256, (120, 2, 2, 1)).astype(np.uint8)
  data = saved(tmp_path, "pairs", x=small.repeat(2, axis=1).repeat(2, axis=2), low_resolution=small)
  made = config(data | dict(condition=("low_resolution",)), rate=1e-9, factory=f"{__name__}.Upsampled")
  made.denoiser = dict(factory="denoisers.x0", time_input="t")
  found, drawn = through_all(made, tmp_path / "run")
  assert found["held_out_loss"] < 1e-6 and found["left_out"] == {}
  held = load(npz(data["path"], condition=("low_resolution",), held_out=0.2).held_out)
  np.testing.assert_array_equal(drawn["low_resolution"], held["low_resolution"][:12])
  np.testing.assert_array_equal(drawn["stored"], held["x"][:12])
  with np.load(tmp_path / "run" / "samples.npz") as kept:
    np.testing.assert_array_equal(kept["stored"], held["x"][:12])
  status, _, err = sample(tmp_path / "run", "--task=inpaint", "--mask=half")
  assert status == 2 and "low_resolution" in err and err.count("\n") == 1


@pytest.mark.slow
def test_tokens_and_vectors_are_told_by_name(tmp_path):
  """Embedded tokens and a real vector beside a class: learning lowers the loss, samples keep what they were
  told."""
  tokens = RNG.integers(0, 12, (120, 3)).astype(np.int64)
  x = np.stack([tokens.mean(1), tokens[:, 0]], 1) + 0.01 * REAL(2)
  data = saved(tmp_path, "told", x=x, tokens=tokens, vector=1000.0 + REAL(4), label=LABEL)
  data |= dict(condition=("tokens", "vector"))
  made = config(data, rate=1e-2, factory=f"{__name__}.Reader")
  found, drawn = through_all(made, tmp_path / "run")
  assert found["left_out"] == {} and np.isfinite(found["nats_per_dim"])
  held = load(npz(data["path"], condition=data["condition"], held_out=0.2).held_out)
  np.testing.assert_array_equal(drawn["tokens"], held["tokens"][:12])
  np.testing.assert_array_equal(drawn["vector"], held["vector"][:12])
  assert "label" not in drawn  # the condition does not name it


@pytest.mark.slow
def test_pairs_reach_the_objective(tmp_path):
  """x1 = x + 2 in the data's units: both halves are scaled alike, and a bias learns the one velocity."""
  x = REAL(3)
  data = saved(tmp_path, "halves", x=x, target=x + 2.0) | dict(pair="target")
  made = config(data, rate=3e-2, factory="networks.MLP", width=8, depth=1)
  made.process = dict(factory="processes.rectified_flow")
  made.denoiser = dict(factory="denoisers.velocity")
  made.loss = dict(factory=f"{__name__}.between_halves")
  dataset = npz(data["path"], pair="target")
  batch = next(stream(dataset, 16, 0, num_threads=0))
  np.testing.assert_allclose((batch["x1"] - batch["x"]) * dataset.scaling.std, 2.0, rtol=1e-5)
  found, drawn = through_all(made, tmp_path / "run")
  assert found["held_out_loss"] < 0.5 * (2.0 / dataset.scaling.std) ** 2 and drawn["stored"].shape == (12, 3)


MISTAKES = {
  "guidance without classes": (dict(sampler__guidance=0.5), 0, "needs a model with classes"),
  "guidance without dropout": (
    dict(sampler__guidance=0.5, loss__condition_dropout=0.0),
    3,
    "no condition dropout.*config.loss.condition_dropout=0.1",
  ),
  "guidance in words": (dict(sampler__guidance="much"), 3, "guidance is a number"),
  "interval as a number": (dict(sampler__guidance=0.5, sampler__interval=0.5), 3, "two noise levels"),
  "interval upside down": (dict(sampler__guidance=0.5, sampler__interval=(2.0, 1.0)), 3, "low < high"),
  "misspelt key": (dict(evaluation__num_sample=24), 0, "num_sample .did you mean 'num_samples'"),
  "one sample": (dict(evaluation__num_samples=1), 0, "num_samples must be a whole number from 2 on"),
  "batch of none": (dict(evaluation__batch=0), 0, "batch must be a whole number from 1 on"),
  "half a batch": (dict(evaluation__batch=0.5), 0, "batch must be a whole number"),
  "own without a factory": (dict(evaluation__own=dict(scale=1.0)), 0, "must be a section with a factory"),
  "own of another name": (
    dict(evaluation__own=dict(factory="measuring.cores", scale=1.0)),
    0,
    "config.evaluation.own",
  ),
  "solver": (dict(sampler__solver="huen"), 0, "did you mean 'heun'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_the_time_after_training_come_before_it(mistake, tmp_path):
  changes, classes, words = MISTAKES[mistake]
  made = config(saved(tmp_path, "data", x=PIXELS, label=LABEL) | dict(num_classes=classes), classes)
  with made.unlocked(), made.ignore_type():
    for key, value in changes.items():
      section, name = key.split("__")
      made[section][name] = value
  with pytest.raises(UserError, match=words):
    loop.train(made, str(tmp_path / "run"), quiet=True)
  assert not (tmp_path / "run").exists()


def test_what_a_run_never_saw_is_not_sampled(tmp_path):
  made = config(saved(tmp_path, "data", x=PIXELS, label=2 * (LABEL % 2)), 3)
  made.loss.condition_dropout = 0.0
  loop.train(made, str(tmp_path / "run"), quiet=True)
  for flags, words in (
    (("--label=-1",), "never saw a record without its class"),
    (("--label=0", "--guidance=2"), "trained without its condition"),
    (("--label=1",), "no training record has this class"),
    (("--task=inpaint", "--mask=half"), "--task=inpaint without --label asks for samples of no class"),
  ):
    status, said, err = sample(tmp_path / "run", *flags)
    assert status == 2 and said == "" and words in err and err.count("\n") == 1, err


@pytest.mark.slow
def test_a_failing_part_fails_alone(tmp_path, monkeypatch):
  """A picture that cannot be drawn is left out; a bug is raised when the rest is written."""
  made = config(saved(tmp_path, "data", x=PIXELS))
  loop.train(made, str(tmp_path / "run"), quiet=True)

  def broken(*args, **options):
    raise RuntimeError("no ink")

  monkeypatch.setattr(evaluation.figures, "draw_samples", broken)
  found = evaluation.evaluate_run(str(tmp_path / "run"), quiet=True)
  assert found["left_out"] == {"samples.png": "RuntimeError: no ink"} and "bits_per_dim" in found
  assert "left out              samples.png: RuntimeError: no ink" in evaluation.report(found)
  monkeypatch.setattr(evaluation.held_out, "held_out_loss", broken)
  with pytest.raises(RuntimeError, match="no ink"):
    evaluation.evaluate_run(str(tmp_path / "run"), quiet=True)
  found = json.loads((tmp_path / "run" / "metrics.json").read_text())
  assert found["left_out"]["held_out_loss"] == "RuntimeError: no ink" and "bits_per_dim" in found
