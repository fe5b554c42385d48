"""Uses of densities, measured: what is none of the data, what a classifier gets wrong, what a sampler makes
up."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, losses, metrics, networks, oracles, processes, solvers, tasks
from diffusion.data import digits, load
from diffusion.run.fit import fit
from experiments import digit_models
from experiments.density_uses import adversarial

ATTACKS = {"fgsm": 1, "pgd": 10}
"""Steps of the fast gradient sign method and of projected gradient."""


def classifier_failure(config: Any, seed: int) -> dict[str, float]:
  """Areas under the curve of -log p of a classifier's penultimate features, for its errors and for images
  that are no digits.

  The classifier sees config.train digits; the density of its features is a diffusion model that is told no
  label. For comparison: one less the largest probability of the classifier, and a mixture of ten Gaussians on
  the same features.

  Adversarial inputs are test digits that it got right and no longer does after an attack of config.sizes (the
  most that a pixel in [0, 1] changes; the attack knows the classifier and nothing of the scores), against the
  test digits that it gets right. `attack_succeeds_...` is their share of those.
  """
  from sklearn import datasets, mixture, neural_network

  rng = np.random.default_rng(seed)
  images, label = datasets.load_digits(return_X_y=True)
  images = images / 16.0
  order = rng.permutation(len(images))
  train, test = order[: config.train], order[config.train :]
  classifier = neural_network.MLPClassifier(
    (64, config.features), activation="tanh", max_iter=config.epochs, random_state=seed
  )
  classifier.fit(images[train], label[train])

  def features(x):
    for weights, bias in zip(classifier.coefs_[:-1], classifier.intercepts_[:-1]):
      x = np.tanh(x @ weights + bias)
    return x

  raw = features(images[train])
  scaled = lambda x: jnp.asarray((features(x) - raw.mean(axis=0)) / raw.std(), jnp.float32)
  model = digit_models.trained(
    config, processes.edm(sigma_min=config.t_min), (scaled(images[train]), None), seed, num_classes=0
  )
  gaussians = mixture.GaussianMixture(10, reg_covar=1e-3, random_state=seed).fit(scaled(images[train]))
  evaluations = []

  def surprise(x):
    out = tasks.surprise(
      model,
      scaled(x),
      keys=jax.random.split(jax.random.key(seed), len(x)),
      num_steps=config.num_steps,
      divergence="rademacher",
      probes=config.probes,
    )
    evaluations.append(out.evaluations)
    return np.asarray(out.score)

  wrong = classifier.predict(images[test]) != label[test]
  scores = {
    "surprise": surprise,
    "mixture": lambda x: -gaussians.score_samples(scaled(x)),
    "doubt": lambda x: 1.0 - classifier.predict_proba(x).max(axis=1),
  }
  others = unlike(images[test], rng)
  layers = tuple(
    (jnp.asarray(weights, jnp.float32), jnp.asarray(bias, jnp.float32))
    for weights, bias in zip(classifier.coefs_, classifier.intercepts_)
  )
  moved = {
    f"{kind}_{size:g}": np.asarray(
      adversarial.attacked(layers, images[test], label[test], size, steps), np.float64
    )
    for size in config.sizes
    for kind, steps in ATTACKS.items()
  }
  fooled = {kind: ~wrong & (classifier.predict(x) != label[test]) for kind, x in moved.items()}
  found = {"errors": float(wrong.sum()), "classifier_accuracy": 1.0 - float(wrong.mean())}
  found |= {f"attack_succeeds_{kind}": float(hit.sum() / (~wrong).sum()) for kind, hit in fooled.items()}
  for name, score in scores.items():
    usual = score(images[test])
    area = metrics.auroc(usual[wrong], usual[~wrong])
    found |= {f"{name}_finds_errors": area.value, f"{name}_finds_errors_error": area.error}
    found |= {f"{name}_finds_{kind}": metrics.auroc(score(x), usual).value for kind, x in others.items()}
    found |= {
      f"{name}_finds_adversarial_{kind}": metrics.auroc(score(x)[fooled[kind]], usual[~wrong]).value
      for kind, x in moved.items()
    }
  return found | {"evaluations": float(evaluations[0])}


def unlike(images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Images [n, 64] in [0, 1] that are no digits: uniform noise, digits with their pixels shuffled (each its
  own way), negatives."""
  return {
    "noise": rng.uniform(size=images.shape),
    "shuffled": rng.permuted(images, axis=1),
    "negatives": 1.0 - images,
  }


