"""What the library costs beside the same work written by hand.

(a) a 50-step sampler against 50 chained evaluations of the bare network in one jitted lax.scan;
(b) the training step against a minimal step with the same network, loss, optimiser, clipping and average;
(c) the time to compile each of the four programs.

Each number is a ratio of ours to theirs: the median over interleaved repeats in one process. With
--solvers=all, (a) alone for every table of the catalogue: its 16 or so evaluations against as many of the
bare network (8 with --quick)."""

import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing

from diffusion import solvers
from diffusion.config import loading
from diffusion.run import ema, sharding, step as steps
from diffusion.run.parts import assembly, optimizer

BATCH, STEPS = 64, 50
TABLE_STEPS, TABLE_REPEATS = 16, 5  # of each table of the catalogue


def sampler_pair(parts, params, batch, name="ddim", calls=STEPS):
  """(ours, bare): jitted functions of no arguments but their arrays, and those arrays; about so many
  evaluations of a solver of the catalogue."""
  network, process = parts.network, parts.process
  solver = solvers.build(name, process, calls)
  if solver.cost > calls:
    solver = solvers.build(name, process, max(4, calls * calls // solver.cost))
  keys = jax.random.split(jax.random.key(0), BATCH) if solver.stochastic else None
  denoiser = assembly.denoiser(parts, params)
  x, labels = batch["x"], batch["cond"]["label"]
  times = jnp.asarray(solver.t[:-1])

  def ours():
    # A new function each time, so that compiling it again is compiling it anew.
    return lambda denoiser, solver, x, labels: solvers.sample(
      denoiser, solver, x, keys=keys, cond={"label": labels}
    )

  def bare():
    def chained(params, times, x, labels):
      def body(x, t):
        out = network.apply({"params": params}, x, jnp.broadcast_to(t, x.shape[:1]), {"label": labels})
        return x - 0.01 * out, None

      return jax.lax.scan(body, x, times)[0]

    return chained

  return (ours, (denoiser, solver, x, labels)), (bare, (params, times, x, labels))


def every_table(parts, params, batch, quick):
  """The sampler's ratio for each table of the catalogue: name -> (median, middle half)."""
  from tqdm import tqdm

  # Tables of as many rows, slots and noises share a program, and chains of as many calls do.
  chain = None
  tables = [
    name for name in solvers.SOLVERS if isinstance(solvers.build(name, parts.process, 8), solvers.Table)
  ]
  found = {}
  for name in tqdm(tables, unit="solver"):
    (ours, arrays), (bare, bare_arrays) = sampler_pair(
      parts, params, batch, name, 8 if quick else TABLE_STEPS
    )
    chain = chain or jax.jit(bare())
    calls = {"ours": lambda run=ours(), a=arrays: run(*a), "theirs": lambda a=bare_arrays: chain(*a)}
    timing.interleaved(calls, 1)
    found[name] = (
      arrays[1].cost,
      timing.ratio(timing.interleaved(calls, 2 if quick else TABLE_REPEATS), "ours", "theirs"),
    )
  print(f"{'solver':24}{'calls':>8}{'ratio':>8}{'middle half':>18}{'aim':>8}")
  for name, (nfe, (middle, (low, high))) in found.items():
    print(f"{name:24}{nfe:8}{middle:8.3f}{f'{low:.3f} to {high:.3f}':>18}{'1.03':>8}")
  return {name: dict(calls=nfe, sampler_ratio=middle) for name, (nfe, (middle, _)) in found.items()}


def step_pair(parts, state, batch):
  """(ours, by hand): training steps that take the state's buffers over."""
  config = parts.config
  rate = optimizer.learning_rate(config.optimizer, BATCH, config.training.steps)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  places = sharding.state_sharding(mesh, jax.eval_shape(lambda: state))
  ours = lambda: steps.make_step(
    assembly.players_of(parts),
    parts.roles,
    ema.averages(config.training),
    mesh=mesh,
    state_sharding=places,
    seed=0,
  )

  network, section = parts.network, config.optimizer
  std, mean, spread = config.loss.weight.data_std, config.loss.times.mean, config.loss.times.std
  (half_life,) = config.training.ema_half_life_images
  by_hand_transform = optax.chain(
    optax.clip_by_global_norm(section.clip),
    optax.scale_by_adam(section.b1, section.b2, section.eps),
    optax.scale_by_learning_rate(rate),
  )

  def by_hand():
    def step(state, batch):
      number, params, opt_state, average = state
      keys = jax.random.split(jax.random.fold_in(jax.random.key(0), number), 4)
      x, labels = batch["x"], batch["cond"]["label"]
      sigma = jnp.exp(mean + spread * jax.random.normal(keys[0], (BATCH,))).reshape(BATCH, 1, 1, 1)
      noisy = x + sigma * jax.random.normal(keys[1], x.shape)
      labels = jnp.where(jax.random.uniform(keys[2], (BATCH,)) < config.loss.condition_dropout, -1, labels)
      total = jnp.sqrt(sigma**2 + std**2)

      def loss(params):
        out = network.apply(
          {"params": params},
          noisy / total,
          0.25 * jnp.log(sigma).reshape(BATCH),
          {"label": labels},
          train=True,
          rngs={"dropout": keys[3]},
        )
        clean = std**2 / total**2 * noisy + sigma * std / total * out
        return jnp.mean((total / (sigma * std)) ** 2 * (clean - x) ** 2)

      value, gradient = jax.value_and_grad(loss)(params)
      updates, opt_state = by_hand_transform.update(gradient, opt_state, params)
      params = optax.apply_updates(params, updates)
      keep = 0.5 ** (
        BATCH / jnp.minimum(half_life, jnp.maximum(config.training.ema_ramp * number * BATCH, 1e-8))
      )
      average = jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, average, params)
      return (number + 1, params, opt_state, average), {
        "loss": value,
        "grad_norm": optax.global_norm(gradient),
      }

    return jax.jit(step, donate_argnums=0)

  params = state.params["model"]
  hand_state = (jnp.int32(0), params, by_hand_transform.init(params), jax.tree.map(jnp.copy, params))
  return (ours, (state, batch)), (by_hand, (jax.tree.map(jnp.copy, hand_state), batch))


def compile_seconds(make, arguments):
  """(seconds by the clock and of the CPU to trace, lower and compile from scratch; the executable)."""
  function = make()
  start = time.perf_counter(), time.process_time()
  lowered = (function if hasattr(function, "lower") else jax.jit(function)).lower(*arguments)
  executable = lowered.compile()
  return (time.perf_counter() - start[0], time.process_time() - start[1]), executable


def compile_both(pair, repeats):
  """Median ratios of compile times by the clock and of the CPU, and both executables.

  They take turns and each goes first as often; a round before them takes what the first program of a process
  costs.
  """
  made = dict(zip(("ours", "theirs"), pair))
  times, executables = {name: [] for name in made}, {}
  for number in range(repeats + 1):
    for name in list(made)[:: 1 if number % 2 else -1]:
      jax.clear_caches()
      spent, executables[name] = compile_seconds(*made[name])
      times[name] += [spent] if number else []
  found = {name: np.asarray(spent) for name, spent in times.items()}
  ratios = [timing.ratio({name: of[:, i] for name, of in found.items()}, "ours", "theirs") for i in (0, 1)]
  return ratios, executables


def main():
  parser = timing.arguments(__doc__)
  parser.add_argument(
    "--solvers", choices=("ddim", "all"), default="ddim", help="all: the sampler's ratio for every table"
  )
  args = parser.parse_args()
  jax.config.update("jax_enable_compilation_cache", False)
  config = loading.load(str(ROOT / "configs" / "digits_unet.py"))
  parts = assembly.assemble(config)
  state = jax.jit(lambda: assembly.init_state(parts))()
  rng = np.random.default_rng(0)
  batch = {
    "x": jnp.asarray(rng.normal(size=(BATCH, *parts.dataset.shape)), jnp.float32),
    "cond": {"label": jnp.asarray(rng.integers(0, 10, BATCH), jnp.int32)},
  }
  count = sum(leaf.size for leaf in jax.tree.leaves(state.params["model"]))
  print(f"U-Net with {count:,} parameters, batch {BATCH}, on {jax.devices()[0].device_kind}")
  if args.solvers == "all":
    timing.write(
      args.out,
      {
        "solvers": every_table(parts, state.params["model"], batch, args.quick),
        "parameters": count,
        "batch": BATCH,
      },
    )
    return
  compiles = 2 if args.quick else 6

  sampler = sampler_pair(parts, state.params["model"], batch)
  sampler_compile, run = compile_both(sampler, compiles)
  calls = {name: (lambda f=run[name], a=pair[1]: f(*a)) for name, pair in zip(("ours", "theirs"), sampler)}
  timing.interleaved(calls, 1)
  sampler_times = timing.interleaved(calls, 3 if args.quick else 15)

  training = step_pair(parts, state, batch)
  train_compile, run = compile_both(training, compiles)
  states = {"ours": training[0][1][0], "theirs": training[1][1][0]}

  def many(name, number=5 if args.quick else 10):
    for _ in range(number):
      states[name], metrics = run[name](states[name], batch)
    return metrics

  calls = {"ours": lambda: many("ours"), "theirs": lambda: many("theirs")}
  timing.interleaved(calls, 1)
  step_times = timing.interleaved(calls, 3 if args.quick else 15)

  rows = [
    (
      "sampler_ratio",
      "50-step sampler / 50 chained network calls",
      timing.ratio(sampler_times, "ours", "theirs"),
      "1.03",
    ),
    (
      "train_step_ratio",
      "training step / minimal step by hand",
      timing.ratio(step_times, "ours", "theirs"),
      "1.05",
    ),
    ("sampler_compile_ratio", "compiling the sampler / the chain", sampler_compile[0], "1.15"),
    ("sampler_compile_cpu_ratio", "  the same in CPU seconds", sampler_compile[1], "1.15"),
    ("train_compile_ratio", "compiling the step / the step by hand", train_compile[0], "1.05"),
    ("train_compile_cpu_ratio", "  the same in CPU seconds", train_compile[1], "1.05"),
  ]
  print(f"{'':44}{'ratio':>8}{'middle half':>18}{'aim':>8}")
  for _, text, (middle, (low, high)), aim in rows:
    print(f"{text:44}{middle:8.3f}{f'{low:.3f} to {high:.3f}':>18}{aim:>8}")
  timing.write(
    args.out,
    {name: value[0] for name, _, value, _ in rows}
    | {
      "parameters": count,
      "batch": BATCH,
      "steps": STEPS,
      "sampler_seconds": float(np.median(sampler_times["ours"])),
      "train_step_seconds": float(np.median(step_times["ours"])) / (5 if args.quick else 10),
    },
  )


if __name__ == "__main__":
  main()
