"""The whole report on real digits: copies, fresh data and damaged data read as what they are."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffusion.metrics import evaluate_points, evaluate_samples, fit_features

KEYS = {
  "class_accuracy",
  "frechet_distance",
  "frechet_floor",
  "kernel_distance",
  "kernel_floor",
  "neighbour_ratio",
}


@pytest.fixture(scope="module")
def digits():
  images, labels = load_digits(return_X_y=True)
  order = np.random.default_rng(0).permutation(len(images))
  return (images[order] / 8.0 - 1.0).reshape(-1, 8, 8, 1).astype(np.float32), labels[order]


def test_training_data_as_samples(digits):
  images, labels = digits
  metrics = evaluate_samples(
    images[:1000], labels[:1000], images[:1437], labels[:1437], images[1437:], labels[1437:]
  )
  assert metrics.keys() >= KEYS
  assert json.loads(json.dumps(metrics)) == metrics
  assert metrics["neighbour_ratio"] == 0.0
  assert metrics["class_accuracy"] > 0.99
  assert metrics["classifier_accuracy_on_heldout"] > 0.97
  assert metrics["frechet_distance"] == pytest.approx(metrics["frechet_floor"], rel=0.25)
  assert abs(metrics["kernel_distance"]) < 4 * metrics["kernel_distance_error"]


def test_fresh_data_are_close_to_the_floor_and_damaged_data_are_not(digits):
  images, labels = digits
  train, held, fresh = slice(0, 1000), slice(1000, 1400), slice(1400, 1797)

  def report(samples, sample_labels):
    return evaluate_samples(samples, sample_labels, images[train], labels[train], images[held], labels[held])

  rng = np.random.default_rng(1)
  real = report(images[fresh], labels[fresh])
  assert real["frechet_distance"] == pytest.approx(real["frechet_floor"], rel=0.3)
  assert abs(real["kernel_distance"]) < 4 * real["kernel_distance_error"]
  assert real["neighbour_ratio"] == pytest.approx(1.0, abs=0.08)
  assert real["class_accuracy"] > 0.96
  noise = rng.normal(size=images[fresh].shape).astype(np.float32)
  noisy = report(images[fresh] + 0.4 * noise, labels[fresh])
  assert noisy["frechet_distance"] > 1.5 * noisy["frechet_floor"]
  assert noisy["kernel_distance"] > 4 * noisy["kernel_distance_error"]
  assert noisy["neighbour_ratio"] > 1.2
  narrow = report(0.5 * images[fresh] + 0.5 * images[:1000].mean(axis=0), labels[fresh])
  assert narrow["frechet_distance"] > 1.5 * narrow["frechet_floor"]
  few_classes = np.flatnonzero(labels[1400:] < 7) + 1400
  assert report(images[few_classes], labels[few_classes])["frechet_distance"] > 1.5 * real["frechet_floor"]


def test_same_inputs_give_the_same_numbers_and_units_do_not_matter(digits):
  images, labels = digits
  arguments = lambda scale: (
    scale * images[:300],
    labels[:300],
    scale * images[300:700],
    labels[300:700],
    scale * images[700:900],
    None,
  )
  first = evaluate_samples(*arguments(1.0))
  assert evaluate_samples(*arguments(1.0)) == first
  scaled = evaluate_samples(*arguments(32.0))
  for name in ("frechet_distance", "frechet_floor", "neighbour_ratio", "class_accuracy"):
    assert scaled[name] == pytest.approx(first[name], rel=1e-3)
  assert "classifier_accuracy_on_heldout" not in first


@pytest.mark.parametrize("shape", [(5, 7, 3), (24, 20, 3), (40, 2)])
def test_any_shape_without_labels(shape):
  rng = np.random.default_rng(2)
  mixing = rng.normal(size=(30, np.prod(shape)))
  samples, train, heldout = ((rng.normal(size=(n, 30)) @ mixing).reshape(n, *shape) for n in (150, 200, 100))
  metrics = evaluate_samples(samples, None, train, None, heldout, None)
  assert "class_accuracy" not in metrics
  assert metrics["frechet_distance"] == pytest.approx(metrics["frechet_floor"], rel=0.4)
  assert metrics["manifest"]["compared"] == 150


def test_features_are_standard_on_the_training_split(digits):
  images, labels = digits
  features = fit_features(images[:1000], labels[:1000])
  values = features(images[:1000])
  assert values.shape == (1000, 48)
  np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-9)
  np.testing.assert_allclose(values[:, :24].var(axis=0), 1.0, rtol=2e-3)
  assert values[:, 24:].var(axis=0).mean() == pytest.approx(1.0, rel=1e-9)
  assert features.manifest["sha256"] != fit_features(images[:1000], labels[:1000], seed=1).manifest["sha256"]


def test_points_in_the_plane():
  rng = np.random.default_rng(3)
  train, heldout, fresh = (rng.normal(size=(n, 2)) for n in (2000, 1500, 1200))
  good, bad = (evaluate_points(points, train, heldout, bins=8) for points in (fresh, fresh + 0.5))
  for name in ("sliced_wasserstein", "total_variation"):
    assert good[name] < 2 * good[name + "_floor"]
    assert bad[name] > 2 * bad[name + "_floor"]
  assert abs(good["kernel_distance"]) < 4 * good["kernel_distance_error"]
  assert bad["kernel_distance"] > 4 * bad["kernel_distance_error"]
  assert "total_variation" not in evaluate_points(*(rng.normal(size=(100, 3)) for _ in range(3)))


def test_errors():
  flat = np.zeros((10, 4))
  with pytest.raises(ValueError, match="share one shape"):
    evaluate_samples(np.zeros((10, 5)), None, flat, None, flat, None)
  broken = np.zeros((10, 4))
  broken[3:5] = np.nan
  with pytest.raises(ValueError, match="2 of 10 in samples"):
    evaluate_samples(broken, None, flat, None, flat, None)
