"""An AutoencoderKL from a file as the codec of a run: trained, sampled, restored and edited in pixels."""

import functools
import hashlib
import json
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_kinds_of_data import config as of_data, sample

from diffusion import weights
from diffusion.commands import to_diffusers
from diffusion.commands.tasks.restoring import latent_std
from diffusion.config.errors import UserError
from diffusion.run import loop, sharding, step as steps
from diffusion.run.opening import open_run
from diffusion.run.parts import codec
from diffusion.run.saved import checkpoints

sys.path.append(str(pathlib.Path(__file__).parents[1] / "weights"))
import diffusers_networks as case

pytestmark = pytest.mark.standard_promotion
NAME, SHAPE = "kl_no_attention", (8, 8, 3)
FILE = "diffusion_pytorch_model.safetensors"
SHAPES = json.loads(np.load(case.FILE)["names"].tobytes())[NAME]
PIXELS = np.random.default_rng(0).integers(0, 256, (60, *SHAPE)).astype(np.uint8)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  """For one device in place of eight, and without optimisation."""
  jax.config.update("jax_disable_most_optimizations", True)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    yield
  jax.config.update("jax_disable_most_optimizations", False)


def autoencoder(folder, factor=1.0, **change):
  """A folder as diffusers saves an AutoencoderKL."""
  folder.mkdir(parents=True)
  config = case.AUTOENCODERS[NAME] | dict(_class_name="AutoencoderKL") | change
  (folder / "config.json").write_text(json.dumps(config))
  arrays = {one: np.float32(factor) * case.draw(one, tuple(shape)) for one, shape in SHAPES.items()}
  weights.write_safetensors(str(folder / FILE), arrays)
  return folder


def latent(folder, **section):
  made = of_data(dict(factory="data.npz", path=str(folder / "data.npz"), held_out=0.2), classes=3)
  made.loss.condition_dropout = 0.1
  with made.unlocked(), made.ignore_type():
    made.codec = dict(factory="weights.autoencoder_kl", path=str(folder / "vae")) | section
    made.training.update(dict(steps=2, checkpoint_every=1, log_every=2, keep=3))
  return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  found = tmp_path_factory.mktemp("published")
  np.savez(found / "data.npz", x=PIXELS, label=np.arange(60) % 3)
  autoencoder(found / "vae")
  return found


@pytest.fixture(scope="module")
def run(folder):
  loop.train(latent(folder), str(folder / "run"), quiet=True)
  return folder / "run"


@pytest.mark.slow
def test_the_run_says_which_file_and_keeps_its_weights(folder, run):
  saved = json.loads((run / "config.json").read_text())["codec"]["saved"]
  assert saved["sha256"] == hashlib.sha256((folder / "vae" / FILE).read_bytes()).hexdigest()
  assert saved["file"] == FILE and saved["config"]["_class_name"] == "AutoencoderKL"
  (kept,) = checkpoints.read_arrays(checkpoints.choose(str(run / "checkpoints"), None))["loss_state"][
    "fixed"
  ]["codec"]
  own, params = weights.autoencoders.load(folder / "vae")
  jax.tree.map(np.testing.assert_array_equal, kept, params)
  opened = open_run(str(run))
  x = np.asarray(case.numbers(0, 3, *SHAPE))
  z = jax.jit(own.encode)(params, x)
  assert opened.parts.shape == (4, 4, 4) == z.shape[1:]
  np.testing.assert_allclose(opened.encode(x), z, rtol=1e-4, atol=1e-5)  # scaled by its own factor alone
  np.testing.assert_allclose(
    opened.decode(np.asarray(z)), jax.jit(own.decode)(params, z), rtol=1e-4, atol=1e-4
  )
  mean, std = own.network.apply({"params": params}, x, method="moments")
  drawn = codec.encoded(opened.parts.codec, opened.codec_params, {"x": jnp.asarray(x)}, jax.random.key(1))[
    "x"
  ]
  noise = (drawn / 0.18215 - mean) / std  # what training sees is a draw of the encoder's Gaussian
  assert abs(float(noise.mean())) < 5 / np.sqrt(192) and abs(float(noise.std()) - 1) < 5 / np.sqrt(2 * 192)


