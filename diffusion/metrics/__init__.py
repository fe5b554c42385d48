"""Distances between samples and data, in float64 NumPy on the host.

Only `fit_features` and `fit_classifier` need scikit-learn. What published tools measure, by their
conventions, is in modules that load when they are asked for:

protocols.py          the conventions, one record each
extractors/           Inception and DINOv2, from files of weights
resizing.py           resizes as the tools do them
streaming.py          features of any number of images, on all devices
sums.py               what is kept of them, and how far it came
conventional.py       the numbers of a protocol from features
reference_files.py    files of statistics of real data
"""

from types import ModuleType

from diffusion import lazy
from diffusion.metrics.classifier import Accuracy, Classifier, class_accuracy, fit_classifier, wilson_interval
from diffusion.metrics.detection import Auroc, auroc, detection_rate
from diffusion.metrics.evaluate import evaluate_points, evaluate_samples, feature_distances
from diffusion.metrics.features import FeatureMap, fit_features
from diffusion.metrics.frechet import Statistics, frechet_distance, gaussian_frechet, merge, statistics
from diffusion.metrics.inception_score import ClassSums, inception_score
from diffusion.metrics.kernel import RBF, Estimate, Polynomial, median_bandwidth, mmd_squared
from diffusion.metrics.neighbours import Neighbours, near_zero, nearest_neighbours, neighbour_ratio
from diffusion.metrics.precision_recall import PrecisionRecall, precision_recall
from diffusion.metrics.sliced import sliced_wasserstein, total_variation, total_variation_floor
from diffusion.metrics.text import evaluate_text


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)


__all__ = [
  "RBF",
  "Accuracy",
  "Auroc",
  "Classifier",
  "Estimate",
  "FeatureMap",
  "Neighbours",
  "Polynomial",
  "Statistics",
  "auroc",
  "class_accuracy",
  "detection_rate",
  "evaluate_points",
  "evaluate_samples",
  "evaluate_text",
  "feature_distances",
  "fit_classifier",
  "fit_features",
  "frechet_distance",
  "gaussian_frechet",
  "median_bandwidth",
  "merge",
  "mmd_squared",
  "near_zero",
  "nearest_neighbours",
  "neighbour_ratio",
  "sliced_wasserstein",
  "statistics",
  "total_variation",
  "total_variation_floor",
  "wilson_interval",
]
