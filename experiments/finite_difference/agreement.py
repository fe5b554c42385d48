"""FD-SSM against SSM along the same directions of a random network at step 0.1, and the order of their
difference."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  claims = [
    dict(source="arXiv:2007.03317", metric="order", true=2.0, tolerance=0.1, unit="of the bias", fast=True),
    dict(
      source="arXiv:2007.03317",
      metric="fd_ssm_minus_ssm",
      true=0.0,
      tolerance=1e-2,
      unit="step 0.1, float32",
      fast=True,
      note="the bias of order step^2, of an objective of about the size of the dimension, 16",
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.finite_difference.score_matching.agreement",
      dimension=16,
      batch_size=128,
      width=64,
      step=0.1,
      claim=claims,
    )
  )
