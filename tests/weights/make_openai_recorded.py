"""Records what the code of guided-diffusion and of consistency models gives for the cases of openai_cases.py.

  python tests/weights/make_openai_recorded.py GUIDED_DIFFUSION CONSISTENCY_MODELS

It is run by hand, with torch and NumPy alone. The arguments are checkouts of openai/guided-diffusion at
22e0df8 and of openai/consistency_models at e32b69e.

For each case: the output of the network, or of what is around it, the names and shapes of its arrays; of
some, the output of each block, and what the authors' sampler makes. Images are channels last, float32.

The attention of consistency models is a kernel of CUDA in half precision, flash_attn. In its place stands
their own QKVAttention in float32, which splits rows in the same order.
"""

import importlib
import inspect
import json
import lzma
import sys
import types

import numpy as np
import openai_cases as cases
import torch


def without(*names):
  """Modules that the originals import and that are not used here."""
  for name in names:
    module = sys.modules[name] = types.ModuleType(name)
    module.LPIPS = module.RandomCrop = module.MPI = lambda **_: None


def build(name, original):
  kind, given, _ = cases.CASES[name]
  if kind == "classifier":
    net = original.unet.EncoderUNetModel(**given, pool="attention").eval()
  elif kind == "super":
    net = original.unet.SuperResModel(**given).eval()
  else:
    net = original.unet.UNetModel(**given).eval()
  arrays = net.state_dict()
  with torch.no_grad():
    for key, value in arrays.items():
      value.copy_(torch.from_numpy(cases.weight(key, tuple(value.shape))))
  return net, {key: list(value.shape) for key, value in arrays.items()}


def last(value):
  """Channels last, float32."""
  return np.ascontiguousarray(np.moveaxis(value.detach().numpy(), 1, -1), np.float32)


def hear(net, found, name):
  """The first row of what each block gives; one with attention, after it."""
  for part in ("input_blocks", "middle_block", "output_blocks"):
    blocks = getattr(net, part, ())
    for i, block in enumerate([blocks] if part == "middle_block" else blocks):
      for j, layer in enumerate(block):
        if j + 1 < len(block) and type(block[j + 1]).__name__ == "AttentionBlock":
          continue
        where = f"{part}.{j}" if part == "middle_block" else f"{part}.{i}.{j}"
        note = lambda _, given, output, key=f"{name}/blocks/{where}": found.update({key: last(output[:1])})
        layer.register_forward_hook(note)


def conditions(given):
  """What the original is told beside the step, by its names."""
  small = {key: torch.from_numpy(given[key]).permute(0, 3, 1, 2) for key in ("low_res",) if key in given}
  return small | ({"y": torch.from_numpy(given["label"])} if "label" in given else {})


def record(name, original, found):
  """What the original gives for one case; returns the shapes of its arrays."""
  kind, _, around = cases.CASES[name]
  net, shapes = build(name, original)
  given = cases.inputs(name)
  x = torch.from_numpy(given["x"]).permute(0, 3, 1, 2).contiguous()
  y = conditions(given) if kind != "classifier" else {}
  if name in cases.BLOCKS:
    hear(net, found, name)
  with torch.no_grad():
    if kind == "karras":
      diffusion = original.karras_diffusion.KarrasDenoiser(sigma_data=0.5, **around)
      sigma = torch.from_numpy(given["sigma"])
      noised = x * (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1)
      found[f"{name}/out"] = last(diffusion.denoise(net, noised, sigma, **y)[1])
    elif kind in ("unet", "super"):
      found[f"{name}/out"] = last(net(x, torch.from_numpy(given["step"]), **y))
    else:
      found[f"{name}/out"] = net(x, torch.from_numpy(given["step"])).numpy()
  if kind == "classifier":
    found[f"{name}/gradient"] = gradient(net, x, given)
  return shapes


def gradient(net, x, given):
  """That of classifier_sample.py's cond_fn at scale one."""
  x = x.clone().requires_grad_(True)
  chosen = torch.log_softmax(net(x, torch.from_numpy(given["step"])), dim=-1)
  chosen = chosen[range(len(x)), torch.from_numpy(given["label"])]
  return last(torch.autograd.grad(chosen.sum(), x)[0])


