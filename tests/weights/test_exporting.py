"""Folders as diffusers saves them: what is written is what was there, and diffusers computes the same."""

import functools
import json
import os
import pathlib

import diffusers_networks as case
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, processes, solvers, weights
from diffusion.commands import to_diffusers
from diffusion.config.errors import UserError
from diffusion.run import loop, sharding
from diffusion.weights import exporting
from diffusion.weights.architectures import autoencoder_kl, dit_files, scheduler, unet2d

ROOT = pathlib.Path(__file__).parents[2]
RECORDED = json.loads(np.load(case.FILE)["names"].tobytes())
TABLE = {"_class_name": "DDIMScheduler", "clip_sample": False}
CASES = {
  "ddpm": (unet2d, case.UNETS, "unet"),
  "kl_shifted": (autoencoder_kl, case.AUTOENCODERS, "vae"),
  "dit_diffusers": (dit_files, case.DIT_DIFFUSERS, "transformer"),
}


def arrays_of(name):
  return {one: case.draw(one, tuple(shape)) for one, shape in RECORDED[name].items()}


def of_diffusers(name):
  """(module, config as it states it, its parameters) of a case."""
  architecture, configs, _ = CASES[name]
  config, arrays = configs[name], arrays_of(name)
  if architecture is dit_files:
    module = dit_files.build(config, dit_files.copies_of(arrays, config), trained_in_diffusers=True)
  else:
    module = architecture.build(config)
  return module, module.diffusers_config, architecture.convert(arrays, config)


@pytest.mark.parametrize("name", CASES)
def test_a_network_says_its_config_and_its_file_comes_back_bit_for_bit(name, tmp_path):
  architecture, _, _ = CASES[name]
  module, config, params = of_diffusers(name)
  json.dumps(config)
  if architecture is not dit_files:
    assert architecture.build(config) == module
  exporting.write_network(str(tmp_path / "made"), config, exporting.arrays(params, config))
  found = weights.read(str(tmp_path / "made"))
  assert found.notes["config"]["_class_name"] == config["_class_name"]
  arrays = arrays_of(name)
  assert set(found.arrays) == set(arrays)
  for one, array in found.load().items():
    assert array.dtype == arrays[one].dtype
    np.testing.assert_array_equal(array, arrays[one])


def test_a_pipeline_is_loaded_as_it_was_written(tmp_path):
  _, config, params = of_diffusers("ddpm")
  _, own, codec = of_diffusers("kl_shifted")
  made = tmp_path / "pipeline"
  networks = {"unet": (config, exporting.arrays(params, config)), "vae": (own, exporting.arrays(codec, own))}
  process, meaning = scheduler.read(TABLE)
  exporting.write_pipeline(str(made), networks, scheduler.write(process, meaning))
  assert json.loads((made / "model_index.json").read_text())["unet"] == ["diffusers", "UNet2DModel"]
  model = weights.load(made)
  jax.tree.map(np.testing.assert_array_equal, model.denoiser.params, params)
  jax.tree.map(np.testing.assert_array_equal, model.codec_params, codec)
  assert processes.difference(model.denoiser.process, process) == "" and model.sampler is not None
  with pytest.raises(UserError, match="is there already and not empty"):
    exporting.write_pipeline(str(made), networks, TABLE)
  assert sorted(os.listdir(tmp_path)) == ["pipeline"]


def test_nothing_is_left_where_a_write_fails(tmp_path):
  with pytest.raises(ValueError, match="cannot be written as safetensors"):
    exporting.write_network(str(tmp_path / "made"), {"_class_name": "UNet2DModel"}, {"x": np.array(["text"])})
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  "process, meaning",
  [
    (processes.ddpm_ladder(), denoisers.eps(time_scale=1000.0, time_shift=-1.0)),
    (processes.ddpm_ladder(400), denoisers.v(time_scale=400.0, time_shift=-1.0)),
    (processes.vp_ladder(np.linspace(0.1, 0.4, 7) ** 2), denoisers.x0(time_scale=7.0, time_shift=-1.0)),
    (processes.rectified_flow(), denoisers.velocity(time_scale=1000.0)),
    (processes.edm(0.01, 1348.0), denoisers.score(time_input="t")),
  ],
)
def test_a_scheduler_is_written_and_read_back(process, meaning):
  config = json.loads(json.dumps(scheduler.write(process, meaning)))
  again, told = scheduler.read(config, levels=process.name == "edm")
  assert processes.difference(again, process) == ""
  assert (told.kind, told.time_input, float(told.time_scale), float(told.time_shift)) == (
    meaning.kind,
    meaning.time_input,
    float(meaning.time_scale),
    float(meaning.time_shift),
  )
  if config["_class_name"] != "ScoreSdeVeScheduler":
    assert processes.difference(solvers.from_diffusers(config, 5)[0], process) == ""


