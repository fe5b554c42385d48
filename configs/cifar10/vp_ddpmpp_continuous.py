"""DDPM++ on the VP SDE."""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(
    score_sde.vp(),
    score_sde.ddpmpp(),
    score_sde.claim("table 3", "fid", 2.55, inception_score=9.58, bits_per_dim=3.16, fid_ode=3.93),
  )
