"""Records what the originals give: run by hand with torch, torch-fidelity, clean-fid, timm and pillow.

  python tests/metrics/make_recorded_evaluation.py DINOV2

DINOV2 is a checkout of facebookresearch/dinov2. Writes recorded_evaluation.npz beside this file; tests read
that alone. Versions are in it under 'versions'. Of each array it keeps what `seeded_weights.sampled` takes.
"""

import json
import pathlib
import sys

import numpy as np
import PIL
import timm
import torch
import torch.nn.functional as functional
import torch_fidelity
from cleanfid.fid import frechet_distance as clean_frechet
from cleanfid.resize import make_resizer
from seeded_weights import images, sampled, seeded
from torch_fidelity import feature_extractor_inceptionv3 as originals
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

SIZES = ((8, 8, 299), (32, 32, 299), (48, 64, 299), (320, 300, 299), (256, 256, 224), (64, 64, 224))
found = {}


def nhwc(x):
  return x.permute(0, 2, 3, 1).numpy()


def resizes():
  for height, width, side in SIZES:
    pictures = images(0, 1, height, width, 3)
    tensor = torch.tensor(pictures).permute(0, 3, 1, 2).float()
    how = dict(size=(side, side))
    clean = make_resizer("PIL", False, "bicubic", (side, side))
    done = {
      "tf1_bilinear": nhwc(interpolate_bilinear_2d_like_tensorflow1x(tensor, align_corners=False, **how)),
      "torch_bilinear": nhwc(functional.interpolate(tensor, mode="bilinear", align_corners=False, **how)),
      "pillow_bicubic": np.stack([clean(one) for one in pictures]),
      "torch_bicubic": nhwc(functional.interpolate(tensor, mode="bicubic", antialias=True, **how)),
      "torch_bicubic_sharp": nhwc(functional.interpolate(tensor, mode="bicubic", **how)),
    }
    for kind, array in done.items():
      found[f"resize/{kind}/{height}x{width}/{side}"] = sampled(array, 120)


