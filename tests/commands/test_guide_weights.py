"""A second file of weights that guides a model as it is sampled: what the commands make of it."""

import dataclasses
import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from diffusion import guidance, sampling, solvers, weights
from diffusion.run import guide, loop, sharding
from diffusion.run.opening import make_sampler
from diffusion.run.published import open_weights
from tests.scripts import sample

HERE = pathlib.Path(__file__).parents[1] / "weights"
sys.path.insert(0, str(HERE))
import test_openai as openai  # noqa: E402 (of the folder beside this one)

EDM = HERE / "recorded" / "edm.pkl"
TOLD = {"image_size": 4, "noise_schedule": "cosine", "num_head_channels": 16, "use_new_attention_order": True}
pytestmark = pytest.mark.standard_promotion


@pytest.fixture(scope="module", autouse=True)
def one_device():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """A network with classes, a worse one, one without classes, and one of three classes."""
  folder, arrays = tmp_path_factory.mktemp("files"), openai.arrays("imagenet64")
  without = {name: one for name, one in arrays.items() if name != "label_emb.weight"}
  return {
    name: openai.write(folder, name, given)
    for name, given in {
      "good": arrays,
      "worse": {name: np.float32(0.9) * one for name, one in arrays.items()},
      "classless": without,
      "three": without | {"label_emb.weight": arrays["label_emb.weight"][:3]},
    }.items()
  }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worse", "classless"])
def test_it_is_autoguidance(files, name):
  """One call with the classes of the samples; a network without classes is told none."""
  model = open_weights(files["good"], told=TOLD)
  guided, _ = make_sampler(
    guided_by(model, files[name]), solver="ddim", steps=2, guidance=1.5, interval=(0.5, 50.0)
  )
  good, other = (weights.load(files[one], told=TOLD).denoiser for one in ("good", name))
  assert guided.cost == 2 and guided.weight == 1.5
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)
  t, cond = jnp.asarray([0.9, 0.02]), {"label": jnp.asarray([3, 0])}
  own = jax.jit(lambda denoiser, cond: denoiser(x, t, cond, views=("x0",)).x0)
  of_good, of_other = own(good, cond), own(other, cond if name == "worse" else None)
  inside = np.asarray(model.denoiser.process.level(t) > 0.5)[:, None, None, None]
  wanted = of_good + 1.5 * (of_good - of_other) * inside
  assert inside.ravel().tolist() == [True, False]
  np.testing.assert_allclose(own(guided, cond), wanted, rtol=2e-4, atol=2e-4)
  if name == "worse":
    by_hand = guidance.autoguidance(other, 1.5, (0.5, 50.0))(good)
    np.testing.assert_allclose(own(guided, cond), own(by_hand, cond), rtol=1e-6, atol=1e-6)


def guided_by(model, path):
  """An opened model with the guide of a file."""
  found = dataclasses.replace(model, guide=guide.open_guide(path, model, TOLD))
  assert found.identity != model.identity and path in found.said and found.record["guide_weights"] == path
  return found


@pytest.mark.slow
def test_the_command_samples_with_it(files, tmp_path, monkeypatch):
  """The numbers are those of `guidance.autoguidance` called by hand, and the sentence names the file."""
  monkeypatch.chdir(tmp_path)
  told = [f"--told={name}={value}" for name, value in TOLD.items()]
  flags = (f"--weights={files['good']}", *told, "--solver=ddim", "--steps=3", "--num=3", "--batch=8")
  status, said, err = sample(*flags, "--out=found", f"--guide-weights={files['worse']}", "--guidance=1.5")
  assert status == 0, err
  assert f"guided by {files['worse']}" in said and "6 network evaluations" in said
  good, worse = (weights.load(files[one], told=TOLD) for one in ("good", "worse"))
  denoiser = guidance.autoguidance(worse.denoiser, 1.5)(good.denoiser)
  solver = solvers.build("ddim", good.denoiser.process, 3)
  labels = lambda index: index % 5
  by_hand = sampling.generate(denoiser, solver, good.shape, 3, labels=labels, batch=8)
  np.testing.assert_allclose(np.load("found.npz")["x"], by_hand.x, rtol=1e-5, atol=1e-5)

  # In shards, of which those of another guide are others.
  shards = (*flags, "--shard-size=8", "--shards=many", "--guidance=1.5")
  assert sample(*shards, f"--guide-weights={files['worse']}")[0] == 0
  status, _, err = sample(*shards, f"--guide-weights={files['classless']}")
  assert status != 0 and "many" in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_run_is_guided_by_a_file(tmp_path, monkeypatch):
  """A run that is the file's own model is guided by that model to nothing else, at twice the evaluations."""
  monkeypatch.chdir(tmp_path)
  numbers = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)
  np.savez("data.npz", x=numbers, label=np.arange(40) % 4)
  config = dict(
    seed=0,
    data=dict(factory="data.npz", path="data.npz"),
    **weights.sections(EDM),
    loss=dict(factory="losses.denoising_score_matching"),
    optimizer=dict(learning_rate=0.0),
    sampler=dict(solver="heun", steps=2),
    training=dict(
      batch_size=8, steps=1, ema_half_life_images=(100,), log_every=1, checkpoint_every=1, keep=1
    ) | dict(warm_start=dict(weights=str(EDM))),
  )  # fmt: skip
  loop.train(ml_collections.ConfigDict(config), "run", quiet=True)
  flags = ("--workdir=run", "--num=3", "--batch=8", "--seed=1")
  assert sample(*flags, "--out=plain")[0] == 0
  status, said, err = sample(*flags, f"--guide-weights={EDM}", "--guidance=1", "--out=guided")
  assert status == 0, err
  assert "3 denoiser calls" in said and "6 network evaluations" in said and f"guided by {EDM}" in said
  np.testing.assert_allclose(np.load("guided.npz")["x"], np.load("plain.npz")["x"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  "name, flags, words",
  [
    ("three", ("--guidance=1",), ["3 classes", "of 5", "same classes, or of none"]),
    ("worse", (), ["add --guidance=W"]),
    ("worse", ("--guidance=0",), ["other than 0"]),
    ("missing", ("--guidance=1",), ["missing"]),
  ],
)
def test_what_does_not_fit_is_one_sentence(files, tmp_path, monkeypatch, name, flags, words):
  monkeypatch.chdir(tmp_path)
  told = [f"--told={key}={value}" for key, value in TOLD.items()]
  path = files.get(name, "missing.safetensors")
  status, _, err = sample(f"--weights={files['good']}", *told, f"--guide-weights={path}", *flags)
  assert status != 0 and len(err.splitlines()) == 1 and all(word in err for word in words), err
  assert not list(tmp_path.iterdir()) or not list(tmp_path.rglob("*.npz"))


def test_another_process_or_shape_is_one_sentence(files):
  model = open_weights(files["good"], told=TOLD)
  with pytest.raises(guide.UserError, match="another process than"):
    guide.open_guide(files["worse"], model, TOLD | {"noise_schedule": "linear"})
  with pytest.raises(guide.UserError, match=r"samples of \[8, 8, 3\]"):
    guide.open_guide(files["worse"], model, TOLD | {"image_size": 8})
