"""NCSN++ on the VE SDE."""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(
    score_sde.ve(), score_sde.ncsnpp("fourier"), score_sde.claim("table 3", "fid", 2.38, inception_score=9.83)
  )
