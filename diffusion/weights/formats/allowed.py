"""The names that a pickle may ask for, and what stands for each: functions of ours that build plain data.

Nothing of the file's own is imported or called. Classes become inert records; a name that is not here is
refused, with its module, in one sentence.
"""

import functools
from collections.abc import Mapping
from typing import Any

from diffusion.weights.formats import numpy_pickles, torch_tensors
from diffusion.weights.formats.mapped import Damaged, Refused, Span, printable
from diffusion.weights.formats.pickle_machine import Record, Standin

KNOWN = (
  "tensors, parameters and modules of PyTorch, arrays of NumPy, dicts, lists, numbers and text, the "
  "persistent objects of EDM and EDM2"
)

MODULES = "torch.nn.modules."
"""Classes below this are inert modules, whatever their name."""


def find(module: str, name: str) -> Any:
  """What stands for a name in a pickle: a `Standin`, or a plain value.

  >>> find("collections", "OrderedDict").call()
  {}
  >>> find("os", "getcwd")
  Traceback (most recent call last):
  ...
  diffusion.weights.formats.mapped.Refused: asks for os.getcwd, which is not read: known are tensors, ...
  """
  if (module, name) in ALLOWED:
    return ALLOWED[module, name]
  if module.startswith(MODULES) and name.isidentifier():
    return inert(f"{module}.{name}")
  raise Refused(
    f"asks for {printable(module)}.{printable(name)}, which is not read: known are {KNOWN}, and nothing in a "
    "file is run; where that name is installed, save the weights alone, as a state dict or as safetensors"
  )


def inert(name: str) -> Standin:
  """A class of which a pickle's objects become records."""
  return Standin(name, lambda *args: Record(name, args))


def _mapping(*pairs: Any) -> dict[Any, Any]:
  """A dict of a dict, or of pairs; no key twice."""
  if not pairs:
    return {}
  (entries,) = pairs
  entries = list(entries.items()) if type(entries) is dict else [tuple(pair) for pair in entries]
  found = dict(entries)
  if len(found) != len(entries):
    raise Damaged("a key stands twice in a dict")
  return found


def _with_default(*args: Any) -> dict[Any, Any]:
  """A `defaultdict` without its default."""
  return _mapping(*args[1:])


def _filled(kind: type, *args: Any) -> Any:
  """A list, tuple or set of a list, tuple or set."""
  if len(args) > 1 or any(type(one) not in (list, tuple, set, frozenset) for one in args):
    raise Damaged(f"a {kind.__name__} is made of something else than a list")
  return kind(*args)


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
  """Bytes, which pickles of protocol 2 write as text."""
  if type(text) is not str or encoding not in ("latin1", "latin-1"):
    raise Damaged("bytes are written as no text")
  return text.encode("latin-1")


def _byte_array(*args: Any) -> Any:
  if not args:
    return b""
  if len(args) == 1 and type(args[0]) in (bytes, Span):
    return args[0]
  return _encoded(*args)


def _complex(real: Any, imaginary: Any) -> complex:
  if type(real) is not float or type(imaginary) is not float:
    raise Damaged("a complex number is made of something else than two numbers")
  return complex(real, imaginary)


def _reconstructed(made: Any, base: Any, state: Any) -> Any:
  """An object in protocols 0 and 1: `copyreg._reconstructor`."""
  if type(made) is not Standin or made.call is None or type(base) is not Standin:
    raise Damaged("an object is made of no class")
  return made.call() if base.name.endswith(".object") else made.call(state)


def _path(*parts: Any) -> str:
  return "/".join(str(part) for part in parts).replace("//", "/")


def _persistent(meta: Any) -> Record:
  """An object of EDM's `torch_utils.persistence`: the source of its class is text, and not looked at."""
  if type(meta) is not dict or type(meta["state"]) is not dict or type(meta["class_name"]) is not str:
    raise Damaged("a persistent object has no state")
  return Record(PERSISTENT, (meta["class_name"], meta.get("module_src", "")), meta["state"])


PERSISTENT = "torch_utils.persistence"
"""The name of records of persistent objects; args are the class's name and the source of its module."""


def _table() -> Mapping[tuple[str, str], Any]:
  def only_named(name):
    return Standin(name)

  found: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Standin("collections.OrderedDict", _mapping),
    ("collections", "Counter"): Standin("collections.Counter", _mapping),
    ("collections", "defaultdict"): Standin("collections.defaultdict", _with_default),
    ("dnnlib.util", "EasyDict"): Standin("dnnlib.util.EasyDict", _mapping),
    ("_codecs", "encode"): Standin("_codecs.encode", _encoded),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Standin(PERSISTENT, _persistent),
    ("argparse", "Namespace"): inert("argparse.Namespace"),
    ("types", "SimpleNamespace"): inert("types.SimpleNamespace"),
  }
  for module in ("copyreg", "copy_reg"):
    found[module, "_reconstructor"] = Standin("copyreg._reconstructor", _reconstructed)
  for module in ("pathlib", "pathlib._local"):
    for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"):
      found[module, name] = Standin(f"pathlib.{name}", _path)
  for module in ("builtins", "__builtin__"):
    found[module, "dict"] = Standin("builtins.dict", _mapping)
    for kind in (list, tuple, set, frozenset):
      found[module, kind.__name__] = Standin(f"builtins.{kind.__name__}", functools.partial(_filled, kind))
    found[module, "bytearray"] = Standin("builtins.bytearray", _byte_array)
    found[module, "bytes"] = Standin("builtins.bytes", _byte_array)
    found[module, "complex"] = Standin("builtins.complex", _complex)
    for name in ("object", "int", "float", "bool", "str"):
      found[module, name] = only_named(f"builtins.{name}")
  return found | numpy_pickles.names() | torch_tensors.names()


ALLOWED: Mapping[tuple[str, str], Any] = _table()
"""By module and name."""
