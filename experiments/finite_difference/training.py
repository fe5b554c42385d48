"""Energies trained by SSM, FD-SSM, DSM and FD-DSM on a ring of eight Gaussians at noise level 0.3: errors of
their scores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2007.03317 (equal quality)"
  ours = "the paper compares other models and other measures; the criterion is ours"
  claims = [
    dict(source=source, metric="fd_ssm_over_ssm_error", true=1.0, tolerance=0.1, bound="at_most", note=ours),
    dict(
      source=source,
      metric="fd_dsm_over_dsm_error",
      true=1.0,
      tolerance=0.5,
      bound="at_most",
      note="one direction an example against the whole residual of DSM: the same minimum, a noisier "
      "gradient; " + ours,
    ),
    dict(
      source=source,
      metric="fd_dsm_of_4_over_dsm_error",
      true=1.0,
      tolerance=0.5,
      bound="at_most",
      note="the same with four directions an example, eight energies in place of two",
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.finite_difference.score_matching.training",
      noise_level=0.3,
      step=0.1,
      width=64,
      batch_size=128,
      steps=1500,
      learning_rate=3e-3,
      claim=claims,
    )
  )
