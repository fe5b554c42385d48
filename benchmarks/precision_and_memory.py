"""bfloat16 beside float32, and what the training step needs of memory.

(a) the digits of configs/digits.py trained in float32 and in bfloat16, with the metrics of both;
(b) memory of the compiled training step, as the compiler counts it, of the digits' U-Net and of one of
CIFAR-10's size: all at once, with
    recomputation (remat), in parts (accumulate), and with both;
(c) what the step keeps twice: output bytes that do not lie where the donated state lay.

On a CPU, XLA removes the barriers that keep what is recomputed apart, and so takes recomputation back; (b) is
compiled without that pass, as accelerators are. --part=memory leaves (a) out, which trains for some minutes;
--quick trains and compiles less."""

import pathlib
import sys
import tempfile

import jax

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import gpu
import timing

from diffusion.commands import evaluation
from diffusion.config import loading
from diffusion.run import ema, loop, sharding, step as steps
from diffusion.run.parts import assembly

OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander,cse", "xla_backend_optimization_level": 0}
METRICS = (
  ("class_accuracy", "class accuracy"),
  ("frechet_distance", "Frechet distance"),
  ("frechet_floor", "its floor"),
  ("kernel_distance", "kernel distance"),
  ("neighbour_ratio", "neighbour ratio"),
  ("held_out_loss", "held-out loss"),
  ("bits_per_dim", "bits/dim"),
  ("train_seconds", "seconds of training"),
)


def trained(dtype, quick):
  """The metrics of one run of the digits."""
  config = loading.load(str(ROOT / "configs" / "digits.py"))
  with config.unlocked():
    config.network.dtype = dtype
  if quick:
    config.training.steps, config.evaluation.num_samples = 100, 100
  with tempfile.TemporaryDirectory() as workdir:
    loop.train(config, workdir, quiet=True)
    return evaluation.evaluate_run(workdir, quiet=True)


def digits_unet():
  return assembly.assemble(loading.load(str(ROOT / "configs" / "digits_unet.py")))


def cifar_unet():
  """DDPM++ at half its width and depth: the sizes of its feature maps at a compile time that a CPU bears."""
  config = loading.load(str(ROOT / "configs" / "cifar10" / "vp_ddpmpp_continuous.py"))
  config.network.width, config.network.num_res_blocks = 64, 2
  return gpu.parts_of(config)


def memory(parts, batch_size, remat=False, accumulate=1):
  """The compiler's account of one training step on one device, and the bytes of its state."""
  parts = parts._replace(network=parts.network.clone(remat=remat))
  config, mesh = parts.config, sharding.make_mesh(devices=jax.devices()[:1])
  shapes = assembly.shape_state(parts)
  step = steps.make_step(
    assembly.players_of(parts),
    parts.roles,
    ema.averages(config.training),
    mesh=mesh,
    state_sharding=sharding.state_sharding(mesh, shapes),
    seed=0,
    accumulate=accumulate,
  )
  compiled = step.lower(shapes, assembly.example_batch(parts, batch_size)).compile(OPTIONS)
  return compiled.memory_analysis(), sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def memory_table(quick):
  """Working memory of each way, in bytes."""
  networks = [("digits U-Net, batch 64", digits_unet(), 64)]
  if not quick:
    networks.append(("U-Net at 32x32, batch 32", cifar_unet(), 32))
  ways = [
    ("all at once", {}),
    ("remat", dict(remat=True)),
    ("accumulate=4", dict(accumulate=4)),
    ("both", dict(remat=True, accumulate=4)),
  ]
  found = {}
  print(
    f"{'working memory of the step':28}"
    + "".join(f"{name:>16}" for name, _ in ways)
    + f"{'state':>12}{'twice':>10}"
  )
  for name, parts, batch_size in networks:
    rows = {way: memory(parts, batch_size, **options) for way, options in ways}
    temp = {way: account.temp_size_in_bytes for way, (account, _) in rows.items()}
    account, state = rows["all at once"]
    whole = temp["all at once"]
    found[name] = dict(
      temp_bytes=temp,
      state_bytes=state,
      not_donated_bytes=account.output_size_in_bytes - account.alias_size_in_bytes,
    )
    shown = "".join(f"{f'{size / 1e6:.1f} MB ({size / whole:.2f})':>16}" for size in temp.values())
    print(f"{name:28}{shown}{f'{state / 1e6:.1f} MB':>12}{found[name]['not_donated_bytes']:>8} B", flush=True)
  return found


def main():
  parser = timing.arguments(__doc__)
  parser.add_argument("--part", choices=("memory", "precision", "both"), default="both")
  args = parser.parse_args()
  numbers = {}
  if args.part != "precision":
    numbers["memory"] = memory_table(args.quick)
  if args.part != "memory":
    numbers["precision"] = {
      dtype: {
        name: value for name, value in trained(dtype, args.quick).items() if isinstance(value, (int, float))
      }
      for dtype in ("float32", "bfloat16")
    }
    print(f"{'digits':24}{'float32':>12}{'bfloat16':>12}")
    for name, text in METRICS:
      print(
        f"{text:24}"
        + "".join(f"{found.get(name, float('nan')):12.4f}" for found in numbers["precision"].values())
      )
  timing.write(args.out, numbers)


if __name__ == "__main__":
  main()
