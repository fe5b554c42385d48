"""Training throughput beside a minimal loop in plain JAX and one in PyTorch, of the same networks.

The digits' MLP at its own batch, and a U-Net on 32x32x3 pictures at a small one. Ours is what train.py runs:
the stream of batches, their way to the device, the step with all its metrics. The two others draw rows of an
array in memory and do the same arithmetic: EDM's loss, clipping, Adam, one average. All take turns; a ratio
is the median over the rounds of our time to theirs, below 1 where we are faster.
Also: the share of our time that went into waiting for data. Without torch ([peers]) that row is left out."""

import os
import pathlib
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import overhead
import timing

from diffusion import data
from diffusion.config import loading
from diffusion.data import load
from diffusion.run import sharding
from diffusion.run.parts import assembly

UNET = dict(
  factory="networks.UNet",
  width=32,
  channel_multipliers=(1, 2, 2),
  num_res_blocks=1,
  embedding="positional",
  num_classes=10,
)


def digits():
  config = loading.load(str(ROOT / "configs" / "digits.py"))
  return config, config.training.batch_size, 5


def pictures(folder):
  """The digits' config around noise of CIFAR-10's size."""
  config = loading.load(str(ROOT / "configs" / "digits.py"))
  generator = np.random.default_rng(0)
  np.savez(
    f"{folder}/noise.npz",
    x=generator.integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8),
    label=np.arange(2000) % 10,
  )
  with config.unlocked():
    config.data = dict(factory="data.npz", path=f"{folder}/noise.npz")
    config.network = UNET
  return config, 8, 1


class Ours:
  """The loop of `diffusion.run.loop`, without its log and its checkpoints."""

  def __init__(self, parts, step, state, batch):
    self.mesh = sharding.make_mesh(devices=jax.devices()[:1])
    self.step, self.state, self.waited = step, state, 0.0
    self.batches = data.stream(parts.dataset, batch, 0)
    self.ahead = self.take()

  def take(self):
    begun = time.perf_counter()
    batch = next(self.batches)
    self.waited += time.perf_counter() - begun
    return sharding.put_batch(batch, self.mesh)

  def many(self, number):
    for _ in range(number):
      self.state, metrics = self.step(self.state, self.ahead)
      self.ahead = self.take()
    return metrics


class Plain:
  """Rows of an array, a jitted step."""

  def __init__(self, x, label, step, state, batch):
    self.x, self.label, self.step, self.state, self.batch, self.rng = (
      x,
      label,
      step,
      state,
      batch,
      np.random.default_rng(0),
    )

  def many(self, number):
    for _ in range(number):
      rows = self.rng.integers(0, len(self.x), self.batch)
      self.state, metrics = self.step(self.state, {"x": self.x[rows], "cond": {"label": self.label[rows]}})
    return metrics


def measure(name, config, batch, steps, rounds):
  """Numbers of one network, printed as rows."""
  overhead.BATCH = batch
  parts = assembly.assemble(config)
  state = jax.jit(lambda: assembly.init_state(parts))()
  count = sum(leaf.size for leaf in jax.tree.leaves(state.params["model"]))
  records = load(parts.dataset.train, 1500)
  x = np.asarray(
    parts.dataset.scaling.to_model(records["x"], np.full(records["x"].shape, 0.5, np.float32)), np.float32
  )
  label = np.asarray(records["label"], np.int32)
  example = {"x": jnp.asarray(x[:batch]), "cond": {"label": jnp.asarray(label[:batch])}}
  pairs = overhead.step_pair(parts, state, example)
  ours, by_hand = (make().lower(*arrays).compile() for make, arrays in pairs)
  loops = {
    "ours": Ours(parts, ours, pairs[0][1][0], batch),
    "plain JAX": Plain(x, label, by_hand, pairs[1][1][0], batch),
  }
  calls = {key: (lambda loop=loop: loop.many(steps)) for key, loop in loops.items()}
  try:
    import throughput_torch as peer
    import torch
  except ImportError:
    print("PyTorch is not installed, so its row is left out: pip install -e '.[peers]'")
  else:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    section = config.network
    if "MLP" in section.factory:
      network = peer.MLP(int(np.prod(x.shape[1:])), section.width, section.depth, section.dropout, 10)
    else:
      network = peer.UNet(x.shape[-1], section.width, section.channel_multipliers, section.num_res_blocks, 10)
    if peer.parameters(network) != count:
      raise SystemExit(
        f"{name}: PyTorch's network has {peer.parameters(network):,} parameters and ours {count:,}: they are "
        "not the same"
      )
    loop = peer.Loop(network, np.moveaxis(x, -1, 1).copy(), label, batch, config)
    calls["PyTorch"] = lambda: [loop.step() for _ in range(steps)][-1].item()
  timing.interleaved(calls, 2)
  loops["ours"].waited = 0.0
  times = timing.interleaved(calls, rounds)
  waited = loops["ours"].waited / float(times["ours"].sum())
  loops["ours"].batches.close()
  found = dict(parameters=count, batch=batch, waiting_for_data=waited)
  for key, seconds in times.items():
    speed = batch * steps / float(np.median(seconds))
    middle, (low, high) = timing.ratio(times, "ours", key)
    found[key] = dict(images_per_second=speed, our_time_to_theirs=middle)
    shown = "" if key == "ours" else f"{middle:10.3f}{f'{low:.3f} to {high:.3f}':>18}"
    print(f"{name if key == 'ours' else '':34}{key:12}{speed:12,.1f}{shown}", flush=True)
  print(f"{'':34}waiting for data {waited:.2%} of our time; {count:,} parameters, batch {batch}", flush=True)
  return found


def main():
  args = timing.arguments(__doc__).parse_args()
  numbers, rounds = {}, 3 if args.quick else 15
  print(f"{'training':34}{'':12}{'images/s':>12}{'ours/it':>10}{'middle half':>18}")
  numbers["digits MLP"] = measure("digits MLP", *digits(), rounds)
  with tempfile.TemporaryDirectory() as folder:
    numbers["U-Net at 32x32x3"] = measure("U-Net at 32x32x3", *pictures(folder), rounds)
  timing.write(args.out, numbers)


if __name__ == "__main__":
  main()
