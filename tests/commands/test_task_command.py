"""`sample.py --task=...` on small runs.

Every task, files in and out, exact costs, equal rows at any batch size, one sentence a mistake.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion import denoisers, pictures, solvers, tasks
from diffusion.commands import opened as opened_model
from diffusion.commands.tasks import classifying, flags as task_flags, inputs, rows, translating
from diffusion.commands.tasks.restoring import data_std, energy_score
from diffusion.config import loading
from diffusion.data import load
from diffusion.run.opening import open_run
from diffusion.run.parts import assembly
from diffusion.run.saved import checkpoints, workdir as workdirs
from tests import scripts
from tests.scripts import sample

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.standard_promotion


def untrained(folder, config):
  """A run of random weights: what a task does with a network does not depend on how good it is."""
  workdirs.claim(str(folder), config)
  state = jax.jit(lambda: assembly.init_state(assembly.assemble(config)))()
  leaves, tree = jax.tree.flatten(state)
  floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.ndim > 0
  leaves = [
    leaf + 0.1 * jax.random.normal(jax.random.key(i), leaf.shape, leaf.dtype) if floating(leaf) else leaf
    for i, leaf in enumerate(leaves)
  ]
  writer = checkpoints.Writer(workdirs.checkpoints(str(folder)))
  writer.save(
    jax.tree.unflatten(tree, leaves),
    {"step": 3, "examples": 96, "seconds": 0.0, "unlogged": 0},
    loading.to_json(config),
  )
  writer.close()
  return folder


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
  overrides = {"network.width": "16", "network.depth": "1", "training.batch_size": "32"}
  config = loading.load(str(ROOT / "configs" / "digits.py"), list(overrides.items()))
  return untrained(tmp_path_factory.mktemp("grey"), config)


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
  """4x4 images of three channels without classes."""
  folder = tmp_path_factory.mktemp("colour")
  np.savez(
    folder / "data.npz", x=np.random.default_rng(0).integers(0, 256, size=(40, 4, 4, 3)).astype(np.uint8)
  )
  config = loading.load(
    str(ROOT / "configs" / "digits.py"),
    list({"network.width": "16", "network.depth": "1", "network.num_classes": "0"}.items()),
  )
  config.unlock()
  config.data = dict(factory="data.npz", path=str(folder / "data.npz"))
  config.loss.condition_dropout = 0.0
  return untrained(folder, config)


@pytest.fixture(scope="module")
def elsewhere(grey, tmp_path_factory):
  """The grey run on a process with another prior."""
  folder = tmp_path_factory.mktemp("elsewhere") / "run"
  shutil.copytree(grey, folder)
  config = json.loads((folder / "config.json").read_text())
  config["process"]["sigma_max"] = 40.0
  (folder / "config.json").write_text(json.dumps(config))
  return folder


@functools.cache
def opened(*args, **more):
  """`open_run`, once a run, for tests in which nothing is sampled."""
  return open_run(*args, **more)


def ran(workdir, out, *flags):
  """(what it said, the arrays) of a call that must work and write a picture."""
  status, said, err = sample(f"--workdir={workdir}", f"--out={out}", *flags)
  assert (status, err) == (0, ""), err
  assert np.asarray(Image.open(f"{out}.png")).std() > 0
  wrote, _, rest = said.partition(f"wrote {out}.png")
  assert wrote.endswith("; ") and rest.endswith(f" and {out}.npz\n")
  found = np.load(f"{out}.npz")
  assert set(found.files) <= set(task_flags.ARRAYS)  # those that --help explains
  return said, found


SMALL = ("--num=3", "--draws=4", "--steps=3", "--batch=8")


def test_inpaint_keeps_what_is_known_and_gives_samples_mean_and_spread(grey, tmp_path):
  said, found = ran(grey, tmp_path / "deep" / "a", "--task=inpaint", "--method=ddrm", *SMALL)
  assert (
    "held-out images 0 to 2" in said and "3 denoiser calls a result, 36 network evaluations in all" in said
  )
  held = load(open_run(str(grey)).parts.dataset.held_out, 3)
  np.testing.assert_array_equal(found["input"], held["x"])
  np.testing.assert_array_equal(found["label"], held["label"])
  assert (
    found["mask"][:, 4:].all() and not found["mask"][:, :4].any() and found["stored"].shape == (3, 4, 8, 8, 1)
  )
  known = found["mask"] == 0
  # Without noise what is known comes back exactly, in every sample, and has no spread.
  np.testing.assert_array_equal(
    found["stored"][:, :, known], np.broadcast_to(held["x"][:, None][:, :, known], (3, 4, 32))
  )
  assert found["spread"][:, known].max() == 0 and found["spread"][:, ~known].min() > 0
  np.testing.assert_allclose(found["mean"], found["stored"].mean(1))
  np.testing.assert_allclose(found["measurement"][:, known], held["x"][:, known], atol=1e-5)
  assert f"energy score {energy_score(found['stored'], found['input']):.2f}" in said


def test_known_pixels_without_noise_are_put_back_and_noise_is_in_the_data_values(grey, tmp_path, monkeypatch):
  """Whatever was sampled. The deviation of 2 x 48 noises of 4 is within 1 of it with more than 99.9%
  confidence."""
  x = np.random.default_rng(0).normal(size=(2, 8, 8, 8, 1)).astype(np.float32)
  monkeypatch.setattr(rows, "run", lambda *args: ((x,), 1.0))
  monkeypatch.setattr(opened_model, "open_run", opened)
  flags = ("--task=inpaint", "--mask=box", "--num=2", "--draws=8")
  said, found = ran(grey, tmp_path / "a", *flags)
  known = found["mask"] == 0
  gap = (x - opened(str(grey)).parts.dataset.scaling.to_model(found["input"])[:, None])[:, :, known]
  assert (
    f"within {8.5 * np.sqrt(np.mean(gap**2)):.2g} (root mean square, in the data's values; its noise is 0), "
    "and then what is known was put back" in said
  )
  assert np.all(found["stored"][:, :, known] == found["input"][:, None][:, :, known])
  assert found["spread"][:, known].max() == 0 and np.all(found["mean"][:, known] == found["input"][:, known])
  np.testing.assert_array_equal(found["x"][:, :, ~known], x[:, :, ~known])
  assert f"wrote {tmp_path}/a.png (6 of 8 samples each) and" in said
  said, found = ran(grey, tmp_path / "b", *flags, "--noise=4")
  assert "its noise is 4)" in said and "put back" not in said
  np.testing.assert_array_equal(found["x"], x)
  assert abs((found["measurement"] - found["input"])[:, known].std() - 4.0) < 1.0


@pytest.mark.slow
def test_a_result_depends_on_seed_image_and_draw_alone(grey, tmp_path):
  flags = ("--task=inpaint", "--mask=random:0.5", "--noise=1", "--steps=3")
  _, whole = ran(grey, tmp_path / "a", *flags, "--num=3", "--draws=4", "--batch=8")
  _, other = ran(grey, tmp_path / "b", *flags, "--num=2", "--first=1", "--draws=3", "--batch=16")
  np.testing.assert_array_equal(other["index"], [1, 2])
  np.testing.assert_allclose(other["measurement"], whole["measurement"][1:], atol=1e-5)
  np.testing.assert_allclose(other["x"], whole["x"][1:, :3], atol=1e-4)
  edit = ("--task=edit", "--mask=box", "--repeats=2", "--label=3", "--guidance=1", "--steps=3")
  _, sweep = ran(grey, tmp_path / "d", *edit, "--strength", "0.2", "2", "--num=3", "--draws=4", "--batch=8")
  _, alone = ran(
    grey, tmp_path / "e", *edit, "--strength=2", "--num=1", "--first=2", "--draws=2", "--batch=16"
  )
  np.testing.assert_allclose(alone["x"][0, 0], sweep["x"][2, 1, :2], atol=1e-4)
  _, again = ran(grey, tmp_path / "c", *flags, "--num=3", "--draws=4", "--batch=8", "--seed=1")
  assert np.abs(again["x"] - whole["x"]).max() > 0.1 and not np.array_equal(again["mask"], whole["mask"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["daps", "pigdm", "replacement"])
def test_every_method_meets_the_measurement(grey, tmp_path, method):
  """All but dps, whose steps are as long as its residual and not to the measurement: see the next test."""
  said, found = ran(
    grey,
    tmp_path / "a",
    "--task=super_resolve",
    f"--method={method}",
    "--num=3",
    "--draws=2",
    "--steps=30",
    "--batch=8",
  )
  pooled = found["x"].reshape(3, 2, 4, 2, 4, 2, 1).mean((3, 5))
  scaling = open_run(str(grey)).parts.dataset.scaling
  np.testing.assert_allclose(
    rows.in_data_values(scaling, pooled),
    np.broadcast_to(found["measurement"][:, None], pooled.shape),
    atol=0.05,
  )
  assert ("pass back" in said) == (
    method == "pigdm"
  ) and "30 denoiser calls a result, 180 network evaluations in all" in said


@pytest.mark.slow
def test_dps_is_the_transform_of_the_library(grey, tmp_path):
  """The same noises and keys through the published `tasks.dps` and the executor give the samples of the
  command."""
  _, found = ran(
    grey,
    tmp_path / "a",
    "--task=super_resolve",
    "--method=dps",
    "--num=4",
    "--draws=2",
    "--steps=6",
    "--batch=8",
  )
  run = open_run(str(grey))
  process, dataset = run.denoiser.process, run.parts.dataset
  image, draw = jnp.repeat(jnp.arange(4), 2), jnp.tile(jnp.arange(2), 4)
  operator = tasks.super_resolution((8, 8, 1), 2)
  y = operator(jnp.asarray(dataset.scaling.to_model(found["input"])))[image]
  guided = tasks.dps(operator.replace(noise=0.01 * data_std(dataset)), y, normalized=True)(run.denoiser)
  noise = rows.prior(process, rows.keys(0, image, draw, rows.NOISE), (8, 8, 1))
  expected = solvers.sample(
    guided,
    solvers.build("dpmpp_2m_sde", process, 6),
    noise,
    keys=rows.keys(0, image, draw, rows.SOLVER),
    cond={"label": jnp.full(8, -1)},
  )
  np.testing.assert_allclose(found["x"].reshape(8, 8, 8, 1), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["eps", "x0"])
@pytest.mark.parametrize("name", ["vp_cosine", "ve", "subvp"])
def test_processes_without_signal_at_one_end_or_with_noise_at_the_other(tmp_path, name, kind):
  config = loading.load(
    str(ROOT / "configs" / "digits.py"), [("network.width", "16"), ("network.depth", "1")]
  )
  config.unlock()
  config.process = dict(factory=f"processes.{name}")
  config.denoiser = dict(factory=f"denoisers.{kind}", time_input="log_sigma", time_scale=0.25)
  folder, small = untrained(tmp_path / "run", config), ("--num=2", "--draws=2", "--steps=5", "--batch=8")
  ran(folder, tmp_path / "a", "--task=inpaint", *small)
  _, edited = ran(folder, tmp_path / "b", "--task=edit", "--mask=box", *small)
  np.testing.assert_array_equal(
    edited["stored"][..., edited["mask"] == 0],
    np.broadcast_to(edited["input"][:, None, None], edited["stored"].shape)[..., edited["mask"] == 0],
  )
  for method in ("ddrm", "daps"):
    status, said, err = sample(
      f"--workdir={folder}", "--task=inpaint", f"--method={method}", f"--out={tmp_path}/c", *small
    )
    if name == "ve":
      assert status == 2 and "keeps noise at t = 0" in err and err.count("\n") == 1
    else:
      assert (status, err) == (0, "") and "within" in said


@pytest.mark.slow
def test_a_small_or_grey_input_is_the_measurement_itself(grey, colour, tmp_path):
  small = np.random.default_rng(0).integers(0, 17, size=(2, 4, 4, 1))
  np.savez(tmp_path / "small.npz", stored=small)
  _, found = ran(
    grey,
    tmp_path / "a",
    "--task=super_resolve",
    "--method=ddrm",
    "--input",
    tmp_path / "small.npz",
    "--draws=2",
    "--steps=3",
    "--batch=8",
  )
  assert "input" not in found
  np.testing.assert_allclose(found["measurement"], small, atol=1e-5)
  Image.fromarray(np.full((4, 4), 100, np.uint8)).save(tmp_path / "grey.png")
  _, found = ran(
    colour,
    tmp_path / "b",
    "--task=colorize",
    "--method=ddrm",
    "--input",
    tmp_path / "grey.png",
    "--draws=2",
    "--steps=3",
    "--batch=8",
  )
  assert "input" not in found and found["stored"].shape == (1, 2, 4, 4, 3)
  np.testing.assert_allclose(
    rows.in_data_values(open_run(str(colour)).parts.dataset.scaling, found["x"]).mean(-1), 100, atol=1e-2
  )


@pytest.mark.slow
def test_colorize_measures_the_mean_of_the_channels(colour, tmp_path):
  said, found = ran(colour, tmp_path / "a", "--task=colorize", "--method=ddrm", *SMALL)
  np.testing.assert_allclose(
    found["measurement"], found["input"].astype(float).mean(-1, keepdims=True), atol=1e-3
  )
  assert "held-out images" in said and found["spread"].min() >= 0 and found["spread"].max() > 0


def test_edit_outside_the_mask_comes_back_exactly_whatever_the_strength(grey, tmp_path):
  said, found = ran(
    grey,
    tmp_path / "a",
    "--task=edit",
    "--mask=box",
    "--strength",
    "0.2",
    "2",
    "--repeats=2",
    "--label=3",
    "--guidance=1",
    *SMALL,
  )
  assert found["stored"].shape == (3, 2, 4, 8, 8, 1) and "outside the mask by 0 at the most" in said
  assert f"wrote {tmp_path}/a.png (1 of 4 results each) and" in said
  # Twice three steps, each of the conditional and the unconditional network, for three images, two strengths
  # and four draws.
  assert (
    "6 denoiser calls a result (12 network evaluations with guidance), 288 network evaluations in all" in said
  )
  outside = found["mask"] == 0
  changed = found["stored"].astype(int) - found["input"][:, None, None]
  assert not changed[..., outside].any()
  assert np.abs(changed[:, 0]).mean() < np.abs(changed[:, 1]).mean()


def test_an_edit_starts_where_help_says(grey, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(rows, "run", lambda *args: ((np.zeros((1, 1, 8, 8, 1), np.float32),), 1.0))
  monkeypatch.setattr(opened_model, "open_run", opened)
  _, found = ran(grey, tmp_path / "a", "--task=edit", "--num=1", "--draws=1")
  with pytest.raises(SystemExit):
    scripts.module("sample").parser().parse_args(["--help"])
  assert f"(default: {found['strength'].item():g}, what" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_edit_takes_pictures(grey, tmp_path):
  strokes = np.zeros((8, 8), np.uint8)
  strokes[:, 3:5] = 255
  Image.fromarray(strokes).save(tmp_path / "strokes.png")
  mask = np.zeros((8, 8), np.uint8)
  mask[:2] = 255
  Image.fromarray(mask).save(tmp_path / "mask.png")
  _, found = ran(
    grey,
    tmp_path / "a",
    "--task=edit",
    "--input",
    tmp_path / "strokes.png",
    f"--mask={tmp_path}/mask.png",
    "--draws=4",
    "--steps=3",
    "--batch=8",
  )
  np.testing.assert_array_equal(found["input"][0, ..., 0], np.where(strokes > 0, 16, 0))
  np.testing.assert_array_equal(
    found["stored"][0, 0, :, 2:], np.broadcast_to(found["input"][:, 2:], (4, 6, 8, 1))
  )


def test_translate_there_and_back(grey, tmp_path):
  said, found = ran(
    grey, tmp_path / "a", "--task=translate", "--to-label=3", "--num=3", "--steps=24", "--batch=8"
  )
  assert (
    "384 denoiser calls a result, 1,152 network evaluations in all" in said
    and "to class 3, and back in" in said
  )
  np.testing.assert_allclose(found["back"], found["input"], atol=0.05)


@pytest.mark.slow
def test_translation_to_another_run(grey, tmp_path):
  """A file without labels needs --label; the same weights as the other model make the same translation."""
  held = load(open_run(str(grey)).parts.dataset.held_out, 2)
  np.savez(tmp_path / "x.npz", x=held["x"])
  flags = ("--task=translate", "--to-label=3", "--input", tmp_path / "x.npz", "--steps=24", "--batch=8")
  status, _, err = sample(f"--workdir={grey}", *flags)
  assert status == 2 and "--label=CLASS" in err and err.count("\n") == 1
  there = open_run(str(grey))
  own = int(held["label"][1])
  said, found = ran(grey, tmp_path / "b", *flags, f"--label={own}", f"--other-workdir={grey}")
  assert f"to class 3 of {grey} at step 3, from {grey} at step 3, and back in" in said
  x = jnp.asarray(there.parts.dataset.scaling.to_model(held["x"]))
  ends = dict(source_cond={"label": jnp.full(2, own)}, target_cond={"label": jnp.full(2, 3)})
  np.testing.assert_allclose(
    found["x"], tasks.translate(there.denoiser, there.denoiser, x, num_steps=24, **ends).x, atol=1e-3
  )


def test_classify_at_any_batch_size(grey, tmp_path):
  said, found = ran(grey, tmp_path / "a", "--task=classify", "--num=5", "--draws=6", "--batch=8")
  assert (
    "60 denoiser calls a result, 300 network evaluations in all (10 classes at 6 noise levels)" in said
    and "of 5 right" in said
  )
  np.testing.assert_allclose(np.exp(found["log_prob"]).sum(1), 1.0, rtol=1e-5)
  right = int((found["log_prob"].argmax(1) == found["label"]).sum())
  assert f"; {right} of 5 right" in said
  _, other = ran(grey, tmp_path / "b", "--task=classify", "--num=2", "--first=3", "--draws=6", "--batch=16")
  np.testing.assert_allclose(other["log_prob"], found["log_prob"][3:], atol=1e-2)


def test_classify_is_the_exact_posterior_as_far_as_its_noise_levels_go(grey):
  """Classes N(m_c, v I), for which log p(c | x) is -|x - m_c|^2 / (2 v), and levels of sigma from 0.1 to 10
  give v (1 / (v + 0.1^2) - 1 / (v + 10^2)) of it.

  The slope of what is found over what is exact is 1; its standard error, from the noises that the classes
  share, is known too.
  """
  run, v, draws = opened(str(grey)), 4.0, 100
  train = load(run.parts.dataset.train)
  x = run.parts.dataset.scaling.to_model(train["x"])
  means = np.stack([x[train["label"] == c].mean(0) for c in range(10)])
  denoiser = denoisers.from_function(
    class_means, run.denoiser.process, denoisers.x0(), (jnp.asarray(means), v)
  )
  args = types.SimpleNamespace(input=None, first=0, num=100, draws=None, seed=0, batch=104, quiet=True)
  found = classifying.classify(args, {}, dataclasses.replace(run, denoiser=denoiser)).arrays
  centred = means.reshape(10, -1) - means.reshape(10, -1).mean(0)
  off = run.parts.dataset.scaling.to_model(found["input"]).reshape(100, 1, -1) - means.reshape(10, -1)
  exact = -0.5 * (1 / (v + 0.01) - 1 / (v + 100)) * np.sum(off**2, -1)
  measured, exact = (a - a.mean(1, keepdims=True) for a in (found["log_prob"], exact))
  slope = np.sum(measured * exact) / np.sum(exact**2)
  # Draw k adds w_k v s / (v + s^2)^2 eps_k . m_c to a class: w / (3 v) |.|^2 over all of them, with w = 2
  # log(100) / draws.
  error = np.sqrt(2 * np.log(100) / draws / (3 * v) * np.sum((exact @ centred) ** 2)) / np.sum(exact**2)
  assert error < 0.03 and abs(slope - 1) < 3.3 * error, (slope, error)


def class_means(params, x, sigma, cond):
  """x0 given x_t of classes N(m_c, v I) on EDM."""
  means, v = params
  mean, s2 = means[cond["label"]], (sigma**2)[:, None, None, None]
  return mean + v / (v + s2) * (x - mean)


@pytest.mark.parametrize(
  "flags, words",
  [
    (("--mask=half",), "together with --task"),
    (("--task=paint",), "invalid choice"),
    (("--task=inpaint", "--factor=2"), "it belongs to super_resolve"),
    (("--task=inpaint", "--shards=x"), "--shards means nothing to --task=inpaint"),
    (("--task=classify", "--guidance=1"), "--guidance means nothing to --task=classify"),
    (("--task=inpaint", "--guidance=1"), "--label=CLASS"),
    (("--task=inpaint", "--guidance=nan", "--label=1"), "--guidance=nan is no weight"),
    (("--guidance=inf",), "--guidance=inf is no weight"),
    (("--task=inpaint", "--interval", "0.1", "1"), "add --guidance=W"),
    (("--task=inpaint", "--out=/proc/x"), "--out=/proc/x cannot be written"),
    (("--task=inpaint", "--out={files}/text.txt/x"), "text.txt/x cannot be written"),
    (("--task=inpaint", "--out={files}/"), "is a folder and no file in it"),
    (("--out={files}/",), "is a folder and no file in it"),
    (("--task=edit", "--input", "{files}/black.png", "--out={files}/black"), "would write over"),
    (("--task=edit", "--mask={files}/thirds.npz", "--out={files}/thirds.png"), "would write over"),
    (("--task=inpaint", "--label=12"), "give 0 to 9"),
    (("--task=inpaint", "--draws=0"), "at least 1"),
    (("--task=inpaint", "--num=0"), "at least 1"),
    (("--task=inpaint", "--noise=-1"), "0 or more"),
    (("--task=inpaint", "--first=400"), "359 held-out images"),
    (("--task=inpaint", "--batch=12"), "multiple of 8"),
    (("--task=inpaint", "--mask=middle"), "neither half, box"),
    (("--task=inpaint", "--mask=random:2"), "between 0 and 1"),
    (("--task=inpaint", "--mask={files}/wide.png"), "has the size 4x8 and this model's images 8x8"),
    (("--task=inpaint", "--mask={files}/black.png"), "hides nothing"),
    (("--task=inpaint", "--mask={files}/thirds.npz"), "other values than 0 and 1"),
    (("--task=inpaint", "--mask={files}/small.npz"), "none called mask"),
    (("--task=inpaint", "--method=ddrm", "--solver=heun"), "a solver of its own"),
    (("--task=inpaint", "--method=ddrm", "--grid=karas"), "--grid=karas"),
    (("--task=inpaint", "--method=pigdm", "--solver=adaptive_sde"), "adaptive_sde"),
    (
      ("--task=inpaint", "--method=pigdm", "--solver=predictor_corrector"),
      "needs a solver that is one table",
    ),
    (("--task=inpaint", "--input", "{files}/none.png"), "there is no file"),
    (("--task=inpaint", "--input", "{files}/wide.png"), "has images of 4x8x1, and this model's are 8x8x1"),
    (("--task=inpaint", "--input", "{files}/text.png"), "not a readable image"),
    (("--task=inpaint", "--input", "{files}/text.npz"), "cannot be read as NPZ"),
    (("--task=inpaint", "--input", "{files}/text.txt"), "neither PNG, JPEG nor NPZ"),
    (("--task=inpaint", "--input", "{files}/loud.npz"), "go from 0 to 16"),
    (("--task=inpaint", "--input", "{files}/nan.npz"), "no finite numbers"),
    (("--task=inpaint", "--input", "{files}/labels.npz"), "one whole number an image"),
    (
      ("--task=inpaint", "--input", "{files}/high.npz"),
      "has the label 12: give whole numbers from 0 to 9, or -1",
    ),
    (("--task=inpaint", "--input", "{files}/named.npz"), "has the label three: give whole numbers"),
    (("--task=inpaint", "--input", "{files}/real.npz"), "has the label 2.7: give whole numbers"),
    (("--task=inpaint", "--input", "{files}/empty.npz"), "so there are none"),
    (("--task=inpaint", "--input", "{files}/bool.npz"), "images of the type bool"),
    (("--task=inpaint", "--input", "{files}/complex.npz"), "images of the type complex64"),
    (("--task=inpaint", "--mask={files}/colours.npz"), "differs from channel to channel"),
    (("--task=inpaint", "--input", "{files}/thirds.npz"), "none called stored or x"),
    (("--task=super_resolve", "--input", "{files}/small.npz", "{files}/black.png"), "different sizes"),
    (("--task=super_resolve", "--factor=3"), "no whole blocks of 3"),
    (("--task=colorize",), "needs a model of colour images"),
    (("--task=edit", "--strength=100"), "no noise level sigma/alpha of this model"),
    (("--task=edit", "--solver=adaptive_sde"), "starts a built-in solver"),
    (("--task=edit", "--solver=ddim", "--option=etta=1"), "etta"),
    (("--task=edit", "--solver=predictor_corrector"), "one table"),
    (("--task=translate",), "--to-label=CLASS"),
    (("--task=translate", "--other-workdir={colour}"), "needs one shape"),
    (("--task=translate", "--other-workdir={elsewhere}"), "do not share their latents"),
    (("--task=translate", "--to-label=12"), "--to-label=12 is not a class"),
  ],
  ids=lambda value: "_".join(value[:3]).replace("--", "") if isinstance(value, tuple) else "",
)
def test_each_mistake_is_one_sentence(grey, colour, elsewhere, files, flags, words, monkeypatch):
  monkeypatch.setattr(rows, "run", lambda *args: pytest.fail("sampling began"))
  monkeypatch.setattr(opened_model, "open_run", opened)
  monkeypatch.setattr(translating, "open_run", opened)
  status, said, err = sample(
    f"--workdir={grey}", *(flag.format(files=files, colour=colour, elsewhere=elsewhere) for flag in flags)
  )
  assert status == 2 and said == "" and words in err and err.count("\n") == 1 and "Traceback" not in err, err


@pytest.mark.parametrize(
  "flags, words",
  [
    (("--task=classify",), "needs a conditional model"),
    (("--task=inpaint", "--guidance=1", "--label=1"), "needs a model with classes"),
    (("--task=inpaint", "--label=1"), "this model has no classes"),
    (("--task=translate", "--other-workdir={colour}", "--guidance=1"), "needs a model with classes"),
    (("--task=translate", "--to-label=1"), "this model has no classes"),
  ],
)
def test_what_needs_a_conditional_model_says_so(colour, flags, words):
  status, said, err = sample(f"--workdir={colour}", *(flag.format(colour=colour) for flag in flags))
  assert status == 2 and said == "" and words in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Inputs that do not fit, each in its own way."""
  folder = tmp_path_factory.mktemp("files")
  Image.fromarray(np.zeros((4, 8), np.uint8)).save(folder / "wide.png")
  Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "black.png")
  for name in ("text.png", "text.npz", "text.txt"):
    (folder / name).write_text("no image")
  fine = np.zeros((2, 8, 8, 1), np.float32)
  np.savez(folder / "thirds.npz", mask=np.full((8, 8), 1 / 3))
  np.savez(folder / "small.npz", stored=np.zeros((2, 4, 4, 1)))
  np.savez(folder / "loud.npz", x=fine + 17)
  np.savez(folder / "nan.npz", x=fine + np.nan)
  np.savez(folder / "labels.npz", x=fine, label=np.zeros(3))
  for name, label in dict(high=[3, 12], named=["three", "3"], real=[3.0, 2.7]).items():
    np.savez(folder / f"{name}.npz", x=fine, label=label)
  np.savez(folder / "empty.npz", x=fine[:0])
  np.savez(folder / "bool.npz", x=fine > 0)
  np.savez(folder / "complex.npz", x=fine + 1j)
  np.savez(folder / "colours.npz", mask=np.eye(8)[..., None] * [1, 0, 0])
  return folder


