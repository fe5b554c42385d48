"""Starting from the weights of another run."""

import jax
import numpy as np

from diffusion.errors import UserError
from diffusion.training import checkpoints, ema, workdir as workdirs

NEUTRAL = "['condition']['guidance']['kernel']"
"""Parameters that a new network may have and the old one not: they start at zero and change nothing
(`networks.embeddings.Condition`)."""


def load(path: str, state, say=print):
  """The state with the network's weights (parameters and averages) taken from the run in the folder `path`.

  Its newest undamaged checkpoint is read: the first average of its config, or its parameters if it keeps
  none. Optimiser, step and data position start afresh. Raises UserError if there is no such run or the
  networks differ, but for a guidance embedding (`guidance_size`) that the run did not have.
  """
  config = workdirs.read(path)
  chosen = checkpoints.choose(workdirs.checkpoints(path), say=say)
  if chosen is None:
    raise UserError(f"config.training.warm_start={path}: that run has no checkpoint yet")
  names = list(ema.half_lives(config.training.get("ema_half_life_images", ())))
  weights, collections = read(chosen, names[0] if names else "none")
  say(f"weights from {chosen}, {'average of half-life ' + names[0] + ' images' if names else 'parameters'}")
  make = lambda like: fit(weights, like, f"config.training.warm_start={path}")
  loss_state = state.loss_state
  if collections and "model" in loss_state["collections"]:
    fitted = fit(collections, loss_state["collections"]["model"], f"config.training.warm_start={path}")
    loss_state = {**loss_state, "collections": {**loss_state["collections"], "model": fitted}}
  return state.replace(
    params={**state.params, "model": make(state.params["model"])},
    emas={name: average if name.isidentifier() else make(average) for name, average in state.emas.items()},
    loss_state=loss_state,
  )


def read(checkpoint: str, average: str):
  """(parameters, mutable collections) of a checkpoint's network, as NumPy arrays; average: a half-life in
  images as text, or 'none'."""
  saved = checkpoints.read_arrays(checkpoint)
  weights = saved["params"]["model"] if average == "none" else saved["emas"][average]
  return weights, (saved["loss_state"].get("collections") or {}).get("model")


def fit(weights, like, where):
  """The weights, placed like `like`; UserError naming `where` and the first that has no counterpart of its
  shape."""
  have = {jax.tree_util.keystr(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(weights)}
  want = {jax.tree_util.keystr(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(like)}
  kept = {key for key in want if key not in have and key.endswith(NEUTRAL)}
  for key in (key for key in {**want, **have} if key not in kept):
    there, here = (list(table[key].shape) if key in table else "absent" for table in (have, want))
    if there != here:
      raise UserError(
        f"{where}: the networks differ, {key} is {there} there and {here} here; use the same config.network"
      )

  def place(key, leaf):
    key = jax.tree_util.keystr(key)
    return leaf if key in kept else jax.device_put(np.asarray(have[key], leaf.dtype), leaf.sharding)

  return jax.tree_util.tree_map_with_path(place, like)
