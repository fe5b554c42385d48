"""Writes tests/weights/recorded: small files by the libraries of each format, and what these read from them.

    python -m venv /tmp/v && /tmp/v/bin/pip install torch safetensors flax numpy requests
    git clone https://github.com/NVlabs/edm /tmp/edm && git clone https://github.com/NVlabs/edm2 /tmp/edm2
    /tmp/v/bin/python tests/weights/make_recorded.py /tmp/edm /tmp/edm2

By hand, when a format changes; the tests need none of these libraries. NAME.npz beside a file holds each
array as its own library reads it. Written with the versions that
versions.json names.
"""

import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent / "recorded"

SOURCE = "raise RuntimeError('the source in a pickle was run')"
"""Stands in the files of EDM and EDM2 where the source of their classes would."""

EDM = """
import pickle, sys, torch
sys.path.insert(0, sys.argv[1])
torch.manual_seed(0)
import dnnlib
from training import networks
net = networks.EDMPrecond(4, 3, label_dim=4, model_type="SongUNet", model_channels=4, channel_mult=[1],
  num_blocks=1, attn_resolutions=[4], augment_dim=9, channel_mult_emb=4)
for one in net.parameters():
  torch.nn.init.normal_(one)
from training.loss import EDMLoss
net = net.eval().requires_grad_(False)
from torch_utils import persistence
for one in persistence._decorators:
  one._orig_module_src = sys.argv[4]
data = dict(ema=net, loss_fn=EDMLoss(), augment_pipe=None, dataset_kwargs=dict(path="x.zip", xflip=False))
with open(sys.argv[2], "wb") as file:
  pickle.dump(data, file)
torch.save({"ema." + k: v for k, v in [*net.named_parameters(), *net.named_buffers()]}, sys.argv[3])
"""

EDM2 = """
import pickle, sys, torch
sys.path.insert(0, sys.argv[1])
torch.manual_seed(1)
import dnnlib
from training import networks_edm2, encoders
net = networks_edm2.Precond(4, 4, label_dim=3, model_channels=4, channel_mult=[1], num_blocks=1,
  attn_resolutions=[4], channel_mult_emb=2, logvar_channels=8, channels_per_head=4)
net = net.eval().requires_grad_(False).to(torch.float16)
data = dnnlib.EasyDict(encoder=encoders.StabilityVAEEncoder(), loss_fn=None)
data.dataset_kwargs = dnnlib.EasyDict(use_labels=True)
data.ema = net
from torch_utils import persistence
for one in persistence._decorators:
  one._orig_module_src = sys.argv[4]
with open(sys.argv[2], "wb") as file:
  pickle.dump(data, file)
state = {"ema." + k: v for k, v in [*net.named_parameters(), *net.named_buffers()]}
state |= {"encoder." + k: torch.as_tensor(getattr(data.encoder, k)) for k in ("scale", "bias")}
torch.save(state, sys.argv[3])
"""


def raw(array):
  """(bytes, shape and dtype) of an array of NumPy or PyTorch."""
  if type(array).__module__.startswith("torch"):
    import torch

    array = array.detach().contiguous().clone()
    name = str(array.dtype).removeprefix("torch.")
    return array.reshape(-1).view(torch.uint8).numpy(), json.dumps([list(array.shape), name])
  array = np.ascontiguousarray(array).reshape(np.shape(array))
  return array.reshape(-1).view(np.uint8), json.dumps([list(array.shape), array.dtype.name])


def record(name, arrays):
  """What a library reads from the file NAME: all bytes in a row, and [key, shape, dtype] of each as JSON."""
  pairs = {key: raw(value) for key, value in arrays.items()}
  index = [[key, *json.loads(text)] for key, (_, text) in pairs.items()]
  np.savez_compressed(
    HERE / f"{name}.npz",
    bytes=np.concatenate([numbers for numbers, _ in pairs.values()]),
    index=np.frombuffer(json.dumps(index).encode(), np.uint8),
  )


def tensors():
  """Views, shared storages and every dtype."""
  import torch

  torch.manual_seed(0)
  base = torch.randn(4, 6)
  lay = torch.arange(24, dtype=torch.int32).reshape(2, 3, 4)
  found = {
    "base": base,
    "part": base[1:3, 2:5],
    "turned": base.t(),
    "every_other": base[::2, ::3],
    "permuted": lay.permute(2, 0, 1),
    "channels_last": torch.randn(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    "spread": torch.tensor([[1.5], [2.5]]).expand(2, 3),
    "number": torch.tensor(3.25, dtype=torch.float64),
    "none": torch.zeros(0, 3),
    "bf16": torch.randn(3, 2).to(torch.bfloat16)[:, 1],
    "half": torch.randn(5).half(),
    "bool": torch.tensor([True, False, True]),
    "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    "complex": torch.randn(3, dtype=torch.complex64),
  }
  for kind in (torch.uint8, torch.int8, torch.int16, torch.int64):
    found[str(kind).removeprefix("torch.")] = torch.tensor([1, 2, 100], dtype=kind)
  return found


def torch_files():
  import collections
  from argparse import Namespace

  import torch

  found = tensors()
  nested = {
    "ema": collections.OrderedDict(found),
    "opt": {
      "state": {0: {"step": torch.tensor(3.0), "exp_avg": found["base"]}},
      "param_groups": [{"lr": 1e-4, "params": [0]}],
    },
    "args": Namespace(model="DiT-S/2", image_size=32),
    "epoch": 7,
    "shadow": [found["half"], found["part"]],
  }
  read = {f"ema.{key}": value for key, value in found.items()}
  read |= {"opt.state.0.step": torch.tensor(3.0), "opt.state.0.exp_avg": found["base"]}
  read |= {"shadow.0": found["half"], "shadow.1": found["part"]}
  new = {"e4m3": torch.randn(4).to(torch.float8_e4m3fn), "u16": torch.tensor([1, 65535], dtype=torch.uint16)}
  torch.save(nested | {"new": new}, HERE / "zip.pt")
  record("zip.pt", read | {f"new.{key}": value for key, value in new.items()})
  torch.save(nested, HERE / "stream.pt", _use_new_zipfile_serialization=False)
  record("stream.pt", read)
  with torch.utils.serialization.config.patch("save.storage_alignment", 64):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)), HERE / "module.pt")
  module = torch.load(HERE / "module.pt", weights_only=False)
  record("module.pt", dict(module.state_dict()))


