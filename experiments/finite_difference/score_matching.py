"""Score matching by finite differences beside its exact and sliced forms: agreement, cost, and the score that
is learned."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, losses, oracles, processes
from diffusion.run.fit import fit

FORMS = ("SM", "SSM", "SSM-VR", "FD-SSM", "FD-SSM-VR", "DSM", "FD-DSM")


def objective(form: str, process: Any, step: float = 0.1) -> losses.Objective:
  """The objective of a form's usual name. Raises ValueError for another name."""
  table = {
    "SM": lambda: losses.score_matching(process),
    "SSM": lambda: losses.sliced_score_matching(process, variance_reduced=False, directions="sphere"),
    "SSM-VR": lambda: losses.sliced_score_matching(process, directions="sphere"),
    "FD-SSM": lambda: losses.finite_difference_sliced_score_matching(process, step=step),
    "FD-SSM-VR": lambda: losses.finite_difference_sliced_score_matching(process, step=step, view="score"),
    "DSM": lambda: denoising_of_energy(process),
    "FD-DSM": lambda: losses.finite_difference_denoising_score_matching(process, step=step),
  }
  if form not in table:
    raise ValueError(f"there is no form {form!r}: choose one of {', '.join(table)}")
  return table[form]()


def denoising_of_energy(process: Any) -> losses.Objective:
  """Denoising score matching of a score, or of the gradient of an energy, in place of a denoiser."""
  base = losses.denoising_score_matching(process)

  def evaluate(roles, placed, params, state, clock):
    sigma = processes.expand(process.marginal(placed.t).sigma, placed.x_t)
    score = roles["model"](placed.x_t, placed.t, placed.cond, views=("score",)).score
    return losses.terms(losses.sum_rows(jnp.square(sigma * score + placed.noise)))

  return base.replace(evaluate=evaluate, needs={"model": {"score": base.name}})


def mlp(sizes: Sequence[int], seed: int = 0) -> list[tuple[jax.Array, jax.Array]]:
  """Parameters of a dense network [(w, b), ...] with inputs of sizes[0] and one output."""
  keys = jax.random.split(jax.random.key(seed), len(sizes))
  sizes = (*sizes, 1)
  return [
    (jax.random.normal(key, (a, b)) / np.sqrt(a), jnp.zeros(b))
    for key, a, b in zip(keys, sizes[:-1], sizes[1:])
  ]


