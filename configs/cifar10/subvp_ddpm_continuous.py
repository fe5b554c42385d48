"""DDPM's network on the sub-VP SDE."""

from configs.cifar10 import score_sde


def get_config():
  return score_sde.experiment(
    score_sde.vp(sub=True), score_sde.ddpm(), score_sde.claim("table 2", "bits_per_dim", 3.05, fid_ode=3.56)
  )
