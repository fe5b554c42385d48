"""DDPM's network on DDPM's 1000 steps."""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(
    score_sde.ddpm_ladder(), score_sde.ddpm(), score_sde.claim("table 2", "fid_ode", 3.37, bits_per_dim=3.28)
  )
