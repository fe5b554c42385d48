"""Records what MeanFlow's SiT gives: see `CASE`.

  python tests/weights/make_mean_flow_recorded.py SIT.py

It is run by hand, with diffusers, torch and NumPy. The argument is the file sit.py of zhuyu-cs/MeanFlow at
04d183c; three layers that it has from timm are those of make_diffusers_networks.py.
"""

import json
import pathlib
import sys

import diffusers_networks as case
import numpy as np

CASE = dict(input_size=4, patch_size=2, in_channels=4, hidden_size=16, depth=2, num_heads=2, num_classes=5)
TIMES = {"data": ([0.0, 0.0, 0.0], [1.0, 0.3, 0.7]), "now": ([0.2, 0.9, 0.5], [0.2, 0.9, 0.5])}  # (r, t)
FILE = pathlib.Path(__file__).parent / "recorded_mean_flow.npz"


def inputs() -> tuple[np.ndarray, np.ndarray]:
  """(x [3, 4, 4, 4], classes, the last of which is none)."""
  return case.numbers(7, 3, 4, 4, 4), np.array([1, 4, 5], np.int32)


def main(path):
  import make_diffusers_networks as maker
  import torch

  class Attention(maker.Attention):
    def __init__(self, dim, num_heads, qkv_bias, qk_norm):
      assert not qk_norm
      super().__init__(dim, num_heads, qkv_bias)

  maker.Attention = Attention
  original = maker.module_at(path, "sit")
  net, shapes = maker.drawn(original.SiT(decoder_hidden_size=16, qk_norm=False, **CASE))
  x, label = inputs()
  found = {"shapes": np.frombuffer(json.dumps(shapes).encode(), np.uint8)}
  found["pos_embed"] = net.pos_embed.detach().numpy()
  for name, (r, t) in TIMES.items():
    told = (torch.tensor(one) for one in (r, t))
    run = lambda: net(maker.chw(x), *told, y=torch.from_numpy(label).long())
    output, blocks = maker.watched(net, ("blocks",), run)
    found[f"{name}/velocity"] = maker.hwc(output)
    found |= {f"{name}/{block}": h for block, h in blocks.items()}
  np.savez_compressed(FILE, **found)
  print(f"{len(found)} arrays, {FILE.stat().st_size} bytes, torch {torch.__version__}")


if __name__ == "__main__":
  main(*sys.argv[1:])
