"""The order of records, and the choice of those held out.

Both are pure functions, with no generator state.
"""

import functools
from typing import Any

import numpy as np

from diffusion.config.errors import UserError


def scramble(values: Any, key: int) -> np.ndarray:
  """Whole numbers hashed to 64 bits.

  The hash is splitmix64 (Steele et al. 2014), the same on every machine and NumPy version.

  Args:
    values: integers [n].
    key: integer; another key gives an unrelated hash.
  Returns:
    uint64 array [n].

  >>> len(set(scramble(range(1000), key=3).tolist()))
  1000
  """
  z = np.atleast_1d(np.asarray(values)).astype(np.uint64) + np.uint64(1)
  z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key % 2**64)
  z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return z ^ (z >> np.uint64(31))


@functools.lru_cache(maxsize=4)
def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
  """The order of one epoch: the records sorted by a hash of (seed, epoch, record).

  Kept for the few newest epochs, since a batch may span two: 8 bytes a record, about 0.1 s for a million
  records.

  Args:
    size: number of records n.
    seed: integer.
    epoch: 0, 1, ...
  Returns:
    read-only int64 array [n], a permutation of 0 .. n-1.

  >>> sorted(permutation(5, seed=0, epoch=2).tolist())
  [0, 1, 2, 3, 4]
  """
  # Hashing twice keeps (seed, epoch) = (1, 0) and (0, 1) apart: adding them, as is often done, would not.
  key = int(scramble([epoch], key=int(scramble([seed % 2**64], key=0)[0]))[0])
  order = np.argsort(scramble(np.arange(size), key), kind="stable")
  order.flags.writeable = False
  return order


def records(examples: Any, size: int, seed: int) -> np.ndarray:
  """Which record each example of the endless stream is.

  Args:
    examples: global example counts [n], integers >= 0; example k is number k mod size of epoch k // size.
    size: number of records.
    seed: integer.
  Returns:
    int64 record indices [n].

  >>> sorted(records(range(4, 8), size=4, seed=1).tolist())  # the second epoch: every record once
  [0, 1, 2, 3]
  """
  epochs, places = np.divmod(np.asarray(examples, dtype=np.int64), size)
  out = np.empty_like(places)
  for epoch in np.unique(epochs):
    here = epochs == epoch
    out[here] = permutation(size, seed, int(epoch))[places[here]]
  return out


def split(size: int, fraction: float, labels: Any = None) -> tuple[np.ndarray, np.ndarray]:
  """Fixed split of one collection into training and held-out records, by class where there are labels.

  The rule does not know any seed: it is a property of the data. In each class the round(fraction * n) records
  with the smallest hashes are held out.

  Args:
    size: number of records.
    fraction: share held out, in [0, 1).
    labels: integer labels [size], or None.
  Returns:
    (train, held_out), sorted int64 index arrays.
  Raises:
    UserError: for a fraction outside [0, 1).

  >>> train, held_out = split(10, 0.2)
  >>> len(train), len(held_out), sorted([*train, *held_out]) == list(range(10))
  (8, 2, True)
  """
  if not 0 <= fraction < 1:
    raise UserError(f"held_out={fraction}, but the share held out must be at least 0 and below 1")
  labels = np.zeros(size, np.int64) if labels is None else np.asarray(labels)
  rank = scramble(np.arange(size), key=0x5EED)
  chosen = []
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    count = round(fraction * len(members))
    chosen.append(members[np.argsort(rank[members], kind="stable")[:count]])
  held_out = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
  return np.setdiff1d(np.arange(size), held_out), held_out


def subset(size: int, count: int, seed: int) -> np.ndarray:
  """Which `count` of `size` records stand for all of them: drawn by a seed, in rising order; all if no more.

  Args:
    size: number of records.
    count: how many are wanted.
    seed: integer; the draw has nothing to do with the order of training or the split of the same seed.
  Returns:
    int64 indices [min(count, size)].

  >>> subset(4, 9, seed=0).tolist(), len(set(subset(1000, 10, seed=0).tolist()))
  ([0, 1, 2, 3], 10)
  """
  if count >= size:
    return np.arange(size)
  key = int(scramble([seed % 2**64], key=0x5ABE7)[0])
  return np.sort(np.argsort(scramble(np.arange(size), key), kind="stable")[:count])
