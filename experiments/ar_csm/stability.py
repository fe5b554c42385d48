"""Autoregressive against sliced score matching on noisy 8x8 digits, D = 64: runs that diverge at the same
rates, noise of the gradients."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2010.12810 (training is stable where sliced score matching is not)"
  ours = "the paper shows curves; the criterion is ours"
  claims = [
    dict(
      source=source,
      metric="csm_diverged",
      true=0.0,
      tolerance=0.0,
      bound="at_most",
      unit="of 3 rates",
      note=ours,
    ),
    dict(
      source=source,
      metric="ssm_over_csm_noise",
      true=2.0,
      tolerance=0.0,
      bound="at_least",
      note="covariance of the gradient over its squared mean, each after its own training at the smallest "
      "rate; " + ours,
    ),
    dict(
      source=source,
      metric="ssm_vr_over_csm_noise",
      true=1.0,
      tolerance=0.0,
      bound="at_least",
      note="the same against the variance-reduced form, whose square is exact; " + ours,
    ),
    dict(
      source=source,
      metric="ssm_diverged",
      true=1.0,
      tolerance=0.0,
      bound="at_least",
      unit="of 3 rates",
      note=ours,
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.ar_csm.autoregressive.stability",
      noise=0.25,
      batch=64,
      steps=300,
      learning_rates=(1e-3, 1e-2, 3e-2),
      gradients=32,
      network=dict(width=128, depth=1, features=8, head_width=16, head_depth=1),
      claim=claims,
    )
  )
