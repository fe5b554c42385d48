"""Nested dicts, lists and records of a file -> arrays by dotted name, and the plain data between them."""

import hashlib
from typing import Any

from diffusion.weights.contents import StoredArray
from diffusion.weights.formats import allowed
from diffusion.weights.formats.mapped import Damaged, Span, printable
from diffusion.weights.formats.numpy_pickles import Dtype, NumpyArray
from diffusion.weights.formats.pickle_machine import Record, Standin
from diffusion.weights.formats.torch_tensors import Part, Storage, StorageType, Tensor

DEEP = 100
"""Levels of nesting that a file may have."""

MANY = 10**7
"""Places that a tree may have."""

ROOT = "array"
"""The name of an array that is all that a file holds."""

SPACES = ("argparse.Namespace", "types.SimpleNamespace")

_NOTHING = object()


def flat(root: Any, size: int) -> tuple[dict[str, StoredArray], Any]:
  """(arrays by dotted name, all else as nested dicts and lists).

  A dict or list that holds arrays and nothing else leaves no trace in the second; a list that holds both has
  None in the places of its arrays.

  Args:
    root: what the file holds.
    size: bytes of the file: the places of a tree are at most twice as many, so that one which contains
      itself, or the same list a billion times, is refused and not walked.
  Raises:
    Damaged: for two arrays of one name, and for such trees.
  """
  walk = _Walk(min(2 * size, MANY))
  note = walk.visit(root, ())
  return walk.arrays, None if note is _NOTHING else note


class _Walk:
  def __init__(self, left):
    self.arrays, self.left = {}, left

  def visit(self, value, names):
    """The note of a value; its arrays are kept."""
    self.left -= 1
    if self.left < 0 or len(names) > DEEP:
      raise Damaged("its objects contain each other without end")
    kind = type(value)
    if kind in (bool, int, float, str, complex, bytes, type(None)):
      return value
    if kind in VISITS:
      return VISITS[kind](self, value, names)
    raise Damaged(f"it holds a {kind.__name__} at {printable('.'.join(names))}")

  def keep(self, array, names):
    name = ".".join(names) or ROOT
    if name in self.arrays:
      raise Damaged(f"two arrays have the name {printable(name)}")
    self.arrays[name] = array
    return _NOTHING

  def entries(self, pairs, names):
    """{name: note} of what is no array."""
    found = {}
    for key, value in pairs:
      note = self.visit(value, (*names, str(key)))
      if note is not _NOTHING:
        found[str(key)] = note
    return found

  def mapping(self, value, names):
    found = self.entries(value.items(), names)
    return found if found or not value else _NOTHING

  def sequence(self, value, names):
    found = [self.visit(one, (*names, str(place))) for place, one in enumerate(value)]
    if found and all(note is _NOTHING for note in found):
      return _NOTHING
    return [None if note is _NOTHING else note for note in found]

  def unordered(self, value, names):
    return self.sequence(sorted(value, key=repr), names)

  def record(self, value, names):
    """A namespace is a dict; a module has its arrays and modules under their own names."""
    state = _state(value.state)
    if value.name in SPACES:
      return self.mapping(state, names)
    persistent = value.name == allowed.PERSISTENT
    found: dict[str, Any] = {"class_name": value.args[0] if persistent else value.name}
    for key in ("_init_args", "_init_kwargs"):
      if state.get(key) is not None:
        note = self.visit(state[key], (*names, key))
        found[key[1:]] = None if note is _NOTHING else note
    if persistent and type(value.args[1]) is str:
      found["source_sha256"] = hashlib.sha256(value.args[1].encode("utf-8", "surrogatepass")).hexdigest()
    for key in ("_parameters", "_buffers"):
      self.entries(((name, one) for name, one in _state(state.get(key)).items() if one is not None), names)
    own = ((key, one) for key, one in state.items() if not key.startswith("_") and key != "training")
    found["attributes"] = self.entries(own, names)
    found["modules"] = self.entries(_state(state.get("_modules")).items(), names)
    if value.items:
      found["items"] = self.sequence([list(one) if type(one) is tuple else one for one in value.items], names)
    return found


def _state(state):
  """The attributes of an object: a dict, or none."""
  if state is None:
    return {}
  if type(state) is not dict or not all(type(key) is str for key in state):
    raise Damaged("the attributes of an object are no dict")
  return state


VISITS: dict[type, Any] = {
  dict: _Walk.mapping,
  list: _Walk.sequence,
  tuple: _Walk.sequence,
  set: _Walk.unordered,
  frozenset: _Walk.unordered,
  Record: _Walk.record,
  StoredArray: lambda walk, value, names: walk.keep(value, names),
  Tensor: lambda walk, value, names: walk.keep(value.stored(), names),
  NumpyArray: lambda walk, value, names: walk.keep(value.stored(), names),
  Storage: lambda walk, value, names: f"a storage of {value.nbytes} bytes",
  Part: lambda walk, value, names: f"a storage of {value.count} elements",
  Span: lambda walk, value, names: f"{value.length} bytes",
  Standin: lambda walk, value, names: value.name,
  StorageType: lambda walk, value, names: f"a storage of {value.dtype}",
  Dtype: lambda walk, value, names: str(value.dtype),
}
"""How each kind of object in a tree is told."""
