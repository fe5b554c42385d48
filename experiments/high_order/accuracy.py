"""A learned low-rank Hessian against the Jacobian of a learned score, with a smooth and with a ReLU network,
in 64 and 784 dimensions.

A variant is `dimension-activation-target`: the Hessian is learned from the `noise`, as in the paper, or from
the `residual` of the score.
"""

from ml_collections import ConfigDict

VARIANTS = tuple(
  f"{dimension}-{activation}-{target}"
  for dimension, target in (("64", "residual"), ("64", "noise"), ("784", "residual"))
  for activation in ("relu", "softplus")
)


def get_config(variant: str = "64-relu-residual") -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"there is no variant '{variant}' here: there are {', '.join(VARIANTS)}")
  dimension, activation, target = variant.split("-")
  source = "arXiv:2111.04726 (a learned Hessian is more accurate than the Jacobian of a score)"
  ours = (
    "of mean square errors; four overlapping modes, noise level 0.1, both with variance reduction; the "
    "criterion is ours"
  )
  claims = [
    dict(source=source, metric="learned_over_jacobian", true=1.0, tolerance=0.0, bound="at_most", note=ours),
    dict(
      source=source,
      metric="learned_over_constant",
      true=1.0,
      tolerance=0.0,
      bound="at_most",
      note="beside the best constant Hessian",
    ),
    dict(
      source=source,
      metric="jacobian_over_constant",
      true=1.0,
      tolerance=0.0,
      bound="at_most",
      note="beside the best constant Hessian",
    ),
  ]
  if dimension == "784":
    claims = [{**claim, "seeds": 1} for claim in claims]
  size = dict(steps=1200, jacobians=512) if dimension == "64" else dict(steps=1000, jacobians=64)
  return ConfigDict(
    dict(
      measure="experiments.high_order.hessians.accuracy",
      dimension=int(dimension),
      activation=activation,
      residual=target == "residual",
      radius=1.0,
      deviation=0.5,
      level=0.1,
      rank=4,
      width=128,
      batch=128,
      learning_rate=5e-3,
      claim=claims,
      **size,
    )
  )