def test_the_mean_where_it_is_asked_for_and_several_codecs(folder):
  made = latent(folder, sampled=False)
  with made.unlocked(), made.ignore_type():
    made.codec = [made.codec.to_dict(), dict(factory="codecs.standardize")]
  parts = loop.assembly.assemble(codec.resolve(made, "", say=lambda text: None))
  first, second = parts.codec.parts[:2]
  _, params = weights.autoencoders.load(folder / "vae")
  x = jnp.asarray(case.numbers(0, 2, *SHAPE))
  keys = jax.random.split(jax.random.key(0), 2)
  encode = jax.jit(first.encode)
  np.testing.assert_allclose(encode(params, x, keys), encode(params, x), rtol=1e-5, atol=1e-6)
  assert type(second).__name__ == "Standardize" and not first.sampled


@pytest.mark.slow
def test_a_file_that_is_gone_or_has_changed_is_said_and_the_run_goes_on(folder, run, capsys):
  shutil.copytree(run, folder / "again")
  shutil.rmtree(checkpoints.path_of(str(folder / "again" / "checkpoints"), 2))
  (folder / "vae").rename(folder / "elsewhere")
  try:
    loop.train(latent(folder), str(folder / "again"), quiet=True)
    said = capsys.readouterr().out
    assert "that file is gone or damaged, and this run goes on with the weights that it keeps" in said
    first, second = (
      checkpoints.read_arrays(checkpoints.path_of(str(one / "checkpoints"), 2))
      for one in (run, folder / "again")
    )
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
      assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    with pytest.raises(UserError, match=r"config.codec.path=.*vae"):
      loop.train(latent(folder), str(folder / "new"), quiet=True)
    autoencoder(folder / "vae", factor=2.0)
    loop.train(latent(folder), str(folder / "again"), quiet=True)
    assert "that file has changed since this run began" in capsys.readouterr().out
    shutil.rmtree(folder / "vae")
  finally:
    (folder / "elsewhere").rename(folder / "vae")


FEW = ["--num=2", "--draws=2", "--steps=3", "--quiet", "--batch=4"]


def inpainted(run, method):
  """Arrays of an inpainting, of which what is known is the input's and the rest is decoded."""
  flags = ["--task=inpaint", "--mask=box", f"--method={method}", f"--out={run / method}"]
  status, said, err = sample(run, *flags, *FEW)
  assert (status, err) == (0, "") and "put back exactly" in said
  with np.load(run / f"{method}.npz") as file:
    found = dict(file)
  kept = found["mask"] == 0
  assert found["x"].shape == (2, 2, 4, 4, 4) and found["stored"].shape == (2, 2, *SHAPE)
  for draw in range(2):
    np.testing.assert_array_equal(found["stored"][:, draw][:, kept], found["input"][:, kept])
  made = open_run(str(run)).to_data(found["x"].reshape(4, 4, 4, 4)).reshape(2, 2, *SHAPE)
  np.testing.assert_array_equal(found["stored"][..., ~kept], made[..., ~kept])
  return found


@pytest.mark.slow
def test_pictures_are_inpainted_in_pixels(run):
  opened = open_run(str(run))
  found = inpainted(run, "replacement")
  clean = opened.encode(opened.parts.dataset.scaling.to_model(found["input"]))
  for draw in range(2):  # latents that the mask leaves alone are those of the image
    np.testing.assert_allclose(found["x"][:, draw, 0], clean[:, 0], rtol=1e-3, atol=1e-3)
  train = np.stack([record["x"] for record in opened.parts.dataset.train])
  std = np.std(opened.encode(opened.parts.dataset.scaling.to_model(train)))
  assert latent_std(opened) == pytest.approx(std, rel=1e-5)


