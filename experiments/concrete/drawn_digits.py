"""Binarised digits drawn from a concrete score that `train.py` learned: class-conditional samples, judged by
an independent classifier."""

import functools
import os
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import mcmc, metrics
from diffusion.config import factories
from diffusion.data import load
from diffusion.pictures import image_grid
from diffusion.run import loop
from diffusion.run.parts import assembly
from experiments.concrete.known_laws import apply

EACH = 6
"""Real images, and samples, of each class in the picture."""


def evaluate(run: Any, workdir: str, *, picture: str = "samples.png", **options: Any) -> dict[str, float]:
  """The `quality` of a run of `opening.open_run`; workdir/picture shows a row a class, held-out images to
  the left of samples."""
  x, labels, found = quality(run.parts, run.params, **options)
  held = load(run.parts.dataset.held_out)
  gap = np.full((1, *x.shape[1:]), 0.5)
  rows = [
    part
    for label in range(run.parts.dataset.num_classes)
    for part in (held["x"][held["label"] == label][:EACH], gap, x[labels == label][:EACH])
  ]
  image_grid(
    np.concatenate(rows),
    os.path.join(workdir, picture),
    columns=2 * EACH + 1,
    value_range=(0.0, 1.0),
    scale=6,
  )
  return found


def measure(config: Any, seed: int) -> dict[str, float]:
  """The `quality` of a run of config, trained as `train.py` trains it."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.seed = seed
  with tempfile.TemporaryDirectory() as workdir:
    done = loop.train(config, workdir, quiet=True)
  options = {key: value for key, value in config.evaluation.own.items() if key not in ("factory", "picture")}
  return quality(done.parts, assembly.trained_params(done.parts, done.state), **{**options, "seed": seed})[2]


def quality(
  parts: Any,
  params: Any,
  *,
  samples: int = 300,
  levels: int = 16,
  lowest: float = 0.01,
  sweeps: int = 1,
  seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
  """(x [samples, 8, 8, 1], their labels, numbers) of class-conditional draws, as many of each class.

  accuracy: share that a support vector machine, trained on the real training images, puts in the class asked
  for; held_out_accuracy: the same of real images. distance, held_out_distance: mean number of pixels between
  a sample, or a held-out image, and the nearest training image; copies, held_out_copies: share that is a
  training image.

  Args:
    parts, params: of a run with a field `concrete` of bits under `processes.uniform_resample`.
    levels, lowest, sweeps: Gibbs sweeps at each of so many noise levels, geometric from t_max down to
      `lowest`.
  """
  labels = np.arange(samples) % parts.dataset.num_classes
  x = draw(parts, params, labels, np.geomspace(float(parts.process.t_max), lowest, levels), sweeps, seed)
  train, held = load(parts.dataset.train), load(parts.dataset.held_out)
  judge = metrics.fit_classifier(train["x"], train["label"])
  found, real = (
    metrics.class_accuracy(judge, images, of).value
    for images, of in ((x, labels), (held["x"], held["label"]))
  )
  distance, held_distance = (nearest(images, train["x"]) for images in (x, held["x"]))
  return (
    x,
    labels,
    {
      "accuracy": found,
      "held_out_accuracy": real,
      "distance": float(np.mean(distance)),
      "held_out_distance": float(np.mean(held_distance)),
      "copies": float(np.mean(distance == 0)),
      "held_out_copies": float(np.mean(held_distance == 0)),
    },
  )


def draw(
  parts: Any, params: Any, labels: np.ndarray, times: np.ndarray, sweeps: int, seed: int
) -> np.ndarray:
  """Annealed Gibbs samples of the given classes: [n, 8, 8, 1] uint8; sample i depends on (seed, i) and its
  label alone."""
  of = factories.build(parts.config.loss.neighbourhood, where="config.loss.neighbourhood")
  concrete = jax.tree_util.Partial(functools.partial(apply, parts.network), params)
  kernel = mcmc.gibbs(concrete, of, cond={"label": jnp.asarray(labels, jnp.int32)})
  start_key, key = jax.random.split(jax.random.key(seed))
  start = parts.process.prior(jax.random.split(start_key, len(labels)), parts.process.shape)
  return np.asarray(mcmc.anneal(kernel, start, key, times, sweeps).x).astype(np.uint8)


def nearest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Pixels that differ from the nearest of the others: [n]."""
  a, b = (np.asarray(one).reshape(len(one), -1).astype(np.int32) for one in (images, others))
  return (a @ (1 - b.T) + (1 - a) @ b.T).min(axis=1)