@pytest.mark.slow
def test_points_have_no_pictures_to_restore(tmp_path):
  config = loading.load(
    str(ROOT / "configs" / "toy2d.py") + ":moons", [("network.width", "16"), ("network.depth", "1")]
  )
  status, _, err = sample(f"--workdir={untrained(tmp_path, config)}", "--task=inpaint")
  assert status == 2 and "have shape [2]" in err and err.count("\n") == 1


def test_data_std_is_that_of_the_model_values(grey):
  dataset = open_run(str(grey)).parts.dataset
  assert abs(data_std(dataset) - np.std(load(dataset.train)["x"] / 8.5)) < 1e-5  # 17 levels over [-1, 1]


def test_columns_of_pictures_must_have_as_many_rows(tmp_path):
  column = pictures.Column("a", np.zeros((2, 4, 4, 1)))
  with pytest.raises(ValueError, match="every column needs an image a row"):
    pictures.side_by_side(
      tmp_path / "x.png", [column, column._replace(images=np.zeros((3, 4, 4, 1)))], "title"
    )
  with pytest.raises(ValueError, match="do not fit each other"):
    pictures.class_bars(tmp_path / "x.png", np.zeros((2, 4, 4, 1)), np.zeros((2, 3)), ("a", "b"))


def test_the_energy_score_is_least_for_the_law_of_the_truth():
  """For unit normals in one dimension it is 1/sqrt(pi) (4,000 images: within 0.03 with more than 99.9%
  confidence), and more for any other spread or mean."""
  rng = np.random.default_rng(0)
  truth, samples = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 8, 1))
  right = energy_score(samples, truth)
  assert abs(right - 1 / np.sqrt(np.pi)) < 0.03
  assert (
    min(
      energy_score(0.3 * samples, truth),
      energy_score(2.5 * samples, truth),
      energy_score(samples + 1.0, truth),
    )
    > right + 0.05
  )


