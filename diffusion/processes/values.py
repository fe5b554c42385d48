"""Whether whole numbers are values that a discrete process has."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def check_values(process: Any, x: Any, who: str) -> None:
  """Raises ValueError unless x holds whole numbers from 0 to K - 1 in states of the process's shape.

  Args:
    process: a discrete process, with `num_values` K and `shape`.
    x: [B, ...] on the host or the device. Of a traced array, or one that other
      hosts hold too, only dtype and shape are looked at.
    who: asks, for the message.

  >>> from diffusion import processes
  >>> check_values(processes.masked(3, (2,)), np.array([[0, 3]]), "masked_elbo")
  Traceback (most recent call last):
  ...
  ValueError: masked_elbo takes the values 0 to 2 of 'masked', and row 0 of x holds 3, which is its mask: ...
  """
  wanted = ", ".join(map(str, process.shape))
  if x.shape[1:] != tuple(process.shape) or not jnp.issubdtype(x.dtype, jnp.integer):
    raise ValueError(f"{who} takes whole numbers of shape [B, {wanted}], got {x.dtype} of shape {x.shape}")
  if isinstance(x, Tracer) or not x.size or (isinstance(x, jax.Array) and not x.is_fully_addressable):
    return
  host, sizes = np.asarray(x), np.reshape(process.value_counts(), (1, *process.shape))
  wrong = (host < 0) | (host >= sizes)
  if not wrong.any():
    return
  row, *place = (int(index) for index in np.argwhere(wrong)[0])
  given, size = int(host[(row, *place)]), int(sizes[(0, *place)])
  if given == process.mask:
    hint = f", which is its mask: leave masks out of the data, or give the process {given + 1} values"
  elif given > 0:
    hint = f": give the process as many values as the data have, here {given + 1}"
  else:
    hint = ": number the values from 0"
  raise ValueError(
    f"{who} takes the values 0 to {size - 1} of '{process.name}', and row {row} of x holds {given}{hint}"
  )
