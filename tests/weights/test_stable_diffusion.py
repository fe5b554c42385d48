"""Folders of Stable Diffusion: prompts to latents as diffusers' own pipeline makes them."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stable_diffusion_cases as case

from diffusion import guidance, sampling, solvers, weights
from diffusion.config.errors import UserError
from tests import scripts

HERE, ROOT = pathlib.Path(__file__).parent, pathlib.Path(__file__).parents[2]
RECORDED = np.load(case.FILE)
NAMES = json.loads(RECORDED["names"].tobytes())
PROMPTS = ["the red cat", "a photo!"]


def arrays_of(name):
  return {one: case.draw(one, tuple(shape)) for one, shape in NAMES[name].items()}


def pipeline(folder, name, clip=None):
  """A folder as diffusers saves a pipeline of Stable Diffusion."""
  text, scheduler = case.PIPELINES[name]
  text = clip or text
  parts = {"unet": case.UNETS[name], "text_encoder": case.CLIPS[text]}
  for part, config in parts.items():
    (folder / part).mkdir(parents=True)
    (folder / part / "config.json").write_text(json.dumps(config))
  write = lambda part, arrays: weights.write_safetensors(str(folder / part), arrays)
  write("unet/diffusion_pytorch_model.safetensors", arrays_of(name))
  write("text_encoder/model.safetensors", arrays_of(text))
  case.write_tokenizer(folder / "tokenizer", name)
  (folder / "scheduler").mkdir()
  (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
  (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
  return folder


def relative(found, wanted):
  """The norm of the difference over the norm."""
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("name", [pytest.param("sd1", marks=pytest.mark.slow), "sd2"])
def test_a_pipeline_gives_what_diffusers_gives(tmp_path, name):
  """Prompts, guidance and sampler: latents equal to those of StableDiffusionPipeline from the same noise."""
  model = weights.load(pipeline(tmp_path, name))
  assert (model.shape, model.classes, model.sampler.num_steps) == ((8, 8, 4), 0, {"sd1": 51, "sd2": 50}[name])
  assert model.denoiser.parameterization.kind == {"sd1": "eps", "sd2": "v"}[name]
  text = model.text.encode(PROMPTS)
  assert relative(text, RECORDED[f"{name}/prompts"]) < 1e-5
  _, sampler = solvers.from_diffusers(case.PIPELINES[name][1], case.STEPS)
  guided = guidance.classifier_free(case.SCALE - 1)(model.denoiser)
  found = solvers.sample(guided, sampler, jnp.asarray(case.latents(name)), cond={"text": text})
  assert relative(found, RECORDED[f"{name}/sample"]) < 1e-5


@pytest.mark.slow
def test_the_page_runs(tmp_path):
  """The block of docs/published.md about texts, with a small pipeline in the place of the published one."""
  page = (pathlib.Path(__file__).parents[2] / "docs" / "published.md").read_text()
  mark = r"<!-- run by tests/weights/test_stable_diffusion.py -->\n```py\n(.*?)```"
  (block,) = re.findall(mark, page, re.S)
  names = {}
  exec(block.replace("stable-diffusion-v1-5", str(pipeline(tmp_path, "sd1"))), names)
  assert names["latents"].shape == (2, 8, 8, 4) and bool(jnp.all(jnp.isfinite(names["latents"])))
  away = {"text": names["model"].text.encode(["blurry"] * 2)}
  guided = guidance.classifier_free(6.5, negative=away)(names["model"].denoiser)
  found = solvers.sample(guided, names["model"].sampler, names["start"], cond={"text": names["text"]})
  assert relative(found, np.asarray(names["latents"])) > 1e-3


def test_the_folder_of_the_network_alone(tmp_path):
  """Its text encoder is found beside it; without one a text must be given and zeros are told as they are."""
  folder = pipeline(tmp_path / "one", "sd1")
  model = weights.load(folder / "unet")
  np.testing.assert_array_equal(model.denoiser.collections["no_text"]["text"], model.text.encode([""])[0])
  (folder / "unet").rename(tmp_path / "unet")
  alone = weights.load(tmp_path / "unet")
  assert alone.text is None and alone.denoiser.collections == {}
  with pytest.raises(ValueError, match="is told a text"):
    jax.eval_shape(lambda: alone.denoiser(jnp.zeros((1, 8, 8, 4)), jnp.ones(1)))


@pytest.mark.parametrize(
  "clip, change, message",
  [
    ("clip2", None, "embeddings of width 12 and this UNet2DConditionModel reads those of width 8"),
    (None, ("tokenizer/vocab.json", None), "tokenizer has no tokenizer.json and not both of vocab.json"),
    (None, ("text_encoder/model.safetensors", None), "text_encoder has no weights under a name"),
    (None, ("text_encoder/config.json", {"model_type": "t5"}), "model_type='t5' is not known here"),
    (
      None,
      ("unet/config.json", case.SD1 | {"layers_per_block": 1}),
      "these arrays are not those of a UNet2DConditionModel",
    ),
    (None, ("unet/config.json", {"_class_name": "UNet3DConditionModel"}), "known are .*UNet2DConditionModel"),
  ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, clip, change, message):
  folder = pipeline(tmp_path, "sd1", clip)
  if change is not None:
    path, contents = folder / change[0], change[1]
    path.unlink() if contents is None else path.write_text(json.dumps(contents))
  with pytest.raises(UserError, match=message) as caught:
    weights.load(folder)
  assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.standard_promotion
def test_prompts_on_the_command_line(tmp_path, monkeypatch, capsys):
  """They take turns, and samples are those of the guided denoiser told their embeddings."""
  folder = pipeline(tmp_path / "sd", "sd2")
  monkeypatch.chdir(tmp_path)
  script = scripts.module("sample")
  flags = [f"--weights={folder}", "--num=3", "--batch=8", "--steps=2", "--guidance=2", "--quiet"]
  script.main([*flags, "--prompt", *PROMPTS])
  assert "4 network evaluations each with guidance counted" in capsys.readouterr().out
  (path,) = (tmp_path / "runs" / "sd").glob("*.npz")
  found = np.load(path)
  assert found["prompt"].tolist() == [PROMPTS[0], PROMPTS[1], PROMPTS[0]] and "text" not in found.files
  model = weights.load(folder)
  text = model.text.encode([*PROMPTS, *PROMPTS])[:3]
  _, sampler = solvers.from_diffusers(case.PIPELINES["sd2"][1], 2)
  start, keys = sampling.draw_noise(model.denoiser.process, 0, jnp.arange(3), model.shape)
  guided = guidance.classifier_free(2.0)(model.denoiser)
  wanted = solvers.sample(guided, sampler, start, keys=keys, cond={"text": text})
  assert relative(found["x"], np.asarray(wanted, np.float64)) < 1e-5
  with pytest.raises(UserError, match="no model that is told texts"):
    script.main([f"--weights={HERE / 'recorded' / 'edm.pkl'}", "--prompt", "a cat"])
