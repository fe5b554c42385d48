"""What high-order denoising score matching claims (arXiv:2111.04726), measured: each function is (config,
seed) -> {metric: value}."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, losses, mcmc, oracles, processes
from diffusion.math.symmetric import Full, LowRank
from diffusion.networks.second_order import halves
from diffusion.run.fit import fit

ACTIVATIONS = {"softplus": jax.nn.softplus, "relu": jax.nn.relu}


def dense(key: jax.Array, sizes: Sequence[int], last: float = 1.0) -> list[tuple[jax.Array, jax.Array]]:
  """Parameters [(w, b), ...] of a dense network; the last layer is scaled."""
  keys = jax.random.split(key, len(sizes) - 1)
  scales = [1.0] * (len(sizes) - 2) + [last]
  return [
    (s * np.sqrt(2.0 / a) * jax.random.normal(k, (a, b)), jnp.zeros(b))
    for k, a, b, s in zip(keys, sizes[:-1], sizes[1:], scales)
  ]


def forward(params: Any, x: jax.Array, activation: Callable[..., Any]) -> jax.Array:
  """A dense network: x [B, D] -> [B, outputs]."""
  for w, b in params[:-1]:
    x = activation(x @ w + b[None])
  w, b = params[-1]
  return x @ w + b[None]


def start(key: jax.Array, dimension: int, rank: int, width: int, precision: float = 1.0) -> dict[str, Any]:
  """Parameters of a score and of a Hessian of this rank, two networks of two hidden layers; at first nearly
  those of N(0, I / precision)."""
  one, two = jax.random.split(key)
  return {
    "skip": jnp.full(dimension, -precision),
    "score": dense(one, (dimension, width, width, dimension), 0.1),
    "base": jnp.full(dimension, -precision),
    "hessian": dense(two, (dimension, width, width, dimension * (rank + 1)), 0.1),
  }


def functions(rank: int, activation: str) -> tuple[Callable[..., jax.Array], Callable[..., Any]]:
  """(score, hessian): functions of (params, x, t, cond) at one noise level; both see x alone."""
  act = ACTIVATIONS[activation]

  def score(params, x, t, cond=None):
    del t, cond
    return forward(params["score"], x, act) + params["skip"][None] * x

  def hessian(params, x, t, cond=None):
    del t, cond
    out = forward(params["hessian"], x, act).reshape(*x.shape, rank + 1)
    return LowRank(out[..., 0] + params["base"][None], out[..., 1:], halves(rank))

  return score, hessian


def train(
  oracle: Any,
  level: float,
  rank: int,
  activation: str,
  *,
  width: int,
  batch: int,
  steps: int,
  rate: float,
  seed: int,
  reduced: bool,
  residual: bool = False,
) -> Any:
  """Parameters trained at one noise level by denoising score matching of both orders, with or without
  variance reduction of both.

  The Hessian's network learns nothing of the score's, so either method has its own network and the same data.
  """
  process = oracle.process
  score, hessian = functions(rank, activation)
  template = denoisers.from_function(
    lambda params, x, t, cond: score(params, x, t), process, denoisers.score()
  )
  loss = losses.chain(
    losses.denoising_score_matching(process, "score", variance_reduced=reduced),
    losses.second_order(rank, variance_reduced=reduced, frozen_score=True, residual=residual),
    losses.at_times(
      losses.uniform_times(level, level * 1.00001),
      roles=losses.roles(model=denoisers.extend(template, hessian=hessian)),
    ),
  )
  pool = oracle.sample(jax.random.key(seed), 50_000)
  data = lambda key: {"x": pool[jax.random.randint(key, (batch,), 0, len(pool))]}
  # The two losses differ by sigma^2 in scale, which Adam does not see as long as its epsilon is far below
  # both.
  transform = optax.adam(optax.cosine_decay_schedule(rate, steps), b2=0.99, eps=1e-12)
  precision = 1.0 / (float(oracle.eigenvalues[0, 0]) + level**2)  # of one mode
  first = start(jax.random.key(1000 + seed), oracle.means.shape[1], rank, width, precision)
  params, _, _ = fit(loss, first, transform, data, steps=steps, seed=seed)
  return params["model"]


def embedded_modes(dimension: int, radius: float, deviation: float, seed: int = 0) -> Any:
  """The oracle of four isotropic Gaussians at +-radius along two random orthogonal directions of D
  dimensions."""
  axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, 2)))[0].T
  return oracles.gaussian_mixture(processes.edm(), None, radius * np.concatenate([axes, -axes]), deviation**2)


def true_hessian(oracle: Any, x: jax.Array, t: jax.Array) -> Any:
  """The mixture's Hessian as a diagonal and one factor a mode: sum_k r_k (g_k - s)(g_k - s)^T - I / c, for
  isotropic modes."""
  c = oracle.eigenvalues[0, 0] + jnp.square(t)[:, None]
  weights = oracle.responsibilities(x, t)
  scores = (oracle.means[None] - x[:, None]) / c[:, None]
  centred = scores - jnp.einsum("bk,bkd->bd", weights, scores)[:, None]
  factors = jnp.moveaxis(jnp.sqrt(weights)[:, :, None] * centred, 1, 2)
  return LowRank(jnp.broadcast_to(-1.0 / c, x.shape), factors, (1,) * weights.shape[1])


def constant_error(truth: Any) -> float:
  """E ||H - E H||^2 over rows: the error of the best constant Hessian."""

  @jax.jit
  def parts(truth):
    mean = jnp.mean(truth.dense(), axis=0) if truth.dimension <= 64 else mean_of(truth)
    return jnp.mean(truth.square_norm()), jnp.sum(jnp.square(mean))

  square, mean = parts(truth)
  return float(square - mean)


def mean_of(truth: Any) -> jax.Array:
  """The mean over rows of low-rank matrices, [D, D]."""
  weighted = truth.factors * jnp.asarray(truth.signs, truth.factors.dtype)[None, None, :]
  outer = jnp.einsum("bdr,ber->de", weighted, truth.factors) / truth.factors.shape[0]
  return jnp.diag(jnp.mean(truth.diagonal, axis=0)) + outer


def hessian_errors(
  oracle: Any,
  level: float,
  params: Any,
  rank: int,
  activation: str,
  *,
  size: int,
  jacobians: int,
  seed: int,
) -> dict[str, float]:
  """Mean square Frobenius errors of the learned Hessian, of the symmetric part of the score's Jacobian, and
  of the best constant."""
  score, hessian = functions(rank, activation)
  x = oracle.sample(jax.random.key(2000 + seed), size, t=level)
  t = jnp.full(size, level)
  truth = jax.jit(lambda x: true_hessian(oracle, x, t))(x)
  learned = jax.jit(lambda x: hessian(params, x, t).minus(truth).square_norm())(x)

  def jacobian_error(row):
    x, truth = row
    jacobian = jax.jacfwd(lambda x: score(params, x[None], None)[0])(x)
    truth = jax.tree.map(lambda leaf: leaf[None], truth)
    return jnp.sum(jnp.square(0.5 * (jacobian + jacobian.T) - truth.dense()[0]))

  few = jax.tree.map(lambda leaf: leaf[:jacobians], (x, truth))
  by_jacobian = jax.jit(lambda rows: jax.lax.map(jacobian_error, rows, batch_size=min(16, jacobians)))(few)
  return {
    "learned": float(jnp.mean(learned)),
    "jacobian": float(jnp.mean(by_jacobian)),
    "constant": constant_error(truth),
  }


def variance_reduction(config: Any, seed: int) -> dict[str, float]:
  """Errors of the Hessian of four overlapping modes in the plane, learned with and without variance reduction
  of both orders.

  The plain one also with three times the batch, which is as many evaluations of the networks.
  """
  oracle = embedded_modes(2, config.radius, config.deviation)
  arguments = dict(width=config.width, steps=config.steps, rate=config.learning_rate, seed=seed)
  errors = {}
  for name, reduced, batch in (
    ("reduced", True, config.batch),
    ("plain", False, config.batch),
    ("plain_long", False, 3 * config.batch),
  ):
    params = train(oracle, config.level, 1, "softplus", batch=batch, reduced=reduced, **arguments)
    found = hessian_errors(oracle, config.level, params, 1, "softplus", size=4096, jacobians=4096, seed=seed)
    errors[name], errors["jacobian_" + name], constant = (
      found["learned"],
      found["jacobian"],
      found["constant"],
    )
  return {
    "plain_over_reduced_error": errors["plain"] / errors["reduced"],
    "plain_of_equal_cost_over_reduced_error": errors["plain_long"] / errors["reduced"],
    "reduced_over_constant_error": errors["reduced"] / constant,
    "jacobian_plain_over_reduced_error": errors["jacobian_plain"] / errors["jacobian_reduced"],
  }


def accuracy(config: Any, seed: int) -> dict[str, float]:
  """Errors of a learned low-rank Hessian beside those of the Jacobian of a score that was learned on the same
  draws, and of the best constant.

  Both with variance reduction. The Hessian is learned from the noise, as in the paper, or with
  config.residual from the residuals of the score.
  """
  oracle = embedded_modes(config.dimension, config.radius, config.deviation)
  params = train(
    oracle,
    config.level,
    config.rank,
    config.activation,
    width=config.width,
    batch=config.batch,
    steps=config.steps,
    rate=config.learning_rate,
    seed=seed,
    reduced=True,
    residual=config.residual,
  )
  found = hessian_errors(
    oracle,
    config.level,
    params,
    config.rank,
    config.activation,
    size=2048,
    jacobians=config.jacobians,
    seed=seed,
  )
  return {
    "learned_over_jacobian": found["learned"] / found["jacobian"],
    "learned_over_constant": found["learned"] / found["constant"],
    "jacobian_over_constant": found["jacobian"] / found["constant"],
  }


def speed(config: Any, seed: int) -> dict[str, float]:
  """How many times longer the Jacobian of a score takes than one low-rank Hessian, at each dimension of the
  config: medians."""
  result = {}
  for dimension in config.dimensions:
    score, hessian = functions(config.rank, "softplus")
    params = start(jax.random.key(seed), dimension, config.rank, config.width)
    x = jax.random.normal(jax.random.key(seed), (config.batch, dimension))
    jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda x: score(params, x[None], None)[0])))
    learned = jax.jit(lambda x: hessian(params, x, None))
    times = {}
    for name, function, repeats in (
      ("jacobian", jacobian, config.repeats),
      ("learned", learned, 10 * config.repeats),
    ):
      jax.block_until_ready(function(x))
      spent = []
      for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(x))
        spent.append(time.perf_counter() - began)
      times[name] = np.median(spent)
    result[f"jacobian_over_learned_seconds_{dimension}"] = float(times["jacobian"] / times["learned"])
  return result


def gaussian(config: Any, seed: int) -> dict[str, float]:
  """Largest error of the covariance, whose variances are one, after steps of Ozaki and of Langevin from the
  Gaussian itself, over step sizes.

  Langevin at the config's first step sizes alone: from four times the smallest variance on, 0.4, it diverges.
  """
  covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
  precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
  score = lambda x: -x @ precision
  hessian = lambda x: Full(jnp.broadcast_to(-precision[None], (x.shape[0], 2, 2)))
  first = jax.random.normal(jax.random.key(seed), (config.chains, 2)) @ jnp.asarray(
    np.linalg.cholesky(covariance).T, jnp.float32
  )
  errors = {"ozaki": [], "langevin": []}
  for number, size in enumerate(config.step_sizes):
    for name, kernel in (
      ("ozaki", mcmc.ozaki(score, hessian, size)),
      ("langevin", mcmc.langevin(score, size)),
    ):
      if name == "langevin" and number >= config.stable:
        continue
      x = np.asarray(mcmc.run(kernel, first, jax.random.key(seed + 1), config.steps).x, np.float64)
      errors[name].append(np.abs(x.T @ x / len(x) - covariance).max())
  return {
    "ozaki_covariance_error": max(errors["ozaki"]),
    "langevin_covariance_error": max(errors["langevin"]),
  }


def rotation(angle: float) -> jax.Array:
  """[2, 2]."""
  return jnp.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], jnp.float32)


def student(x: jax.Array, mean: Any, angle: float, scales: Any, freedom: float) -> jax.Array:
  """Log-density of one point x [2], up to a constant: a heavy-tailed ridge."""
  y = ((x - jnp.asarray(mean, x.dtype)) @ rotation(angle)) / jnp.asarray(scales, x.dtype)
  return -0.5 * (freedom + 2.0) * jnp.log1p(jnp.sum(y * y) / freedom)


def eight_modes(x: jax.Array) -> jax.Array:
  """Log-density of one point: the ring of eight Gaussians of deviation 0.3 at radius 2."""
  angles = 2 * np.pi * np.arange(8) / 8
  centres = jnp.asarray(2.0 * np.stack([np.cos(angles), np.sin(angles)], 1), x.dtype)
  return jax.scipy.special.logsumexp(-0.5 * jnp.sum(jnp.square((x[None] - centres) / 0.3), axis=1))


def cross(x: jax.Array) -> jax.Array:
  """Log-density of one point: two narrow Gaussians of deviations 1 and 0.1 across each other."""
  forms = jnp.stack([jnp.square(x[0]) + jnp.square(x[1] / 0.1), jnp.square(x[0] / 0.1) + jnp.square(x[1])])
  return jax.scipy.special.logsumexp(-0.5 * forms)


TARGETS = {
  "ridge": (lambda x: student(x, (0.0, 0.0), 0.5, (1.0, 0.2), 5.0), 0.2),
  "two_ridges": (
    lambda x: jnp.logaddexp(
      student(x, (0.0, 0.5), 0.6, (1.0, 0.2), 5.0), student(x, (0.0, -0.5), -0.6, (1.0, 0.2), 5.0)
    ),
    0.2,
  ),
  "ring": (eight_modes, 0.1),
  "cross": (cross, 0.05),
}
"""Name -> (log-density of one point, step size)."""


def sample_sizes(config: Any, seed: int) -> dict[str, float]:
  """Effective sample sizes a thousand steps of a chain, the smaller of two coordinates, at equal step:
  Ozaki's over Langevin's.

  The chains start from long runs of MALA. A chain that diverges is worth nothing: the ratio is then given as
  infinite_ratio.
  """
  result = {}
  for name, (log_prob, step_size) in TARGETS.items():
    score, hessian = jax.vmap(jax.grad(log_prob)), jax.vmap(jax.hessian(log_prob))
    place = jax.random.normal(jax.random.key(seed), (config.chains, 2))
    place = mcmc.run(mcmc.mala(jax.vmap(log_prob), 0.02), place, jax.random.key(seed + 1), config.warm_up).x
    sizes = {}
    for kind, kernel in (
      ("langevin", mcmc.langevin(score, step_size)),
      ("ozaki", mcmc.ozaki(score, hessian, step_size)),
    ):
      samples = mcmc.run(kernel, place, jax.random.key(seed + 2), config.steps, thin=1).samples
      sizes[kind] = mcmc.effective_sample_size(samples).min() / (config.chains * config.steps / 1000.0)
      result[f"{kind}_{name}"] = sizes[kind]
    result[f"ozaki_over_langevin_{name}"] = sizes["ozaki"] / max(sizes["langevin"], 1e-3)
  return result
