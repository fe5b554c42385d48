"""Conventions of evaluation, one record each: what a number in a paper was measured with.

Two FIDs compare only where all of this is the same. Read from: openai/guided-diffusion 22e0df8
(evaluations/evaluator.py), NVlabs/edm 008a4e5 (fid.py), NVlabs/edm2 4bf8162 (calculate_metrics.py),
yang-song/score_sde 0acb9e0 (evaluation.py, run_lib.py) with tensorflow/gan, clean-fid 0.1.35, torch-fidelity
0.4.0.

Every one of them divides covariances by N - 1, and none adds to their diagonal where the distance is taken by
eigenvalues (`metrics.gaussian_frechet`).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rounding:
  """How model values x in [-1, 1] become grey levels: floor(scale * (x + shift) + offset), cut to 0 .. 255.

  >>> Rounding(0.0, 128.0)(np.array([-1.0, 0.0, 0.99, 3.0])).tolist()
  [0, 128, 254, 255]
  """

  shift: float
  offset: float
  scale: float = 127.5

  def __call__(self, x: np.ndarray) -> np.ndarray:
    """Grey levels, uint8, of model values in float32 of any shape."""
    x = (np.asarray(x, np.float32) + np.float32(self.shift)) * np.float32(self.scale)
    return np.clip(x + np.float32(self.offset), 0, 255).astype(np.uint8)

  def __str__(self) -> str:
    within = f"(x + {self.shift:g})" if self.shift else "x"
    return f"floor({self.scale:g} {within}" + (f" + {self.offset:g})" if self.offset else ")")


FLOOR = Rounding(1.0, 0.0)
"""ADM's and score_sde's: half a grey level darker than the nearest."""

NEAREST = Rounding(0.0, 128.0)
"""EDM's: the nearest grey level, halves up."""


@dataclasses.dataclass(frozen=True)
class Splits:
  """Groups that an Inception score is the mean over.

  Attributes:
    count: number of groups, equal but for rounding; 0 where `size` says it.
    size: members of a group, the last one smaller; 0 for `count` groups.
    shuffle: seed of NumPy's RandomState that draws the order before; None for the order as it is.

  >>> Splits(size=5000).groups(12000)[[0, 4999, 5000, 11999]].tolist()
  [0, 0, 1, 2]
  >>> Splits(count=3).groups(10).tolist()
  [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
  """

  count: int = 0
  size: int = 0
  shuffle: int | None = None

  def groups(self, num: int) -> np.ndarray:
    """The group [num] of each of `num` samples."""
    if self.size:
      found = np.arange(num) // self.size
    else:
      edges = np.arange(self.count + 1) * num // self.count
      found = np.searchsorted(edges[1:], np.arange(num), side="right")
    if self.shuffle is None:
      return found
    order, placed = np.random.RandomState(self.shuffle).permutation(num), np.empty(num, int)
    placed[order] = found
    return placed

  def __str__(self) -> str:
    how = f"groups of {self.size}" if self.size else f"{self.count} groups" if self.count > 1 else "one group"
    return how + ("" if self.shuffle is None else f", shuffled by seed {self.shuffle}")


@dataclasses.dataclass(frozen=True)
class Subsets:
  """Pairs of subsets that KID is the mean over.

  Attributes:
    count: number of pairs, drawn by RandomState(seed); 0 for blocks in order that use every sample once.
    size: members of a subset, or of a block at the most.
    seed: of the draws.
    smaller: whether a subset shrinks to the smaller set, or too few samples are an error.
  """

  count: int = 100
  size: int = 1000
  seed: int = 0
  smaller: bool = False

  def __str__(self) -> str:
    if not self.count:
      return f"blocks of at most {self.size} in order"
    return f"{self.count} subsets of {self.size}, seed {self.seed}"


OF_INCEPTION = {"fid": "pool", "sfid": "spatial"}
"""Distances of Gaussians in the Inception network's features: its output."""


