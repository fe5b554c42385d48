"""The digits' way through an autoencoder: trained, encoded in the step, resumed, sampled, evaluated,
refused."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from test_kinds_of_data import config as of_data, sample

from diffusion import codecs, data, sampling
from diffusion.commands import evaluation
from diffusion.commands.evaluation import held_out
from diffusion.config.errors import UserError
from diffusion.run import loop, sharding, step as steps
from diffusion.run.opening import make_sampler, open_run
from diffusion.run.parts import assembly, codec
from diffusion.run.saved import checkpoints

pytestmark = pytest.mark.standard_promotion
SHAPE = (4, 4, 1)
MAKE_MESH = sharding.make_mesh
PIXELS = np.random.default_rng(0).integers(0, 256, (120, 4, 4, 1)).astype(np.uint8)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  """For one device in place of eight, and without optimisation."""
  jax.config.update("jax_disable_most_optimizations", True)
  with pytest.MonkeyPatch.context() as patch:
    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    patch.setattr(sharding, "make_mesh", one)
    yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with data, and a finished run of an autoencoder in 'autoencoder'."""
  found = tmp_path_factory.mktemp("codec")
  np.savez(found / "data.npz", x=PIXELS, label=np.arange(120) % 3)
  loop.train(autoencoder(found), str(found / "autoencoder"), quiet=True)
  return found


def source(folder):
  return dict(factory="data.npz", path=str(folder / "data.npz"), held_out=0.2)


def autoencoder(folder):
  made = of_data(source(folder), rate=1e-2)
  made.network = dict(factory="networks.AutoEncoder", shape=SHAPE, latent_shape=(5,), width=16, depth=1)
  made.loss = dict(factory="losses.reconstruction")
  del made.process, made.denoiser, made.sampler
  made.training.steps = 60
  return made


def latent(folder, **training):
  made = of_data(source(folder), classes=3)
  made.codec = dict(factory="codecs.autoencoder", run=str(folder / "autoencoder"))
  made.training.update(dict(steps=6, checkpoint_every=3, log_every=3, keep=3) | training)
  return made


def arrays(folder, step=None):
  return checkpoints.read_arrays(checkpoints.choose(str(folder / "checkpoints"), step))


def test_an_autoencoder_is_trained_and_evaluated_without_a_process(folder):
  log = [json.loads(line) for line in (folder / "autoencoder" / "log.jsonl").read_text().splitlines()]
  assert log[-1]["reconstruction_mse"] < 0.95 * log[0]["reconstruction_mse"]
  found = evaluation.evaluate_run(str(folder / "autoencoder"), quiet=True)
  assert np.isfinite(found["held_out_loss"]) and found["left_out"] == {}
  with pytest.raises(UserError, match="no solver samples from it"):
    make_sampler(open_run(str(folder / "autoencoder")))


@pytest.fixture(scope="module")
def run(folder):
  """The workdir of a trained model of latents."""
  loop.train(latent(folder), str(folder / "latent"), quiet=True)
  return folder / "latent"


@pytest.mark.slow
def test_weights_and_statistics_are_in_the_state(folder, run):
  network, statistics = arrays(run)["loss_state"]["fixed"]["codec"]
  (theirs,) = arrays(folder / "autoencoder")["emas"].values()
  assert jax.tree.structure(network) == jax.tree.structure(theirs)
  for mine, other in zip(jax.tree.leaves(network), jax.tree.leaves(theirs)):
    assert mine.tobytes() == other.tobytes()
  opened = open_run(str(run))
  dataset = opened.parts.dataset
  x = jnp.asarray(dataset.scaling.to_model(data.load(dataset.train)["x"]))
  raw = opened.parts.codec.parts[0].encode(network, x)
  assert opened.parts.shape == raw.shape[1:] == (5,)
  np.testing.assert_allclose([statistics["mean"], statistics["std"]], [raw.mean(), raw.std()], rtol=1e-5)
  z = opened.parts.codec.encode(opened.codec_params, x)
  np.testing.assert_allclose([z.mean(), z.std()], [0.0, 1.0], atol=1e-5)


def stepped(config, devices, accumulate=1):
  """(state, metrics) after two steps on so many devices, over which the state is split."""
  parts = assembly.assemble(codec.resolve(config, "", say=lambda text: None))
  mesh = MAKE_MESH(devices=jax.devices()[:devices])
  shapes = assembly.shape_state(parts)
  places = sharding.state_sharding(mesh, shapes, "fsdp")
  step = steps.make_step(
    assembly.players_of(parts),
    parts.roles,
    {},
    mesh=mesh,
    state_sharding=places,
    seed=1,
    accumulate=accumulate,
    encode=functools.partial(codec.encoded, parts.codec),
  )
  state = jax.jit(lambda: assembly.init_state(parts), out_shardings=places)()
  state = codec.load(parts.config, parts.codec, parts.dataset, state, say=lambda text: None)
  stream, history = data.stream(parts.dataset, 16, 1, num_threads=0), []
  for _, batch in zip(range(2), stream):
    state, metrics = step(state, sharding.put_batch(batch, mesh))
    history.append(jax.device_get(metrics))
  return jax.device_get(state), history


