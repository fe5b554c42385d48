"""CIFAR-10 DDPM++ on an accelerator: the training step in bfloat16 and 50-step sampling.

Prints and writes images/s, the share of the chip's peak that the network's arithmetic reaches, and the
overhead: the training step against the bare gradient of the network, the sampler against the bare chain of
network calls. Takes at most ten minutes: what does not fit is left out and said. Without an accelerator it
says so and exits with status 0. Needs no data set: the pictures are noise."""

import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing

from diffusion import data, solvers
from diffusion.config import loading
from diffusion.run import ema, sharding, step as steps
from diffusion.run.parts import assembly

# Dense bfloat16 peak in FLOP/s, from the makers' datasheets.
PEAKS = {
  "H100": 989e12,
  "H200": 989e12,
  "A100": 312e12,
  "TPU v4": 275e12,
  "TPU v5p": 459e12,
  "TPU v5 lite": 197e12,
}


def parts_of(config):
  """The parts of a CIFAR-10 config around a data set of noise."""
  noise = np.zeros((8, 32, 32, 3), np.uint8)
  dataset = data.describe(
    "noise", data.Arrays(noise), data.Arrays(noise[:0]), split="noise only", num_classes=0
  )
  return assembly.assemble(config, dataset)


def flops(compiled):
  """Floating-point operations of one call, as the compiler counts them."""
  analysis = compiled.cost_analysis()
  analysis = analysis[0] if isinstance(analysis, list) else analysis
  return float(analysis.get("flops", 0.0))


HALF = 240.0
"""Seconds within which the larger batch is begun, so that all of it ends within ten minutes."""


def training(parts, batch_size, rounds):
  """Images/s and FLOP/s of the training step, and its time against that of the network's gradient alone."""
  config = parts.config
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  state = jax.jit(lambda: assembly.init_state(parts))()
  places = sharding.state_sharding(mesh, jax.eval_shape(lambda: state))
  step = steps.make_step(
    assembly.players_of(parts),
    parts.roles,
    ema.averages(config.training),
    mesh=mesh,
    state_sharding=places,
    seed=0,
  )
  batch = {"x": jax.random.normal(jax.random.key(0), (batch_size, 32, 32, 3))}
  start = time.perf_counter()
  compiled = step.lower(state, batch).compile()
  compile_seconds = time.perf_counter() - start
  params = jax.tree.map(jnp.copy, state.params["model"])  # the step takes its own over
  t = jax.random.uniform(jax.random.key(1), (batch_size,)) * 999.0
  bare = (
    jax.jit(
      jax.grad(lambda params, x, t: jnp.mean(jnp.square(parts.network.apply({"params": params}, x, t) - x)))
    )
    .lower(params, batch["x"], t)
    .compile()
  )

  def ten_steps():
    nonlocal state
    for _ in range(10):
      state, metrics = compiled(state, batch)
    return metrics

  calls = {"ours": ten_steps, "bare": lambda: [bare(params, batch["x"], t) for _ in range(10)][-1]}
  timing.interleaved(calls, 1)
  times = timing.interleaved(calls, rounds)
  seconds = float(np.median(times["ours"])) / 10
  return state.params["model"], dict(
    train_batch=batch_size,
    train_seconds=seconds,
    train_images_per_second=batch_size / seconds,
    train_flops_per_second=flops(compiled) / seconds,
    train_step_ratio=timing.ratio(times, "ours", "bare")[0],
    train_compile_seconds=compile_seconds,
  )


def sampling(parts, params, batch_size, rounds):
  """Images/s of 50 steps of DPM-Solver++ 2M, beside 50 bare network calls."""
  solver = solvers.build("dpmpp_2m", parts.process, 50)
  denoiser = assembly.denoiser(parts, params)
  x = jax.random.normal(jax.random.key(1), (batch_size, 32, 32, 3))
  times = 999.0 * jnp.asarray(solver.t[:-1])

  @jax.jit
  def bare(params, times, x):
    body = lambda x, t: (
      x - 0.01 * parts.network.apply({"params": params}, x, jnp.broadcast_to(t, x.shape[:1])),
      None,
    )
    return jax.lax.scan(body, x, times)[0]

  calls = {"ours": lambda: solvers.sample(denoiser, solver, x), "bare": lambda: bare(params, times, x)}
  timing.interleaved(calls, 1)
  measured = timing.interleaved(calls, rounds)
  seconds = float(np.median(measured["ours"]))
  work = flops(bare.lower(params, times, x).compile())
  # The compiler counts a scan's body once.
  return dict(
    sample_batch=batch_size,
    sample_seconds=seconds,
    sample_images_per_second=batch_size / seconds,
    sampler_ratio=timing.ratio(measured, "ours", "bare")[0],
    sample_flops_per_second=50 * work / seconds,
  )


def main():
  args = timing.arguments(__doc__).parse_args()
  device = jax.devices()[0]
  if device.platform == "cpu":
    print("no accelerator: JAX sees only the CPU, so there is nothing to measure here")
    return
  config = loading.load(str(ROOT / "configs" / "cifar10" / "vp_ddpmpp_continuous.py"))
  config.network.dtype = "bfloat16"
  parts, begun = parts_of(config), time.perf_counter()
  rounds = 3 if args.quick else 9
  numbers = dict(network="DDPM++ of configs/cifar10/vp_ddpmpp_continuous.py", dtype="bfloat16")
  params, numbers["batch_128"] = training(parts, 128, rounds)
  numbers.update(sampling(parts, params, 256, rounds))
  if time.perf_counter() - begun < HALF:
    _, numbers["batch_512"] = training(parts, 512, rounds)
  else:
    print(f"batch 512 is left out: {time.perf_counter() - begun:.0f} s have gone")
  for batch_size in (128, 512):
    if found := numbers.get(f"batch_{batch_size}"):
      print(
        f"training, batch {batch_size}: {found['train_images_per_second']:,.0f} images/s, "
        f"{found['train_step_ratio']:.3f} of the time of the bare gradient, compiled in "
        f"{found['train_compile_seconds']:.0f} s"
      )
  print(
    f"sampling, batch 256: {numbers['sample_images_per_second']:,.1f} images/s at 50 evaluations, "
    f"{numbers['sampler_ratio']:.3f} of the bare chain's time"
  )
  peak = next((value for name, value in PEAKS.items() if name in device.device_kind), None)
  if peak:
    for batch_size, found in (
      (size, numbers[f"batch_{size}"]) for size in (128, 512) if f"batch_{size}" in numbers
    ):
      found["train_share_of_peak"] = found["train_flops_per_second"] / peak
      print(
        f"share of the chip's bfloat16 peak in training at batch {batch_size}: "
        f"{found['train_share_of_peak']:.1%}"
      )
    numbers["sample_share_of_peak"] = numbers["sample_flops_per_second"] / peak
    print(f"share of the peak in sampling: {numbers['sample_share_of_peak']:.1%}")
  timing.write(args.out, numbers)


if __name__ == "__main__":
  main()
