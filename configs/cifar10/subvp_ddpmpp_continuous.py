"""DDPM++ on the sub-VP SDE."""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(
    score_sde.vp(sub=True),
    score_sde.ddpmpp(),
    score_sde.claim("table 3", "fid", 2.61, inception_score=9.56, bits_per_dim=3.02, fid_ode=3.16),
  )
