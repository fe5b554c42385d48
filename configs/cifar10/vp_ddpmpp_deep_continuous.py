"""DDPM++ of twice the depth on the VP SDE."""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(
    score_sde.vp(),
    score_sde.ddpmpp(deep=True),
    score_sde.claim("table 3", "fid", 2.41, inception_score=9.68, bits_per_dim=3.13, fid_ode=3.08),
    steps=950_001,
  )