def sample(name, original):
  """What the authors' sampler makes of noise with a network to which nobody listens; nothing is clipped."""
  kind, _, around = cases.CASES[name]
  net, _ = build(name, original)
  given = cases.inputs(name)
  x = torch.from_numpy(given["x"]).permute(0, 3, 1, 2).contiguous()
  y = {"y": torch.from_numpy(given["label"])} if "label" in given else {}
  if kind == "unet":
    diffusion = original.script_util.create_gaussian_diffusion(
      learn_sigma=True, timestep_respacing=f"ddim{cases.STRIDED}", **around
    )
    made = diffusion.ddim_sample_loop(
      net, x.shape, noise=x, clip_denoised=False, model_kwargs=y, device="cpu", progress=False
    )
    return last(made)
  k = original.karras_diffusion
  diffusion = k.KarrasDenoiser(sigma_data=0.5, **around)
  denoise = lambda x, sigma: diffusion.denoise(net, x, sigma, **y)[1]
  sigmas = k.get_sigmas_karras(cases.STRIDED, 0.002, 80.0, 7.0)
  how = k.sample_onestep if around["distillation"] else k.sample_heun
  with torch.no_grad():
    return last(how(denoise, 80.0 * x, sigmas, k.get_generator("dummy")))


def sample_at_random(name, original):
  """What the authors' p_sample_loop makes, clipped, with noises that are given."""
  net, _ = build(name, original)
  given, noises = cases.inputs(name), iter(cases.noises(name))
  x, y = torch.from_numpy(given["x"]).permute(0, 3, 1, 2).contiguous(), conditions(given)
  diffusion = original.script_util.create_gaussian_diffusion(
    learn_sigma=True, timestep_respacing=str(cases.STRIDED), **cases.CASES[name][2]
  )
  drawn, torch.randn_like = torch.randn_like, lambda _: torch.from_numpy(next(noises)).permute(0, 3, 1, 2)
  made = diffusion.p_sample_loop(net, x.shape, noise=x, model_kwargs=y, device="cpu", progress=False)
  torch.randn_like = drawn
  return last(made)


def published(originals):
  """{name: {array: shape}} of the published models; nothing is computed."""
  found = {}
  for name, flags in cases.PUBLISHED.items():
    original = originals["karras" if name.startswith(("edm_", "cd_")) else "unet"]
    with torch.device("meta"):
      if name.endswith("classifier"):
        defaults = original.script_util.classifier_defaults()
        net = original.script_util.create_classifier(**defaults | flags)
      elif name.endswith("upsampler"):
        defaults = original.script_util.sr_model_and_diffusion_defaults()
        names = inspect.getfullargspec(original.script_util.sr_create_model)[0]
        net = original.script_util.sr_create_model(
          **{key: one for key, one in (defaults | flags).items() if key in names}
        )
      else:
        net = original.script_util.create_model(**flags)
    found[name] = {key: list(value.shape) for key, value in net.state_dict().items()}
  return found


def guided_diffusion(checkout):
  sys.path.insert(0, checkout)
  parts = ("unet", "script_util")
  return types.SimpleNamespace(**{one: importlib.import_module(f"guided_diffusion.{one}") for one in parts})


def consistency_models(checkout):
  sys.path.insert(0, checkout)
  without("piq", "torchvision", "torchvision.transforms", "mpi4py", "blobfile")
  found = types.SimpleNamespace(
    **{one: importlib.import_module(f"cm.{one}") for one in ("unet", "karras_diffusion", "script_util")}
  )
  found.unet.QKVFlashAttention = lambda channels, heads: found.unet.QKVAttention(heads)
  return found


def main(guided, consistency):
  torch.set_num_threads(1)
  found, shapes = {}, {}
  originals = {"karras": consistency_models(consistency)}
  originals["unet"] = originals["classifier"] = originals["super"] = guided_diffusion(guided)
  for name, (kind, *_) in cases.CASES.items():
    shapes[name] = record(name, originals[kind], found)
    if name in cases.SAMPLED:
      found[f"{name}/sampled"] = sample(name, originals[kind])
    if name in cases.RANDOM:
      found[f"{name}/random"] = sample_at_random(name, originals[kind])
  about = {
    "shapes": shapes,
    "published": published(originals),
    "torch": torch.__version__,
    "numpy": np.__version__,
  }
  found["about"] = np.frombuffer(lzma.compress(json.dumps(about).encode()), np.uint8)
  np.savez_compressed(cases.RECORDED, **found)
  print(f"{len(found)} arrays, {cases.RECORDED.stat().st_size} bytes")


if __name__ == "__main__":
  main(*sys.argv[1:])
