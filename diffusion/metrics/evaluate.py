"""All numbers that a run reports about its samples, next to the floors that real data set.

What cannot be measured on some data is left out, with one sentence that says why; all else is measured.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from diffusion.metrics import sliced
from diffusion.metrics.classifier import class_accuracy, fit_classifier
from diffusion.metrics.features import fit_features, spaced_subset
from diffusion.metrics.frechet import frechet_distance, statistics
from diffusion.metrics.kernel import RBF, median_bandwidth, mmd_squared
from diffusion.metrics.neighbours import near_zero, neighbour_ratio

# Subsets of the training split that a floor is averaged over.
SUBSETS = 8
# A kernel distance costs the square of the rows; more than this many on one side add little.
MOST_KERNEL_ROWS = 5000


def evaluate_samples(
  samples: Any,
  labels: Any,
  train: Any,
  train_labels: Any,
  heldout: Any,
  heldout_labels: Any,
  seed: int = 0,
) -> dict[str, Any]:
  """Metrics of samples [N, ...] against held-out data, as a dict of JSON types.

  samples, train and heldout share one shape [...] and one scaling ("data units", whatever they are); labels
  are integers [N], or None for unconditional samples or data without classes; -1 stands for no class.

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
  - left_out: what of these could not be measured (too few records, no two classes, equal data), name -> why;
    absent where all was.

  Deterministic; a few seconds for 1,000 samples of the digits. Raises ValueError for shapes that do not fit,
  NaN or infinity.

  >>> data = np.random.default_rng(0).normal(size=(60, 5))
  >>> found = evaluate_samples(data[:20], None, data[20:], None, data[:0], None)
  >>> sorted(found["left_out"])
  ['frechet_distance', 'kernel_distance', 'neighbour_ratio']
  >>> found["left_out"]["frechet_distance"]
  'there are no held-out records to compare with'
  """
  samples, train, heldout = (
    _batch(x, name) for x, name in ((samples, "samples"), (train, "train"), (heldout, "heldout"))
  )
  if not samples.shape[1:] == train.shape[1:] == heldout.shape[1:]:
    raise ValueError(
      f"samples {samples.shape}, training data {train.shape} and held-out data {heldout.shape} must share "
      "one shape per item"
    )
  samples, heldout, train = near_zero(samples, heldout, train)
  metrics: dict[str, Any] = {}
  left_out: dict[str, str] = {}
  add = lambda names, measure: _add(metrics, left_out, names, measure)
  classes = [] if train_labels is None else np.setdiff1d(train_labels, [-1]).tolist()
  if labels is not None and train_labels is not None:
    add(
      ("class_accuracy",),
      lambda: _accuracy(samples, labels, train, train_labels, heldout, heldout_labels, seed),
    )
  manifest: dict[str, Any] = {"seed": seed}

  def distances():
    _enough(samples=samples, training=train, **{"held-out": heldout})
    extract = fit_features(train, train_labels if len(classes) > 1 else None, seed=seed)
    manifest.update(extract.manifest)
    return feature_distances(extract(samples), extract(train), extract(heldout), seed)

  add(("frechet_distance", "kernel_distance"), distances)
  add(("neighbour_ratio",), lambda: _neighbour_ratio(samples, heldout, train))
  metrics["manifest"] = manifest | {
    "samples": len(samples),
    "train": len(train),
    "heldout": len(heldout),
    "compared": min(len(samples), len(train)),
    "floor_subsets": SUBSETS,
  }
  return metrics | ({"left_out": left_out} if left_out else {})


def feature_distances(
  samples: np.ndarray, train: np.ndarray, heldout: np.ndarray, seed: int = 0
) -> dict[str, float]:
  """Frechet and kernel distances of feature matrices [N, K], with their floors.

  The result is a dict, see `evaluate_samples`.
  """
  rng = np.random.default_rng(seed)
  count = min(len(samples), len(train))
  # Samples are cut, where they must be, by a draw: their order may follow their classes.
  samples = samples if len(samples) == count else samples[np.sort(rng.permutation(len(samples))[:count])]
  subsets = [train[np.sort(rng.permutation(len(train))[:count])] for _ in range(SUBSETS)]
  reference = statistics(heldout)
  floors = [frechet_distance(statistics(subset), reference) for subset in subsets]
  # Drawn, for the order of samples and of data may follow their classes.
  few = spaced_subset(count, MOST_KERNEL_ROWS, seed)
  held = heldout[spaced_subset(len(heldout), MOST_KERNEL_ROWS, seed)]
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


def evaluate_points(samples: Any, train: Any, heldout: Any, bins: int = 16, seed: int = 0) -> dict[str, Any]:
  """Metrics of low-dimensional samples [N, D] against held-out points, as a dict of floats.

  Floors are from the training points.

  sliced_wasserstein (order 2, 64 directions) and its floor (training points, as many as there are samples),
  kernel_distance (unbiased MMD^2, RBF, median bandwidth), its standard error and floor; and in the plane
  total_variation (bins x bins cells over the held-out box) with the value expected of perfect samples. Where
  only some of the points are taken, `seed` draws them. left_out: what could not be measured, name -> why;
  absent where all was. Raises ValueError for shapes that do not fit, NaN or infinity.
  """
  samples, train, heldout = (
    np.asarray(_batch(x, name), np.float64)
    for x, name in ((samples, "samples"), (train, "train"), (heldout, "heldout"))
  )
  samples, heldout, train = near_zero(samples, heldout, train)
  few = lambda points, most: points[spaced_subset(len(points), most, seed)]
  metrics: dict[str, Any] = {}
  left_out: dict[str, str] = {}

  def projected():
    _enough(1, samples=samples, training=train, **{"held-out": heldout})
    return {
      "sliced_wasserstein": sliced.sliced_wasserstein(samples, heldout),
      "sliced_wasserstein_floor": sliced.sliced_wasserstein(few(train, len(samples)), heldout),
    }

  def kernels():
    _enough(samples=samples, training=train, **{"held-out": heldout})
    count = min(len(samples), len(train), MOST_KERNEL_ROWS)
    kernel, held = RBF(median_bandwidth(train, heldout)), few(heldout, MOST_KERNEL_ROWS)
    distance = mmd_squared(few(samples, count), held, kernel)
    return {
      "kernel_distance": distance.value,
      "kernel_distance_error": distance.standard_error,
      "kernel_floor": mmd_squared(few(train, count), held, kernel).value,
    }

  def cells():
    _enough(1, samples=samples, **{"held-out": heldout})
    return {
      "total_variation": sliced.total_variation(samples, heldout, bins),
      "total_variation_floor": sliced.total_variation_floor(heldout, len(samples), bins),
    }

  _add(metrics, left_out, ("sliced_wasserstein",), projected)
  _add(metrics, left_out, ("kernel_distance",), kernels)
  if samples.shape[1] == 2:
    _add(metrics, left_out, ("total_variation",), cells)
  return metrics | ({"left_out": left_out} if left_out else {})


def _add(
  metrics: dict[str, Any], left_out: dict[str, str], names: Iterable[str], measure: Callable[[], dict]
) -> None:
  """Adds what `measure` returns, or says for each of the names why there is nothing."""
  try:
    metrics.update(measure())
  except ValueError as error:
    left_out.update(dict.fromkeys(names, str(error)))


def _enough(least: int = 4, **sets: np.ndarray) -> None:
  """ValueError where a set has fewer than `least` members."""
  for name, members in sets.items():
    if len(members) < least:
      if name == "held-out" and not len(members):
        raise ValueError("there are no held-out records to compare with")
      what = "samples" if name == "samples" else f"{name} records"
      raise ValueError(f"{least} {what} are needed at the least, and there are {len(members)}")


def _accuracy(samples, labels, train, train_labels, heldout, heldout_labels, seed):
  """Class accuracy of samples and of held-out data; records without a class take no part."""
  train_labels = np.asarray(train_labels)
  known = train_labels >= 0
  classes = np.unique(train_labels[known])
  if len(classes) < 2:
    raise ValueError(f"a classifier needs two classes, and the training records have {len(classes)}")
  classifier = fit_classifier(train[known], train_labels[known], seed=seed)
  accuracy = class_accuracy(classifier, samples, labels)
  found = {
    "class_accuracy": accuracy.value,
    "class_accuracy_interval": [accuracy.low, accuracy.high],
  }
  if heldout_labels is not None:
    judged = np.isin(heldout_labels, classes)
    if judged.any():
      right = class_accuracy(classifier, heldout[judged], np.asarray(heldout_labels)[judged])
      found["classifier_accuracy_on_heldout"] = right.value
  return found


def _neighbour_ratio(samples, heldout, train):
  _enough(1, samples=samples, training=train, **{"held-out": heldout})
  return {"neighbour_ratio": neighbour_ratio(samples, heldout, train)}


def _batch(images, name):
  images = np.asarray(images)
  if images.ndim < 2:
    raise ValueError(f"{name} must be a batch [N, ...], and has shape {images.shape}")
  broken = ~np.isfinite(images).all(axis=tuple(range(1, images.ndim)))
  if broken.any():
    raise ValueError(
      f"{int(broken.sum())} of {len(images)} in {name} hold a NaN or an infinity, so no metric is defined: "
      "look for their cause in the sampler or the training"
    )
  return images
