"""Mutual information of correlated Gaussians in 40 to 320 dimensions, from a parametric time score learned
with the data score."""

from ml_collections import ConfigDict

VARIANTS = ("40", "80", "160", "320")
TOLERANCE = {"40": 0.03, "80": 0.03, "160": 0.06, "320": 0.15}


def get_config(dim: str = "40") -> ConfigDict:
  if dim not in VARIANTS:
    raise ValueError(f"the dimension is one of {', '.join(VARIANTS)}, got '{dim}'")
  claim = dict(
    source="arXiv:2111.11010, mutual information (figure)",
    metric="mi_nats",
    true=float(dim) / 4,
    tolerance=TOLERANCE[dim],
    relative=True,
    unit="nats",
    fast=dim == "40",
    seeds=1 if dim == "320" else None,
    note="the paper shows a figure; the average over q is in closed form"
    + ("; reported, the tolerance is ours" if dim == "320" else ""),
  )
  return ConfigDict(
    dict(
      measure="experiments.dre_infinity.density_ratio.mutual_information",
      dim=int(dim),
      time_balance=0.1,
      batch=512 if dim in ("40", "80") else 1024,
      steps=400,
      learning_rate=0.05,
      claim=claim,
    )
  )
