"""Whether whole numbers are values that a discrete process has, on the host or on the device."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from diffusion.processes.tokens import check_tokens


def check_values(process: Any, x: Any) -> None:
  """Raises ValueError unless x holds values of the process's data alone; see `check_tokens`.

  Args:
    process: a discrete one.
    x: [B, *shape] whole numbers. Of a traced array, or one that other hosts hold too, only dtype and shape
      are looked at.

  >>> from diffusion import processes
  >>> check_values(processes.masked(3, (2,)), jnp.array([[0, 3]]))
  Traceback (most recent call last):
  ...
  ValueError: the data hold the value 3, which is the mask of 'masked': values are 0 to 2, ...
  """
  if not isinstance(x, Tracer) and (not isinstance(x, jax.Array) or x.is_fully_addressable):
    return check_tokens(process, x)
  if x.shape[1:] != tuple(process.shape) or not jnp.issubdtype(x.dtype, jnp.integer):
    wanted = ", ".join(map(str, process.shape))
    raise ValueError(
      f"'{process.name}' noises whole numbers of shape [B, {wanted}], got {x.dtype} of shape {x.shape}"
    )
