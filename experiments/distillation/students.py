"""Guided distillation (arXiv:2210.03142), measured: a network for every guidance weight, halved to one step,
beside its teacher."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, guidance, losses, metrics, networks, oracles, processes, solvers
from diffusion.run.fit import fit
from diffusion.run.halving import Students, halve, learner
from experiments.distillation.tables import WEIGHTS, draw, table

TEACHER_STEPS = (1, 2, 4, 8, 16, 32, 64)
STUDENT_STEPS = (1, 2, 4, 8)


def times(process: Any, n: int) -> np.ndarray:
  """The grid of n DDIM steps: even in t, from pure noise to clean data."""
  return solvers.grids.uniform(process, n, t_min=0.0)


def distilled(
  config: Any,
  process: Any,
  network: Any,
  parameterization: Any,
  batches: Callable[[jax.Array], Any],
  event: tuple[int, ...],
  seed: int,
) -> tuple[Any, Any, Students]:
  """(the guided teacher, the denoiser of stage one, `Students`): all trained here.

  config: updates, batch, rate, dropout (of the condition; of the teacher), stage_one, stage_two (numbers of
  updates), student_rate, power (of `losses.random_guidance`).
  """
  x = jnp.zeros((1, *event))
  start = jax.jit(network.init)(jax.random.key(seed), x, jnp.zeros(1))["params"]
  template = denoisers.from_flax(network, process, parameterization, start)
  weigh = losses.weight_by(losses.truncated_snr())
  objective = losses.chain(
    losses.denoising_score_matching(process, "v"),
    losses.condition_dropout(config.dropout),
    losses.weight_by(losses.native("v")),
  )
  rate = optax.warmup_cosine_decay_schedule(0.0, config.rate, min(100, config.updates // 2), config.updates)
  transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))
  params = fit(
    losses.chain(objective, losses.at_times(losses.low_discrepancy(), roles=losses.roles(model=template))),
    start,
    transform,
    batches,
    steps=config.updates,
    seed=seed,
  )[0]["model"]
  guided = guidance.by_condition()(template)

  stage_one = losses.chain(
    losses.distillation(process),
    losses.random_guidance(min(WEIGHTS), max(WEIGHTS), config.power),
    weigh,
    losses.at_times(losses.low_discrepancy(), roles=losses.roles(model=template, teacher=guided)),
  )
  learn = learner(lambda steps: stage_one, config.student_rate, config.stage_one, batches)
  first, _ = learn(params, None, jax.random.key(seed + 1))

  def close(steps):
    objective = losses.progressive_distillation(process, steps)
    return losses.chain(
      objective,
      losses.random_guidance(min(WEIGHTS), max(WEIGHTS), config.power),
      weigh,
      losses.at_times(
        losses.low_discrepancy(losses.step_times(steps)),
        roles=losses.roles(model=template, teacher=template),
      ),
    )

  learn = learner(close, config.student_rate, config.stage_two, batches)
  students = halve(
    learn,
    first,
    process,
    times(process, max(TEACHER_STEPS)),
    jax.random.key(seed + 2),
    tuple(n for n in STUDENT_STEPS if n > 1),
  )
  return guided.with_params(params), template.with_params(first), students


def stage_one_error(first: Any, guided: Any, process: Any, batch: Any, key: jax.Array) -> float:
  """Mean squared error of stage one's x0 against the guided teacher's over data, times and weights, in units
  of the data's variance."""
  time_key, key = jax.random.split(key)
  objective = losses.chain(losses.distillation(process), losses.random_guidance(min(WEIGHTS), max(WEIGHTS)))
  draw = objective.draw(
    key, batch, losses.uniform_times(process.t_min, process.t_max).sample(time_key, len(batch["x"])), {}
  )
  placed = objective.place({}, draw)
  at = (placed.x_t, placed.t, placed.cond)
  error = jax.jit(lambda first, guided, at: first(*at).x0 - guided(*at).x0)(first, guided, at)
  return float(jnp.mean(jnp.square(error)) / jnp.mean(jnp.var(batch["x"], axis=0)))


def mixture(config: Any, seed: int) -> dict[str, float]:
  """Four classes of two Gaussians each on a ring: distances to the exact guided flow of the mixture, to its
  own samples where w = 0.

  A distance is the sliced Wasserstein distance (order 1) of samples and reference of one class, its mean over
  classes.
  config: width, depth, samples (a class), fine (steps of the reference), picture (a path or ''), and those of
  `distilled`.
  """
  angle = 2 * np.pi * np.arange(8) / 8
  oracle = oracles.gaussian_mixture(
    processes.vp_cosine(),
    None,
    np.stack([np.cos(angle), np.sin(angle)], 1),
    0.2**2,
    labels=np.arange(8) // 2,
    dtype=jnp.float32,
  )

  def distance(x, y, label):
    each = [metrics.sliced_wasserstein(x[label == c], y[label == c], order=1) for c in range(4)]
    return float(np.mean(each))

  sample = lambda key, label: oracle.sample(key, label.shape[0], cond={"label": label})
  return measured(config, seed, oracle, denoisers.v(), sample, (2,), 4, distance)


