"""What density ratio estimation claims (arXiv:2111.11010), measured: each function is (config, seed) ->
{metric: value}."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, density_ratio, losses, networks, processes
from diffusion.run.fit import fit

SAMPLES = 100_000
"""Of an expectation without a closed form: 5,000 alone leave half a percent at d = 40."""


def correlated(dim: int) -> tuple[np.ndarray, float]:
  """Covariance of dim / 2 correlated pairs, and the mutual information dim / 4 nats of their members (section
  5.2)."""
  rho = np.sqrt(-np.expm1(-1.0))
  return np.kron(np.eye(dim // 2), np.array([[1.0, rho], [rho, 1.0]])), dim / 4.0


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A closed loss whose functions take prepare(parameters), once a step and differentiated through."""

  loss: losses.Loss
  prepare: Callable

  def init(self, key: jax.Array) -> tuple[Any, Any]:
    return self.loss.init(key)

  def __call__(self, params: Any, *rest: Any) -> Any:
    return self.loss({**params, "model": self.prepare(params["model"])}, *rest)


def falling(rate: float, steps: int, share: float = 0.2) -> optax.Schedule:
  """A rate that is constant over a share of the steps, then falls to zero in a straight line."""
  return lambda i: rate * jnp.minimum(1.0, (1.0 - i / steps) / (1.0 - share))


def natural_descent(rate: float, steps: int) -> optax.GradientTransformation:
  """Descent on a root A of M along A A^T dA: the steepest one in the geometry of Gaussians, whatever the
  scales of M."""

  def update(gradients, state, roots):
    return jax.tree.map(lambda gradient, root: root @ (root.T @ gradient), gradients, roots), state

  return optax.chain(
    optax.GradientTransformation(lambda params: optax.EmptyState(), update),
    optax.clip_by_global_norm(30.0),
    optax.ema(0.8, debias=False),
    optax.scale_by_schedule(lambda i: -falling(rate, steps)(i)),
  )


def adam(rate: float, steps: int) -> optax.GradientTransformation:
  """Adam with clipped gradients, whose rate falls over the last three tenths of the steps."""
  return optax.chain(optax.clip_by_global_norm(100.0), optax.adam(falling(rate, steps, 0.3), b2=0.99))


def gaussian_samples(covariance: np.ndarray, batch: int) -> Callable[[jax.Array], dict[str, jax.Array]]:
  """key -> a batch of N(0, covariance)."""
  root = jnp.asarray(np.linalg.cholesky(covariance), jnp.float32)
  return lambda key: {"x": jax.random.normal(key, (batch, len(root))) @ root.T}


def mutual_information(config: Any, seed: int) -> dict[str, float]:
  """Mutual information of correlated Gaussians from a parametric time score, its average over q in closed
  form."""
  covariance, truth = correlated(config.dim)
  path = processes.spherical()
  time_score, score = density_ratio.gaussian_end(path)
  # The time score is of the order of the dimension, the data score of its root: balanced, so that neither's
  # noise is all.
  objective = losses.joint_score_matching(path, "sliced", balance=(config.time_balance, 1.0))
  loss = losses.chain(
    objective,
    losses.at_times(
      losses.low_discrepancy(),
      roles=losses.roles(model=denoisers.from_functions(time_score=time_score, score=score)),
    ),
  )
  params, _, _ = fit(
    Prepared(loss, density_ratio.prepare),
    jnp.eye(config.dim),
    natural_descent(config.learning_rate, config.steps),
    gaussian_samples(covariance, config.batch),
    steps=config.steps,
    seed=seed,
  )
  root = params["model"]
  found = expected_log_ratio(np.asarray(root, np.float64), covariance, density_ratio.gauss_legendre(path, 64))
  return {"mi_nats": found, "relative_error": abs(found - truth) / truth}


def expected_log_ratio(root: np.ndarray, covariance: np.ndarray, nodes: density_ratio.Nodes) -> float:
  """The integral over t of the model's time score, averaged over N(0, covariance) in closed form, float64 on
  the host."""
  eigenvalues, basis = np.linalg.eigh(root @ root.T)
  true = np.einsum("di,de,ei->i", basis, covariance, basis)
  t = np.asarray(nodes.t)[:, None]
  spread = 1.0 + t**2 * (eigenvalues - 1.0)
  slope = t * (eigenvalues - 1.0)  # half of d spread / dt
  return float(np.sum(nodes.weight[:, None] * slope / spread * (true / spread - 1.0)))


def inner_product_field(
  dim: int, width: int, depth: int
) -> tuple[Callable[..., jax.Array], Callable[..., Any]]:
  """(time_score, init) of a network that knows nothing of Gaussians: <(x, 1), MLP((x, 1), t)>."""
  network = networks.MLP(width=width, depth=depth)
  padded = lambda x: jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)

  def time_score(params, x, t, cond=None):
    x = padded(x)
    return jnp.sum(x * network.apply({"params": params}, x, t, cond), axis=1)

  def init(key):
    return network.init(key, jnp.zeros((1, dim + 1)), jnp.zeros(1))["params"]

  return time_score, init


