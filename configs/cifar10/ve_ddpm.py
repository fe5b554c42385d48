"""DDPM's network on the discrete noise levels of NCSN (the VE column of table 1).

Table 1 gives a range over samplers, not one number for this file, so its claim is empty.
"""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(score_sde.ncsn_ladder(), score_sde.ddpm(), score_sde.claim("table 1"))
