"""Names of arrays in a checkpoint: the path of each through the train state, joined by dots in its file."""

from typing import Any

import jax

from diffusion.config.errors import UserError
from diffusion.weights.formats.orbax import names_of


def check(state: Any) -> None:
  """UserError for the first array of a train state (or of its shapes) that a checkpoint would lose.

  Two whose names are alike once joined by dots would come back as one and the same, and one without numbers
  can not be saved.

  >>> import jax.numpy as jnp
  >>> check({"enc.w": jnp.ones(2), "enc": {"w": jnp.ones(2)}})
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: two arrays of the train state have the name enc.w in a checkpoint, which
  joins names by dots: rename one, best without a dot in it
  """
  seen: set[str] = set()
  for key, leaf in jax.tree_util.tree_leaves_with_path(state):
    name = ".".join(names_of(key))
    if name in seen:
      raise UserError(
        f"two arrays of the train state have the name {name} in a checkpoint, which joins names by dots: "
        "rename one, best without a dot in it"
      )
    if leaf.size == 0:
      raise UserError(
        f"the array {name} of the train state has the shape {list(leaf.shape)} and holds no number, so that "
        "no checkpoint can keep it: leave it out of the network, or give it a size"
      )
    seen.add(name)
