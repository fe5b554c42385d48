"""Conditions that a transform holds by itself, for a whole batch."""

from typing import Any

import jax
import jax.numpy as jnp


def as_rows(cond: Any, rows: int) -> Any:
  """A condition with one entry a row: numbers are repeated, arrays must have that many rows already.

  >>> as_rows({"label": 3}, 2)["label"].tolist()
  [3, 3]

  Raises:
    ValueError: an array of another length.
  """

  def row(leaf):
    leaf = jnp.asarray(leaf)
    if not leaf.ndim:
      return jnp.full((rows,), leaf)
    if leaf.shape[0] != rows:
      raise ValueError(
        f"a condition has {leaf.shape[0]} rows and the batch has {rows}: give one entry a sample, or one "
        "number for all"
      )
    return leaf

  return jax.tree.map(row, cond)