def safetensors_files():
  import torch
  from safetensors import numpy as plain, torch as both

  found = {key: value.detach().clone().contiguous() for key, value in tensors().items()}
  found["e5m2"] = torch.randn(4).to(torch.float8_e5m2)
  both.save_file(found, HERE / "one.safetensors", {"format": "pt"})
  record("one.safetensors", both.load_file(HERE / "one.safetensors"))
  shards = {
    "model-00001-of-00002.safetensors": ["base", "half"],
    "model-00002-of-00002.safetensors": ["bool", "turned"],
  }
  folder = HERE / "sharded"
  folder.mkdir(exist_ok=True)
  for name, keys in shards.items():
    plain.save_file({key: found[key].numpy() for key in keys}, folder / name)
  weight_map = {key: name for name, keys in shards.items() for key in keys}
  index = {"metadata": {"total_size": 229}, "weight_map": weight_map}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel", "sample_size": 32}))
  record("sharded", {key: found[key] for key in weight_map})


def flax_files():
  import jax.numpy as jnp
  from flax import serialization

  generator = np.random.default_rng(0)
  tree = {
    "step": 5,
    "lr": 1e-4,
    "flag": True,
    "model_state": {},
    "scalar": np.float32(2.5),
    "phase": 1 + 2j,
    "rng": np.array([0, 42], np.uint32),
    "params_ema": {
      "Conv_0": {
        "kernel": generator.standard_normal((3, 3, 2, 4)).astype(np.float32),
        "bias": np.zeros(4, np.float32),
      },
      "NIN_0": {
        "W": jnp.asarray(generator.standard_normal((3, 5)), jnp.bfloat16),
        "columns": np.asfortranarray(np.eye(2, 3)),
      },
      "large": generator.integers(0, 100, (40, 13)).astype(np.int16),
      "mask": np.array([True, False]),
    },
  }
  whole = serialization.MAX_CHUNK_SIZE
  serialization.MAX_CHUNK_SIZE = 300
  try:
    (HERE / "flax.msgpack").write_bytes(serialization.to_bytes(tree))
  finally:
    serialization.MAX_CHUNK_SIZE = whole
  back = serialization.msgpack_restore((HERE / "flax.msgpack").read_bytes())
  inner = back["params_ema"]
  record(
    "flax.msgpack",
    {"rng": back["rng"]}
    | {f"params_ema.{one}.{key}": value for one in ("Conv_0", "NIN_0") for key, value in inner[one].items()}
    | {f"params_ema.{key}": inner[key] for key in ("large", "mask")},
  )


def numpy_pickles():
  generator = np.random.default_rng(1)
  found = {
    "fid": {
      "mu": generator.standard_normal(4),
      "sigma": np.asfortranarray(generator.standard_normal((4, 4))),
    },
    "big": np.arange(3, dtype=">i2"),
    "count": np.int64(50000),
    "long": generator.standard_normal(300).astype(np.float32),
  }
  flat = {
    "fid.mu": found["fid"]["mu"],
    "fid.sigma": found["fid"]["sigma"],
    "big": found["big"].astype("<i2"),
    "long": found["long"],
  }
  for protocol in (2, 4, 5):
    with open(HERE / f"numpy{protocol}.pkl", "wb") as file:
      pickle.dump(found, file, protocol)
    record(f"numpy{protocol}.pkl", flat)


def edm_files(edm, edm2):
  import torch

  for name, code, where in (("edm.pkl", EDM, edm), ("edm2.pkl", EDM2, edm2)):
    state = HERE / "state.pt"
    subprocess.run([sys.executable, "-c", code, where, str(HERE / name), str(state), SOURCE], check=True)
    record(name, torch.load(state))
    state.unlink()


if __name__ == "__main__":
  HERE.mkdir(exist_ok=True)
  torch_files()
  safetensors_files()
  flax_files()
  numpy_pickles()
  edm_files(*sys.argv[1:3])
  import flax
  import safetensors
  import torch

  versions = {"torch": torch, "safetensors": safetensors, "flax": flax, "numpy": np}
  text = json.dumps({name: module.__version__ for name, module in versions.items()}, indent=1)
  (HERE / "versions.json").write_text(text + "\n")