def digits(config: Any, seed: int) -> dict[str, float]:
  """Handwritten digits, blurred by a little noise so that their exact guided flow is known: distances to it
  in features of a classifier.

  A distance is the Frechet distance of the evaluation's features (`metrics.fit_features`), over all classes
  at once.
  config: blur, and those of `mixture`.
  """
  from sklearn import datasets

  found = datasets.load_digits()
  order = np.argsort(found.target, kind="stable")
  images, label = np.asarray(found.images[order, :, :, None] / 8.0 - 1.0, np.float32), found.target[order]
  exact, sample = blurred(processes.vp_cosine(), images, label, config.blur)
  features = metrics.fit_features(images, label, seed=seed)
  statistics = lambda x: metrics.statistics(features(x))
  distance = lambda x, y, label: float(metrics.frechet_distance(statistics(x), statistics(y)))
  # The exact denoiser is a mean of images plus a small share of x, which this parameterisation adds too. A
  # v-prediction adds a large one, so that where guidance leads x off the data its prediction goes along and
  # the errors of many steps build up.
  return measured(
    config,
    seed,
    exact,
    denoisers.edm(config.blur, time_input="t", time_scale=1.0),
    sample,
    (8, 8, 1),
    10,
    distance,
  )


def blurred(
  process: Any, images: np.ndarray, label: np.ndarray, blur: float
) -> tuple[Any, Callable[..., jax.Array]]:
  """(denoiser, sample(key, label [B]) -> [B, *event]) of image + blur z, all classes equally likely, all
  images within one.

  images: [K, *event] with labels [K] in ascending order. The denoiser is exact, by matrix products: at blur
  above 0 nothing cancels.
  """
  count = np.bincount(label)
  first = np.cumsum(count) - count
  own = {
    "images": images.reshape(len(images), -1),
    "label": label.astype(np.int32),
    "log_weight": -np.log(count[label]).astype(images.dtype),
  }

  def denoise(own, x, t, cond):
    alpha, sigma = (
      leaf.astype(x.dtype)[:, None] for leaf in (process.marginal(t).alpha, process.marginal(t).sigma)
    )
    variance, flat = sigma**2 + (alpha * blur) ** 2, x.reshape(x.shape[0], -1)
    squares = jnp.sum(own["images"] ** 2, axis=1)[None, :]
    logits = (alpha * flat @ own["images"].T - 0.5 * alpha**2 * squares) / variance + own["log_weight"][
      None, :
    ]
    wanted = jnp.full(x.shape[:1], -1, jnp.int32) if cond is None else cond["label"].astype(jnp.int32)
    kept = (wanted[:, None] == -1) | (wanted[:, None] == own["label"][None, :])
    mean = jax.nn.softmax(jnp.where(kept, logits, -jnp.inf), axis=1) @ own["images"]
    return (mean + alpha * blur**2 / variance * (flat - alpha * mean)).reshape(x.shape)

  def sample(key, label):
    key, noise_key = jax.random.split(key)
    place = jnp.floor(
      jax.random.uniform(key, label.shape, jnp.float32) * jnp.asarray(count, jnp.float32)[label]
    ).astype(jnp.int32)
    clean = jnp.asarray(images)[jnp.asarray(first, jnp.int32)[label] + place]
    return clean + blur * jax.random.normal(noise_key, clean.shape, clean.dtype)

  return denoisers.from_function(denoise, process, denoisers.x0(), jax.tree.map(jnp.asarray, own)), sample


def conditions(label: jax.Array | np.ndarray, weight: float) -> dict[str, jax.Array]:
  """The condition of every row: its label and one weight."""
  return {"label": jnp.asarray(label, jnp.int32), "guidance": jnp.full(len(label), weight, jnp.float32)}


