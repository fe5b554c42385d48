"""What a denoiser of handwritten digits is not sure of: the main directions of its posterior covariance,
beside those of all training digits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, losses, networks, oracles, processes
from diffusion.run.fit import fit
from diffusion.tasks import posterior_covariance

DIRECTIONS = 4


def measure(config: Any, seed: int) -> dict[str, float]:
  """Shares of the exact posterior variance that the main directions hold: of the denoiser's Jacobian, of the
  learned Hessian, of the data.

  One small network is trained at one noise level by denoising score matching of both orders (rank 8). The
  exact posterior given x_t is that of the training digits as atoms; a share is over that of its own four best
  directions, over held-out digits. With config.picture a path, the first seed draws a picture there.
  """
  train, test = digits(seed)
  process = processes.edm()
  network = networks.SecondOrder(
    networks.MLP(width=config.width, depth=2), rank=config.rank, width=config.width, depth=1
  )
  variables = network.init(jax.random.key(seed), train[:1], jnp.zeros(1))["params"]
  level = lambda x, t: (x, 0.25 * jnp.log(t))
  template = denoisers.from_flax(network, process, denoisers.score("log_sigma", 0.25), None)
  hessian = lambda params, x, t, cond=None: network.apply({"params": params}, *level(x, t), method="hessian")
  loss = losses.chain(
    losses.denoising_score_matching(process, "score"),
    losses.second_order(config.rank, variance_reduced=False, residual=True),
    losses.at_times(
      losses.uniform_times(config.level, config.level * 1.00001),
      roles=losses.roles(model=denoisers.extend(template, hessian=hessian)),
    ),
  )
  data = lambda key: {"x": train[jax.random.randint(key, (config.batch,), 0, len(train))]}
  transform = optax.chain(
    optax.clip_by_global_norm(100.0),
    optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps)),
  )
  params, _, _ = fit(loss, variables, transform, data, steps=config.steps, seed=seed)
  denoiser = template.with_params(params["model"])

  x0 = test[: config.examples]
  t = jnp.full(len(x0), config.level)
  x = process.corrupt(x0, jax.random.normal(jax.random.key(seed + 1), x0.shape), t)
  exact = oracles.atoms(process, train)

  @jax.jit
  def found(denoiser, params, x):
    by_jacobian = posterior_covariance.principal_directions(
      posterior_covariance.from_denoiser(denoiser, x, t), x, DIRECTIONS
    )
    learned = posterior_covariance.from_hessian(process, hessian(params, x, t), t)
    return (
      by_jacobian,
      posterior_covariance.principal_directions(learned, x, DIRECTIONS),
      exact.posterior_covariance(x, t),
    )

  by_jacobian, learned, covariance = found(denoiser, params["model"], x)
  values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
  best = values[:, -DIRECTIONS:].sum(axis=1)
  components = np.linalg.svd(
    np.asarray(train.reshape(len(train), -1) - train.mean(axis=0).reshape(1, -1)), full_matrices=False
  )[2][:DIRECTIONS]

  def share(directions):
    directions = np.broadcast_to(
      np.asarray(directions, np.float64).reshape(-1, DIRECTIONS, 64), (len(x0), DIRECTIONS, 64)
    )
    return float(np.mean(np.einsum("bkd,bde,bke->b", directions, covariance, directions)) / np.mean(best))

  if config.get("picture") and seed == 0:
    own = np.moveaxis(vectors[:, :, ::-1][:, :, :DIRECTIONS], 1, 2).reshape(len(x0), DIRECTIONS, 8, 8)
    rows = {
      "denoiser": (denoiser(x, t).x0, by_jacobian.vectors, by_jacobian.variances),
      "training digits": (exact(x, t).x0, own, values[:, ::-1][:, :DIRECTIONS]),
    }
    draw(config.picture, x0, x, rows)
  return {
    "share_of_jacobian": share(by_jacobian.vectors),
    "share_of_learned_hessian": share(learned.vectors),
    "share_of_data": share(components),
    "residual_of_iteration": float(jnp.max(by_jacobian.residuals / by_jacobian.variances[:, :1])),
  }


def digits(seed: int) -> tuple[jax.Array, jax.Array]:
  """(train [1200, 8, 8, 1], held out [597, 8, 8, 1]) of the UCI digits, in [-1, 1]."""
  from sklearn import datasets

  images = datasets.load_digits().images[..., None] / 8.0 - 1.0
  images = jnp.asarray(images[np.random.default_rng(seed).permutation(len(images))], jnp.float32)
  return images[:1200], images[1200:]


def draw(path: str, x0: Any, x: Any, rows: Any, examples: int = 3) -> None:
  """Held-out digits, noisy, denoised, the main directions, and the mean moved along the first by two standard
  deviations."""
  from matplotlib.figure import Figure

  count = len(rows)
  figure = Figure(figsize=(10.5, 1.22 * examples * count), layout="constrained")
  axes = figure.subplots(examples * count, 5 + DIRECTIONS)
  for axis in axes.ravel():
    axis.set_xticks([]), axis.set_yticks([])
    for side in axis.spines.values():
      side.set_visible(False)
  grey = dict(cmap="gray_r", vmin=-1.0, vmax=1.0)
  for i in range(examples):
    for j, (name, (mean, vectors, variances)) in enumerate(rows.items()):
      row = axes[i * count + j]
      image = lambda a: np.asarray(a).reshape(8, 8)
      first = 2.0 * np.sqrt(max(float(variances[i, 0]), 0.0)) * image(vectors[i, 0])
      shown = [
        image(x0[i]) if j == 0 else None,
        image(x[i]) if j == 0 else None,
        image(mean[i]),
        image(mean[i]) - first,
        image(mean[i]) + first,
      ]
      for axis, picture in zip(row, shown):
        if picture is not None:
          axis.imshow(picture, **grey)
      row[2].set_ylabel(name, fontsize=8)
      for k in range(DIRECTIONS):
        vector = image(vectors[i, k])
        row[5 + k].imshow(vector, cmap="RdBu_r", vmin=-np.abs(vector).max(), vmax=np.abs(vector).max())
        row[5 + k].set_xlabel(f"sd {np.sqrt(max(float(variances[i, k]), 0.0)):.2f}", fontsize=8)
  titles = (
    "held out",
    "noisy",
    "mean",
    "mean - 2 sd",
    "mean + 2 sd",
    *(f"direction {k + 1}" for k in range(DIRECTIONS)),
  )
  for axis, title in zip(axes[0], titles):
    axis.set_title(title, fontsize=9)
  figure.savefig(path, dpi=110)
