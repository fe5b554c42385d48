"""Noise of the gradient on noisy 8x8 digits, D = 64: derivatives of the conditionals exactly, or their sum
along a random direction."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  claim = dict(
    source="arXiv:2010.12810 (exact derivatives, no projections)",
    metric="projection_over_exact_variance",
    true=1.0,
    tolerance=0.0,
    bound="at_least",
    fast=True,
    note="one network, one objective, the same batches; the criterion is ours",
  )
  return ConfigDict(
    dict(
      measure="experiments.ar_csm.autoregressive.gradient_noise",
      noise=0.25,
      batch=64,
      gradients=16,
      network=dict(width=64, depth=1, features=4, head_width=16, head_depth=1),
      claim=claim,
    )
  )
