"""Host memory that opening a run for sampling takes, over the bytes of its weights.

A run with an MLP of some 200 MB of weights is written without training: parameters, an average, Adam's two
moments, all random numbers. Then, interleaved and each in a process of its own: one that imports the same and
opens nothing, one that restores the whole train state and takes the average out of it, and
`opening.open_run`. The figure is the peak of the resident memory (VmHWM) above that of the first, over the
bytes of the weights; aim at most 1.2.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing

WAYS = ("nothing", "whole_state", "weights")


def network(quick):
  """The section of an MLP of 201 MB, or of 26 MB."""
  return dict(factory="networks.MLP", width=512 if quick else 1024, depth=6 if quick else 12)


def make(workdir, quick):
  """Writes the run."""
  import jax
  import jax.numpy as jnp

  from diffusion.config import loading
  from diffusion.run.parts import assembly
  from diffusion.run.saved import checkpoints, workdir as workdirs

  config = loading.load(str(ROOT / "configs" / "toy2d.py"))
  config.network = network(quick)
  config.training.ema_half_life_images = (1000,)
  config.data.size, config.data.held_out_size = 1000, 100
  generator = np.random.default_rng(0)

  def random(shape):
    if not jnp.issubdtype(shape.dtype, jnp.floating):
      return jnp.zeros(shape.shape, shape.dtype)
    return jnp.asarray(generator.standard_normal(shape.shape, np.float32), shape.dtype)

  state = jax.tree.map(random, assembly.shape_state(assembly.assemble(config)))
  os.makedirs(workdir, exist_ok=True)
  workdirs.claim(workdir, config)
  writer = checkpoints.Writer(workdirs.checkpoints(workdir))
  meta = {"step": 1, "examples": int(config.training.batch_size), "seconds": 0.0, "unlogged": []}
  writer.save(state, meta, loading.to_json(config))
  writer.close()


def measure(way, workdir):
  """(peak resident bytes, bytes of the weights) of this process once it opened the run in one way."""
  import jax
  import jax.numpy as jnp
  import orbax.checkpoint  # noqa: F401

  from diffusion.run import opening, sharding
  from diffusion.run.parts import assembly
  from diffusion.run.saved import checkpoints, workdir as workdirs

  jnp.zeros(8).block_until_ready()
  params = {}
  if way == "weights":
    params = opening.open_run(workdir).params
  elif way == "whole_state":
    path = checkpoints.choose(workdirs.checkpoints(workdir))
    parts = assembly.assemble(workdirs.read(workdir))
    shapes = assembly.shape_state(parts)
    places = sharding.state_sharding(sharding.make_mesh(), shapes)
    template = sharding.placed(shapes, places)
    state = checkpoints.read_state(path, template)
    params = assembly.trained_params(parts, state)
  with open("/proc/self/status") as file:
    peak = next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
  return peak, sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def child(*words):
  """What this file prints when it is called with these words."""
  command = [sys.executable, __file__, *words]
  return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def main():
  parser = timing.arguments(__doc__)
  parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    way, workdir = args.child
    print(json.dumps(make(workdir, args.quick) if way == "make" else measure(way, workdir)))
    return
  peaks, size = {way: [] for way in WAYS}, 0
  with tempfile.TemporaryDirectory() as workdir:
    child("--child", "make", workdir, *(["--quick"] if args.quick else []))
    for _ in range(2 if args.quick else 5):
      for way in WAYS:
        peak, found = json.loads(child("--child", way, workdir).splitlines()[-1])
        peaks[way].append(peak)
        size = found or size
  middle = {way: float(np.median(values)) for way, values in peaks.items()}
  numbers = {"weights_mb": size / 1e6}
  print(f"weights {size / 1e6:.0f} MB; opening nothing peaks at {middle['nothing'] / 1e6:.0f} MB")
  for way in WAYS[1:]:
    growth = (np.asarray(peaks[way]) - middle["nothing"]) / 1e6
    ratio = growth / numbers["weights_mb"]
    numbers |= {f"{way}_growth_mb": float(np.median(growth)), f"{way}_ratio": float(np.median(ratio))}
    print(
      f"{way.replace('_', ' '):<11} {np.median(growth):.0f} MB more, {np.median(ratio):.2f} of the weights "
      f"({ratio.min():.2f} to {ratio.max():.2f})"
    )
  timing.write(args.out, numbers)


if __name__ == "__main__":
  main()
