"""Published models by their files: what is loaded is what its parts are, and is sampled as its authors do."""

import json
import pathlib

import diffusers_networks as case
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorded_pairs

from diffusion import guidance, processes, sampling, solvers, weights
from diffusion.config.errors import UserError
from diffusion.weights.architectures import dit_files, edm, scheduler, unet2d
from tests import scripts

HERE = pathlib.Path(__file__).parent
RECORDED = json.loads(np.load(case.FILE)["names"].tobytes())
DDIM = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "clip_sample": False}


def arrays_of(name):
  return {one: case.draw(one, tuple(shape)) for one, shape in RECORDED[name].items()}


def pipeline(folder, part, config, arrays, scheduler=DDIM):
  """A folder as diffusers saves a pipeline."""
  for name in (part, "scheduler"):
    (folder / name).mkdir(parents=True)
  (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDIMPipeline"}))
  (folder / part / "config.json").write_text(json.dumps(config))
  weights.write_safetensors(str(folder / part / "diffusion_pytorch_model.safetensors"), arrays)
  if scheduler is not None:
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
  return folder


def same(one, other, shape, cond=None):
  """Whether two denoisers say the same bits."""
  x = jnp.asarray(case.numbers(0, 2, *shape))
  t = jnp.full((2,), 0.4 * float(one.process.t_max), jnp.float32)
  ask = jax.jit(lambda denoiser: denoiser(x, t, cond, views=("x0",)).x0)
  np.testing.assert_array_equal(ask(one), ask(other))


@pytest.mark.parametrize("name, prefix", [("edm", "model."), ("edm2", "unet.")])
def test_a_snapshot_of_edm(name, prefix):
  """The same as of the arrays that PyTorch read out of that file."""
  model = weights.load(HERE / "recorded" / f"{name}.pkl")
  found = recorded_pairs.expected(f"{name}.pkl")
  arrays = {key.removeprefix("ema."): value for key, value in found.items() if key.startswith("ema.")}
  assert any(key.startswith(prefix) for key in arrays)
  notes = weights.read(HERE / "recorded" / f"{name}.pkl").notes["tree"]["ema"]
  same(model.denoiser, edm.denoiser(notes, arrays), model.shape, {"label": jnp.array([0, -1])})
  assert (model.shape, model.classes) == {"edm": ((4, 4, 3), 4), "edm2": ((4, 4, 4), 3)}[name]
  assert model.sampler.num_steps == {"edm": 35, "edm2": 63}[name]
  start = model.denoiser.process.prior(jax.random.split(jax.random.key(0), 2), model.shape)
  x = solvers.sample(model.denoiser, model.sampler, start, cond={"label": jnp.array([1, 2])})
  assert x.shape == (2, *model.shape) and bool(jnp.all(jnp.isfinite(x)))


@pytest.mark.slow
def test_a_pipeline_of_diffusers(tmp_path):
  """By its folder, by the network's folder and by the file: the network and the scheduler beside it."""
  config, arrays = case.UNETS["ddpm"], arrays_of("ddpm")
  folder = pipeline(tmp_path / "ddpm", "unet", config, arrays)
  paths = (folder, folder / "unet", folder / "unet" / "diffusion_pytorch_model.safetensors")
  models = [weights.load(path) for path in paths]
  for model in models:
    same(model.denoiser, unet2d.denoiser(config, DDIM, arrays), model.shape)
    assert (model.shape, model.classes, model.format) == ((8, 8, 3), 0, "safetensors")
    assert model.sampler.num_steps == 50
  start = model.denoiser.process.prior(jax.random.split(jax.random.key(0), 2), model.shape)
  x = solvers.sample(model.denoiser, model.sampler, start)
  np.testing.assert_allclose(model.sampler.t[:2], [0.981, 0.961], rtol=1e-6)  # k = 980, 960: t = (k + 1)/1000
  assert x.shape == (2, 8, 8, 3) and bool(jnp.all(jnp.isfinite(x)))


def test_a_transformer_of_diffusers(tmp_path):
  config, arrays = case.DIT_DIFFUSERS["dit_diffusers"], arrays_of("dit_diffusers")
  model = weights.load(pipeline(tmp_path, "transformer", config, arrays, scheduler=None))
  expected = dit_files.denoiser(config, None, arrays)
  same(model.denoiser, expected, model.shape, {"label": jnp.array([0, -1])})
  assert model.classes == config["num_embeds_ada_norm"] and model.sampler is None


@pytest.mark.parametrize("name", scheduler.WITH_BETAS)
def test_a_network_and_its_sampler_are_of_one_process(name):
  """By the defaults of each class, which are not the same for all."""
  config = {"_class_name": name, "clip_sample": False}
  process, _ = scheduler.read(config)
  assert processes.difference(process, solvers.from_diffusers(config, 10)[0]) == ""


@pytest.mark.parametrize(
  "name", ["DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_a_zero_terminal_snr_is_that_of_the_scheduler(name):
  """abar by algorithm 1 of arXiv:2305.08891, with the floor that diffusers has where it has one."""
  config = {"_class_name": name, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
  config |= {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
  config |= {"clip_sample": False, "timestep_spacing": "trailing"}
  process, meaning = scheduler.read(config)
  assert processes.difference(process, solvers.from_diffusers(config, 10)[0]) == "" and meaning.kind == "v"
  root = np.sqrt(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
  root = (root - root[-1]) * root[0] / (root[0] - root[-1])
  floor = 0.0 if name in ("DDIMScheduler", "DDPMScheduler") else 2.0**-12
  np.testing.assert_allclose(float(process.marginal(1.0).alpha), floor, rtol=1e-4)
  np.testing.assert_allclose(float(process.marginal(0.6).alpha), root[599], rtol=1e-5)


def test_why_there_is_no_sampler_is_said(tmp_path):
  config, arrays = case.UNETS["ddpm"], arrays_of("ddpm")
  clipping = {"_class_name": "DDPMScheduler", "clip_sample": True}
  found = weights.load(pipeline(tmp_path / "one", "unet", config, arrays, clipping))
  assert found.sampler is None and "clip" in found.no_sampler
  found = weights.load(pipeline(tmp_path / "two", "unet", config, arrays, None))
  assert found.sampler is None and "no scheduler_config.json" in found.no_sampler
  found = weights.load(pipeline(tmp_path / "three", "unet", config, arrays))
  assert found.sampler is not None and found.no_sampler == ""


@pytest.mark.parametrize(
  "change, words",
  [
    (lambda config, arrays: config.update(_class_name="UNet3DModel"), ["of UNet3DModel", "UNet2DModel"]),
    (lambda config, arrays: config.pop("_class_name"), ["does not name", "EDM2"]),
    (lambda config, arrays: arrays.pop("conv_in.weight"), ["conv_in.weight"]),
    (lambda config, arrays: arrays.update(other=np.zeros(2, np.float32)), ["other"]),
    (lambda config, arrays: config.update(sample_size=None), ["sample_size"]),
  ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, change, words):
  config, arrays = dict(case.UNETS["ddpm"]), arrays_of("ddpm")
  change(config, arrays)
  folder = pipeline(tmp_path, "unet", config, arrays)
  with pytest.raises(UserError) as caught:
    weights.load(folder)
  assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value


def test_a_broken_scheduler_config_is_one_sentence(tmp_path):
  folder = pipeline(tmp_path, "unet", case.UNETS["ddpm"], arrays_of("ddpm"))
  (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": ')
  with pytest.raises(UserError, match="scheduler_config.json"):
    weights.load(folder)


VAE = "kl_no_attention"


def autoencoder(folder, change=()):
  """A folder as diffusers saves an AutoencoderKL."""
  config = case.AUTOENCODERS[VAE] | dict(_class_name="AutoencoderKL") | dict(change)
  folder.mkdir(parents=True)
  (folder / "config.json").write_text(json.dumps(config))
  arrays = arrays_of(VAE)
  weights.write_safetensors(str(folder / "diffusion_pytorch_model.safetensors"), arrays)
  return folder


def test_the_codec_of_a_pipeline(tmp_path):
  """Its own folder 'vae', or one that is named: what a pipeline of diffusers makes of the same latents."""
  config = case.DIT_DIFFUSERS["dit_diffusers"]
  folder = pipeline(tmp_path / "dit", "transformer", config, arrays_of("dit_diffusers"))
  assert weights.load(folder).codec is None and weights.load(folder).codec_params is None
  elsewhere = autoencoder(tmp_path / "elsewhere")
  (folder / "vae").symlink_to(elsewhere)
  models = [weights.load(folder), weights.load(folder / "transformer", codec=elsewhere)]
  x, z = case.kl_inputs(VAE)
  pairs = np.load(case.FILE)
  for model in models:
    found = jax.jit(model.codec.encode)(model.codec_params, x)
    wanted = pairs[f"{VAE}/mean"] * np.float32(0.18215)
    assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
    found = jax.jit(model.codec.decode)(model.codec_params, z * np.float32(0.18215))
    wanted = pairs[f"{VAE}/output"]
    assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
    assert found.shape[1:] == tuple(2 * n for n in z.shape[1:3]) + (3,)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.standard_promotion
def test_pictures_of_a_pipeline_on_the_command_line(tmp_path, monkeypatch):
  """Latents by the scheduler's own steps, guided, decoded to pictures twice as high, as levels in [-1, 1]."""
  folder = pipeline(
    tmp_path / "dit", "transformer", case.DIT_DIFFUSERS["dit_diffusers"], arrays_of("dit_diffusers")
  )
  autoencoder(folder / "vae")
  monkeypatch.chdir(tmp_path)
  script = scripts.module("sample")
  script.main(
    [f"--weights={folder}", "--num=2", "--batch=8", "--steps=2", "--guidance=1", "--quiet", "--out=two"]
  )
  found, model = np.load("two.npz"), weights.load(folder)
  _, sampler = solvers.from_diffusers(DDIM, 2)
  start, keys = sampling.draw_noise(model.denoiser.process, 0, jnp.arange(2), model.shape)
  guided = guidance.classifier_free(1.0)(model.denoiser)
  z = solvers.sample(guided, sampler, start, keys=keys, cond={"label": jnp.arange(2)})
  np.testing.assert_allclose(found["x"], z, rtol=1e-4, atol=1e-5)
  x = np.asarray(model.codec.decode(model.codec_params, z))
  levels = np.clip(np.round((x.astype(np.float64) + 1) * 127.5), 0, 255)
  assert found["stored"].shape == x.shape and np.abs(found["stored"] - levels).max() <= 1
  assert (tmp_path / "two.png").stat().st_size


def test_the_codec_of_edm2s_latents(tmp_path):
  """The autoencoder sees pictures in [0, 1]; raw latents are standardised by the snapshot's own numbers."""
  path = HERE / "recorded" / "edm2.pkl"
  model = weights.load(path, codec=autoencoder(tmp_path / "vae"))
  encoder = weights.read(path).load(["encoder.scale", "encoder.bias"])
  scale, bias = (encoder[f"encoder.{name}"].reshape(-1) for name in ("scale", "bias"))
  x, z = case.kl_inputs(VAE)
  pairs = np.load(case.FILE)
  found = jax.jit(model.codec.encode)(model.codec_params, 2 * x - 1)
  np.testing.assert_allclose(found, pairs[f"{VAE}/mean"] * scale + bias, rtol=1e-4, atol=1e-5)
  found = jax.jit(model.codec.decode)(model.codec_params, z * scale + bias)
  np.testing.assert_allclose(found, 2 * pairs[f"{VAE}/output"] - 1, rtol=1e-4, atol=1e-4)


def test_a_codec_that_does_not_fit_is_one_sentence(tmp_path):
  ddpm = pipeline(tmp_path / "ddpm", "unet", case.UNETS["ddpm"], arrays_of("ddpm"))
  with pytest.raises(UserError, match="has latents of 4 channels, and the network in .* takes 3: give codec"):
    weights.load(ddpm, codec=autoencoder(tmp_path / "vae"))
  with pytest.raises(UserError, match="has a config.json of VQModel beside it, and an AutoencoderKL is"):
    weights.load(ddpm, codec=autoencoder(tmp_path / "other", dict(_class_name="VQModel")))
  with pytest.raises(UserError, match="has no config.json beside it, and an AutoencoderKL is wanted: give"):
    weights.load(ddpm, codec=HERE / "recorded" / "edm.pkl")
  with pytest.raises(UserError, match="missing"):
    weights.load(ddpm, codec=tmp_path / "missing")
