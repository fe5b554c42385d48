"""What autoregressive score matching claims (arXiv:2010.12810), measured: densities of sets in the plane,
stability, cost, denoising."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import autoregressive, denoisers, losses, networks, oracles, processes
from diffusion.data import load
from diffusion.pictures import scatter2d
from diffusion.run.fit import fit

TIME = 0.5
NO_TIME = losses.uniform_times(TIME, 0.5001)
"""Of objectives on clean data: the network is told a time, always the same."""


def plane_set(name: str) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
  """(sample (key, n) -> [n, 2], log-density [n, 2] -> [n] in nats, both in closed form) of a set with many
  modes.

  'ring': eight Gaussians of deviation 0.25 on a circle of radius 2; 'gmm4': four of deviation 0.5 at (+-2, 0)
  and (0, +-2); 'checkerboard': eight unit squares of [-2, 2]^2, blurred by a Gaussian of deviation 0.1.
  Raises ValueError for another name.
  """
  circle = lambda count: (
    2.0 * np.stack([f(2 * np.pi * np.arange(count) / count) for f in (np.cos, np.sin)], 1)
  )
  mixtures = {"ring": (circle(8), 0.25**2), "gmm4": (circle(4), 0.5**2)}
  if name == "checkerboard":
    return sample_checkerboard, log_checkerboard
  if name not in mixtures:
    raise ValueError(f"there is no set {name!r}: choose one of ring, gmm4, checkerboard")
  oracle = oracles.gaussian_mixture(processes.edm(), None, *mixtures[name])
  return oracle.sample, lambda x: oracle.log_prob(x, jnp.zeros(x.shape[0]))


BLUR = 0.1


def sample_checkerboard(key: jax.Array, n: int) -> jax.Array:
  """Points of the blurred checkerboard, [n, 2]."""
  cell, place, blur = jax.random.split(key, 3)
  first, pair = jnp.divmod(jax.random.randint(cell, (n,), 0, 8), 2)
  corner = jnp.stack([first - 2, 2 * pair - 2 + first % 2], axis=1).astype(jnp.float32)
  return corner + jax.random.uniform(place, (n, 2)) + BLUR * jax.random.normal(blur, (n, 2))


def log_checkerboard(x: jax.Array) -> jax.Array:
  """Its log-density, [n]."""
  edges = jax.scipy.stats.norm.logcdf((x[:, :, None] - jnp.arange(-2.0, 3.0)[None, None]) / BLUR)
  # Of each cell of the line: the mass that the blur leaves at x, as a difference of two logarithms of
  # probabilities.
  masses = jnp.exp(edges[..., :-1]) - jnp.exp(edges[..., 1:])
  even = (np.arange(4)[:, None] + np.arange(4)[None]) % 2 == 0
  total = jnp.sum(
    masses[:, 0, :, None] * masses[:, 1, None, :] * jnp.asarray(even, x.dtype)[None], axis=(1, 2)
  )
  return jnp.log(jnp.maximum(total / 8.0, jnp.finfo(x.dtype).tiny))


def optimiser(config: Any, steps: int | None = None) -> optax.GradientTransformation:
  """Adam with clipped gradients and a cosine to zero."""
  rate = optax.cosine_decay_schedule(config.learning_rate, steps or config.steps)
  return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(rate, b2=0.99))


def made(config: Any, **changes: Any) -> networks.MADE:
  """The MADE of config.network, with some of its options changed."""
  options = dict(config.network)
  return networks.MADE(**(options | changes))


def bound(network: Any) -> denoisers.NetworkDenoiser:
  """The network as a denoiser with the views `context` and `head`, a template for a loss."""
  return denoisers.from_flax(network, None, None, None, methods=("context", "head"))


def initial(network: Any, shape: tuple[int, ...], seed: int) -> Any:
  """Parameters of a new network for examples of this shape."""
  return jax.jit(lambda key: network.init(key, jnp.zeros((1, *shape)), jnp.zeros(1))["params"])(
    jax.random.key(seed)
  )


def plane(config: Any, seed: int) -> dict[str, float]:
  """Nats of each set of config.sets: the model trained by score matching, a MADE with one logistic a
  conditional, and the truth.

  Between modes that lie many deviations apart there are no points, and score matching learns nothing of the
  shares of the mass. So a share config.background.share of the points that the model sees comes from a wide
  normal, whose density is known: the model is of the mixture q = (1 - e) p + e n, and p = (q - e n) / (1 - e)
  in closed form, which integrates to one as q and n do.

  `SET_gap_nats` is the mean of log p - log p_model over 2000 points that no model has seen: the
  Kullback-Leibler divergence, whose estimate varies less than that of either; the model is normalised on a
  grid. If config.picture is a path, the first seed draws samples beside the truth there.
  """
  found, shown = {}, {}
  for name, steps in config.sets.items():
    draw, log_density = plane_set(name)
    test = draw(jax.random.key(10_000 + seed), 2000)
    true = np.asarray(jax.jit(log_density)(test), np.float64)
    model, grid = fitted(config, draw, steps, seed), jnp.linspace(-config.reach, config.reach, config.points)
    log_mixture = jax.jit(lambda x, model=model: autoregressive.log_prob(model, x, grid, t=TIME))
    learned = without_background(config, test, log_mixture(test))
    logistic = one_logistic(config, lambda key, draw=draw: {"x": draw(key, config.batch)}, test, seed)
    found |= {
      f"{name}_nll_nats": float(-learned.mean()),
      f"{name}_gap_nats": float(np.mean(true - learned)),
      f"{name}_gap_error": float(np.std(true - learned) / np.sqrt(len(true))),
      f"{name}_true_nll_nats": float(-true.mean()),
      f"{name}_logistic_gap_nats": float(np.mean(true - logistic)),
    }
    if config.get("picture") and seed == 0:
      x = jax.jit(
        lambda model=model: autoregressive.sample(model, jax.random.key(5), 2400, (2,), grid, t=TIME)
      )()
      share = np.exp(
        log_background(config, x) - np.asarray(log_mixture(x), np.float64)
      )  # of the background where x lies
      kept = np.asarray(x)[np.random.default_rng(5).uniform(size=len(x)) > share][:2000]
      shown[name] = (np.asarray(test), kept, found[f"{name}_gap_nats"])
  if shown:
    draw_samples(config.picture, shown, config.picture_reach)
  return found


def log_background(config: Any, x: jax.Array) -> np.ndarray:
  """log(e n(x)) of the background with its share, [n] in float64."""
  variance = config.background.std**2
  return (
    np.log(config.background.share)
    - 0.5 * np.sum(np.asarray(x, np.float64) ** 2, axis=1) / variance
    - np.log(2 * np.pi * variance)
  )


def without_background(config: Any, x: jax.Array, log_mixture: np.ndarray) -> np.ndarray:
  """log p of log q; p is at least a thousandth of q, so that a q below the background costs a finite number
  of nats."""
  log_mixture = np.asarray(log_mixture, np.float64)
  share = np.exp(log_background(config, x) - log_mixture)
  return log_mixture + np.log(np.maximum(1.0 - share, 1e-3)) - np.log1p(-config.background.share)


def fitted(config: Any, draw: Callable[..., jax.Array], steps: int, seed: int) -> denoisers.NetworkDenoiser:
  """The denoiser of a MADE trained by score matching on points of the plane and of the background."""
  network, background = made(config), config.background

  def data(key):
    points, wide, which = jax.random.split(key, 3)
    far = background.std * jax.random.normal(wide, (config.batch, 2))
    return {
      "x": jnp.where(
        jax.random.uniform(which, (config.batch, 1)) < background.share, far, draw(points, config.batch)
      )
    }

  model = bound(network)
  loss = losses.chain(
    losses.autoregressive_score_matching(), losses.at_times(NO_TIME, roles=losses.roles(model=model))
  )
  params, _, _ = fit(
    loss, initial(network, (2,), seed), optimiser(config, steps), data, steps=steps, seed=seed
  )
  return model.with_params(params["model"])


def draw_samples(path: str, sets: Mapping[str, tuple[Any, Any, float]], reach: float) -> None:
  """{name: (points of the truth, samples, gap in nats)}, one column a set, the truth above."""
  from matplotlib.figure import Figure

  from diffusion.pictures.sheets import write_figure

  figure = Figure(figsize=(3.4 * len(sets), 7.2), layout="constrained")
  rows = figure.subplots(2, len(sets), squeeze=False)
  for (name, (true, samples, gap)), top, bottom in zip(sets.items(), *rows):
    for axes, points, title in (
      (top, true, f"{name}: the truth"),
      (bottom, samples, f"samples, {gap:.3f} nats from it"),
    ):
      axes.scatter(
        points[:, 0],
        points[:, 1],
        s=2.0,
        alpha=0.5,
        linewidths=0,
        color="tab:blue" if axes is top else "tab:orange",
      )
      axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title, xticks=(), yticks=())
  write_figure(path, figure)


def in_the_plane(run: Any, workdir: str, *, points: int = 301, reach: float = 3.5) -> dict[str, float]:
  """Nats of held-out data at the smallest noise level of a run, from normalised conditionals; draws samples
  beside the data.

  Args:
    run: of `opening.open_run`, whose network has `context` and `head`, on two-dimensional data.
    workdir: the folder that gets samples.png.
    points, reach: of the grid of each coordinate, in the units that the model sees.
  """
  process, dataset = run.parts.process, run.parts.dataset
  low = float(process.t_min)
  held = jnp.asarray(dataset.scaling.to_model(np.asarray(load(dataset.held_out, 2000)["x"])), jnp.float32)
  held = process.corrupt(held, jax.random.normal(jax.random.key(0), held.shape), jnp.full(len(held), low))
  grid = jnp.linspace(-reach, reach, points)
  nats, samples = jax.jit(
    lambda x: (
      -jnp.mean(autoregressive.log_prob(run.denoiser, x, grid, t=low)),
      autoregressive.sample(run.denoiser, jax.random.key(1), 2000, (2,), grid, t=low),
    )
  )(held)
  scatter2d(os.path.join(workdir, "samples.png"), np.asarray(samples), np.asarray(held))
  return {"nats": float(nats)}


def one_logistic(config: Any, data: Callable[[jax.Array], Any], test: jax.Array, seed: int) -> np.ndarray:
  """Log-densities [n] of a MADE of the same size whose conditionals are one logistic each, trained by maximum
  likelihood."""
  network = made(config, features=2)

  def log_density(context, x):
    z = (x - context[..., 0]) * jnp.exp(-context[..., 1])
    return jnp.sum(jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - context[..., 1], axis=1)

  base = losses.score_matching()
  objective = base.replace(
    name="maximum_likelihood",
    needs={"model": {"context": "maximum_likelihood"}},
    evaluate=lambda roles, placed, params, state, clock: losses.terms(
      -log_density(autoregressive.context_of(roles["model"], placed.x_t, placed.t), placed.x_t)
    ),
  )
  loss = losses.chain(objective, losses.at_times(NO_TIME, roles=losses.roles(model=bound(network))))
  params, _, _ = fit(
    loss,
    initial(network, (2,), seed),
    optimiser(config, config.logistic_steps),
    data,
    steps=config.logistic_steps,
    seed=seed,
  )
  model = bound(network).with_params(params["model"])
  return np.asarray(
    jax.jit(lambda x: log_density(autoregressive.context_of(model, x, jnp.full(x.shape[0], 0.5)), x))(test),
    np.float64,
  )


def noisy_digits(noise: float) -> tuple[Callable[..., Any], jax.Array]:
  """(batch (key, n) -> {'x': [n, 64]}, held-out images [359, 64] without noise): digits of unit scalar
  deviation, plus normal noise."""
  train, test = digits()
  mean, deviation = train.mean(), train.std()
  pool, held = (
    jnp.asarray((images.reshape(-1, 64) - mean) / deviation, jnp.float32) for images in (train, test)
  )

  def batch(key, n):
    rows, blur = jax.random.split(key)
    return {
      "x": pool[jax.random.randint(rows, (n,), 0, len(pool))] + noise * jax.random.normal(blur, (n, 64))
    }

  return batch, held


def digits() -> tuple[np.ndarray, ...]:
  """Training and held-out handwritten digits in [0, 1], [1438, 8, 8, 1] and [359, 8, 8, 1]."""
  from sklearn import datasets

  images = datasets.load_digits().images[..., None] / 16.0
  order = np.random.default_rng(0).permutation(len(images))
  return images[order[:1438]], images[order[1438:]]


def free_score(network: Any) -> Callable[..., jax.Array]:
  """The score of a network whose coordinates all see each other, as a template."""
  return denoisers.from_functions(
    score=lambda params, x, t, cond=None: network.apply({"params": params}, x, t, cond)
  )


def contestants(config: Any) -> dict[str, tuple[Any, Any]]:
  """{name: closed loss and network} in 64 dimensions: the autoregressive score by its exact derivative, and
  one by projections of its own, and free score networks of the same size, number for number, by sliced score
  matching and by its variance-reduced form."""
  ordered, free = made(config), made(config, masked=False)
  close = lambda objective, model: losses.chain(
    objective, losses.at_times(NO_TIME, roles=losses.roles(model=model))
  )
  score = free_score(free)
  return {
    "csm": (close(losses.autoregressive_score_matching(), bound(ordered)), ordered),
    "csm_by_projection": (
      close(losses.sliced_score_matching(variance_reduced=False), free_score(ordered)),
      ordered,
    ),
    "ssm": (close(losses.sliced_score_matching(variance_reduced=False), score), free),
    "ssm_vr": (close(losses.sliced_score_matching(), score), free),
  }


def stability(config: Any, seed: int) -> dict[str, float]:
  """Autoregressive against sliced score matching on noisy digits, D = 64, without clipping or any other care.

  Of each form: the runs, of those at config.learning_rates, that end as NaN or worse than the score of a
  standard normal that they begin with (`diverged`), by the exact objective on held-out data; and the
  gradient's noise at the end of a quiet run: the trace of its covariance over batches, over its squared mean.
  """
  batch, held = noisy_digits(config.noise)
  held = {"x": held + config.noise * jax.random.normal(jax.random.key(77), held.shape)}
  rates = jnp.asarray(config.learning_rates)
  found = {}
  for name, (loss, network) in contestants(config).items():
    if name == "csm_by_projection":
      continue
    start = initial(network, (64,), seed)

    def train(rate, loss=loss, start=start):
      transform = optax.chain(optax.scale_by_adam(), optax.scale(-rate))
      params, _, values = fit(
        loss, start, transform, lambda key: batch(key, config.batch), steps=config.steps, seed=seed
      )
      return params["model"], values

    models, _ = jax.vmap(train)(rates)
    exact = exact_loss(name, config)
    ends = np.asarray(
      jax.jit(lambda models, exact=exact: jax.lax.map(lambda p: exact(p, held), models))(models), np.float64
    )
    begin = float(exact(start, held))
    found[f"{name}_diverged"] = int(np.sum(~(ends < begin)))
    found[f"{name}_nan"] = int(np.sum(~np.isfinite(ends)))
    for i, end in enumerate(ends):
      found[f"{name}_{i}"] = end
    found[f"{name}_noise"] = relative_noise(
      loss, jax.tree.map(lambda leaf: leaf[0], models), batch, config, seed
    )[0]
  return found | {
    f"{name}_over_csm_noise": found[f"{name}_noise"] / found["csm_noise"] for name in ("ssm", "ssm_vr")
  }


def exact_loss(name: str, config: Any) -> Callable[..., jax.Array]:
  """(parameters, batch) -> the objective without projections."""
  if name == "csm":
    loss = contestants(config)["csm"][0]
  else:
    loss = losses.chain(
      losses.score_matching(),
      losses.at_times(NO_TIME, roles=losses.roles(model=free_score(made(config, masked=False)))),
    )
  return lambda params, batch: loss(
    {"model": params, "loss": {}}, {"objective": {}, "collections": {}}, 0, jax.random.key(0), batch
  )[0]


def relative_noise(
  loss: Callable[..., Any], params: Any, batch: Callable[..., Any], config: Any, seed: int
) -> tuple[float, float]:
  """(trace of the covariance of the gradient over its squared mean, the trace), of config.gradients batches;
  unbiased in both parts."""
  number = config.gradients

  def gradient(i):
    key, draw = jax.random.split(jax.random.fold_in(jax.random.key(500 + seed), i))
    value = lambda p: loss(
      {"model": p, "loss": {}}, {"objective": {}, "collections": {}}, i, draw, batch(key, config.batch)
    )[0]
    return jax.flatten_util.ravel_pytree(jax.grad(value)(params))[0]

  gradients = np.asarray(jax.jit(lambda: jax.lax.map(gradient, jnp.arange(number)))(), np.float64)
  variance = gradients.var(axis=0, ddof=1).sum()
  return float(variance / (np.sum(gradients.mean(0) ** 2) - variance / number)), float(variance)


def gradient_noise(config: Any, seed: int) -> dict[str, float]:
  """Trace of the covariance of the gradient, of one network and one objective: its trace along one random
  direction, over it exact.

  The parameters are those of a new network, moved by a tenth of a normal so that none is zero; the map of all
  conditional scores is triangular, so that its trace is that of the conditionals.
  """
  batch, _ = noisy_digits(config.noise)
  table = contestants(config)
  leaves, treedef = jax.tree.flatten(initial(table["csm"][1], (64,), seed))
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  moved = jax.tree.unflatten(
    treedef, [leaf + 0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
  )
  variances = [
    relative_noise(table[name][0], moved, batch, config, seed)[1] for name in ("csm_by_projection", "csm")
  ]
  return {"projection_over_exact_variance": variances[0] / variances[1]}


def cost(config: Any, seed: int) -> dict[str, float]:
  """Seconds of a gradient of score matching with the exact trace over those of the autoregressive form, one
  network size, D = 64.

  Medians of interleaved repetitions.
  """
  batch, _ = noisy_digits(config.noise)
  x = batch(jax.random.key(seed), config.batch)
  runs = {}
  for name in ("csm", "sm"):
    params = initial(made(config, masked=name == "csm"), (64,), seed)
    runs[name] = (jax.jit(jax.grad(exact_loss(name, config))).lower(params, x).compile(), params)
  times = {name: [] for name in runs}
  for repeat in range(config.repeats + 1):
    for name in list(runs)[:: 1 if repeat % 2 else -1]:
      run, params = runs[name]
      begin = time.perf_counter()
      jax.block_until_ready(run(params, x))
      times[name].append(time.perf_counter() - begin)
  return {"sm_over_csm_seconds": float(np.median(np.array(times["sm"][1:]) / np.array(times["csm"][1:])))}


def denoising(config: Any, seed: int) -> dict[str, float]:
  """Mean squared error of one step x + sigma^2 s(x) on held-out digits in [0, 1] under noise sigma, over that
  of the noisy digits.

  s is a PixelCNN trained by the denoising form: a pixel is estimated from itself and the noisy pixels before
  it, no others.
  """
  train, test = (jnp.asarray(images, jnp.float32) for images in digits())
  process, sigma = processes.edm(), config.noise
  network = networks.PixelCNN(**dict(config.network))
  loss = losses.chain(
    losses.autoregressive_denoising_score_matching(process),
    losses.at_times(losses.uniform_times(sigma, sigma * 1.0001), roles=losses.roles(model=bound(network))),
  )
  data = lambda key: {"x": train[jax.random.randint(key, (config.batch,), 0, len(train))]}
  params, _, _ = fit(
    loss, initial(network, (8, 8, 1), seed), optimiser(config), data, steps=config.steps, seed=seed
  )
  noisy = test + sigma * jax.random.normal(jax.random.key(900 + seed), test.shape)
  model = bound(network).with_params(params["model"])
  score, _ = jax.jit(lambda x: autoregressive.conditional_scores(model, x, jnp.full(x.shape[0], sigma)))(
    noisy
  )
  error = lambda x: float(jnp.mean(jnp.square(x - test)))
  return {
    "mse_ratio": error(noisy + sigma**2 * score) / error(noisy),
    "clipped_ratio": error(jnp.clip(noisy, 0.0, 1.0)) / error(noisy),
  }