def out_of_distribution(config: Any, seed: int) -> dict[str, float]:
  """Areas under the curve of -log p(x) and of its distance from the mean of usual data, in pixels, against
  held-out digits.

  Every image has levels 0 to 16 and uniform dequantisation, without which a density can grow without bound.
  Besides images that are no
  digits: digits at a part of their contrast, blank images, and averages of ten training digits of one class.
  """
  dataset = digits()
  train, label = (np.asarray(load(dataset.train)[name]) for name in ("x", "label"))
  parts = [np.asarray(x, np.float64).reshape(-1, 64) for x in (train, load(dataset.held_out)["x"])]
  rng = np.random.default_rng(seed)
  model_values = lambda levels: jnp.asarray(
    (levels + rng.uniform(size=levels.shape)) / 17.0 * 2.0 - 1.0, jnp.float32
  )
  model = digit_models.trained(
    config,
    processes.edm(sigma_min=config.t_min),
    (model_values(np.tile(parts[0], (8, 1))), None),
    seed,
    num_classes=0,
  )

  def surprise(levels):
    out = tasks.surprise(
      model,
      model_values(levels),
      keys=jax.random.split(jax.random.key(seed), len(levels)),
      num_steps=config.num_steps,
      divergence="rademacher",
      probes=config.probes,
    )
    return np.asarray(out.score), out.evaluations

  held, evaluations = surprise(parts[1])
  reference, _ = surprise(parts[0][: len(parts[1])])
  typical = lambda score: np.asarray(tasks.atypicality(jnp.asarray(score), jnp.asarray(reference)))
  sets = {kind: np.round(16 * x) for kind, x in unlike(parts[1] / 16.0, rng).items()}
  sets |= {"faded": np.round(parts[1] * config.fade), "blank": np.zeros_like(parts[1])}
  ten = [rng.choice(np.flatnonzero(label == i % 10), 10, replace=False) for i in range(len(parts[1]))]
  sets["averages"] = np.round(parts[0][np.array(ten)].mean(axis=1))
  found = {
    "held_out_nats": float(held.mean()),
    "training_nats": float(reference.mean()),
    "evaluations": float(evaluations),
  }
  for kind, levels in sets.items():
    score, _ = surprise(levels)
    found |= {
      f"surprise_finds_{kind}": metrics.auroc(score, held).value,
      f"atypicality_finds_{kind}": metrics.auroc(typical(score), typical(held)).value,
    }
  return found


def hallucinations(config: Any, seed: int) -> dict[str, float]:
  """Samples between the modes of a mixture, found by the variance of the predicted x0 along their trajectory.

  25 Gaussians of deviation 0.05 on a grid of spacing 2 (the paper's), a small network, and samples with 100
  to some hundred evaluations. A sample is made up if it is more than six deviations from every mode, where
  the data's own density has a share of 2e-8.
  """
  process = processes.edm(sigma_min=config.low, sigma_max=20.0)
  line = 2.0 * np.arange(-2, 3)
  modes = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
  data = oracles.gaussian_mixture(process, None, modes, config.deviation**2, dtype=jnp.float32)
  std = float(np.sqrt(8.0 + config.deviation**2))
  network = networks.MLP(width=config.width, depth=config.depth)
  template = denoisers.from_flax(network, process, denoisers.edm(data_std=std), None)
  loss = losses.chain(
    losses.denoising_score_matching(process, "x0"),
    losses.weight_by(losses.edm(data_std=std)),
    losses.at_times(
      losses.low_discrepancy(losses.log_normal_sigma(config.log_mean, config.log_std)),
      roles=losses.roles(model=template),
    ),
  )
  start = jax.jit(lambda key: network.init(key, jnp.zeros((1, 2)), jnp.zeros(1))["params"])(
    jax.random.key(seed)
  )
  transform = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps), b2=0.99)
  params, _, _ = fit(
    loss, start, transform, lambda key: {"x": data.sample(key, config.batch)}, steps=config.steps, seed=seed
  )
  model = template.with_params(params["model"])
  table = solvers.build(config.solver, process, config.rows, grid=solvers.grids.log_snr(process, config.rows))
  noise, keys = (
    process.prior(jax.random.split(jax.random.key(200 + seed), config.samples), (2,)),
    jax.random.split(jax.random.key(300 + seed), config.samples),
  )
  found = {}
  for last in config.windows:
    out = solvers.sample(model, tasks.watched(table, last), noise, keys=keys)
    distance = np.linalg.norm(np.asarray(out.x)[:, None] - modes[None], axis=2).min(axis=1)
    made_up, variance = distance > 6 * config.deviation, np.asarray(out.variance)
    area = metrics.auroc(variance[made_up], variance[~made_up])
    found |= {
      f"area_last_{last}": area.value,
      f"area_error_last_{last}": area.error,
      f"found_last_{last}": metrics.detection_rate(variance[made_up], variance[~made_up], kept=0.96),
    }
  return found | {
    "share_made_up": float(made_up.mean()),
    "made_up": float(made_up.sum()),
    "evaluations": float(table.cost),
  }
