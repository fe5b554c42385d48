"""Class accuracy of class-conditional samples.

Judged by an independent classifier of the real training split.
"""

import dataclasses
import math
import statistics
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffusion.metrics.features import Projection, reduction_for, spaced_subset, standard_inputs


@dataclasses.dataclass(frozen=True)
class Classifier:
  """images [N, ...] in data units -> predicted labels [N]; an RBF support vector machine."""

  machine: Any
  reduction: Projection | None
  classes: np.ndarray

  def __call__(self, images: ArrayLike) -> np.ndarray:
    return self.machine.predict(standard_inputs(images, self.reduction))


def fit_classifier(train: ArrayLike, labels: ArrayLike, most: int = 10_000, seed: int = 0) -> Classifier:
  """A support vector classifier with an RBF kernel, as a `Classifier`.

  It is scikit-learn's SVC (C = 10, gamma = 1 / (entries x variance)) of train [N, ...] and labels [N].

  On the 8x8 digits it is right for 99% of held-out images. At most `most` training data are used, and samples
  of more than 1,024 entries are first projected on 64 principal components. Raises ValueError for lengths
  that differ or fewer than two classes.

  >>> classifier = fit_classifier([[0.0], [0.1], [1.0], [1.1]], [0, 0, 7, 7])
  >>> classifier([[0.2], [0.9]]).tolist()
  [0, 7]
  """
  from sklearn.svm import SVC

  train, labels = np.asarray(train), np.asarray(labels)
  if labels.shape != (len(train),):
    raise ValueError(
      f"there are {len(train)} training data and labels of shape {labels.shape}: give one label for each"
    )
  classes = np.unique(labels)
  if len(classes) < 2:
    raise ValueError(
      f"the training labels hold only {classes.tolist()}: a classifier needs two classes at least; pass no "
      "labels"
    )
  chosen = spaced_subset(len(train), most, seed)
  reduction = reduction_for(train[chosen], seed)
  machine = SVC(C=10.0, gamma="scale").fit(standard_inputs(train[chosen], reduction), labels[chosen])
  return Classifier(machine, reduction, classes)


class Accuracy(NamedTuple):
  """Share of right answers, with the ends of its confidence interval."""

  value: float
  low: float
  high: float


def class_accuracy(
  classifier: Classifier, samples: ArrayLike, labels: ArrayLike, confidence: float = 0.95
) -> Accuracy:
  """The share of samples that the classifier puts in the class they were drawn for.

  It comes with its Wilson interval. Samples are [N, ...].

  Raises ValueError where a label is none of the classifier's classes (-1, no class, included: such samples
  have no accuracy).
  """
  samples, labels = np.asarray(samples), np.asarray(labels)
  if labels.shape != (len(samples),) or not len(labels):
    raise ValueError(
      f"there are {len(samples)} samples and labels of shape {labels.shape}: give one label for each, and at "
      "least one"
    )
  unknown = np.setdiff1d(labels, classifier.classes)
  if len(unknown):
    raise ValueError(
      f"labels {unknown.tolist()[:10]} are none of the training classes {classifier.classes.tolist()[:20]}: "
      "for samples without a class pass labels=None"
    )
  right = int(np.sum(classifier(samples) == labels))
  return Accuracy(right / len(labels), *wilson_interval(right, len(labels), confidence))


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
  """Wilson's score interval of a proportion (JASA 22, 1927).

  It is sound near 0 and 1, where the normal interval has width zero.

  >>> [round(end, 4) for end in wilson_interval(97, 100)]
  [0.9155, 0.9897]
  """
  if not 0 <= successes <= trials or trials < 1 or not 0.0 < confidence < 1.0:
    raise ValueError(
      f"{successes} successes of {trials} trials at confidence {confidence}: need 0 <= successes <= trials, "
      "trials >= 1, confidence in (0, 1)"
    )
  z = statistics.NormalDist().inv_cdf(0.5 + 0.5 * confidence)
  share = successes / trials
  centre = share + z * z / (2 * trials)
  half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
  scale = 1 + z * z / trials
  # Exact at the ends, where rounding would leave 1e-17.
  return 0.0 if successes == 0 else (centre - half) / scale, 1.0 if successes == trials else (
    centre + half
  ) / scale
