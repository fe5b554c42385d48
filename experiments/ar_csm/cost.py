"""One gradient with all 64 derivatives of the conditionals in one pass, against score matching with the exact
trace."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2010.12810 (one pass for all derivatives)"
  claim = dict(
    source=source,
    metric="sm_over_csm_seconds",
    true=8.0,
    tolerance=0.0,
    bound="at_least",
    note="64 directional derivatives of a free score network of the same size; the criterion is ours",
  )
  return ConfigDict(
    dict(
      measure="experiments.ar_csm.autoregressive.cost",
      noise=0.25,
      batch=64,
      repeats=5,
      network=dict(width=128, depth=1, features=8, head_width=16, head_depth=1),
      claim=claim,
    )
  )
