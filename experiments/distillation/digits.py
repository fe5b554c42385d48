"""Guided distillation of the 8x8 digits: students of 4 steps beside their teacher at 4 and at 64; draws
`config.picture`, prints every distance."""

from ml_collections import ConfigDict

from experiments.distillation.mixture import claims


def get_config() -> ConfigDict:
  distance = "Frechet distance in the features of the evaluation to "
  exact = claims(distance + "the exact guided flow of the digits, blurred by 0.1")
  own = claims(distance + "the teacher's own flow from other noise")[1:]
  for claim in own:
    claim["metric"] = "own_" + claim["metric"]
  return ConfigDict(
    dict(
      measure="experiments.distillation.students.digits",
      width=192,
      depth=2,
      batch=128,
      dropout=0.2,
      updates=4000,
      rate=2e-3,
      stage_one=10_000,
      stage_two=600,
      student_rate=1e-3,
      power=1.2,
      samples=100,
      fine=32,
      blur=0.1,
      picture="docs/distillation_digits.png",
      claim=exact + own,
    )
  )
