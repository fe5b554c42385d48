"""Random numbers that belong to one example: functions of (seed, purpose, example count) and of nothing else.

A counter-based generator (Philox, Salmon et al. 2011) needs no state to be carried: example k simply owns the
k-th stretch of the sequence. So any run of consecutive examples is drawn by one call, and where a batch
begins, how many processes share it and where a run was resumed cannot be seen in the numbers.
"""

import numpy as np

PURPOSES = {"flip": 1, "dequantization": 2, "augment": 3, "hue": 4, "binary": 5}
_PER_BLOCK = 8  # one step of the Philox counter makes four 64-bit words, that is eight float32


def uniform(seed: int, purpose: str, first: int, count: int, shape: tuple[int, ...] = ()) -> np.ndarray:
  """Uniform numbers in [0, 1) for the examples first .. first+count-1.

  Args:
    seed: integer of at most 64 bits.
    purpose: one of `PURPOSES`; different purposes never share a number.
    first: global count of the first example.
    count: number of examples n.
    shape: shape of one example's numbers.
  Returns:
    float32 array [n, *shape].

  >>> together = uniform(0, "flip", 10, 4)
  >>> alone = uniform(0, "flip", 12, 1)
  >>> bool(together[2] == alone[0])
  True
  """
  size = int(np.prod(shape, dtype=np.int64))
  blocks = -(-size // _PER_BLOCK)
  numbers = _generator(seed, purpose, first * blocks).random((count, blocks * _PER_BLOCK), dtype=np.float32)
  return numbers[:, :size].reshape((count, *shape))


def generator(seed: int, purpose: str, example: int) -> np.random.Generator:
  """A NumPy generator of its own for one example; it may draw as much as it likes.

  >>> float(generator(0, "augment", 5).random()) == float(generator(0, "augment", 5).random())
  True
  """
  # The upper half of the 256-bit counter holds the example, so two examples' sequences are 2^128 steps apart.
  return _generator(seed, purpose, int(example) << 128)


def _generator(seed, purpose, counter):
  key = np.array([seed % 2**64, PURPOSES[purpose]], dtype=np.uint64)
  return np.random.Generator(np.random.Philox(key=key, counter=int(counter)))
