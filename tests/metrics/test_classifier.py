"""The classifier on real digits, and the interval of its accuracy."""

import numpy as np
import pytest
import scipy.stats
from sklearn.datasets import load_digits

from diffusion.metrics import class_accuracy, fit_classifier, wilson_interval


def digits():
  images, labels = load_digits(return_X_y=True)
  order = np.random.default_rng(0).permutation(len(images))
  images = (images[order] / 8.0 - 1.0).reshape(-1, 8, 8, 1).astype(np.float32)
  return images[:1437], labels[order][:1437], images[1437:], labels[order][1437:]


def test_real_digits():
  train, train_labels, heldout, heldout_labels = digits()
  classifier = fit_classifier(train, train_labels)
  accuracy = class_accuracy(classifier, heldout, heldout_labels)
  assert accuracy.value > 0.97
  assert accuracy.low < accuracy.value < accuracy.high
  wrong = class_accuracy(classifier, heldout, (heldout_labels + 1) % 10)
  assert wrong.value < 0.03
  # Units of the data do not matter.
  other = fit_classifier(100.0 * train + 7.0, train_labels)
  assert np.mean(other(100.0 * heldout + 7.0) == classifier(heldout)) > 0.99


def test_large_images_are_reduced_first():
  rng = np.random.default_rng(1)
  labels = np.arange(120) % 3
  pattern = rng.normal(size=(3, 24, 20, 3))
  images = pattern[labels] + rng.normal(size=(120, 24, 20, 3))
  classifier = fit_classifier(images[:90], labels[:90])
  assert classifier.reduction is not None
  assert class_accuracy(classifier, images[90:], labels[90:]).value == 1.0


def test_wilson_interval_covers():
  # Exact coverage at n = 50: sum of binomial probabilities of the counts whose interval holds p. Wilson's is
  # close to nominal on average.
  for p in (0.5, 0.9, 0.97):
    held = [low <= p <= high for low, high in (wilson_interval(k, 50) for k in range(51))]
    assert 0.91 < scipy.stats.binom.pmf(np.arange(51), 50, p)[held].sum() < 0.99
  assert wilson_interval(0, 10)[0] == 0.0 and wilson_interval(10, 10)[1] == 1.0
  # Its ends solve |share - p| = z sqrt(p (1 - p) / n).
  for end in wilson_interval(97, 100, 0.9):
    assert abs(0.97 - end) == pytest.approx(1.6448536 * np.sqrt(end * (1 - end) / 100), rel=1e-6)


def test_errors():
  classifier = fit_classifier([[0.0], [0.1], [1.0], [1.1]], [0, 0, 1, 1])
  with pytest.raises(ValueError, match=r"\[-1\] are none"):
    class_accuracy(classifier, [[0.0], [1.0]], [-1, 1])
  with pytest.raises(ValueError, match="one label for each"):
    class_accuracy(classifier, [[0.0], [1.0]], [1])
  with pytest.raises(ValueError, match="two classes"):
    fit_classifier([[0.0], [1.0]], [3, 3])
  with pytest.raises(ValueError, match="successes"):
    wilson_interval(3, 2)