@pytest.mark.slow
@pytest.mark.slow
def test_the_step_is_that_of_encoded_data_on_any_number_of_devices_and_in_parts(folder):
  """By hand: a run whose data are the latents; eight devices; two parts of a batch."""
  made = latent(folder, ema_half_life_images=())
  state, history = stepped(made, 1)
  parts = assembly.assemble(codec.resolve(made, "", say=lambda text: None))
  plain = parts._replace(codec=None)
  batch = next(data.stream(parts.dataset, 16, 1, num_threads=0))
  x = parts.codec.encode(state.loss_state["fixed"]["codec"], jnp.asarray(batch["x"]))
  start = jax.jit(lambda: assembly.init_state(parts))()
  player = assembly.model_player(plain)
  value, _ = player.loss(
    *player.inputs(start), jnp.int32(0), jax.random.fold_in(jax.random.key(1), 0x7261696E), {**batch, "x": x}
  )
  np.testing.assert_allclose(history[0]["loss"], value, rtol=1e-5)
  for other, parted in ((8, 1), (1, 2)):
    again, records = stepped(made, other, parted)
    np.testing.assert_allclose(records[1]["loss"], history[1]["loss"], rtol=1e-5)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      again.params["model"],
      state.params["model"],
    )
  # What nothing trains is what it was.
  jax.tree.map(
    np.testing.assert_array_equal, again.loss_state["fixed"]["codec"], state.loss_state["fixed"]["codec"]
  )


def test_a_run_is_resumed_bit_for_bit_and_needs_the_autoencoder_no_more(folder, run):
  shutil.copytree(run, folder / "resumed")
  shutil.rmtree(checkpoints.path_of(str(folder / "resumed" / "checkpoints"), 6))
  (folder / "autoencoder").rename(folder / "elsewhere")
  try:
    loop.train(latent(folder), str(folder / "resumed"), quiet=True)
    first, second = arrays(run), arrays(folder / "resumed")
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
      assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    with pytest.raises(UserError, match="there is no run"):
      loop.train(latent(folder), str(folder / "new"), quiet=True)
    status, _, err = sample(folder / "resumed", "--num=3", f"--out={folder / 'three'}")
    assert (status, err) == (0, "")
  finally:
    (folder / "elsewhere").rename(folder / "autoencoder")


@pytest.mark.slow
def test_samples_are_decoded_and_evaluated_as_pixels(run):
  status, said, err = sample(run, "--num=12", f"--out={run / 'drawn'}")
  assert (status, err) == (0, "") and "12 samples" in said
  opened = open_run(str(run))
  with np.load(run / "drawn.npz") as drawn:
    assert drawn["x"].shape == (12, 5) and drawn["stored"].shape == (12, *SHAPE)
    assert drawn["stored"].dtype == np.uint8
    by_hand = opened.parts.codec.decode(opened.codec_params, jnp.asarray(drawn["x"]))
    off = drawn["stored"].astype(int) - opened.parts.dataset.scaling.to_data(np.asarray(by_hand)).astype(int)
    assert np.abs(off).max() <= 1  # compiled otherwise, a value in the middle may round to either side
    np.testing.assert_array_equal(opened.to_data(drawn["x"][:5]), drawn["stored"][:5])  # whatever the number
  found = evaluation.evaluate_run(str(run), quiet=True)
  assert all(np.isfinite(found[name]) for name in ("class_accuracy", "frechet_distance", "held_out_loss"))
  assert set(found["left_out"]) == {"bits_per_dim"}
  assert found["left_out"]["bits_per_dim"].startswith("the codec has no log_det: ")
  for picture in ("samples.png", "trajectory.png", "drawn.png"):
    assert (run / picture).stat().st_size > 500
  with np.load(run / "samples.npz") as kept:
    assert kept["stored"].shape == (12, *SHAPE)
  status, said, err = sample(run, "--num=6", f"--shards={run / 'shards'}", "--shard-size=6", "--batch=8")
  assert (status, err) == (0, "")
  (shard,) = (run / "shards").glob("*.npz")
  with np.load(shard) as kept:
    assert kept["stored"].shape == (6, *SHAPE)


FEW = ["--num=2", "--label=1", "--steps=2", "--quiet", "--batch=2"]


@pytest.mark.slow
def test_latents_that_are_no_picture_are_inpainted_through_the_decoder(run):
  status, said, err = sample(run, "--task=inpaint", "--draws=1", f"--out={run / 'half'}", *FEW)
  assert (status, err) == (0, "") and "pass back through the decoder and the network" in said
  with np.load(run / "half.npz") as found:
    assert found["x"].shape == (2, 1, 5) and found["stored"].shape == (2, 1, *SHAPE)
    np.testing.assert_array_equal(found["stored"][:, 0, :, :2], found["input"][:, :, :2])


