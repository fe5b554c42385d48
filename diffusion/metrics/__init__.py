"""Distances between samples and data, in float64 NumPy on the host.

Only `fit_features` and `fit_classifier` need scikit-learn.
"""

from diffusion.metrics.classifier import Accuracy, Classifier, class_accuracy, fit_classifier, wilson_interval
from diffusion.metrics.detection import Auroc, auroc, detection_rate
from diffusion.metrics.evaluate import evaluate_points, evaluate_samples, feature_distances
from diffusion.metrics.features import FeatureMap, fit_features
from diffusion.metrics.frechet import Statistics, frechet_distance, gaussian_frechet, merge, statistics
from diffusion.metrics.kernel import RBF, Estimate, Polynomial, median_bandwidth, mmd_squared
from diffusion.metrics.neighbours import Neighbours, nearest_neighbours, neighbour_ratio
from diffusion.metrics.sliced import sliced_wasserstein, total_variation, total_variation_floor

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
  "feature_distances",
  "fit_classifier",
  "fit_features",
  "frechet_distance",
  "gaussian_frechet",
  "median_bandwidth",
  "merge",
  "mmd_squared",
  "nearest_neighbours",
  "neighbour_ratio",
  "sliced_wasserstein",
  "statistics",
  "total_variation",
  "total_variation_floor",
  "wilson_interval",
]
