"""The time of one low-rank Hessian against that of the Jacobian of a score by automatic differentiation, at D
= 64 and 784."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2111.04726 (time of one evaluation)"
  here = "dense networks of width 128, rank 10, batch 16, one CPU; the criterion is ours"
  return ConfigDict(
    dict(
      measure="experiments.high_order.hessians.speed",
      dimensions=(64, 784),
      rank=10,
      width=128,
      batch=16,
      repeats=10,
      claim=[
        dict(
          source=source,
          metric="jacobian_over_learned_seconds_64",
          true=3.0,
          tolerance=0.0,
          bound="at_least",
          fast=True,
          note=here,
        ),
        dict(
          source=source,
          metric="jacobian_over_learned_seconds_784",
          reported=500.0,
          reported_sure=False,
          true=20.0,
          tolerance=0.0,
          bound="at_least",
          fast=True,
          note="the paper's images and networks on a GPU; " + here,
        ),
      ],
    )
  )
