"""NCSN++ on the sub-VP SDE.

Part of the authors' code release; no result of it is on record here, so its claim is empty.
"""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(score_sde.vp(sub=True), score_sde.ncsnpp(), score_sde.claim("code release"))