def test_a_mask_says_nothing_of_latents_that_are_no_picture(run):
  for flags, word in (
    (["--task=edit", "--mask=half"], "leave it out"),
    (["--task=inpaint", "--method=replacement"], "take --method=dps or daps"),
  ):
    status, said, err = sample(run, *flags, *FEW)
    assert (status, said) == (2, "") and "no blocks of pictures" in err and word in err
    assert err.count("\n") == 1


def test_a_codec_with_a_log_det_has_the_likelihood_of_the_data(folder, tmp_path):
  """A network of zeros is the exact denoiser of N(0, 1), so N(mean, std) of the data: bits/dim is known."""
  made = of_data(source(folder), classes=3, rate=1e-12)
  made.data.dequantization = "uniform"
  made.codec = [dict(factory="codecs.scale", mean=0.2, std=3.0)]
  loop.train(made, str(tmp_path / "run"), quiet=True)
  opened = open_run(str(tmp_path / "run"))
  dataset = opened.parts.dataset
  held = data.load(dataset.held_out)
  found = held_out.held_out_likelihood(opened, held)
  scaling, statistics = dataset.scaling, opened.codec_params[1]
  mean = 0.2 + 3.0 * float(statistics["mean"])
  std = 3.0 * float(statistics["std"])
  x = scaling.to_model(held["x"], np.random.default_rng(1).random(held["x"].shape))
  nats = 0.5 * np.log(2 * np.pi) + 0.5 * np.mean(((x - mean) / std) ** 2) + np.log(std)
  # Other noise of dequantisation, the prior N(0, 20^2) for N(0, 1 + 20^2), and 24 steps for the flow.
  assert found["bits_per_dim"] == pytest.approx(nats / np.log(2) + scaling.bits_offset, abs=0.02)


def refused(made, folder):
  with pytest.raises(UserError) as error:
    loop.train(made, str(folder / "refused"), quiet=True)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_what_does_not_fit_is_one_sentence_before_anything_is_compiled(folder, run, monkeypatch, tmp_path):
  monkeypatch.setattr(steps, "make_step", None)
  with_codec = lambda **section: _with(folder, section)
  own = str(folder / "autoencoder")
  assert "did you mean 'run'" in refused(with_codec(factory="codecs.autoencoder", rnu=own), folder)
  assert "no run" in refused(with_codec(factory="codecs.autoencoder", run=str(tmp_path)), folder)
  assert "ema=7: this run has no average of half-life 7 images" in refused(
    with_codec(factory="codecs.autoencoder", run=own, ema=7), folder
  )
  assert "is no autoencoder" in refused(with_codec(factory="codecs.autoencoder", run=str(run)), folder)
  assert "did you mean 'scale'" in refused(with_codec(factory="codecs.scal"), folder)
  assert "is a section such as" in refused(_with(folder, "runs/autoencoder"), folder)
  other = latent(folder)
  other.data.dequantization = "uniform"
  assert "give both runs the same config.data" in refused(other, folder)
  np.savez(tmp_path / "wide.npz", x=PIXELS.repeat(2, 1), label=np.arange(120) % 3)
  other = latent(folder)
  other.data.path = str(tmp_path / "wide.npz")
  assert "trained on examples of shape [4, 4, 1], and these have [8, 4, 1]" in refused(other, folder)
  other = latent(folder)
  del other.process
  assert "no section 'process'" in refused(other, folder)
  other = autoencoder(folder)
  other.loss = dict(factory="losses.denoising_score_matching")
  assert "not of clean data" in refused(other, folder)


def _with(folder, section):
  made = latent(folder)
  with made.ignore_type():
    made.codec = ConfigDict(section) if isinstance(section, dict) else section
  return made


def test_several_codecs_are_a_chain(folder):
  made = latent(folder)
  dataset = assembly.assemble(codec.resolve(made, "", say=lambda text: None)).dataset
  with made.ignore_type():
    made.codec = [
      dict(factory="codecs.autoencoder", run=str(folder / "autoencoder")),
      dict(factory="codecs.identity"),
    ]
  found = codec.build(codec.resolve(made, "", say=lambda text: None), dataset)
  assert [type(part) for part in found.parts] == [codecs.Autoencoder, codecs.Identity, codecs.Standardize]
  assert found.shape_of(SHAPE) == (5,) and found.log_det is None


def test_sample_i_is_the_same_whatever_the_number(run):
  opened = open_run(str(run))
  denoiser, solver = make_sampler(opened)
  draw = lambda num: sampling.generate(denoiser, solver, opened.parts.shape, num, seed=3, batch=4)
  np.testing.assert_array_equal(opened.to_data(draw(3).x), opened.to_data(draw(9).x)[:3])
