"""Images that are no digits, found by the density of pixels; and averages of digits, which that density does
not find."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2011.13456 (densities), arXiv:1906.02994 (typicality)"
  ours = "the criterion is ours"
  row = lambda metric, true, tolerance=0.0, bound="at_least", **more: (
    dict(
      source=source, metric=metric, true=true, tolerance=tolerance, bound=bound, unit="area under the curve"
    )
    | more
  )
  claims = [
    row("surprise_finds_noise", 0.95, note="images of uniform noise, against held-out digits; " + ours),
    row("surprise_finds_shuffled", 0.95, note="digits with their pixels shuffled; " + ours),
    row("surprise_finds_negatives", 0.95, note="digits in white on black; " + ours),
    row(
      "surprise_finds_blank",
      0.95,
      note="images without a stroke; of large images simple ones are known to have too high a density, of "
      "these they have not; " + ours,
    ),
    row("surprise_finds_faded", 0.9, note="digits at 30% of their contrast: likewise; " + ours),
    row(
      "surprise_finds_averages",
      0.6,
      bound="at_most",
      note="not found: averages of ten digits of one class are as probable as digits; " + ours,
    ),
    row(
      "atypicality_finds_averages",
      0.6,
      bound="at_most",
      note="nor by the distance of -log p from its mean over training digits; " + ours,
    ),
    row("atypicality_finds_noise", 0.95, note=ours),
    row(
      "evaluations",
      128.0,
      bound="within",
      unit="network evaluations an image",
      note="32 steps of order 4, with one directional derivative each",
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.density_uses.detection.out_of_distribution",
      t_min=0.02,
      num_steps=32,
      probes=1,
      fade=0.3,
      width=192,
      depth=3,
      dropout=0.1,
      steps=2000,
      batch=128,
      learning_rate=3e-3,
      claim=claims,
    )
  )
