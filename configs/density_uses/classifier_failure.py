"""Errors of a classifier of digits, and images that are no digits, found by the density of its features: a diffusion model told no label."""

from ml_collections import ConfigDict


def get_config():
  source = "arXiv:2010.02364 (numbers not known to us)"
  ours = "the criterion is ours"
  row = lambda metric, true, tolerance=0.0, bound="at_least", **more: dict(source=source, metric=metric, true=true, tolerance=tolerance, bound=bound, unit="area under the curve") | more
  claims = [
      row("surprise_finds_errors", 0.8, note="-log p of the 32 penultimate features under the diffusion model, for the errors among 1197 test digits; 16 features gave 0.90, and 0.89, 0.94, 0.81 for the three rows below; " + ours),
      row("surprise_finds_noise", 0.95, note="images of uniform noise, against all test digits; " + ours),
      row("surprise_finds_shuffled", 0.95, note="digits with their pixels shuffled; " + ours),
      row("surprise_finds_negatives", 0.95, note="digits in white on black; " + ours),
      row("mixture_finds_errors", 0.8, note="for comparison: ten Gaussians on the same features"),
      row("doubt_finds_errors", 0.8, note="for comparison: one less the classifier's largest probability, which has seen the labels"),
      row("doubt_finds_noise", 0.95, bound="at_most", note="for comparison, the same: a classifier is sure of some of the noise; " + ours),
      row("classifier_accuracy", 0.9, unit="of 1197 test digits", note="trained on 600"),
      row("evaluations", 64.0, bound="within", unit="network evaluations an image", note="16 steps of order 4, with four directional derivatives each"),
  ]
  return ConfigDict(dict(
      measure="claims.detection.classifier_failure", train=600, features=32, epochs=200, t_min=0.05, num_steps=16, probes=4,
      width=96, depth=2, dropout=0.0, steps=2000, batch=128, learning_rate=3e-3, claim=claims))
