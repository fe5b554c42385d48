"""Autoguidance, classifier-free guidance and its interval on two trees of Gaussians in the plane; draws
`config.picture`, prints every weight."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  auto, interval = "arXiv:2406.02507, section 3 (the plane)", "arXiv:2404.07724"
  ours = "the paper shows pictures; the criterion is ours"
  halves = (
    "sliced Wasserstein to true points of a class; each one's best weight is chosen on one half of the "
    "samples and measured on the other"
  )
  tried = (
    "; branches a third as thick, learned from noised data, left 24% outliers (one seed), and there "
    "autoguidance had 1.1 times as many, 57% of the modes and no better distance at any weight"
  )
  row = lambda source, metric, true, bound, note, unit="": dict(
    source=source, metric=metric, true=true, tolerance=0.0, bound=bound, note=note, unit=unit
  )
  claims = [
    row(
      auto,
      "unguided_outliers",
      0.01,
      "at_least",
      "beyond four deviations of every mode of their class; of fewer the next row would say little; " + ours,
      "of the samples",
    ),
    row(
      auto,
      "classifier_free_coverage",
      0.85,
      "at_most",
      "w = 3, the paper's weight in the plane (there 4): modes are lost; " + ours,
      "of the modes",
    ),
  ]
  for guide, what in (
    ("guide_of_an_eighth", "a guide of half the width and an eighth of the updates, as in the paper"),
    (
      "guide_of_a_half",
      "a guide of half the width and half the updates, added when the other one had lost modes with one seed",
    ),
  ):
    claims += [
      row(
        auto,
        f"{guide}_over_unguided_outliers",
        1 / 3,
        "at_most",
        f"{what}; w = 2, the paper's weight in the plane (there 3); {ours}{tried}",
      ),
      row(
        auto,
        f"{guide}_coverage",
        0.95,
        "at_least",
        f"{what}; w = 2; a mode is covered by a quarter of its share or more; {ours}",
        "of the modes",
      ),
      row(auto, f"best_{guide}_over_unguided", 1.0, "at_most", f"{what}; {halves}"),
      row(
        auto,
        f"best_{guide}_over_classifier_free",
        1.0,
        "at_most",
        f"{what}; of classifier-free guidance the smallest weight tried, 0.25, is the best; {halves}",
      ),
    ]
  claims += [
    row(
      interval,
      "best_inside_over_everywhere",
      1.0,
      "at_most",
      "classifier-free guidance inside one of two intervals of noise; " + halves,
    ),
    row(
      interval,
      "inside_over_everywhere_at_large_weight",
      1.0,
      "at_most",
      "w = 3; the best of two intervals; " + halves,
    ),
    row(
      interval,
      "inside_less_everywhere_coverage",
      0.0,
      "at_least",
      "w = 3; of the same interval: fewer modes are lost",
      "of the modes",
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.guidance.trees.plane",
      depth=5,
      thickness=0.1,
      pool=50_000,
      count=2000,
      width=64,
      blocks=2,
      steps=2048,
      worse_width=32,
      guides=dict(guide_of_an_eighth=256, guide_of_a_half=1024),
      batch=512,
      learning_rate=3e-3,
      dropout=0.1,
      log_mean=-2.3,
      log_std=1.5,
      auto_weights=(0.5, 1.0, 2.0),
      free_weights=(0.25, 0.5, 1.0, 3.0),
      intervals=((0.28, 2.9), (0.03, 0.5)),
      interval_weights=(0.25, 1.0, 3.0),
      shown=(2.0, 3.0),
      solver_steps=16,
      sigma_max=5.0,
      picture="docs/autoguidance.png",
      claim=claims,
    )
  )
