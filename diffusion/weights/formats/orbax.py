"""Orbax's folders: arrays in chunks (zarr within OCDBT), and their tree with shapes and dtypes in _METADATA.

Orbax joins the names along a tree by dots. It restores only the arrays that are asked for, each where it
should lie, many at a time. Source: orbax-checkpoint 0.12.8, `PyTreeCheckpointHandler`. A checkpoint of a run
of this library is such a folder, named state.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffusion.config.errors import UserError
from diffusion.weights.contents import Contents, StoredArray

IN_FLIGHT = 8 * 2**20
"""Bytes that are read and unpacked at a time, or the largest array if that is more: what reading takes beside
the weights."""


def is_one(path: str) -> bool:
  """True for a folder that Orbax wrote a tree to."""
  return os.path.isfile(os.path.join(path, "_METADATA"))


def read(path: str, notes: dict[str, Any]) -> Contents:
  """A whole folder.

  Raises UserError where Orbax can make nothing of it, and for two arrays whose names are one when joined.
  """
  try:
    tree = metadata(path)
    there = flat(tree)
    texts = {names: leaf for names, leaf in there.items() if _is_text(leaf)}
    kept = _texts(path, tree, texts)
  except (ValueError, TypeError, KeyError, OSError, AttributeError) as error:
    what = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    raise UserError(
      f"{path} cannot be read as a checkpoint of Orbax ({what}): it may be damaged or cut short, fetch it "
      "again"
    ) from error
  arrays, where = {}, {}
  for names, leaf in there.items():
    name = ".".join(names)
    if name in where:
      raise UserError(
        f"{path} has two arrays of the name {name}, and Orbax, which joins names by dots, kept one of them: "
        "it has to be saved again under other names"
      )
    where[name] = names
    if names not in texts:
      arrays[name] = _array(path, tree, names, leaf)

  def batch(places):
    wanted = {where[name]: place for name, place in places.items()}
    found = flat(restore(path, pruned(tree, set(wanted)), wanted)) if wanted else {}
    return {name: found[where[name]] for name in places}

  return Contents(path, "orbax", arrays, notes | ({"tree": kept} if kept else {}), batch)


def metadata(path: str) -> Any:
  """The tree of a folder with what Orbax says of each array in its place."""
  import orbax.checkpoint as ocp

  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    return reader.metadata(os.path.abspath(path)).item_metadata.tree


def names_of(key: Any) -> tuple[str, ...]:
  """The names along a key path of `jax.tree_util`; numbers of a list or a dict as text.

  >>> [names_of(key) for key, _ in jax.tree_util.tree_leaves_with_path({"a": (1, {"b": 2})})]
  [('a', '0'), ('a', '1', 'b')]
  """
  return tuple(jax.tree_util.keystr((one,), simple=True) for one in key)


def flat(tree: Any) -> dict[tuple[str, ...], Any]:
  """{names: leaf} of a tree.

  >>> flat({"a": [1, {"b": 2}]})
  {('a', '0'): 1, ('a', '1', 'b'): 2}
  """
  return {names_of(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def pruned(tree: Any, keep: set[tuple[str, ...]], names: tuple[str, ...] = ()) -> Any:
  """The part of a tree that holds what is kept; a list is kept whole, for its places are its names.

  >>> pruned({"a": {"b": 1, "c": 2}, "d": 3}, {("a", "c")})
  {'a': {'c': 2}}
  """
  if names in keep:
    return tree
  if isinstance(tree, Mapping):
    parts = {key: pruned(part, keep, (*names, str(key))) for key, part in tree.items()}
    return {key: part for key, part in parts.items() if part is not None} or None
  return tree if any(one[: len(names)] == names for one in keep) else None


def restore(path: str, tree: Any, places: Mapping[tuple[str, ...], Any]) -> Any:
  """The arrays of a pruned tree of metadata.

  Args:
    path: of the folder.
    tree: from `pruned`.
    places: names -> sharding; None, or no entry, for a NumPy array.
  """
  import orbax.checkpoint as ocp

  def how(key, leaf):
    place = places.get(names_of(key))
    if _is_text(leaf):
      return ocp.RestoreArgs(restore_type=str)
    return ocp.RestoreArgs(restore_type=np.ndarray) if place is None else ocp.ArrayRestoreArgs(sharding=place)

  numbers = [one for one in jax.tree.leaves(tree) if not _is_text(one)]
  sizes = [int(np.prod(one.shape)) * np.dtype(one.dtype).itemsize for one in numbers]
  limit: Any = (
    max(IN_FLIGHT, 2 * max(sizes, default=0)) / 1e9
  )  # a share of a GB will do, whatever it is annotated
  handler = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=limit)
  arguments = ocp.args.PyTreeRestore(
    item=tree, restore_args=jax.tree_util.tree_map_with_path(how, tree), partial_restore=True
  )
  with _mapped_apart(), ocp.Checkpointer(handler) as reader:
    return reader.restore(os.path.abspath(path), args=arguments)


@contextlib.contextmanager
def _mapped_apart():
  """Within, every block of memory of 128 kB and more is one that its freeing returns to the system.

  Else glibc keeps what reading frees, in pieces between the arrays that stay: a third of the weights. Outside
  it is where a process that has freed large blocks arrives by itself (mallopt(3): 32 MB, and twice that for
  trimming).
  """
  if platform.libc_ver()[0] != "glibc":
    yield
    return
  tell, trim, threshold = ctypes.CDLL(None).mallopt, -1, -3
  tell(threshold, 128 * 2**10)
  try:
    yield
  finally:
    tell(threshold, 32 * 2**20)
    tell(trim, 64 * 2**20)


def _is_text(leaf):
  import orbax.checkpoint as ocp

  return type(leaf) is ocp.metadata.StringMetadata


def _array(path, tree, names, leaf):
  def fetch(index):
    return np.asarray(flat(restore(path, pruned(tree, {names}), {}))[names])[index]

  return StoredArray(tuple(leaf.shape), np.dtype(leaf.dtype), fetch)


def _texts(path, tree, texts):
  """Texts between the arrays, by their joined names."""
  if not texts:
    return {}
  found = flat(restore(path, pruned(tree, set(texts)), {}))
  return {".".join(names): found[names] for names in texts}
