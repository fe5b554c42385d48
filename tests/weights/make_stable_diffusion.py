"""Writes `recorded_stable_diffusion.npz`: what diffusers 0.42 and transformers 5.24 give, tokens included.

Run in an environment with `diffusers==0.42.0 transformers==5.24.0 tokenizers==0.23.3 torch==2.14.1`; the
tests need none of them but tokenizers:

  python tests/weights/make_stable_diffusion.py

Weights are drawn by `diffusers_networks.draw` from the names in the original's own state dict, those of the
text encoder with the 'text_model.' that published files have before them.
"""

import json
import pathlib
import tempfile

import diffusers
import numpy as np
import stable_diffusion_cases as case
import tokenizers
import torch
import transformers
from make_diffusers_networks import PARTS, chw, drawn, hwc, watched

PARTS |= {"layers"}


def drawn_clip(config):
  """A text encoder with drawn weights, and {published name: shape}."""
  module = transformers.CLIPTextModel(transformers.CLIPTextConfig(**config))
  names = {name: f"text_model.{name.removeprefix('text_model.')}" for name in module.state_dict()}
  state = {
    name: torch.from_numpy(case.draw(names[name], tuple(leaf.shape)))
    for name, leaf in module.state_dict().items()
  }
  module.load_state_dict(state)
  return module.eval(), {names[name]: list(leaf.shape) for name, leaf in state.items()}


def record(kept, name, module, run):
  found, outputs = watched(module, ("",) if name in case.WITH_BLOCKS else (), run)
  kept[f"{name}/output"] = hwc(found)
  kept.update({f"{name}/block/{block}": case.thinned(h) for block, h in outputs.items()})


def pipeline(name, unet, text_encoder, folder):
  """diffusers' own pipeline of these parts."""
  vae = diffusers.AutoencoderKL(
    block_out_channels=(8, 8, 8, 8),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    norm_num_groups=4,
  )
  scheduler = case.PIPELINES[name][1]
  return diffusers.StableDiffusionPipeline(
    vae,
    text_encoder,
    transformers.CLIPTokenizer.from_pretrained(folder),
    unet,
    getattr(diffusers, scheduler["_class_name"]).from_config(scheduler),
    None,
    None,
    requires_safety_checker=False,
  )


def main():
  torch.manual_seed(0)
  kept, names, unets, clips = {}, {}, {}, {}
  for name, config in case.UNETS.items():
    unets[name], names[name] = drawn(diffusers.UNet2DConditionModel.from_config(config))
    x, t, cond = case.unet_inputs(name)
    text = torch.from_numpy(cond["text"])
    record(kept, name, unets[name], lambda: unets[name](chw(x), torch.from_numpy(t), text).sample)
  for name, config in case.CLIPS.items():
    clips[name], names[name] = drawn_clip(config)
    tokens = torch.from_numpy(case.clip_inputs()).long()
    record(kept, name, clips[name], lambda: clips[name](tokens).last_hidden_state)
  with tempfile.TemporaryDirectory() as work:
    for way in case.WAYS:
      folder = case.write_tokenizer(pathlib.Path(work) / way, way)
      made = transformers.CLIPTokenizer.from_pretrained(folder)
      length = min(made.model_max_length, 77)
      rows = made(case.PROMPTS, padding="max_length", max_length=length, truncation=True).input_ids
      kept[f"tokens/{way}"] = np.array(rows, np.int32)
    for name, (clip, _) in case.PIPELINES.items():
      whole = pipeline(name, unets[name], clips[clip], pathlib.Path(work) / name)
      with torch.no_grad():
        found = whole(
          ["the red cat", "a photo!"],
          height=64,
          width=64,
          num_inference_steps=case.STEPS,
          guidance_scale=case.SCALE,
          latents=chw(case.latents(name)),
          output_type="latent",
        ).images
        prompts, _ = whole.encode_prompt(["the red cat", "a photo!"], "cpu", 1, False)
      kept[f"{name}/sample"], kept[f"{name}/prompts"] = hwc(found), hwc(prompts)
  kept["names"] = np.frombuffer(json.dumps(names).encode(), np.uint8)
  kept["versions"] = np.array([f"{one.__name__} {one.__version__}" for one in MADE_BY])
  np.savez_compressed(case.FILE, **kept)
  print(len(kept), case.FILE.stat().st_size, kept["versions"])


MADE_BY = (diffusers, transformers, tokenizers, torch)

if __name__ == "__main__":
  main()