@dataclasses.dataclass(frozen=True)
class Protocol:
  """One convention.

  Attributes:
    name: what `--protocol` says.
    metrics: what it measures with the Inception network, in order: fid, sfid, inception_score, kid,
      precision, recall.
    others: kinds of further extractors; in the features of each it measures a Frechet distance, fd_KIND.
    rounding: from model values to grey levels.
    resize: to the Inception network's 299 pixels, a name of `resizing.KINDS`.
    clip: whether resized grey levels are cut to 0 .. 255.
    centre: the grey level that the Inception network sees as zero, and what is divided by.
    samples: how many its papers take.
    splits: of the Inception score.
    subsets: of KID.
    neighbours: of precision and recall: radii reach to this nearest other sample.
    note: what a number by it cannot promise, one sentence; '' for nothing.
  """

  name: str
  metrics: tuple[str, ...]
  others: tuple[str, ...] = ()
  rounding: Rounding = NEAREST
  resize: str = "tf1_bilinear"
  clip: bool = False
  centre: float = 128.0
  samples: int = 50_000
  splits: Splits = Splits(count=1)
  subsets: Subsets = Subsets()
  neighbours: int = 3
  note: str = ""

  @property
  def extractors(self) -> tuple[str, ...]:
    """Kinds of extractors that it needs."""
    return (("inception",) if self.metrics else ()) + self.others

  @property
  def gaussians(self) -> dict[str, tuple[str, str]]:
    """Its distances of Gaussians: metric -> (kind of extractor, output)."""
    found = {name: ("inception", OF_INCEPTION[name]) for name in self.metrics if name in OF_INCEPTION}
    return found | {f"fd_{kind}": (kind, "pool") for kind in self.others}

  @property
  def measured(self) -> tuple[str, ...]:
    """All that it measures, in order."""
    return (*self.metrics, *(f"fd_{kind}" for kind in self.others))

  def beside(self, kinds: Iterable[str]) -> "Protocol":
    """The same with a Frechet distance in the features of further kinds of extractors.

    >>> EDM.beside(["inception", "dinov2"]).measured
    ('fid', 'fd_dinov2')
    """
    more = (kind for kind in kinds if kind != "inception")
    return dataclasses.replace(self, others=tuple(dict.fromkeys((*self.others, *more))))

  def only(self, measured: Iterable[str]) -> "Protocol":
    """The same with some of its metrics alone.

    >>> ADM.only(["sfid"]).measured
    ('sfid',)
    """
    chosen = set(measured)
    return dataclasses.replace(
      self,
      metrics=tuple(name for name in self.metrics if name in chosen),
      others=tuple(kind for kind in self.others if f"fd_{kind}" in chosen),
    )

  def conventions(self) -> dict[str, Any]:
    """All that decides a number, as JSON types, by the names that `explain` compares."""
    of = set(self.metrics)
    return {
      "rounding": str(self.rounding),
      "resize": self.resize + (", cut to 0 .. 255" if self.clip else ""),
      "centre": self.centre,
      "covariance": "divided by N - 1",
      **({"splits": str(self.splits)} if "inception_score" in of else {}),
      **({"subsets": str(self.subsets)} if "kid" in of else {}),
      **({"neighbours": self.neighbours} if "precision" in of else {}),
    }


ADM = Protocol(
  "adm",
  ("fid", "sfid", "inception_score", "precision", "recall"),
  rounding=FLOOR,
  splits=Splits(size=5000),
  note="its authors take the distances of precision and recall in half precision, here in double",
)
EDM = Protocol("edm", ("fid",))
EDM2 = Protocol("edm2", ("fid",), ("dinov2",))
SCORE_SDE = Protocol(
  "score_sde",
  ("fid", "inception_score", "kid"),
  rounding=FLOOR,
  centre=127.5,
  subsets=Subsets(count=0, size=1024),
  note=(
    "its authors' network is TF-Hub's tfgan module below 256 pixels and another one above, which no file "
    "holds: the "
    "numbers are those of its conventions on the network given"
  ),
)
CLEAN = Protocol(
  "clean",
  ("fid", "kid"),
  resize="pillow_bicubic",
  clip=True,
  subsets=Subsets(smaller=True),
  note="its authors draw the subsets of KID without a seed",
)
TORCH_FIDELITY = Protocol(
  "torch_fidelity",
  ("fid", "inception_score", "kid", "precision", "recall"),
  splits=Splits(count=10, shuffle=2020),
  subsets=Subsets(seed=2020),
)

PROTOCOLS: dict[str, Protocol] = {one.name: one for one in (ADM, EDM, EDM2, SCORE_SDE, CLEAN, TORCH_FIDELITY)}
"""The conventions by name."""


def named(name: str) -> Protocol:
  """The protocol of a name; ValueError, with those that there are, for another.

  >>> named("edm2").extractors
  ('inception', 'dinov2')
  """
  if name not in PROTOCOLS:
    raise ValueError(f"the protocol {name!r} is not known: choose one of {', '.join(PROTOCOLS)}")
  return PROTOCOLS[name]
