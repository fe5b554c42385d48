"""AND by summed scores beside the exact product of a ring and a column of Gaussians, without and with
Langevin correctors."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2302.11552"
  ours = "the criterion is ours"
  row = lambda metric, true, bound, note, unit="": dict(
    source=source, metric=metric, true=true, tolerance=0.0, bound=bound, note=note, unit=unit
  )
  claims = [
    row(
      "score_error_0.5",
      0.05,
      "at_least",
      "the summed scores are not the score of the noised product: mean squared difference over the latter's "
      "mean square, at noise 0.5, "
      "about the distance of neighbouring modes; " + ours,
    ),
    row("score_error_0.05", 0.05, "at_most", "near the data they are; " + ours),
    row(
      "flow_over_floor",
      3.0,
      "at_least",
      "100 steps of a flow, sliced Wasserstein distance to the product, over that of as many exact samples; "
      + ours,
    ),
    row(
      "longer_over_plain",
      0.8,
      "at_least",
      "2,100 ancestral steps over 100, the evaluations of 20 correctors: the steps are not the reason; "
      + ours,
    ),
    row(
      "corrected_5_over_plain",
      0.5,
      "at_most",
      "100 ancestral steps with five Langevin moves each over the same without; " + ours,
    ),
    row("corrected_20_over_plain", 0.5, "at_most", "with twenty; " + ours),
    row("corrected_over_floor", 2.0, "at_most", "with twenty, over as many exact samples; " + ours),
  ]
  return ConfigDict(
    dict(
      measure="experiments.guidance.products.product",
      count=2000,
      steps=100,
      correctors=(1, 5, 20),
      snr=0.3,
      levels=(0.05, 0.2, 0.5, 1.0, 2.0),
      side=600,
      claim=claims,
    )
  )
