"""Starting from the weights of another run, or of a published model."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from diffusion.config import loading
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.run.saved import averages, workdir as workdirs
from diffusion.weights.formats.orbax import names_of

NEUTRAL = ("condition", "guidance", "kernel")
"""Parameters that a new network may have and the old one not: they start at zero and change nothing
(`networks.embeddings.Condition`)."""


def load(given: Any, state: Any, say: Callable[[str], None] = print) -> Any:
  """The state with weights of another run or of a published model, as config.training.warm_start says.

  Args:
    given: the folder of a run, or dict(weights=PATH, told=dict(...)) of a published model, whose network is
      that of `weights.sections`; see `weights.load` for what is told.
    state: at the start.
    say: gets a sentence for the person watching.

  Raises UserError for what is neither, and where the networks differ.
  """
  if isinstance(given, str):
    return of_run(given, state, say)
  given = plain(given)
  where = "config.training.warm_start"
  if not isinstance(given, Mapping) or not isinstance(given.get("weights"), str):
    raise UserError(
      f"{where} is the folder of a run, or dict(weights=PATH) of a published model; it is {given!r}"
    )
  loading.check_keys(given, ("weights", "told"), where)
  found = published(given["weights"], given.get("told"))
  return _filled(state, found, f"{where}.weights={given['weights']}")


def published(path: str, told: Mapping[str, Any] | None = None) -> Any:
  """The parameters of a published model, as NumPy arrays in nested dicts; errors as of `weights.load`."""
  from diffusion.weights.loading import find  # the published networks, which no other run needs

  return find(path, told).params()


def of_run(path: str, state: Any, say: Callable[[str], None] = print) -> Any:
  """The state with the network's weights (parameters and averages) taken from the run in the folder `path`.

  Its newest undamaged checkpoint is read: the first average of its config, or its parameters if it keeps
  none. Optimiser, step and data position start afresh. Raises UserError if there is no such run or the
  networks differ, but for a guidance embedding (`guidance_size`) that the run did not have.
  """
  where = f"config.training.warm_start={path}"
  workdirs.read(path)  # says so where there is no run, before its checkpoints are looked for
  found, collections = averages.of_run(path, None, None, "weights", where, say)
  loss_state = state.loss_state
  if collections and "model" in loss_state["collections"]:
    fitted = fit(collections, loss_state["collections"]["model"], where)
    loss_state = {**loss_state, "collections": {**loss_state["collections"], "model": fitted}}
  return _filled(state, found, where).replace(loss_state=loss_state)


def _filled(state, found, where):
  """The state with these parameters as the model's, and as all averages of it."""
  make = lambda like: fit(found, like, where)
  return state.replace(
    params={**state.params, "model": make(state.params["model"])},
    emas={name: own if name.isidentifier() else make(own) for name, own in state.emas.items()},
  )


def fit(found: Any, like: Any, where: str) -> Any:
  """The weights of another run, placed like `like`.

  Raises UserError naming `where` and the first that has no counterpart of its shape.
  """
  have = {names_of(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(found)}
  want = {names_of(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(like)}
  kept = {key for key in want if key not in have and key[-3:] == NEUTRAL}
  for key in (key for key in {**want, **have} if key not in kept):
    there, here = (list(table[key].shape) if key in table else "absent" for table in (have, want))
    if there != here:
      raise UserError(
        f"{where}: the networks differ, {'.'.join(key)} is {there} there and {here} here; use the same "
        "config.network"
      )

  def place(key, leaf):
    key = names_of(key)
    return leaf if key in kept else jax.device_put(np.asarray(have[key], leaf.dtype), leaf.sharding)

  return jax.tree_util.tree_map_with_path(place, like)
