"""The Hessian of four overlapping modes in the plane, learned with and without variance reduction: at noise
level `:0.1` (default) or another."""

from ml_collections import ConfigDict

VARIANTS = ("0.1", "0.05")


def get_config(level: str = "0.1") -> ConfigDict:
  source = "arXiv:2111.04726 (variance reduction)"
  ours = "the paper's values are not known to us; the criterion is ours"
  claims = [
    dict(
      source=source,
      metric="plain_over_reduced_error",
      true=1.5,
      tolerance=0.0,
      bound="at_least",
      note="same network, batch and steps; " + ours,
    ),
    dict(
      source=source,
      metric="plain_of_equal_cost_over_reduced_error",
      true=1.0,
      tolerance=0.0,
      bound="at_least",
      note="the plain one has three times the batch: as many evaluations of the networks; " + ours,
    ),
    dict(
      source=source,
      metric="reduced_over_constant_error",
      true=1.0,
      tolerance=0.0,
      bound="at_most",
      note="beside the best constant Hessian",
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.high_order.hessians.variance_reduction",
      level=float(level),
      radius=1.0,
      deviation=0.5,
      width=64,
      batch=256,
      steps=1000,
      learning_rate=5e-3,
      claim=claims,
    )
  )
