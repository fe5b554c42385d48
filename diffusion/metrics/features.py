"""Fixed feature maps for small images.

Learned from the real training split alone, for Frechet and kernel distances.

Two halves see different faults: whitened principal components see noise, blur and lost variety, hidden units
of a small classifier see missing classes and broken shapes. Distances in these features compare runs of one
data set with each other, never with published FIDs.
"""

import dataclasses
import hashlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# Above this many entries per sample, everything is first projected on its leading principal components.
MOST_ENTRIES = 1024


@dataclasses.dataclass(frozen=True)
class Projection:
  """Principal components: x [N, ...] -> ((x - mean) @ components) / scale, [N, K] in float64."""

  mean: np.ndarray
  components: np.ndarray
  scale: np.ndarray

  def __call__(self, images: ArrayLike) -> np.ndarray:
    images = np.asarray(images)
    flat = images.reshape(len(images), -1)
    chunks = [flat[i : i + 4096].astype(np.float64) - self.mean for i in range(0, max(len(flat), 1), 4096)]
    return np.concatenate([chunk @ self.components for chunk in chunks]) / self.scale


@dataclasses.dataclass(frozen=True)
class FeatureMap:
  """A map from images to features, and what the features are.

  Images [N, ...] in data units -> features [N, K] in float64, each with variance of about 1 on the training
  split.

  manifest: what the features are, how many data they were learned from, and a digest of all weights (JSON
  types only).
  """

  projection: Projection
  reduction: Projection | None
  hidden: (
    tuple[np.ndarray, np.ndarray, np.ndarray, np.floating] | None
  )  # (weights [D, H], bias [H], centre [H], scale) of the classifier's hidden units
  manifest: dict[str, Any]

  def __call__(self, images: ArrayLike) -> np.ndarray:
    features = self.projection(images)
    if self.hidden is None:
      return features
    weights, bias, centre, scale = self.hidden
    inputs = standard_inputs(images, self.reduction)
    units = np.maximum(inputs @ weights + bias, 0.0)
    return np.concatenate([features, (units - centre) / scale], axis=1)


def principal_components(train: ArrayLike, count: int, seed: int = 0, whiten: bool = True) -> Projection:
  """The leading principal components of a training set, as a `Projection`.

  There are `count` of train [N, ...], or fewer where the data span fewer.
  """
  from sklearn.decomposition import PCA

  train = np.asarray(train, np.float64)
  flat = train.reshape(len(train), -1)
  count = min(count, flat.shape[1], len(flat) - 1)
  if count < 1:
    raise ValueError(f"principal components need at least 2 training data, and there are {len(flat)}")
  equal = "all training data are equal, so they have no principal component: look at how they were loaded"
  if (flat == flat[0]).all():
    raise ValueError(equal)
  solver = "full" if flat.shape[1] <= MOST_ENTRIES else "randomized"
  pca = PCA(count, svd_solver=solver, random_state=seed).fit(flat)
  kept = pca.explained_variance_ > 1e-9 * pca.explained_variance_[0]
  if not kept.any():
    raise ValueError(equal)
  scale = np.sqrt(pca.explained_variance_[kept])
  components = pca.components_[kept]  # pyright: ignore[reportOptionalSubscript]  # None before the fit alone
  return Projection(pca.mean_, components.T, scale if whiten else np.ones_like(scale))


def reduction_for(train: ArrayLike, seed: int = 0) -> Projection | None:
  """The reduction of large samples to principal components; None for small samples.

  Classifiers then see the 64 leading components instead of pixels.
  """
  entries = int(np.prod(np.shape(train)[1:]))
  if entries <= MOST_ENTRIES:
    return None
  reduced = principal_components(train, 64, seed, whiten=False)
  return dataclasses.replace(reduced, scale=reduced.scale * reduced(train).std())


def standard_inputs(images: ArrayLike, reduction: Projection | None) -> np.ndarray:
  """Classifier inputs [N, D]: the flat images, or their reduction."""
  if reduction is not None:
    return reduction(images)
  images = np.asarray(images, np.float64)
  return images.reshape(len(images), -1)


def spaced_subset(count: int, most: int, seed: int = 0) -> np.ndarray:
  """The indices of a subset of rows, in rising order.

  They are `most` of `count` rows, drawn once by `seed`; all of them where there are no more.
  """
  if count <= most:
    return np.arange(count)
  return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def fit_features(
  train: ArrayLike,
  labels: ArrayLike | None = None,
  components: int = 24,
  units: int = 24,
  most: int = 10_000,
  seed: int = 0,
) -> FeatureMap:
  """A `FeatureMap` learned from train [N, ...] and, where given, labels [N].

  Without labels: whitened principal components. With labels: those, beside the hidden units of a scikit-learn
  MLPClassifier with one hidden layer (each half scaled to variance about 1). Weight decay is strong, so that
  training and fresh data look nearly alike to it: a feature model that knows its training data by heart would
  raise the floor. At most `most` training data are used. The result depends on its arguments and the version
  of scikit-learn; its digest is in the manifest.

  >>> rng = np.random.default_rng(0)
  >>> features = fit_features(rng.normal(size=(50, 4, 4, 1)), components=3)
  >>> features(rng.normal(size=(5, 4, 4, 1))).shape
  (5, 3)
  """
  train = np.asarray(train)
  chosen = spaced_subset(len(train), most, seed)
  train = train[chosen]
  projection = principal_components(train, components, seed)
  count = projection.components.shape[1]
  manifest = {"features": f"{count} whitened principal components", "learned_from": len(train), "seed": seed}
  hidden, reduction = None, None
  if labels is not None:
    labels = np.asarray(labels)[chosen]
    reduction = reduction_for(train, seed)
    hidden = _hidden_units(standard_inputs(train, reduction), labels, units, seed)
    manifest["features"] += f" and {units} hidden units of an MLPClassifier"
  weights = [projection.mean, projection.components, projection.scale, *(hidden or ())]
  # Rounded, so that the digest names the weights and not the last bit of the machine's arithmetic.
  rounded = b"".join(np.round(np.asarray(w, np.float64), 4).astype(np.float32).tobytes() for w in weights)
  manifest["sha256"] = hashlib.sha256(rounded).hexdigest()[:16]
  return FeatureMap(projection, reduction, hidden, manifest)


def _hidden_units(inputs, labels, units, seed):
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.neural_network import MLPClassifier

  # The scale goes into the first layer, so that data in any unit train alike.
  shift, size = inputs.mean(), inputs.std()
  network = MLPClassifier(
    (units,),
    alpha=1.0,
    batch_size=min(64, len(inputs)),  # pyright: ignore[reportArgumentType]  # the stubs know 'auto' alone
    max_iter=20,
    random_state=seed,
  )
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # 20 epochs on purpose
    network.fit((inputs - shift) / size, labels)
  weights = network.coefs_[0] / size
  bias = network.intercepts_[0] - shift * weights.sum(axis=0)
  activations = np.maximum(inputs @ weights + bias, 0.0)
  # One scale for all units: a unit that hardly fires must not be blown up.
  return weights, bias, activations.mean(axis=0), np.sqrt(activations.var(axis=0).mean())
