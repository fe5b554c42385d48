"""The Inception score (arXiv:1606.03498) from logits that come in pieces, in float64 on the host.

exp of the mean KL divergence of p(class | image) from its mean over a group of images, averaged over groups.
Per group three sums are enough: of p, of p log p, and of images; so any number of images streams through.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass
class ClassSums:
  """Sums over the images of each group.

  Attributes:
    count: [groups] images.
    p: [groups, classes] sum of probabilities.
    entropy: [groups] sum over images and classes of p log p.
  """

  count: np.ndarray
  p: np.ndarray
  entropy: np.ndarray

  @classmethod
  def zero(cls, groups: int, classes: int) -> "ClassSums":
    """Before the first image."""
    return cls(np.zeros(groups, np.int64), np.zeros((groups, classes)), np.zeros(groups))

  def add(self, logits: np.ndarray, groups: np.ndarray) -> None:
    """Adds images: logits [n, classes], and the group [n] of each."""
    logits = np.asarray(logits, np.float64)
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    for group in np.unique(groups):
      rows = groups == group
      self.count[group] += rows.sum()
      self.p[group] += p[rows].sum(axis=0)
      self.entropy[group] += (p[rows] * log_p[rows]).sum()


def inception_score(sums: ClassSums) -> tuple[float, float]:
  """(mean, standard deviation over groups) of the Inception score; at least 1.

  Raises ValueError where a group has no image.

  >>> sums = ClassSums.zero(1, 3)
  >>> sums.add(100 * np.eye(3), np.zeros(3, int))  # three classes, each sure
  >>> round(inception_score(sums)[0], 6)
  3.0
  """
  if not sums.count.all():
    raise ValueError(
      f"{int((sums.count == 0).sum())} of {len(sums.count)} groups of the Inception score have no image: "
      "give "
      "more samples"
    )
  mean = sums.p / sums.count[:, None]
  cross = (mean * np.log(np.maximum(mean, np.finfo(float).tiny))).sum(axis=1)
  scores = np.exp(sums.entropy / sums.count - cross)
  return float(scores.mean()), float(scores.std())