def mutual_information_network(config: Any, seed: int) -> dict[str, float]:
  """The same with a network and the time score alone, averaged over 100,000 samples of q."""
  covariance, truth = correlated(config.dim)
  path = processes.spherical()
  time_score, init = inner_product_field(config.dim, config.width, config.depth)
  loss = losses.chain(
    losses.time_score_matching(path),
    losses.at_times(
      losses.low_discrepancy(), roles=losses.roles(model=denoisers.from_functions(time_score=time_score))
    ),
  )
  params, _, _ = fit(
    loss,
    init(jax.random.key(seed + 1)),
    adam(config.learning_rate, config.steps),
    gaussian_samples(covariance, config.batch),
    steps=config.steps,
    seed=seed,
  )
  params = params["model"]
  sample = gaussian_samples(covariance, 5000)
  ratio = jax.jit(lambda x: density_ratio.log_ratio(functools.partial(time_score, params), path, x, nodes=24))
  ratios = np.concatenate([ratio(sample(jax.random.key(10_000 + i))["x"]) for i in range(SAMPLES // 5000)])
  estimate = density_ratio.kl_divergence(ratios, max_error=0.1)
  return {
    "mi_nats": estimate.mean,
    "relative_error": abs(estimate.mean - truth) / truth,
    "standard_error": estimate.standard_error,
  }


def classifiers(config: Any, seed: int) -> dict[str, float]:
  """Mutual information by telescoping classifiers with quadratic logits; one bridge is noise contrastive
  estimation."""
  covariance, truth = correlated(config.dim)
  path, num = processes.spherical(), config.bridges

  def time_score(params, x, t, cond=None):
    del cond
    k = jnp.clip(jnp.floor(t * num).astype(jnp.int32), 0, num - 1)
    forms = jnp.stack([jnp.sum(x * (x @ (form + form.T)), axis=1) for form in params["form"]], axis=1)
    return jnp.take_along_axis(forms, k[:, None], axis=1)[:, 0] + params["offset"][k]

  loss = losses.chain(
    losses.telescoping_ratio(path, num),
    losses.at_times(
      losses.low_discrepancy(), roles=losses.roles(model=denoisers.from_functions(time_score=time_score))
    ),
  )
  start = {"form": jnp.zeros((num, config.dim, config.dim)), "offset": jnp.zeros(num)}
  params, _, _ = fit(
    loss,
    start,
    adam(config.learning_rate, config.steps),
    gaussian_samples(covariance, config.batch),
    steps=config.steps,
    seed=seed,
  )
  params = params["model"]
  nodes = density_ratio.bridges(path, num)
  # The average of a quadratic form over q is a trace.
  averages = [
    2.0 * np.sum(np.asarray(form, np.float64) * covariance) for form in params["form"]
  ] + np.asarray(params["offset"], np.float64)
  found = float(np.sum(nodes.weight * averages))
  return {"mi_nats": found, "relative_error": abs(found - truth) / truth}


def peaked(config: Any, seed: int) -> dict[str, float]:
  """Largest error, nats, of log q/p on [-2, 2] sigma_q, q = N(0, sigma_q^2) and p = N(0, 1) (section 5.1),
  mean and scale learned.

  On the spherical path in its log-variance clock, where the time score is of order one everywhere.
  """
  deviation, path = config.deviation, processes.log_variance(t_max=config.t_max)

  def time_score(params, x, t, cond=None):
    del cond
    blend = path.blend(t)
    mean, variance = jnp.sinh(params["mean"]) * 1e-3, jnp.exp(2.0 * params["log_deviation"])
    # 1 - c (1 - exp(-t)) with c = 1 - variance, as a sum of what is positive.
    spread = -jnp.expm1(-t) * variance + blend.variance
    slope = jnp.exp(-t) * (variance - 1.0)
    centred = x[:, 0] - blend.second * mean
    pull = 0.5 * jnp.exp(-t) / jnp.sqrt(jnp.maximum(-jnp.expm1(-t), jnp.finfo(t.dtype).tiny)) * mean
    return 0.5 * slope / spread * (centred**2 / spread - 1.0) + pull * centred / spread

  loss = losses.chain(
    losses.time_score_matching(path, weight=losses.uniform(), t_min=config.t_min),
    losses.at_times(
      losses.low_discrepancy(), roles=losses.roles(model=denoisers.from_functions(time_score=time_score))
    ),
  )
  start = {"mean": jnp.asarray(1.0), "log_deviation": jnp.asarray(-3.0)}
  sample = lambda key: {"x": deviation * jax.random.normal(key, (config.batch, 1))}
  params, _, _ = fit(
    loss, start, adam(config.learning_rate, config.steps), sample, steps=config.steps, seed=seed
  )
  params = params["model"]
  x = np.linspace(-2.0, 2.0, 10_001) * deviation
  truth = -np.log(deviation) - 0.5 * x**2 * (deviation**-2 - 1.0)
  ratio = jax.jit(
    lambda x: density_ratio.log_ratio(
      functools.partial(time_score, params), path, x[:, None], nodes=config.nodes
    )
  )
  found = np.asarray(ratio(jnp.asarray(x, jnp.float32)))
  divergence = density_ratio.kl_divergence(
    ratio(deviation * jax.random.normal(jax.random.key(seed), (SAMPLES,)))
  )
  return {
    "largest_error_nats": float(np.abs(found - truth).max()),
    "kl_nats": divergence.mean,
    "log_deviation": float(params["log_deviation"]),
  }
