"""Weights out of a checkpoint without its train state: what sampling, evaluating and teaching read.

    params/ROLE | emas/ROLE | loss_state/fixed/ROLE     parameters of a role, wherever the run keeps them
    emas/LENGTH                                         an average of the model
    loss_state/collections/ROLE                         mutable collections of its network

Orbax restores only the arrays that are asked for. It would cast dtypes and cut shapes in silence, so both are
compared with what it says of the file before anything is read.
"""

import dataclasses
import os
from typing import Any

import jax

from diffusion.config.errors import UserError
from diffusion.run import state as states
from diffusion.run.saved import checkpoints
from diffusion.weights.formats import orbax
from diffusion.weights.formats.orbax import names_of


@dataclasses.dataclass(frozen=True)
class Stored:
  """One array of a checkpoint.

  Attributes:
    names: where it is, from the root of the train state: ('params', 'model', 'first', 'kernel').
    like: its shape, dtype and, for a `jax.Array`, its sharding; None for a NumPy array of whatever is there.
  """

  names: tuple[str, ...]
  like: Any = None


def read_weights(
  path: str, role: str = "model", average: str | None = None, like: Any = None
) -> tuple[Any, dict[str, Any]]:
  """(parameters, mutable collections) of one role of a checkpoint, and nothing else of it.

  Args:
    path: of the checkpoint, from `checkpoints.choose`.
    role: whose weights; those of the model unless it is given.
    average: half-life in images or relative length, as text, of one of the model's averages that is kept
      there; None for the parameters themselves.
    like: (parameters, collections) as `jax.ShapeDtypeStruct`s with shardings, which give the tree and the
      places; None for nested dicts of NumPy arrays of all that is there.

  Raises:
    UserError: no such role or average, or other names, shapes or dtypes than `like`.
  """
  there = orbax.metadata(_state(path))
  index = orbax.flat(there)
  at = _place(path, index, role, average)
  apart = ("loss_state", "collections", role)
  if like is None:
    params, collections = (
      {names[len(start) :]: Stored(names) for names in index if names[: len(start)] == start}
      for start in (at, apart)
    )
    found = _read(path, (params, collections), there)
    return _nested(found[0]), _nested(found[1])
  params, collections = (addressed(part, start) for part, start in zip(like, (at, apart), strict=True))
  wanted = jax.tree.leaves(params)
  extra = {names for names in index if names[: len(at)] == at} - {one.names for one in wanted}
  if extra:
    raise UserError(_misfit(path, f"{_text(min(extra))} is there and not here"))
  return _read(path, (params, collections), there)


def loss_inputs(path: str, template: Any, player: Any, **weights: Any) -> tuple[Any, Any]:
  """(params, state) that the loss of a player is given, read from a checkpoint.

  Args:
    path: of the checkpoint.
    template: the run's train state as `jax.ShapeDtypeStruct`s with shardings.
    player: of `parts.players`; only what its loss asks for is read.
    **weights: parameters by role that are at hand, and used in place of those of the checkpoint.
  """
  old = checkpoints.read_meta(path).get("format", 1) < states.FORMAT
  stored = addressed(states.before_players(template) if old else template)
  return read(path, player.inputs(states.upgraded(stored) if old else stored, **weights))


def addressed(tree: Any, start: tuple[str, ...] = ()) -> Any:
  """The same tree with a `Stored` in place of each leaf; `start` names the place of the tree.

  >>> addressed({"a": [None, 1]}, ("params",))["a"][1]
  Stored(names=('params', 'a', '1'), like=1)
  """
  return jax.tree_util.tree_map_with_path(lambda key, leaf: Stored((*start, *names_of(key)), leaf), tree)


def read(path: str, wanted: Any) -> Any:
  """A tree with its array in place of every `Stored`, in one pass over the checkpoint; other leaves are kept.

  Raises UserError for an array that is not there, or has another shape or dtype than it should.
  """
  return _read(path, wanted, orbax.metadata(_state(path)))


def _read(path, wanted, there):
  """`read` with the metadata of the checkpoint, which take as long to read as small weights, at hand."""
  leaves, tree = jax.tree.flatten(wanted)
  stored = {leaf.names: leaf.like for leaf in leaves if _is_stored(leaf)}
  _check(path, stored, orbax.flat(there))
  places = {names: None if like is None else like.sharding for names, like in stored.items()}
  found = orbax.flat(orbax.restore(_state(path), orbax.pruned(there, set(stored)), places)) if stored else {}
  return jax.tree.unflatten(tree, [found[leaf.names] if _is_stored(leaf) else leaf for leaf in leaves])


def _is_stored(leaf):
  return type(leaf) is Stored


def _state(path):
  """The folder of a checkpoint that holds arrays."""
  return os.path.join(path, "state")


def _check(path, stored, there):
  """UserError for the first array that is missing, or of another shape or dtype than it should be."""
  for names, like in stored.items():
    if names not in there:
      raise UserError(_misfit(path, f"{_text(names)} is not there"))
    have = there[names]
    if like is not None and (tuple(have.shape), have.dtype) != (tuple(like.shape), like.dtype):
      raise UserError(
        _misfit(
          path,
          f"{_text(names)} is {have.dtype}{list(have.shape)} there and {like.dtype}{list(like.shape)} here",
        )
      )


def _place(path, index, role, average):
  """Where the parameters of a role, or an average of the model, are in a checkpoint."""
  if average is not None:
    names = sorted({one[1] for one in index if one[0] == "emas" and not one[1].isidentifier()})
    if role != "model":
      raise ValueError(f"averages are of the role 'model', and not of '{role}': leave out the average")
    if average not in names:
      raise UserError(f"the checkpoint {path} has no average {average}; it has {', '.join(names) or 'none'}")
    return "emas", average
  places = [("params", role), ("emas", role), ("loss_state", "fixed", role)]
  for place in places:
    if role != "loss" and any(one[: len(place)] == place for one in index):
      return place
  raise UserError(f"the checkpoint {path} has no weights of the role '{role}'")


def _nested(flat):
  """Nested dicts of {names: value}."""
  root: dict[str, Any] = {}
  for names, value in flat.items():
    place = root
    for name in names[:-1]:
      place = place.setdefault(name, {})
    place[names[-1]] = value
  return root


def _text(names):
  return ".".join(names)


def _misfit(path, what):
  return f"the checkpoint {path} does not fit this config: {what}; use the config.json beside it"
