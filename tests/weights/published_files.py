"""A small file of every family with random weights, as its authors would save it."""

import json
import pathlib

import diffusers_networks as case
import numpy as np
import test_mean_flow
import test_openai
import test_score_sde
import test_score_sde_ddpm
import test_stable_diffusion as texts
from flax import serialization

from diffusion import weights

HERE = pathlib.Path(__file__).parent
DIFFUSERS = json.loads(np.load(case.FILE)["names"].tobytes())
DDIM = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "clip_sample": False}


def of_diffusers(folder, part, name, config):
  """The folder of a network as diffusers saves it, with its scheduler."""
  arrays = {one: case.draw(one, tuple(shape)) for one, shape in DIFFUSERS[name].items()}
  levels = config.get("time_embedding_type") == "fourier"
  for place, content in (
    (part, config),
    ("scheduler", {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50.0} if levels else DDIM),
  ):
    (folder / place).mkdir(parents=True)
    file = "scheduler_config.json" if place == "scheduler" else "config.json"
    (folder / place / file).write_text(json.dumps(content))
  weights.write_safetensors(str(folder / part / "diffusion_pytorch_model.safetensors"), arrays)
  (folder / "model_index.json").write_text("{}")
  return folder, None


def of_dit(folder, name):
  """The authors' file of a DiT or SiT, of which only the arrays are known."""
  arrays = {one: case.draw(one, tuple(shape)) for one, shape in DIFFUSERS[name].items()}
  arrays["pos_embed"] = np.load(case.FILE)[f"{name}/pos_embed"]
  path = str(folder / f"{name}.safetensors")
  weights.write_safetensors(path, arrays)
  return path, {
    "_class_name": {"dit": "DiT", "sit": "SiT"}[name],
    "num_heads": case.DIT_ORIGINAL[name]["num_heads"],
  }


def of_openai(folder, name):
  return test_openai.write(folder, name, test_openai.arrays(name)), test_openai.told(name)


def of_score_sde(folder, name):
  """A checkpoint of Flax: a msgpack of nested dicts."""
  tree: dict = {}
  for key, one in test_score_sde.checkpoint("flax", name).items():
    inside = tree
    for part in key.split(".")[:-1]:
      inside = inside.setdefault(part, {})
    inside[key.split(".")[-1]] = np.asarray(one, np.float32)
  path = folder / "checkpoint_8"
  path.write_bytes(serialization.msgpack_serialize(tree))
  model = test_score_sde_ddpm if name in test_score_sde.cases.OF_DDPM else test_score_sde
  return str(path), model.told(name)


def of_mean_flow(folder):
  path = str(folder / "meanflow.safetensors")
  weights.write_safetensors(path, {f"ema.{name}": one for name, one in test_mean_flow.arrays().items()})
  return path, {"num_heads": 2, "until": "now"}


FILES = {
  "EDMPrecond": lambda folder: (HERE / "recorded" / "edm.pkl", None),
  "Precond": lambda folder: (HERE / "recorded" / "edm2.pkl", None),
  "UNet2DModel": lambda folder: of_diffusers(folder, "unet", "ddpm", case.UNETS["ddpm"]),
  "UNet2DModel of levels": lambda folder: of_diffusers(
    folder, "unet", "ncsnpp", case.UNETS["ncsnpp"] | {"_class_name": "UNet2DModel"}
  ),
  "UNet2DConditionModel": lambda folder: (texts.pipeline(folder / "sd", "sd2"), None),
  "DiTTransformer2DModel": lambda folder: of_diffusers(
    folder, "transformer", "dit_diffusers", case.DIT_DIFFUSERS["dit_diffusers"]
  ),
  "DiT": lambda folder: of_dit(folder, "dit"),
  "SiT": lambda folder: of_dit(folder, "sit"),
  "UNetModel": lambda folder: of_openai(folder, "imagenet64"),
  "SuperResModel": lambda folder: of_openai(folder, "upsampler"),
  "KarrasDenoiser": lambda folder: of_openai(folder, "consistency"),
  "ncsnpp": lambda folder: of_score_sde(folder, "ncsnpp-ve"),
  "ddpm": lambda folder: of_score_sde(folder, "ddpm-vp"),
  "MeanFlow": of_mean_flow,
}
"""{model: folder -> (path, what is told)}; the others of EDM's classes differ in numbers alone."""
