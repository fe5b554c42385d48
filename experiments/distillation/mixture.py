"""Guided distillation in the plane: students of 4 steps beside their teacher at 4 and at 64; draws
`config.picture`, prints every distance."""

from typing import Any

from ml_collections import ConfigDict


def claims(what: str) -> list[dict[str, Any]]:
  """What a student of four steps is held to, at each weight."""
  source = "arXiv:2210.03142 (its criterion is images: FID; this one is ours)"
  weights = (0, 0.3, 1, 4)
  return [
    dict(
      source=source,
      metric="stage_one_error",
      true=0.02,
      tolerance=0.0,
      bound="at_most",
      note="one network for every weight: mean squared error of x0 against two evaluations of the teacher, "
      "over the data's variance",
    ),
    *(
      dict(
        source=source,
        metric=f"over_64_steps_w{w:g}",
        true=1.2,
        tolerance=0.0,
        bound="at_most",
        note=f"w = {w:g}: distance of the student at 4 steps over that of its teacher at 64; {what}",
      )
      for w in weights
    ),
    *(
      dict(
        source=source,
        metric=f"over_4_steps_w{w:g}",
        true=1.0,
        tolerance=0.0,
        bound="at_most",
        note=f"w = {w:g}: distance of the student at 4 steps over that of its teacher at 4; {what}",
      )
      for w in weights
    ),
  ]


def get_config() -> ConfigDict:
  return ConfigDict(
    dict(
      measure="experiments.distillation.students.mixture",
      width=96,
      depth=2,
      batch=256,
      dropout=0.15,
      updates=3000,
      rate=2e-3,
      stage_one=3000,
      stage_two=500,
      student_rate=1e-3,
      power=1.5,
      samples=1024,
      fine=64,
      picture="docs/distillation.png",
      claim=claims("sliced Wasserstein distance of a class to the exact guided flow of the mixture"),
    )
  )