def inception(narrow):
  class Network(originals.FeatureExtractorInceptionV3):
    def load_state_dict(self, arrays):
      del arrays

  originals.load_state_dict_from_url = lambda *args, **kwargs: {}
  network = Network("inception-v3-compat", ["2048", "logits_unbiased"])
  units = [module for module in network.modules() if type(module) is originals.BasicConv2d]
  for unit in units:
    old = unit.conv
    into = old.in_channels if old.in_channels == 3 else old.in_channels // narrow
    out = old.out_channels // narrow
    unit.conv = torch.nn.Conv2d(into, out, old.kernel_size, old.stride, old.padding, bias=False)
    unit.bn = torch.nn.BatchNorm2d(out, eps=unit.bn.eps)
  network.fc = torch.nn.Linear(2048 // narrow, 1008)
  state = {
    name: torch.tensor(seeded(name, array.shape)) if array.ndim else array
    for name, array in network.state_dict().items()
  }
  torch.nn.Module.load_state_dict(network, state)
  network.eval()
  for name, module in network.named_modules():
    if module in units or (name.startswith("Mixed") and "." not in name):
      keep = lambda module, inputs, output, name=name: found.__setitem__(
        f"inception{narrow}/{name}", sampled(nhwc(output.detach()))
      )
      module.register_forward_hook(keep)
  spatial = []
  network.Mixed_6d.branch1x1.register_forward_hook(
    lambda module, inputs, output: spatial.append(nhwc(output))
  )
  with torch.no_grad():
    pool, logits = network(torch.tensor(images(1, 2, 40, 32, 3)).permute(0, 3, 1, 2))
  found[f"inception{narrow}/pool"], found[f"inception{narrow}/logits"] = sampled(pool), sampled(logits)
  found[f"inception{narrow}/spatial"] = sampled(spatial[0][..., :7].reshape(2, -1))


TINY = dict(embed_dim=64, depth=2, num_heads=2)
LARGE = dict(embed_dim=1024, depth=24, num_heads=16)


def dinov2(name, options):
  from dinov2.models.vision_transformer import DinoVisionTransformer
  from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

  original = DinoVisionTransformer(
    img_size=518,
    patch_size=14,
    init_values=1.0,
    block_chunks=0,
    mlp_ratio=4,
    interpolate_offset=0.1,
    **options,
  )
  arrays = {key: torch.tensor(seeded(key, array.shape)) for key, array in original.state_dict().items()}
  original.load_state_dict(arrays)
  other = VisionTransformer(
    img_size=224, patch_size=14, init_values=1.0, num_classes=0, global_pool="token", **options
  )
  other.load_state_dict(checkpoint_filter_fn(dict(arrays), other))
  pictures = torch.tensor(images(2, 2, 32, 32, 3)).permute(0, 3, 1, 2).float()
  x = functional.interpolate(pictures, size=(224, 224), mode="bicubic", antialias=True) / 255
  x = x - torch.tensor([0.485, 0.456, 0.406]).reshape(1, -1, 1, 1)
  x = x / torch.tensor([0.229, 0.224, 0.225]).reshape(1, -1, 1, 1)
  for who, network in (("original", original), ("timm", other)):
    network.eval()
    for i, block in enumerate(network.blocks):
      keep = lambda module, inputs, output, i=i, who=who: found.__setitem__(
        f"{name}/{who}/blocks_{i}", sampled(output.detach())
      )
      block.register_forward_hook(keep)
    with torch.no_grad():
      found[f"{name}/{who}/pool"] = sampled(network(x))


def distances():
  rng = np.random.RandomState(3)
  one = torch.tensor(np.abs(rng.standard_normal((400, 24))).astype(np.float32))
  two = torch.tensor(np.abs(0.9 * rng.standard_normal((300, 24)) + 0.1).astype(np.float32))
  logits = torch.tensor((3 * rng.standard_normal((403, 30))).astype(np.float32))
  score = isc_features_to_metric(logits)
  straight = isc_features_to_metric(logits, splits=7, shuffle=False)
  kid = kid_features_to_metric(one, two, kid_subset_size=100, kid_subsets=20, verbose=False)
  near = prc_features_to_metric(one, two, verbose=False)
  statistics = [fid_features_to_statistics(x) for x in (one, two)]
  fid = fid_statistics_to_metric(*statistics, False)
  for part in (score, kid, near, fid):
    for key, value in part.items():
      found[f"distances/{key}"] = np.array(value)
  found["distances/straight_mean"] = np.array(straight["inception_score_mean"])
  found["distances/straight_std"] = np.array(straight["inception_score_std"])
  try:  # its call of scipy.linalg.sqrtm is gone in SciPy 1.18
    clean = clean_frechet(*(x for s in statistics for x in (s["mu"], s["sigma"])))
    found["distances/clean_fid"] = np.array(clean)
  except TypeError as error:
    print("clean-fid:", error)


if __name__ == "__main__":
  sys.path.insert(0, sys.argv[1])
  resizes()
  inception(16)
  inception(1)
  dinov2("dinov2_tiny", TINY)
  dinov2("dinov2_large", LARGE)
  distances()
  versions = {
    "torch": torch.__version__,
    "torch-fidelity": torch_fidelity.__version__,
    "timm": timm.__version__,
    "pillow": PIL.__version__,
    "clean-fid": "0.1.35",
    "dinov2": "b8931f7",
    "numpy": np.__version__,
  }
  packed = {key: value.astype(np.float64 if value.ndim == 0 else np.float32) for key, value in found.items()}
  packed["versions"] = np.array(json.dumps(versions))
  keys = sorted(packed)
  numbers = np.concatenate([packed[key].ravel() for key in keys if key != "versions"]).astype(np.float64)
  index = [[key, packed[key].size] for key in keys if key != "versions"]
  np.savez_compressed(
    pathlib.Path(__file__).with_name("recorded_evaluation.npz"),
    numbers=numbers.astype(np.float64),
    index=np.array(json.dumps(index)),
    versions=packed["versions"],
  )
  print(len(keys), "records")
