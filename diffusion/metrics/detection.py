"""How well a score tells two kinds of examples apart, in float64 NumPy on the host."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Auroc(NamedTuple):
  """The area under the curve of hits over false alarms, with its standard error.

  value: the area in [0, 1], 1/2 for a score that says nothing; error: its standard error over both sets of
  examples.
  """

  value: float
  error: float


def auroc(found: ArrayLike, usual: ArrayLike) -> Auroc:
  """The area under the curve of hits over false alarms.

  It is P(score of one of `found` > score of one of `usual`), ties counted half.

  The standard error is that of the two-sample U statistic (DeLong et al., Biometrics 44, 1988): the variances
  of each example's share of examples of the other kind that it beats, over their numbers.

  Args:
    found: [N] scores of what is to be found, at least two.
    usual: [M] scores of the rest, at least two.

  Raises:
    ValueError: scores that are no lists, fewer than two of a kind, NaN.

  >>> auroc([2.0, 3.0, 1.0], [0.0, 1.0]).value
  0.9166666666666666
  """
  found, usual = _scores(found, "found", 2), _scores(usual, "usual", 2)
  beats = _share_below(usual, found)
  beaten = 1.0 - _share_below(found, usual)
  return Auroc(
    float(beats.mean()), float(np.sqrt(beats.var(ddof=1) / len(found) + beaten.var(ddof=1) / len(usual)))
  )


def detection_rate(found: ArrayLike, usual: ArrayLike, kept: float = 0.95) -> float:
  """Share of `found` [N] that a threshold finds which keeps at least the share `kept` of `usual` [M].

  Raises ValueError for scores as in `auroc` and for a share that is not in (0, 1].

  >>> detection_rate([3.0, 0.5], [0.0, 1.0, 2.0, 2.5], kept=0.75)
  0.5
  """
  found, usual = _scores(found, "found", 1), _scores(usual, "usual", 1)
  if not 0.0 < kept <= 1.0:
    raise ValueError(f"kept={kept} is the share of the usual that is to pass, in (0, 1]")
  threshold = np.sort(usual)[int(np.ceil(kept * len(usual) - 1e-9)) - 1]
  return float(np.mean(found > threshold))


def _share_below(reference, scores):
  """Of each score, the share of the reference that lies below it, ties counted half."""
  ordered = np.sort(reference)
  return (
    0.5
    * (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right"))
    / len(ordered)
  )


def _scores(scores, name, least):
  scores = np.asarray(scores, np.float64)
  if scores.ndim != 1 or len(scores) < least:
    raise ValueError(
      f"{name} must be a list of {least} or more scores, one an example, and has shape {list(scores.shape)}"
    )
  if np.isnan(scores).any():
    raise ValueError(
      f"{int(np.isnan(scores).sum())} of {len(scores)} scores in {name} are NaN: find their cause first"
    )
  return scores
