"""NCSN++ on the discrete noise levels of NCSN."""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(
    score_sde.ncsn_ladder(), score_sde.ncsnpp(), score_sde.claim("table 3", "fid", 2.45, inception_score=9.73)
  )
