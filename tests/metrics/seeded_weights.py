"""Random weights that two libraries draw alike: each array by its own name and shape, with NumPy alone."""

import zlib

import numpy as np


def seeded(name, shape):
  """The array of a name, float32: kernels that keep the size of what goes through, norms about 1."""
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  leaf = name.rsplit(".", 1)[-1]
  if leaf == "running_var" or (leaf == "weight" and len(shape) == 1) or leaf == "gamma":
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  fan = int(np.prod(shape[1:])) if leaf == "weight" else 100
  return (rng.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32)


def images(seed, *shape):
  """Random pictures, uint8, smooth enough to tell resizes apart."""
  rng = np.random.RandomState(seed)
  height, width = shape[-3:-1]
  waves = np.sin(np.outer(np.linspace(0, 9, height), np.ones(width)) + np.linspace(0, 7, width))
  noise = rng.uniform(-1, 1, shape)
  return np.clip(127.5 + 90 * waves[:, :, None] + 37 * noise, 0, 255).astype(np.uint8)


def sampled(array, count=24):
  """(norm, `count` entries evenly spaced over the flat array): what is recorded of an array."""
  flat = np.asarray(array, np.float64).ravel()
  at = np.linspace(0, flat.size - 1, min(count, flat.size)).astype(int)
  return np.concatenate([[np.linalg.norm(flat), flat.size], flat[at]])


def difference(array, record):
  """The larger of two errors of an array beside its record: of its norm, of its entries over their size."""
  mine = sampled(array, len(record) - 2)
  size = record[0] / np.sqrt(record[1])
  assert mine[1] == record[1], f"{mine[1]} entries in place of {record[1]}"
  entries = np.sqrt(np.mean((mine[2:] - record[2:]) ** 2)) / size
  return max(abs(mine[0] / record[0] - 1), entries)