def test_files_are_read_as_they_look(tmp_path, grey):
  """Sixteen bits in their whole range, what is transparent as black, and one image as one."""
  dataset = opened(str(grey)).parts.dataset
  read = lambda name: inputs.read([str(tmp_path / name)], dataset, 0, None).stored
  ramp = np.linspace(0, 65535, 64).reshape(8, 8)
  Image.fromarray(ramp.round().astype(np.uint16)).save(tmp_path / "deep.png")
  np.testing.assert_allclose(
    read("deep.png")[0, ..., 0], ramp * 16 / 65535, atol=0.54
  )  # rounded to 256 and then to 17 values
  alpha = np.where(np.eye(8) > 0, 255, 0).astype(np.uint8)
  Image.fromarray(np.stack([np.full((8, 8), 255, np.uint8)] * 3 + [alpha], -1)).save(tmp_path / "clear.png")
  np.testing.assert_array_equal(read("clear.png")[0, ..., 0], 16 * np.eye(8))
  np.testing.assert_array_equal(inputs.mask(str(tmp_path / "clear.png"), (8, 8, 1))[..., 0], np.eye(8))
  np.savez(tmp_path / "one.npz", x=np.eye(8)[..., None])
  np.testing.assert_array_equal(read("one.npz"), np.eye(8)[None, ..., None])
  np.savez(tmp_path / "two.npz", x=np.stack([np.eye(8)] * 2))
  assert read("two.npz").shape == (2, 8, 8, 1)


def test_masks_hide_what_they_say():
  assert inputs.mask("random:0.25", (8, 8, 3), 1)[..., 0].sum() == 16
  np.testing.assert_array_equal(
    inputs.mask("random:0.25", (8, 8, 3), 1)[..., 0], inputs.mask("random:0.25", (8, 8, 1), 1)[..., 0]
  )
