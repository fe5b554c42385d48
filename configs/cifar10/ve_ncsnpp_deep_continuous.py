"""NCSN++ of twice the depth on the VE SDE, the best samples of the paper."""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(
    score_sde.ve(),
    score_sde.ncsnpp("fourier", deep=True),
    score_sde.claim("table 3", "fid", 2.20, inception_score=9.89),
    steps=950_001,
  )