@pytest.mark.slow
def test_pictures_are_sampled_inpainted_through_the_decoder_and_edited(run):
  status, _, err = sample(run, "--num=3", f"--out={run / 'drawn'}")
  with np.load(run / "drawn.npz") as drawn:
    assert (status, err) == (0, "") and drawn["x"].shape == (3, 4, 4, 4)
    np.testing.assert_array_equal(open_run(str(run)).to_data(drawn["x"]), drawn["stored"])
  inpainted(run, "dps")
  inpainted(run, "daps")
  status, said, err = sample(
    run, "--task=edit", "--mask=half", "--strength=0.5", f"--out={run / 'edited'}", *FEW
  )
  assert (status, err) == (0, "") and "outside the mask by 0 at the most" in said
  with np.load(run / "edited.npz") as found:
    assert found["stored"].shape == (2, 1, 2, *SHAPE)
    assert np.any(found["stored"][..., 4:, :] != found["input"][:, None, None, :, 4:])
  for flags in (["--task=classify", "--draws=2"], ["--task=translate", "--to-label=1", "--steps=2"]):
    status, said, err = sample(run, *flags, "--num=2", "--quiet", f"--out={run / 'other'}")
    assert (status, err) == (0, "")
  with np.load(run / "other.npz") as found:
    assert found["x"].shape == (2, 4, 4, 4) and found["stored"].shape == found["back"].shape == (2, *SHAPE)


def refused(made, folder):
  with pytest.raises(UserError) as error:
    loop.train(made, str(folder / "refused"), quiet=True)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_what_does_not_fit_is_one_sentence_before_anything_is_compiled(folder, run, monkeypatch, tmp_path):
  monkeypatch.setattr(steps, "make_step", None)

  def of_shape(*shape, **data):
    np.savez(
      tmp_path / "other.npz",
      x=np.random.default_rng(1).integers(0, 256, (40, *shape)).astype(np.uint8),
      label=[0, 1] * 20,
    )
    made = latent(folder)
    with made.unlocked():
      made.data.update(dict(path=str(tmp_path / "other.npz")) | data)
    made.network.num_classes = 2
    return refused(made, folder)

  assert "size 7 x 8 does not fit an AutoencoderKL of 2 levels" in of_shape(7, 8, 3)
  assert "takes pictures of shape (height, width, 3)" in of_shape(8, 8, 1)
  assert "pictures in [-1, 1], and config.data gives 0 to 1: set config.data.centered=True" in of_shape(
    8, 8, 3, centered=False
  )
  made = latent(folder)
  published = dict(side=4, width=8, depth=1, num_heads=2, hidden=8, channels=3, channels_out=3, classes=4)
  with made.unlocked(), made.ignore_type():
    made.network = dict(
      factory="weights.architectures.dit.DiT",
      shape=dict(factory="weights.architectures.dit.Shape", **published),
    )
  assert "this DiT takes 3 channels, got x of shape (1, 4, 4, 4)" in refused(made, folder)
  assert "cannot be opened" in refused(latent(folder, path=str(tmp_path / "none")), folder)
  assert "config.codec.path is the file or folder" in refused(latent(folder, path=""), folder)
  assert "did you mean 'sampled'" in refused(latent(folder, samples=True), folder)
  other = autoencoder(tmp_path / "other", _class_name="VQModel")
  assert "has a config.json of VQModel beside it" in refused(latent(folder, path=str(other)), folder)
  other = autoencoder(tmp_path / "another", latent_channels=3)
  assert "in place of" in refused(latent(folder, path=str(other)), folder)
  status, said, err = sample(run, "--task=inpaint", "--method=pigdm")
  assert (status, said) == (2, "") and "take --method=dps or daps, or replacement" in err


def test_what_diffusers_does_not_have_is_not_written_for_it(run):
  with pytest.raises(UserError, match="is MLP, which diffusers does not have"):
    to_diffusers.run(str(run), str(run / "made"))
  status, said, err = sample(run, f"--to-diffusers={run / 'made'}")  # of a fixed batch
  assert (status, said) == (2, "") and "so --batch has no place" in err and err.count("\n") == 1
  assert not (run / "made").exists()


def test_latents_that_are_not_those_of_the_saved_file_are_refused(folder):
  made = codec.resolve(latent(folder), "", say=lambda text: None)
  with made.unlocked():
    made.codec.saved.sha256 = "0" * 64
  parts = loop.assembly.assemble(made)
  with pytest.raises(UserError, match="its sha256 is .* and config.codec.saved says 000"):
    codec.load(made, parts.codec, parts.dataset, None)
