"""A table in one file.

It holds the coefficients as arrays, and what they belong to as JSON, checked when it is read.
"""

import json
import os
import tempfile
import zipfile
from typing import Any

import jax
import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.table import Table

FORMAT = "diffusion solver table"
VERSION = 1
# Axes of each leaf after those of the grids: rows, nodes (rows + 1), slots, or the columns of the start and
# the noises.
AXES = dict(
  t=("nodes",),
  g=("rows",),
  h=("rows",),
  A=("rows", "slots", "slots"),
  B=("rows", "slots"),
  C=("rows", "slots", "noises"),
  w=("nodes", "slots"),
  start=("slots", "begin"),
  hook=("rows", "slots"),
)


def save(path: Any, table: Table, process: Any = None, notes: dict | None = None) -> None:
  """Writes a table as one .npz: every leaf bit for bit, with its name, order, view and process.

  Args:
    path: the file, which ends in .npz; written at once, so a stop half-way leaves no half file.
    table: a `Table`.
    process: the process it was built for, whose parameters are then checked by `load`; else only its name is.
    notes: None or a dict that JSON can hold, for people.

  Raises:
    ValueError: a path without .npz, or a process that is not the table's.
    TypeError: something that is not a table.
  """
  if not isinstance(table, Table):
    raise TypeError(f"only tables are saved, got {type(table).__name__}")
  path = os.fspath(path)
  if not path.endswith(".npz"):
    raise ValueError(f"a table is saved as .npz, got {path!r}")
  if process is not None and table.about.process_name and table.about.process_name != process.name:
    raise ValueError(
      f"the table belongs to the process {table.about.process_name!r} and {process.name!r} was given"
    )
  about = dict(
    format=FORMAT,
    version=VERSION,
    name=table.name,
    order=table.order,
    view=table.view,
    process=table.about.process_name,
    parameters=None if process is None else _parameters(process),
    levels=table.about.levels,
    notes=notes or {},
  )
  text = np.frombuffer(json.dumps(about).encode(), np.uint8)
  folder = os.path.dirname(os.path.abspath(path))
  handle, temporary = tempfile.mkstemp(suffix=".npz", dir=folder)
  try:
    with os.fdopen(handle, "wb") as file:
      leaves: dict[str, Any] = {name: np.asarray(getattr(table, name)) for name in AXES}
      np.savez(file, about=text, **leaves)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    if os.path.exists(temporary):
      os.unlink(temporary)
    raise


def load(path: Any, process: Any = None) -> Table:
  """The table that `save` wrote.

  Args:
    path: the file.
    process: None, or the process it is to be used with.

  Raises:
    ValueError: a file that is missing, damaged or not a table, or a process that it does not belong to.

  >>> from diffusion import processes, solvers
  >>> process = processes.vp_linear()
  >>> path = os.path.join(tempfile.mkdtemp(), "mine.npz")
  >>> save(path, solvers.build("unipc", process, 6), process)
  >>> load(path, process).name
  'unipc(order=3, bh2)'
  >>> load(path, processes.edm())
  Traceback (most recent call last):
  ...
  ValueError: ...mine.npz holds unipc(order=3, bh2) for the process 'vp_linear', not for 'edm': ...
  """
  about, leaves = _read(os.fspath(path))
  name, known = about["name"], about["process"]
  if process is not None:
    if known and process.name and known != process.name:
      raise ValueError(
        f"{path} holds {name} for the process {known!r}, not for {process.name!r}: fit or build one for it"
      )
    given = _parameters(process)
    for key, value in (about["parameters"] or {}).items():
      if key not in given or not np.allclose(np.asarray(value), np.asarray(given[key]), rtol=1e-6, atol=0):
        raise ValueError(
          f"{path} holds {name} for the process {known!r} with {key} = {value}, and here it is "
          f"{given.get(key)}: fit or build one for it"
        )
  return Table(
    **leaves,
    view=about["view"],
    about=About(name, about["order"], known, levels=about.get("levels", {})),
  )


def read_notes(path: Any) -> dict:
  """What was noted with a saved table; raises as `load`."""
  return _read(os.fspath(path))[0]["notes"]


def _parameters(process):
  """Numbers of a process that the coefficients of a table depend on.

  They are those of its schedule and the size of its prior.
  """
  paths = jax.tree_util.tree_flatten_with_path((process.schedule, process.prior_std))[0]
  names = [
    jax.tree_util.keystr(path).replace("[0]", "schedule", 1).replace("[1]", "prior_std", 1)
    for path, _ in paths
  ]
  return {name: np.asarray(leaf, np.float64).tolist() for name, (_, leaf) in zip(names, paths)}


def _read(path):
  """(about, leaves) of a file, checked."""
  if not os.path.isfile(path):
    raise ValueError(f"there is no saved solver at {path}: give the .npz that a fit wrote")
  foreign = f"{path} is not a solver that this library saved"
  try:
    with np.load(path, allow_pickle=False) as file:
      if "about" not in file.files:
        raise ValueError(f"{foreign}: it has no description, only {', '.join(file.files[:5])}")
      about = json.loads(file["about"].tobytes().decode())
      if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"{foreign}: its description is of something else")
      if about.get("version") != VERSION:
        raise ValueError(
          f"{path} has version {about.get('version')} of the format and this library reads {VERSION}: "
          "fit it again"
        )
      leaves = {name: file[name] for name in AXES}
  except (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    KeyError,
    UnicodeDecodeError,
    json.JSONDecodeError,
    AttributeError,
    TypeError,
  ) as error:
    raise ValueError(f"{path} is damaged or not a saved solver ({error}): fit it again") from error
  except ValueError as error:
    if str(error).startswith(path):
      raise
    raise ValueError(f"{path} is damaged or not a saved solver ({error}): fit it again") from error
  grids, rows = leaves["t"].shape[:-1], leaves["t"].shape[-1] - 1
  noises = leaves["C"].shape[-1]
  sizes = dict(nodes=rows + 1, rows=rows, slots=leaves["B"].shape[-1], noises=noises, begin=1 + noises)
  for name, axes in AXES.items():
    leaf, shape = leaves[name], (*grids, *(sizes[axis] for axis in axes))
    if (
      rows < 1
      or leaf.shape != shape
      or not np.issubdtype(leaf.dtype, np.floating)
      or not np.isfinite(leaf).all()
    ):
      raise ValueError(
        f"{foreign}: {name} is {leaf.dtype}{list(leaf.shape)} or not finite, not finite numbers {list(shape)}"
      )
  return about, leaves
