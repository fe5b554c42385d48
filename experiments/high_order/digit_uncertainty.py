"""The main directions of a digit denoiser's posterior covariance; draws `config.picture`."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2111.04726 (uncertainty of a denoiser)"
  ours = (
    "of the exact posterior variance, that of the training digits, in four directions; the paper shows "
    "pictures; the criterion is ours"
  )
  claims = [
    dict(
      source=source,
      metric="share_of_jacobian",
      true=0.6,
      tolerance=0.0,
      bound="at_least",
      note="directions of the denoiser's Jacobian; share " + ours,
    ),
    dict(
      source=source,
      metric="share_of_learned_hessian",
      true=0.6,
      tolerance=0.0,
      bound="at_least",
      note="directions of a learned diagonal plus rank 8, from the residuals of the score; share " + ours,
    ),
    dict(
      source=source,
      metric="share_of_data",
      true=0.6,
      tolerance=0.0,
      bound="at_most",
      note="for comparison: the main directions of the data, the same for every digit",
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.high_order.posterior_directions.measure",
      level=1.2,
      width=128,
      rank=8,
      batch=128,
      steps=2000,
      learning_rate=5e-3,
      examples=64,
      picture="docs/posterior_covariance.png",
      claim=claims,
    )
  )
