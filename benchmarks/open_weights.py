"""Host memory that reading published weights takes, over the bytes of their file.

A file of some 200 MB is written in each format: eight arrays of random numbers, one of them (where the format
has strides) turned, another of half the file. Then, interleaved and each in a process of its own: one that
imports the same and reads nothing, and one that reads every array, as NumPy arrays and to a device (which on
a CPU is host memory too). The figure is the peak of the resident memory (VmHWM) above that of the first, over
the bytes of the file; aim at most 1.2. Orbax is measured by open_run.py.
"""

import argparse
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing

FORMATS = ("safetensors", "torch zip", "torch stream", "pickle", "flax msgpack")
WAYS = ("numpy", "device")
COUNT = 8


def shapes(quick):
  """[rows, columns] of each array: the first has as many bytes as the others together."""
  size = 128 if quick else 1024
  return [((COUNT - 1) * 2 * size, 2 * size)] + [(2 * size, 2 * size)] * (COUNT - 1)


def numbers(shape, seed):
  """An array of random numbers."""
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def text(word):
  """A text within a pickle."""
  return b"X" + struct.pack("<I", len(word)) + word.encode()


def whole(number):
  """A whole number within a pickle."""
  return b"J" + struct.pack("<i", number)


def kept(key, shape):
  """The storage of an array within a pickle, by its key."""
  count = whole(shape[0] * shape[1])
  return b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(key)) + text("cpu") + count + b"tQ"


def tensor(storage, shape, turned):
  """A tensor within a pickle; one that is turned has its columns first in the storage."""
  steps = (1, shape[0]) if turned else (shape[1], 1)
  pairs = b"".join(whole(one[0]) + whole(one[1]) + b"\x86" for one in (shape, steps))
  return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + whole(0) + pairs + b"\x89}tR"


def tree(storage, quick):
  """The pickle of {name: tensor}."""
  parts = [
    text(f"array_{k}") + tensor(storage(k, shape), shape, k == 1) for k, shape in enumerate(shapes(quick))
  ]
  return b"\x80\x02}(" + b"".join(parts) + b"u."


def stream(root, keys, quick):
  """The pieces of a file in PyTorch's old format."""
  head = [pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
  yield b"".join([*head, root, pickle.dumps([str(key) for key in keys], 2)])
  for key in keys:
    array = numbers(shapes(quick)[key], key)
    yield struct.pack("<q", array.size)
    yield array.tobytes()


def nested(quick):
  """The pieces of a pickle whose storages are files in the old format, as EDM's are."""
  yield b"\x80\x04}("
  for key, shape in enumerate(shapes(quick)):
    inner = list(stream(b"\x80\x02" + kept(key, shape) + b".", [key], quick))
    storage = [b"ctorch.storage\n_load_from_bytes\n\x8e" + struct.pack("<Q", sum(map(len, inner))), *inner]
    before, after = tensor(b"HERE", shape, key == 1).split(b"HERE")
    yield from (text(f"array_{key}"), before, *storage, b"\x85R", after)
  yield b"u."


def make(kind, path, quick):
  """Writes the file of one format."""
  given = {f"array_{k}": numbers(shape, k) for k, shape in enumerate(shapes(quick))}
  if kind == "safetensors":
    from diffusion import weights

    weights.write_safetensors(path, given)
  elif kind == "flax msgpack":
    from flax import serialization

    pathlib.Path(path).write_bytes(serialization.to_bytes(given))
  elif kind == "torch zip":
    with zipfile.ZipFile(path, "w") as file:
      file.writestr("a/data.pkl", tree(kept, quick))
      for key, array in enumerate(given.values()):
        file.writestr(f"a/data/{key}", array.tobytes())
  else:
    pieces = nested(quick) if kind == "pickle" else stream(tree(kept, quick), range(COUNT), quick)
    with open(path, "wb") as file:
      file.writelines(pieces)


def measure(kind, way, path, quick):
  """Peak resident bytes of this process once it read the file in one way; 'nothing' reads nothing."""
  import jax
  import jax.numpy as jnp

  from diffusion import weights

  jnp.zeros(8).block_until_ready()
  found = {}
  if way != "nothing":
    contents = weights.read(path)
    assert contents.format == kind, contents.format
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found = jax.block_until_ready(contents.load(place=None if way == "numpy" else lambda name: here))
  with open("/proc/self/status") as file:
    peak = next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
  for k, (name, array) in enumerate(sorted(found.items())):
    want = numbers(shapes(quick)[k], k)
    if k == 1 and kind not in ("safetensors", "flax msgpack"):
      want = want.reshape(want.shape[::-1]).T
    assert np.array_equal(np.asarray(array), want), name
  return peak


def child(*words):
  """What this file prints when it is called with these words."""
  command = [sys.executable, __file__, *words]
  return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def main():
  parser = timing.arguments(__doc__)
  parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    kind, way, path = args.child
    print(json.dumps(make(kind, path, args.quick) if way == "make" else measure(kind, way, path, args.quick)))
    return
  quick = ["--quick"] if args.quick else []
  values = {}
  with tempfile.TemporaryDirectory() as folder:
    for kind in FORMATS:
      path = os.path.join(folder, kind.replace(" ", "_"))
      child("--child", kind, "make", path, *quick)
      size, peaks = os.path.getsize(path), {way: [] for way in ("nothing", *WAYS)}
      for _ in range(1 if args.quick else 3):
        for way, found in peaks.items():
          found.append(json.loads(child("--child", kind, way, path, *quick).splitlines()[-1]))
      os.remove(path)
      nothing = float(np.median(peaks["nothing"]))
      words = []
      for way in WAYS:
        ratios = (np.asarray(peaks[way]) - nothing) / size
        values[f"{kind.replace(' ', '_')}_{way}_ratio"] = float(np.median(ratios))
        words.append(f"{way} {np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f})")
      print(f"{kind:<12} {size / 1e6:.0f} MB, of which the peak is: {', '.join(words)}")
  timing.write(args.out, values)


if __name__ == "__main__":
  main()
