"""Compiled programs that outlive the process, in JAX's persistent compilation cache.

JAX names an entry by the program, the options and flags of the compiler, the versions of jaxlib and of the
backend, and the topology of the devices, in whose fingerprint are the features of a CPU; so another machine
that shares the folder looks for another name. The folder is one for each kind of machine and each jaxlib all
the same, for an entry that a machine cannot load is then a matter of that folder alone.

JAX can bound its cache itself (`jax_compilation_cache_max_size`). That needs the package filelock, takes a
lock of the file system at every read, waits ten seconds a program where locks do not work, and stores nothing
any more once the file of a last use is missing. So the size is bounded here, by removing the entries that
were used longest ago when a command starts and when it ends. Whatever another process removes or has half
written is compiled again.
"""

import atexit
import hashlib
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jaxlib

MOST = 2**30
"""Bytes that all folders of compiled programs may hold together."""

OFF = "unusable.txt"
"""In a folder whose entries this machine cannot load: why. Nothing is read or written there any more."""

HELP = """\
Compiled programs are kept for the next call in $XDG_CACHE_HOME/jax-diffusion (else ~/.cache/jax-diffusion),
1 GiB at the most. JAX_COMPILATION_CACHE_DIR=FOLDER names another place, with JAX's own rules of size;
JAX_ENABLE_COMPILATION_CACHE=false keeps nothing."""

_FAILED = ("Error reading persistent compilation cache", "Error writing persistent compilation cache")


def keep(say: Callable[[str], None] | None = None) -> str | None:
  """Has JAX keep what this process compiles, and use what others compiled; for commands, before they compile.

  A place that the user has given JAX stays as it is. No trouble with the folder stops a command.

  Args:
    say: is told in one sentence what is wrong with the folder; on stderr by default.

  Returns:
    The folder, or None where it is not this function's: the cache is off, elsewhere, or cannot be used.
  """
  say = say or (lambda text: print(text, file=sys.stderr))
  settings: Any = jax.config  # its settings are attributes that no type checker sees
  if not settings.jax_enable_compilation_cache or settings.jax_compilation_cache_dir is not None:
    return None
  root = place()
  folder = os.path.join(root, machine())
  try:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
      probe.write(bytes(2**16))
  except OSError as error:
    say(
      f"note: compiled programs are not kept, because {folder} cannot be written ({error.strerror}); name "
      "another folder by JAX_COMPILATION_CACHE_DIR, or say JAX_ENABLE_COMPILATION_CACHE=false"
    )
    return None
  if os.path.exists(os.path.join(folder, OFF)):
    return None
  trim(root)
  atexit.register(trim, root)
  _say_once(folder, say)
  jax.config.update("jax_compilation_cache_dir", folder)
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  return folder


def place() -> str:
  """The folder of the folders of compiled programs."""
  base = os.environ.get("XDG_CACHE_HOME", "")
  return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "jax-diffusion")


def machine() -> str:
  """A name for this kind of machine and this jaxlib, of letters, digits, points and dashes."""
  told = [platform.system(), platform.machine(), platform.processor()]
  try:
    with open("/proc/cpuinfo") as file:
      wanted = ("model name", "flags", "Features", "CPU part")
      told += sorted({line for line in file if line.startswith(wanted)})
  except OSError:  # not Linux
    pass
  return f"{jaxlib.__version__}-{hashlib.sha256(repr(told).encode()).hexdigest()[:12]}"


def trim(root: str, most: int | None = None) -> int:
  """Removes files below a folder, those used longest ago first, until the others have `most` bytes.

  Returns the bytes that are left. A use is a change or, where the file system keeps it, a read. What cannot
  be removed is left; what vanishes meanwhile counts for nothing.

  Args:
    root: the folder.
    most: bytes that may stay; `MOST` by default.

  >>> with tempfile.TemporaryDirectory() as root:
  ...   for age, name in enumerate("cba"):
  ...     _ = open(os.path.join(root, name), "wb").write(bytes(100))
  ...     os.utime(os.path.join(root, name), (1000 - age, 1000 - age))
  ...   trim(root, 250), sorted(os.listdir(root))
  (200, ['b', 'c'])
  """
  files = []
  for folder, _, names in os.walk(root):
    for name in names:
      path = os.path.join(folder, name)
      try:
        found = os.lstat(path)
      except OSError:
        continue
      files.append((max(found.st_atime, found.st_mtime), found.st_size, path))
  left, most = sum(size for _, size, _ in files), MOST if most is None else most
  for _, size, path in sorted(files):
    if left <= most:
      break
    try:
      os.remove(path)
    except OSError:
      continue
    left -= size
  return left


def _say_once(folder, say):
  """Has JAX's warnings of its cache, one a program, said as one sentence, and mended for the next process.

  An entry that was cut short would be read in vain for ever, because JAX writes over none: the folder is
  emptied. One that is whole and that the runtime does not take would come again: the folder is closed.
  """
  show, told = warnings.showwarning, []

  def shown(message, category, filename, lineno, file=None, line=None):
    text = " ".join(str(message).split())
    if not text.startswith(_FAILED):
      return show(message, category, filename, lineno, file, line)
    if told:
      return
    told.append(text)
    what = text.partition(": ")[2][:200]
    if not text.startswith(_FAILED[0]):
      say(f"note: a compiled program was not kept in {folder} ({what})")
    elif what.startswith(("JaxRuntimeError", "XlaRuntimeError")):
      _close(folder, what)
      say(
        f"note: this machine does not load the compiled programs that it keeps ({what}); {folder} is used no "
        "more, delete it to try again"
      )
    else:
      trim(folder, 0)
      say(f"note: the compiled programs in {folder} could not be read ({what}) and are made again")

  warnings.showwarning = shown


def _close(folder, why):
  trim(folder, 0)
  try:
    with open(os.path.join(folder, OFF), "w") as file:
      file.write(why + "\n")
  except OSError:
    pass