def energy(params: Any, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
  """A smooth energy [B] of x [B, ...], the same at every time: a dense network plus |x|^2 / 2, which makes it
  a density."""
  del t, cond
  h = x.reshape(x.shape[0], -1)
  tail = 0.5 * jnp.sum(h * h, axis=1)
  for w, b in params[:-1]:
    h = jax.nn.softplus(h @ w + b.reshape(1, -1))
  w, b = params[-1]
  return tail + (h @ w + b.reshape(1, -1)).reshape(-1)


def program(
  form: str, dimension: int, batch_size: int = 128, width: int = 512
) -> tuple[Any, tuple[Any, ...]]:
  """(compiled gradient of the loss at one noise level, its arguments) for a network
  dimension-width-width-1."""
  process = processes.edm()
  loss = losses.chain(
    objective(form, process),
    losses.at_times(
      losses.uniform_times(0.3, 0.30001), roles=losses.roles(model=denoisers.from_functions(energy=energy))
    ),
  )
  params = mlp((dimension, width, width))
  loss_params, state = loss.init(jax.random.key(0))
  batch = {"x": jax.random.normal(jax.random.key(1), (batch_size, dimension))}

  def gradient(model, batch, key):
    return jax.grad(lambda model: loss({"model": model, "loss": loss_params}, state, 0, key, batch)[0])(model)

  arguments = (params, batch, jax.random.key(2))
  return jax.jit(gradient).lower(*arguments).compile(), arguments


def temporary_bytes(compiled: Any) -> int:
  """Bytes that a compiled program holds at once beside its arguments and results; 0 where the compiler does
  not tell."""
  analysis = compiled.memory_analysis()
  return int(getattr(analysis, "temp_size_in_bytes", 0) or 0)


def cost(config: Any, seed: int) -> dict[str, float]:
  """Ratios of time (medians of interleaved gradients) and of temporary memory, at the config's dimension."""
  del seed
  forms = ("SSM", "FD-SSM", "DSM", "FD-DSM")
  compiled = {
    form: program(form, config["dimension"], config["batch_size"], config["width"]) for form in forms
  }
  times = {form: [] for form in forms}
  for repeat in range(config["repeats"] + 1):
    for form in forms[:: 1 if repeat % 2 else -1]:
      run, arguments = compiled[form]
      start = time.perf_counter()
      jax.block_until_ready(run(*arguments))
      times[form].append(time.perf_counter() - start)
  times = {form: np.asarray(values[1:]) for form, values in times.items()}
  ratio = lambda a, b: float(np.median(times[a] / times[b]))
  memory = {form: temporary_bytes(run) for form, (run, _) in compiled.items()}
  return {
    "ssm_over_fd_ssm_seconds": ratio("SSM", "FD-SSM"),
    "dsm_over_fd_dsm_seconds": ratio("DSM", "FD-DSM"),
    "ssm_over_fd_ssm_memory": memory["SSM"] / max(memory["FD-SSM"], 1),
    "dsm_over_fd_dsm_memory": memory["DSM"] / max(memory["FD-DSM"], 1),
  }


def agreement(config: Any, seed: int) -> dict[str, float]:
  """The mean difference of FD-SSM and SSM along the same directions of a random network, and the order
  observed in the step.

  The value is that of the paper's objective on clean data (half of ours), at dimension, batch_size, width and
  step of the config, in float32; the bias alone and its order are taken in float64.
  """
  params = jax.tree.map(lambda p: 2.0 * p, mlp((config["dimension"], config["width"], config["width"]), seed))
  roles = {"model": denoisers.from_functions(params, energy=energy)}
  batch = {"x": jax.random.normal(jax.random.key(seed), (config["batch_size"], config["dimension"]))}
  t, key = jnp.zeros(config["batch_size"]), jax.random.key(seed + 1)

  exact = objective("SSM", None)
  draw = exact.draw(key, batch, t, {})  # one draw, so the same directions

  def value(step):
    differences = objective("FD-SSM", None, step)
    gap = lambda draw: differences(roles, draw).interior - exact(roles, draw).interior
    return 0.5 * jnp.mean(jax.jit(gap)(draw))

  gap = abs(float(value(config["step"])))
  with jax.enable_x64(True):
    wide = lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    params, draw = jax.tree.map(wide, (params, draw))
    roles = {"model": denoisers.from_functions(params, energy=energy)}
    coarse, fine = float(value(config["step"])), float(value(0.5 * config["step"]))
  return {"fd_ssm_minus_ssm": gap, "bias": abs(coarse), "order": float(np.log2(abs(coarse / fine)))}


def training(config: Any, seed: int) -> dict[str, float]:
  """Errors E ||s - s_true||^2 of the scores that SSM, FD-SSM, DSM and FD-DSM learn on a ring of Gaussians at
  one noise level.

  The forms share the network, the data, the noise and the steps; a form by differences is divided by its own
  limit.
  """
  process = processes.edm()
  angles = 2 * np.pi * np.arange(8) / 8
  ring = 2.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
  oracle = oracles.gaussian_mixture(process, None, ring, 0.3**2)
  level = config["noise_level"]
  pool = oracle.sample(jax.random.key(seed), 50_000)
  data = lambda key: {"x": pool[jax.random.randint(key, (config["batch_size"],), 0, 50_000)]}
  test = oracle.sample(jax.random.key(1000 + seed), 4096, t=level)
  times = jnp.full(4096, level)
  true = oracle.score(test, times)
  errors = {}
  forms = {form: objective(form, process, config["step"]) for form in ("SSM", "FD-SSM", "DSM", "FD-DSM")}
  forms["FD-DSM of 4"] = losses.finite_difference_denoising_score_matching(
    process, step=config["step"], num_slices=4
  )
  for form, chosen in forms.items():
    loss = losses.chain(
      chosen,
      losses.at_times(
        losses.uniform_times(level, level * 1.00001),
        roles=losses.roles(model=denoisers.from_functions(energy=energy)),
      ),
    )
    rate = optax.cosine_decay_schedule(config["learning_rate"], config["steps"])
    transform = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate))
    params, _, _ = fit(
      loss,
      mlp((2, config["width"], config["width"]), seed),
      transform,
      data,
      steps=config["steps"],
      seed=seed,
    )
    model = denoisers.from_functions(params["model"], energy=energy)
    score = model(test, times, views=("score",)).score
    errors[form] = float(jnp.mean(jnp.sum(jnp.square(score - true), axis=1)))
  return {
    "fd_ssm_over_ssm_error": errors["FD-SSM"] / errors["SSM"],
    "fd_dsm_over_dsm_error": errors["FD-DSM"] / errors["DSM"],
    "fd_dsm_of_4_over_dsm_error": errors["FD-DSM of 4"] / errors["DSM"],
    "ssm_error": errors["SSM"],
    "dsm_error": errors["DSM"],
    "score_norm": float(jnp.mean(jnp.sum(jnp.square(true), axis=1))),
  }