@pytest.mark.parametrize(
  "process, meaning",
  [
    (processes.vp_linear(), denoisers.eps(time_scale=1000.0, time_shift=-1.0)),
    (processes.ddpm_ladder(), denoisers.eps(time_scale=1000.0)),
    (processes.ddpm_ladder(), denoisers.edm()),
    (processes.rectified_flow(), denoisers.x0(time_scale=1000.0)),
  ],
)
def test_what_no_scheduler_says_is_refused(process, meaning):
  with pytest.raises(UserError, match=f"no scheduler of diffusers says the process '{process.name}'"):
    scheduler.write(process, meaning)


def test_another_function_of_the_same_weights_is_refused():
  module = dit_files.build(case.DIT_DIFFUSERS["dit_diffusers"])
  with pytest.raises(UserError, match="computes another function of these weights"):
    _ = module.diffusers_config
  with pytest.raises(UserError, match="the class 'VQModel' is not written here"):
    exporting.arrays({}, {"_class_name": "VQModel"})


@pytest.mark.parametrize("name", ["kl_no_attention", "kl_shifted"])
def test_an_encoder_of_one_deviation(name):
  """The same mean, and one deviation for all: of an encoder with and without its last 1x1 convolution."""
  config = case.AUTOENCODERS[name]
  network, params = autoencoder_kl.build(config), autoencoder_kl.convert(arrays_of(name), config)
  moments = jax.jit(lambda p: network.apply({"params": p}, case.kl_inputs(name)[0], method="moments"))
  mean, std = moments(autoencoder_kl.with_deviation(params, config, 0.1))
  np.testing.assert_array_equal(mean, moments(params)[0])
  np.testing.assert_allclose(std, 0.1, rtol=1e-6)
  assert std.std() == 0 or np.ptp(std) < 1e-7


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_diffusers_computes_the_same_of_a_network_trained_here(tmp_path, monkeypatch):
  """A class-conditional UNet2DModel of the digits, trained a few steps and written as the command does."""
  torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
  one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
  monkeypatch.setattr(sharding, "make_mesh", one)
  monkeypatch.syspath_prepend(ROOT)
  from configs import digits_diffusers

  config = digits_diffusers.get_config()
  config.training.update(dict(steps=4, checkpoint_every=4, batch_size=16))
  loop.train(config, str(tmp_path / "run"), quiet=True)
  assert "a pipeline of unet and DDIMScheduler" in to_diffusers.run(
    str(tmp_path / "run"), str(tmp_path / "made")
  )
  x, label = case.numbers(5, 4, 8, 8, 1), np.array([0, 3, 7, 9], np.int32)
  t = np.array([0, 250, 700, 999])
  net = diffusers.UNet2DModel.from_pretrained(f"{tmp_path}/made", subfolder="unet")
  with torch.no_grad():
    wanted = net(torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(t), torch.tensor(label)).sample.numpy()
  model = weights.load(tmp_path / "made")
  times = jnp.asarray((t + 1) / 1000, jnp.float32)
  found = jax.jit(lambda d: d(x, times, {"label": label}, views=("eps",)).eps)(model.denoiser)
  wanted = wanted.transpose(0, 2, 3, 1)
  assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
  steps = diffusers.DDIMScheduler.from_pretrained(f"{tmp_path}/made", subfolder="scheduler")
  abar = np.asarray(model.denoiser.process.marginal(times).alpha) ** 2
  np.testing.assert_allclose(abar, steps.alphas_cumprod.numpy()[t], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kl_shifted", "dit_diffusers"])
def test_diffusers_opens_the_other_networks(name, tmp_path):
  torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
  module, config, params = of_diffusers(name)
  exporting.write_network(str(tmp_path / "made"), config, exporting.arrays(params, config))
  net = getattr(diffusers, config["_class_name"]).from_pretrained(tmp_path / "made").eval()
  last = lambda a: a.transpose(0, 2, 3, 1)
  first = lambda a: torch.tensor(np.ascontiguousarray(a.transpose(0, 3, 1, 2)))
  with torch.no_grad():
    if name == "kl_shifted":
      x, z = case.kl_inputs(name)
      wanted = last(net.decode(first(z)).sample.numpy())
      found = jax.jit(lambda p: module.apply({"params": p}, z, method="decode"))(params)
    else:
      x, t, label = case.dit_inputs(name)
      wanted = last(net(first(x), torch.tensor(t), torch.tensor(label.astype(np.int64))).sample.numpy())
      none = module.shape.classes - 1
      cond = {"label": np.where(label == none, -1, label)}
      found = jax.jit(lambda p: module.apply({"params": p}, x, t, cond))(params)
  assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
