"""All numbers that a run reports about its samples, next to the floors that real data set."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffusion.metrics import sliced
from diffusion.metrics.classifier import class_accuracy, fit_classifier
from diffusion.metrics.features import fit_features
from diffusion.metrics.frechet import frechet_distance, statistics
from diffusion.metrics.kernel import RBF, median_bandwidth, mmd_squared
from diffusion.metrics.neighbours import neighbour_ratio

# Subsets of the training split that a floor is averaged over.
SUBSETS = 8
# A kernel distance costs the square of the rows; more than this many on one side add little.
MOST_KERNEL_ROWS = 5000


def evaluate_samples(
  samples: ArrayLike,
  labels: ArrayLike | None,
  train: ArrayLike,
  train_labels: ArrayLike | None,
  heldout: ArrayLike,
  heldout_labels: ArrayLike | None,
  seed: int = 0,
) -> dict[str, Any]:
  """Metrics of samples [N, ...] against held-out data, as a dict of JSON types.

  samples, train and heldout share one shape [...] and one scaling ("data units", whatever they are); labels
  are integers [N], or None for unconditional samples or data without classes.

  - class_accuracy: share of samples in their class, by an RBF support vector machine of the training split;
    class_accuracy_interval is its 95% Wilson interval and classifier_accuracy_on_heldout what that classifier
    reaches on real data. Without labels: absent.
  - frechet_distance: of samples against held-out data, in `fit_features`' features. frechet_floor: the mean
    of the same number over 8 random subsets of the training split, each as large as the set of samples (both
    cut to the smaller of the two where samples outnumber training data), against the same held-out data: both
    carry the same finite-size bias, so read their ratio.
    frechet_floor_std: standard deviation over the subsets, which share most of their rows: it shows the
    choice of the subset and not that of the held-out data.
  - kernel_distance, kernel_floor: unbiased MMD^2 with an RBF kernel in the same features, bandwidth the
    median distance of real data, and their standard errors. Zero, or less by chance, for equal distributions.
  - neighbour_ratio: mean distance to the nearest training datum, in data units, samples over held-out: far
    below 1 means copying.
  - manifest: counts, features, a digest of their weights, and the seed.

  Deterministic; a few seconds for 1,000 samples of the digits. Raises ValueError for shapes that do not fit,
  NaN or infinity.
  """
  samples, train, heldout = (
    _batch(x, name) for x, name in ((samples, "samples"), (train, "train"), (heldout, "heldout"))
  )
  if not samples.shape[1:] == train.shape[1:] == heldout.shape[1:]:
    raise ValueError(
      f"samples {samples.shape}, training data {train.shape} and held-out data {heldout.shape} must share "
      "one shape per item"
    )
  metrics = {}
  if labels is not None and train_labels is not None:
    classifier = fit_classifier(train, train_labels, seed=seed)
    accuracy = class_accuracy(classifier, samples, labels)
    metrics["class_accuracy"] = accuracy.value
    metrics["class_accuracy_interval"] = [accuracy.low, accuracy.high]
    if heldout_labels is not None:
      metrics["classifier_accuracy_on_heldout"] = class_accuracy(classifier, heldout, heldout_labels).value
  extract = fit_features(train, train_labels, seed=seed)
  metrics.update(feature_distances(extract(samples), extract(train), extract(heldout), seed))
  metrics["neighbour_ratio"] = neighbour_ratio(samples, heldout, train)
  count = min(len(samples), len(train))
  metrics["manifest"] = extract.manifest | {
    "samples": len(samples),
    "train": len(train),
    "heldout": len(heldout),
    "compared": count,
    "floor_subsets": SUBSETS,
  }
  return metrics


def feature_distances(
  samples: np.ndarray, train: np.ndarray, heldout: np.ndarray, seed: int = 0
) -> dict[str, float]:
  """Frechet and kernel distances of feature matrices [N, K] with their floors: a dict, see
  `evaluate_samples`."""
  rng = np.random.default_rng(seed)
  count = min(len(samples), len(train))
  # Samples are cut, where they must be, by a draw: their order may follow their classes.
  samples = samples if len(samples) == count else samples[np.sort(rng.permutation(len(samples))[:count])]
  subsets = [train[np.sort(rng.permutation(len(train))[:count])] for _ in range(SUBSETS)]
  reference = statistics(heldout)
  floors = [frechet_distance(statistics(subset), reference) for subset in subsets]
  few = slice(None, None, -(-count // MOST_KERNEL_ROWS))
  held = heldout[:: -(-len(heldout) // MOST_KERNEL_ROWS)]
  kernel = RBF(median_bandwidth(train, heldout))
  distance = mmd_squared(samples[few], held, kernel)
  kernel_floors = [mmd_squared(subset[few], held, kernel) for subset in subsets]
  return {
    "frechet_distance": frechet_distance(statistics(samples), reference),
    "frechet_floor": float(np.mean(floors)),
    "frechet_floor_std": float(np.std(floors)),
    "kernel_distance": distance.value,
    "kernel_distance_error": distance.standard_error,
    "kernel_floor": float(np.mean([floor.value for floor in kernel_floors])),
    # The subsets share the held-out data and most of their rows, so their mean is hardly surer than one of
    # them.
    "kernel_floor_error": float(np.mean([floor.standard_error for floor in kernel_floors])),
  }


def evaluate_points(
  samples: ArrayLike, train: ArrayLike, heldout: ArrayLike, bins: int = 16
) -> dict[str, float]:
  """Metrics of low-dimensional samples [N, D] against held-out points, with floors from the training points:
  a dict of floats.

  sliced_wasserstein (order 2, 64 directions) and its floor (training points, as many as there are samples),
  kernel_distance (unbiased MMD^2, RBF, median bandwidth), its standard error and floor; and in the plane
  total_variation (bins x bins cells over the held-out box) with the value expected of perfect samples. Raises
  ValueError as `evaluate_samples` does.
  """
  samples, train, heldout = (np.asarray(x, np.float64) for x in (samples, train, heldout))
  count = min(len(samples), len(train), MOST_KERNEL_ROWS)
  kernel = RBF(median_bandwidth(train, heldout))
  distance = mmd_squared(samples[:count], heldout[:MOST_KERNEL_ROWS], kernel)
  metrics = {
    "sliced_wasserstein": sliced.sliced_wasserstein(samples, heldout),
    "sliced_wasserstein_floor": sliced.sliced_wasserstein(train[: len(samples)], heldout),
    "kernel_distance": distance.value,
    "kernel_distance_error": distance.standard_error,
    "kernel_floor": mmd_squared(train[:count], heldout[:MOST_KERNEL_ROWS], kernel).value,
  }
  if samples.shape[1] == 2:
    metrics["total_variation"] = sliced.total_variation(samples, heldout, bins)
    metrics["total_variation_floor"] = sliced.total_variation_floor(heldout, len(samples), bins)
  return metrics


def _batch(images, name):
  images = np.asarray(images)
  if images.ndim < 2 or len(images) < 4:
    raise ValueError(f"{name} must be a batch [N, ...] of at least 4, and has shape {images.shape}")
  broken = ~np.isfinite(images.reshape(len(images), -1)).all(axis=1)
  if broken.any():
    raise ValueError(
      f"{int(broken.sum())} of {len(images)} in {name} hold a NaN or an infinity, so no metric is defined: "
      "look for their cause in the sampler or the training"
    )
  return images
