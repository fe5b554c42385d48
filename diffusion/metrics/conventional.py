"""The numbers of a protocol from features: which of them to keep, and what they come to."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion.metrics import kid as kernel_distance
from diffusion.metrics.frechet import gaussian_frechet
from diffusion.metrics.inception_score import inception_score
from diffusion.metrics.precision_recall import precision_recall
from diffusion.metrics.protocols import Protocol
from diffusion.metrics.sums import Features, Wanted

MOST_NEIGHBOURS = 50_000
"""Precision and recall compare all pairs; with more images on a side they are left out."""


@dataclasses.dataclass(frozen=True)
class Reference:
  """What is known of the real data.

  Attributes:
    gaussians: metric -> (mean [D], covariance [D, D]).
    index, rows: real images whose features are here, in order, and these, [n] and [n, D]; None for none.
    count: real images, None where it is not known.
  """

  gaussians: Mapping[str, tuple[np.ndarray, np.ndarray]]
  index: np.ndarray | None = None
  rows: np.ndarray | None = None
  count: int | None = None


def wanted(
  protocol: Protocol, kind: str, num: int, real: int | None, sample: bool = True, everything: bool = False
) -> Wanted:
  """What to keep of the features of one kind of extractor.

  Args:
    protocol: the convention.
    kind: of the extractor.
    num: images of this set.
    real: how many real images have features, None for none of them.
    sample: whether this set is the samples, or the real data.
    everything: whether to keep all rows, to write them down.
  """
  sums = tuple(output for of, output in protocol.gaussians.values() if of == kind)
  if kind != "inception":
    return Wanted(sums)
  rows = np.zeros(num, bool)
  if everything or ("precision" in protocol.metrics and real is not None and num <= MOST_NEIGHBOURS):
    rows[:] = True
  elif "kid" in protocol.metrics and real is not None:
    try:
      for pair in kernel_distance.pairs(protocol.subsets, num if sample else real, real if sample else num):
        rows[pair[0 if sample else 1]] = True
    except ValueError:
      pass  # `measure` says why
  groups = protocol.splits.groups(num) if sample and "inception_score" in protocol.metrics else None
  return Wanted(sums, rows if rows.any() else None, groups)


def measure(
  protocol: Protocol, features: Mapping[str, Features], reference: Reference | None
) -> tuple[dict[str, float], dict[str, str]]:
  """(numbers by name, why others are left out by name).

  Args:
    protocol: the convention.
    features: of the samples, by kind of extractor.
    reference: of the real data; None where there is none.
  """
  found: dict[str, float] = {}
  left_out: dict[str, str] = {}
  for metric in protocol.measured:
    try:
      found |= _one(metric, protocol, features, reference)
    except ValueError as error:
      left_out[metric] = str(error)
  return found, left_out


def _one(metric, protocol, features, reference) -> dict[str, Any]:
  kind, output = protocol.gaussians.get(metric, ("inception", "pool"))
  if kind not in features:
    raise ValueError(f"no file of an extractor of the kind {kind} was given: add it to --features")
  of = features[kind]
  if metric == "inception_score":
    if of.classes is None:
      raise ValueError("the extractor gave no logits")
    mean, deviation = inception_score(of.classes)
    return {"inception_score": mean, "inception_score_std": deviation}
  if reference is None:
    raise ValueError("nothing was given to compare with: add --statistics")
  if metric in protocol.gaussians:
    if metric not in reference.gaussians:
      raise ValueError(f"the statistics given have no mean and covariance for {metric}")
    if of.count < 2:
      raise ValueError(f"a covariance needs at least 2 samples, and there are {of.count}")
    mine, (mean, covariance) = of.statistics[output], reference.gaussians[metric]
    if mine.mean.shape != mean.shape:
      raise ValueError(
        f"the statistics given have {len(mean)} features for {metric} and the extractor gives "
        f"{len(mine.mean)}: "
        "they are of another extractor"
      )
    return {metric: gaussian_frechet(mine.mean, mine.covariance, mean, covariance)}
  if reference.rows is None or reference.count is None:
    raise ValueError(
      f"{metric} compares images one by one, and the statistics given have a mean and a covariance "
      "alone: give --statistics the real images"
    )
  if metric == "kid":
    chosen = kernel_distance.pairs(protocol.subsets, of.count, reference.count)
    chosen = [(np.searchsorted(of.index, a), np.searchsorted(reference.index, b)) for a, b in chosen]
    mean, deviation = kernel_distance.kid(of.rows, reference.rows, chosen)
    return {"kid": mean, "kid_std": deviation}
  if metric == "recall":
    return {}  # with precision
  most = max(of.count, reference.count)
  if most > MOST_NEIGHBOURS:
    raise ValueError(
      f"precision and recall compare all pairs of {most} images, and {MOST_NEIGHBOURS} are the most"
    )
  near = precision_recall(of.rows, reference.rows, protocol.neighbours)
  return {"precision": near.precision, "recall": near.recall}
