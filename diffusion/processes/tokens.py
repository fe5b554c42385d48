"""Checks of data of whole numbers against the process that noises them."""

from typing import Any

import numpy as np


def check_tokens(process: Any, x: Any) -> None:
  """Raises ValueError unless x: [B, *shape] holds values of the process's data alone.

  Args:
    process: a discrete one.
    x: whole numbers on the host.

  Raises:
    ValueError: no whole numbers, another shape, a value outside of its coordinate's, the mask among the data.

  >>> from diffusion import processes
  >>> check_tokens(processes.masked(3, (2,)), [[0, 2], [1, 1]])
  >>> check_tokens(processes.masked(3, (2,)), [[0, 3]])
  Traceback (most recent call last):
  ...
  ValueError: the data hold the value 3, which is the mask of 'masked': values are 0 to 2, ...
  """
  x = np.asarray(x)
  if not np.issubdtype(x.dtype, np.integer) or x.shape[1:] != tuple(process.shape):
    raise ValueError(
      f"'{process.name}' noises whole numbers of shape [B, {', '.join(map(str, process.shape))}], got "
      f"{x.dtype} of shape {x.shape}"
    )
  sizes = np.reshape(process.value_counts(), (1, *process.shape))
  wrong = np.argwhere((x < 0) | (x >= sizes))
  if not wrong.size:
    return
  value, size = x[tuple(wrong[0])], np.broadcast_to(sizes, (1, *process.shape))[(0, *wrong[0][1:])]
  if process.mask is not None and np.any(x == process.mask):
    raise ValueError(
      f"the data hold the value {process.mask}, which is the mask of '{process.name}': values are 0 to "
      f"{size - 1}, so give the process one value more, or take the symbol out of the data"
    )
  raise ValueError(
    f"the data hold the value {value} in row {wrong[0][0]}, and '{process.name}' has values 0 to {size - 1} "
    "there: give it as many values as the vocabulary has"
  )
