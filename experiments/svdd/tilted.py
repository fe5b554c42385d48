"""Soft value-based decoding beside the exactly tilted law: a mixture on the line and five listed tokens."""

from ml_collections import ConfigDict

PAPER = "arXiv:2408.08252"
LINE = {
  (1.0, 2): -1.10,
  (1.0, 5): -0.60,
  (1.0, 20): -0.465,
  (1.0, 50): -0.442,
  (0.3, 5): -0.205,
  (0.3, 50): -0.160,
}
"""(alpha, M) -> mean reward of another implementation, by the posterior mean's value."""


def get_config() -> ConfigDict:
  row = lambda metric, true, tolerance=0.0, bound="within", unit="reward", note="": dict(
    source=PAPER, metric=metric, true=true, tolerance=tolerance, bound=bound, unit=unit, note=note
  )
  where = "half N(-2, 0.25), half N(2, 0.25); r = -|x - 2.5|; 40 geometric steps from 20 to 0.02"
  claims = [
    row(
      f"line_alpha_{alpha:g}_of_{m}",
      true,
      0.05,
      note=f"{where}; the posterior mean's value; expected of an implementation that is not ours",
    )
    for (alpha, m), true in LINE.items()
  ]
  claims += [
    row("line_best_of_5", -0.02, bound="at_least", note=f"{where}; alpha = 0: the best of each five"),
    row(
      "line_exact_value",
      -0.523,
      0.1,
      note=f"{where}; alpha = 1, M = 50, the exact soft value; the integral of the tilted law",
    ),
  ]
  claims += [
    row(
      f"tokens_excess_of_{m}",
      bound,
      bound="at_most",
      unit="total variation",
      note="five tokens of three letters, alpha = 0.5, the exact soft value, 40 steps: distance to the "
      "tilted law above that of as many exact draws; the criterion is ours",
    )
    for m, bound in ((4, 0.2), (16, 0.05))
  ]
  return ConfigDict(dict(measure="experiments.svdd.rewards.tilted", count=4000, steps=40, claim=claims))