def measured(
  config: Any,
  seed: int,
  oracle: Any,
  parameterization: Any,
  sample: Callable[..., jax.Array],
  event: tuple[int, ...],
  classes: int,
  distance: Callable[..., float],
) -> dict[str, float]:
  """Trains, samples, prints the table of distances, and returns what is claimed of it.

  oracle: the exact denoiser; parameterization: of all networks; sample: (key, labels [N]) -> data [N,
  *event]; distance: of samples and reference with equal labels. The reference at w > 0 is the probability
  flow of the oracle under exact guidance, at w = 0 data; the floor is the distance of two references.
  A guided SDE ends in another law than the guided flow, so that of the stochastic sampler in short steps is a
  reference of its own; and so is the teacher's own flow from other noise, in as many second-order steps as
  the teacher has: what distillation can keep where the teacher is wrong.
  """
  process = oracle.process
  network = networks.MLP(width=config.width, depth=config.depth, num_classes=classes, guidance_size=32)

  def batches(key):
    label_key, key = jax.random.split(key)
    label = jax.random.randint(label_key, (config.batch,), 0, classes)
    return {"x": sample(key, label), "cond": {"label": label}}

  guided, first, students = distilled(config, process, network, parameterization, batches, event, seed)

  label = np.repeat(np.arange(classes), config.samples)
  noise_key, key, error_key = jax.random.split(jax.random.key(1000 + seed), 3)
  x, keys = process.prior(jax.random.split(noise_key, label.size), event), jax.random.split(key, label.size)
  exact = guidance.by_condition()(oracle)
  flow, sde = (
    solvers.dpmpp_2m(process, times(process, config.fine)),
    solvers.double_step(process, times(process, 2 * config.fine)),
  )

  def reference(weight, key, solver=flow):
    cond = conditions(label, weight)
    if weight == 0.0:
      return np.asarray(sample(key, cond["label"]))
    own = jax.random.split(jax.random.fold_in(key, 1), label.size)
    return np.asarray(
      solvers.sample(
        exact, solver, process.prior(jax.random.split(key, x.shape[0]), x.shape[1:]), keys=own, cond=cond
      )
    )

  drawn = {}
  for name, build, models in (
    ("teacher", solvers.ddim, dict.fromkeys(TEACHER_STEPS, guided)),
    ("stage one", solvers.ddim, {4: first, 64: first}),
    ("student", solvers.ddim, {n: first.with_params(students.ddim[n]) for n in STUDENT_STEPS}),
    (
      "student, stochastic",
      solvers.double_step,
      {n: first.with_params(params) for n, params in sorted(students.double_step.items())},
    ),
  ):
    for n, model in models.items():
      solver = build(process, times(process, n))
      drawn[name, n] = [
        np.asarray(solvers.sample(model, solver, x, keys=keys, cond=conditions(label, weight)))
        for weight in WEIGHTS
      ]
  goals = [
    [reference(weight, jax.random.fold_in(error_key, number)) for number in range(2)] for weight in WEIGHTS
  ]
  far = {row: [distance(x, goal[0], label) for x, goal in zip(found, goals)] for row, found in drawn.items()}
  noisy = [reference(weight, jax.random.fold_in(error_key, 2), sde) for weight in WEIGHTS]
  far |= {
    ("student, stochastic, from the guided SDE", n): [
      distance(x, goal, label) for x, goal in zip(found, noisy)
    ]
    for (name, n), found in drawn.items()
    if name == "student, stochastic"
  }
  far["the guided SDE from the flow", 2 * config.fine] = [
    distance(a, b[0], label) for a, b in zip(noisy, goals)
  ]
  second = solvers.dpmpp_2m(process, times(process, max(TEACHER_STEPS)))
  kept = [
    np.asarray(
      solvers.sample(
        guided,
        second,
        process.prior(jax.random.split(jax.random.fold_in(error_key, 3), x.shape[0]), x.shape[1:]),
        cond=conditions(label, weight),
      )
    )
    for weight in WEIGHTS
  ]
  far |= {
    (f"{name}, from the teacher's own flow", n): [distance(x, goal, label) for x, goal in zip(found, kept)]
    for (name, n), found in drawn.items()
    if name in ("teacher", "student")
  }
  floor = [distance(*goal, label) for goal in goals]
  differences = {
    n: [float(np.sqrt(np.mean((a - b) ** 2))) for a, b in zip(drawn["student", n], drawn["teacher", 64])]
    for n in STUDENT_STEPS
  }
  print(table(far, floor, differences), flush=True)
  if config.get("picture") and seed == 0:
    draw(config.picture, far, floor, drawn, goals, label)
  ratios = {"stage_one_error": stage_one_error(first, guided, process, batches(error_key), error_key)}
  for i, weight in enumerate(WEIGHTS):
    for prefix, suffix in (("", ""), ("own_", ", from the teacher's own flow")):
      mine = far["student" + suffix, 4][i]
      ratios |= {f"{prefix}over_{n}_steps_w{weight:g}": mine / far["teacher" + suffix, n][i] for n in (64, 4)}
  return ratios
