"""Records what EDM's and EDM2's own code gives for the cases of edm_cases.py.

  python tests/weights/make_edm_recorded.py EDM EDM2

It is run by hand, with torch and NumPy alone. The arguments are checkouts of NVlabs/edm at 008a4e5 and of
NVlabs/edm2 at 4bf8162.

For each case: the network's input and output, D(x; sigma), the names and shapes of its arrays; of some, the
output of each block, and what EDM's sampler makes. Images are written channels last, float32.
"""

import importlib
import json
import sys

import edm_cases as cases
import numpy as np
import torch


def modules(checkout, name):
  """The file of networks of a checkout, once those of the other are forgotten."""
  for loaded in [
    one for one in sys.modules if one.partition(".")[0] in ("training", "torch_utils", "dnnlib")
  ]:
    del sys.modules[loaded]
  sys.path.insert(0, checkout)
  return importlib.import_module(f"training.{name}")


def build(kinds, name):
  kind, side, given = cases.CASES[name]
  net = kinds[kind](side, cases.CHANNELS, **given).eval()
  arrays = net.state_dict()
  with torch.no_grad():
    for key, value in arrays.items():
      if key != "u" and not key.endswith("resample_filter"):
        value.copy_(torch.from_numpy(cases.weight(key, tuple(value.shape))))
  return net, {key: list(value.shape) for key, value in arrays.items()}


def last(value):
  """Channels last, float32."""
  return np.ascontiguousarray(np.moveaxis(value.numpy(), 1, -1), np.float32)


def hear(module, found, key):
  def hook(_, given, output):
    found[f"{key}/in"], found[f"{key}/t"] = last(given[0]), given[1].numpy().copy()
    found[f"{key}/out"] = last(output)

  module.register_forward_hook(hook)


def hear_block(module, found, key):
  """A copy: later blocks add to their input in place."""
  module.register_forward_hook(lambda _, given, output: found.update({key: last(output.clone())[:1]}))


def record(name, kinds, found):
  """What the original gives for one case; returns the shapes of its arrays."""
  net, shapes = build(kinds, name)
  given = cases.inputs(name)
  inner = net.unet if cases.CASES[name][0] == "Precond" else net.model
  hear(inner, found, name)
  if name in cases.BLOCKS:
    for part in ("enc", "dec"):
      for key, block in getattr(inner, part).items():
        hear_block(block, found, f"{name}/blocks/{part}.{key}")
  more = {}
  if "label" in given:
    more["class_labels"] = torch.from_numpy(np.eye(4, 3, dtype=np.float32)[given["label"]])  # row -1 is zero
  if "vector" in given:
    more["augment_labels"] = torch.from_numpy(given["vector"])
  sigma = torch.from_numpy(given["sigma"])
  x = torch.from_numpy(given["x"]).permute(0, 3, 1, 2).contiguous()
  with torch.no_grad():
    found[f"{name}/D"] = last(net(x * (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1), sigma, **more))
  return shapes


def sample(kinds, name):
  """What EDM's own sampler makes of noise with a network of its own, to which nobody listens."""
  edm_sampler = importlib.import_module("generate").edm_sampler
  (net, _), given = build(kinds, name), cases.inputs(name)
  noise = torch.from_numpy(given["x"]).permute(0, 3, 1, 2).contiguous()
  labels = torch.from_numpy(np.eye(4, 3, dtype=np.float32)[given["label"]])
  with torch.no_grad():
    return last(edm_sampler(net, noise, labels, num_steps=cases.STEPS))


def main(edm, edm2):
  torch.set_num_threads(1)
  found, shapes = {}, {}
  for checkout, file in ((edm, "networks"), (edm2, "networks_edm2")):
    kinds = vars(modules(checkout, file))
    for name in [name for name, (kind, *_) in cases.CASES.items() if kind in kinds]:
      shapes[name] = record(name, kinds, found)
      if name in cases.SAMPLED:
        found[f"{name}/sampled"] = sample(kinds, name)
  about = {"shapes": shapes, "torch": torch.__version__, "numpy": np.__version__}
  found["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
  np.savez_compressed(cases.RECORDED, **found)
  print(f"{len(found)} arrays, {cases.RECORDED.stat().st_size} bytes")


if __name__ == "__main__":
  main(*sys.argv[1:])
