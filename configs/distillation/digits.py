"""Guided distillation of the 8x8 digits: students of 4 steps beside their teacher at 4 and at 64; draws `config.picture`, prints every distance."""

from ml_collections import ConfigDict

from configs.distillation.mixture import claims


def get_config():
  return ConfigDict(dict(
      measure="claims.distillation.digits",
      width=160, depth=2, batch=128, dropout=0.15, updates=3000, rate=2e-3,
      stage_one=2000, stage_two=400, student_rate=1e-3, power=1.5, samples=100, fine=32, blur=0.1, picture="docs/distillation_digits.png",
      claim=claims("Frechet distance in the features of the evaluation to the exact guided flow of the digits, blurred by 0.1")))
