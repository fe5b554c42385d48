"""Writes `recorded_diffusers_networks.npz`: what networks of diffusers 0.42, and DiT's and SiT's own, give.

Run in an environment with `diffusers==0.42.0 torch`, and with the `models.py` of facebookresearch/DiT (commit
ed81ce2) and of willisma/SiT (commit 947f95b); the tests need neither:

  python tests/weights/make_diffusers_networks.py DIT/models.py SIT/models.py

Those two import three modules of timm, which are written out here. Weights are drawn by
`diffusers_networks.draw` from the names in the original's own state dict, whose shapes are kept too.
"""

import importlib.util
import json
import sys
import types

import diffusers
import diffusers_networks as case
import numpy as np
import torch


class PatchEmbed(torch.nn.Module):
  """timm's: a convolution whose stride is its size, and tokens in reading order."""

  def __init__(self, img_size, patch_size, in_chans, embed_dim, bias=True):
    super().__init__()
    self.patch_size, self.num_patches = (patch_size, patch_size), (img_size // patch_size) ** 2
    self.proj = torch.nn.Conv2d(in_chans, embed_dim, patch_size, patch_size, bias=bias)

  def forward(self, x):
    return self.proj(x).flatten(2).transpose(1, 2)


class Attention(torch.nn.Module):
  """timm's: the rows of qkv are all of q, then k, then v, each by head."""

  def __init__(self, dim, num_heads, qkv_bias):
    super().__init__()
    self.num_heads = num_heads
    self.qkv, self.proj = torch.nn.Linear(dim, 3 * dim, bias=qkv_bias), torch.nn.Linear(dim, dim)

  def forward(self, x):
    b, n, c = x.shape
    q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
    weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
    return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class Mlp(torch.nn.Module):
  """timm's two dense layers."""

  def __init__(self, in_features, hidden_features, act_layer, drop):
    super().__init__()
    self.fc1, self.act = torch.nn.Linear(in_features, hidden_features), act_layer()
    self.fc2 = torch.nn.Linear(hidden_features, in_features)

  def forward(self, x):
    return self.fc2(self.act(self.fc1(x)))


def module_at(path, name):
  """The authors' file as a module."""
  timm = types.ModuleType("timm.models.vision_transformer")
  timm.PatchEmbed, timm.Attention, timm.Mlp = PatchEmbed, Attention, Mlp
  sys.modules.update({"timm": timm, "timm.models": timm, "timm.models.vision_transformer": timm})
  spec = importlib.util.spec_from_file_location(name, path)
  found = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(found)
  return found


def chw(x):
  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def hwc(h):
  """As the library has it: channels last, where there is space."""
  h = h.detach().numpy()
  return np.ascontiguousarray(np.moveaxis(h, 1, -1)) if h.ndim == 4 else h


def drawn(module):
  """The module with drawn weights, in evaluation, and {name: shape} of its state."""
  state = module.state_dict()
  new = {name: torch.from_numpy(case.draw(name, tuple(leaf.shape))) for name, leaf in state.items()}
  if "pos_embed" in state:
    new["pos_embed"] = state["pos_embed"]  # computed, not drawn
  module.load_state_dict(new)
  return module.eval(), {name: list(leaf.shape) for name, leaf in state.items()}


PARTS = {
  "resnets",
  "attentions",
  "downsamplers",
  "upsamplers",
  "transformer_blocks",
  "blocks",
  "down_blocks",
  "up_blocks",
}


def is_block(name):
  """Whether a submodule is a block: one of a list, or one that stands alone."""
  parts = name.split(".")
  return parts[-1] in ("mid_block", "time_embedding", "resnet_down", "resnet_up") or (
    len(parts) > 1 and parts[-1].isdigit() and parts[-2] in PARTS
  )


def watched(module, names, run):
  """(what run() gives, {name: output of each block whose name starts so})."""
  outputs, hooks = {}, []

  def keep(name):
    def hook(_, __, output):
      output = output[0] if isinstance(output, tuple) else output
      outputs[name] = hwc(output)

    return hook

  for name, one in module.named_modules():
    if is_block(name) and name.startswith(names) and next(one.parameters(), None) is not None:
      hooks.append(one.register_forward_hook(keep(name)))
  with torch.no_grad():
    found = run()
  for hook in hooks:
    hook.remove()
  return found, outputs


def record(kept, name, module, run):
  found, outputs = watched(module, ("",) if name in case.WITH_BLOCKS else (), run)
  kept[f"{name}/output"] = hwc(found)
  kept.update({f"{name}/block/{block}": case.thinned(h) for block, h in outputs.items()})


def main(dit_path, sit_path):
  torch.manual_seed(0)
  kept, names = {}, {}
  for name, config in case.UNETS.items():
    module, names[name] = drawn(diffusers.UNet2DModel.from_config(config))
    x, t, cond = case.unet_inputs(name)
    label = torch.from_numpy(next(iter(cond.values()))) if cond else None
    record(kept, name, module, lambda: module(chw(x), torch.from_numpy(t), label).sample)
  for name, config in case.AUTOENCODERS.items():
    module, names[name] = drawn(diffusers.AutoencoderKL.from_config(config))
    x, z = case.kl_inputs(name)
    record(kept, f"{name}", module, lambda: module.decode(chw(z)).sample)
    encoded, outputs = watched(
      module, ("encoder",) if name in case.WITH_BLOCKS else (), lambda: module.encode(chw(x)).latent_dist
    )
    kept[f"{name}/mean"], kept[f"{name}/std"] = hwc(encoded.mean), hwc(encoded.std)
    kept.update({f"{name}/block/{block}": case.thinned(h) for block, h in outputs.items()})
  for name, config in case.DIT_DIFFUSERS.items():
    module, names[name] = drawn(diffusers.DiTTransformer2DModel.from_config(config))
    x, t, label = case.dit_inputs(name)
    run = lambda: module(chw(x), torch.from_numpy(t), torch.from_numpy(label).long()).sample
    record(kept, name, module, run)
  sources = {"dit": module_at(dit_path, "dit").DiT, "sit": module_at(sit_path, "sit").SiT}
  for name, config in case.DIT_ORIGINAL.items():
    module, names[name] = drawn(sources[name.split("_")[0]](**config))
    x, t, label = case.dit_inputs(name)
    run = lambda: module(chw(x), torch.from_numpy(t), torch.from_numpy(label).long())
    record(kept, name, module, run)
    kept[f"{name}/pos_embed"] = module.pos_embed.detach().numpy()
  kept["names"] = np.frombuffer(json.dumps(names).encode(), np.uint8)
  kept["versions"] = np.array([f"diffusers {diffusers.__version__}", f"torch {torch.__version__}"])
  np.savez_compressed(case.FILE, **kept)
  print(len(kept), case.FILE.stat().st_size, kept["versions"])


if __name__ == "__main__":
  main(*sys.argv[1:])
