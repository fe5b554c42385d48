"""`sample.py --export=FILE`: the whole sampler as a program that JAX runs without this library.

FILE.jax     the program, for cpu, cuda and tpu
FILE.npz     the inputs that give the samples of `sample.py`: start from them and change what you like
FILE.json    what the inputs and outputs mean
"""

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import export
from diffusion.commands.opened import open_model
from diffusion.commands.sample import check_numbers, choose_labels
from diffusion.config.errors import UserError
from diffusion.data import conditions_of_records
from diffusion.run.opening import check_no_class, make_sampler, sampler_section
from diffusion.run.parts import sampler_config

ENDINGS = (".jax", ".npz", ".json")
"""Of the files that are written."""

OPEN = "any"
"""What the JSON says of the batch where the program takes any number of samples."""


def run(args: Any, sampler: Mapping[str, Any]) -> str:
  """Writes what the command line asks; returns the sentence that says what was written.

  Args:
    args: the parsed command line of sample.py.
    sampler: changes to the config's sampler, None for those not given.

  Raises:
    UserError: as for sampling; data whose values no program without double precision can give; a place that
      cannot be written, a sampler that JAX does not put into a file, or a package that is missing. Nothing is
      written then.
  """
  check_numbers(args)
  opened = open_model(args)
  denoiser, solver = make_sampler(opened, **sampler)
  check_no_class(opened, args.label)
  dataset, index = opened.parts.dataset, args.first + np.arange(args.num)
  told, labels = conditions_of_records(dataset), choose_labels(args.label, dataset)
  cond = dict(told(index)) if told is not None else {}
  cond |= {} if labels is None else {"label": np.asarray(labels(index), np.int32)}
  starts = sampler_config.starts(opened.parts)
  section = sampler_section(opened, sampler)
  weight = sampler_config.weight(opened.objective, section)
  learned = opened.objective.conditions.get("guidance")
  notes = {
    **opened.record,
    **opened.identity,
    "seed": args.seed,
    "classes": [str(name) for name in dataset.class_names],
    "guidance_interval": list(section.get("interval") or ()),
    "guidance_learned": list(learned or ()),
  }
  return write(
    args.export,
    denoiser,
    solver,
    opened.parts.shape,
    export.inputs_of(
      solver,
      index=index,
      seed=args.seed,
      weight=weight,
      cond=cond,
      start=None if starts is None else starts(index),
    ),
    guided=None if weight is None else lambda denoiser, weight: denoiser.replace(weight=weight),
    decode=decoding(opened),
    batch=args.batch,
    notes=notes,
  )


def write(
  path: str,
  denoiser: Any,
  solver: Any,
  shape: Sequence[int],
  inputs: Mapping[str, np.ndarray],
  *,
  guided: Callable[[Any, jax.Array], Any] | None,
  decode: Callable[[jax.Array], Mapping[str, jax.Array]] | None,
  batch: int,
  notes: Mapping[str, Any],
) -> str:
  """Writes the three files of a sampler, all or none; the sentence that says so.

  Args:
    path: what --export says, with or without an ending.
    denoiser, solver, shape, inputs, guided, decode: as `diffusion.export.exported` takes them.
    batch: rows of the program where it cannot leave them open.
    notes: what else the JSON says.

  Raises:
    UserError: as `run`.
  """
  if importlib.util.find_spec("flatbuffers") is None:
    raise UserError("--export needs the package in which JAX stores programs: pip install flatbuffers")
  out = _destination(path)
  lowered = lambda rows: export.exported(
    denoiser, solver, shape, inputs, guided=guided, decode=decode, batch=rows
  )
  try:
    try:
      program, rows = lowered(None), OPEN
    except export.ROWS_MATTER:
      program, rows = lowered(batch), batch
  except ValueError as error:
    raise UserError(f"--export: {error}") from error
  blob = program.serialize()
  size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(jax.device_get(denoiser)))
  if rows != OPEN:
    at = np.arange(rows) % len(inputs["index"])
    of_rows = lambda name: name not in ("key", "guidance") and not name.startswith(export.TABLE)
    inputs = {name: array[at] if of_rows(name) else array for name, array in inputs.items()}
  arrays: dict[str, Any] = dict(inputs)
  words = json.dumps(_words(program, solver, rows, denoiser, notes), indent=2) + "\n"
  with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(out)), prefix=".export-") as aside:
    whole = [os.path.join(aside, "sampler" + ending) for ending in ENDINGS]
    with open(whole[0], "wb") as file:
      file.write(blob)
    np.savez(whole[1], **arrays)
    with open(whole[2], "w") as file:
      file.write(words)
    for one, ending in zip(whole, ENDINGS, strict=True):
      os.replace(one, out + ending)
  count = f"{rows} samples" if rows != OPEN else "any number of samples"
  return (
    f"wrote {out}.jax ({len(blob) / 1e6:.1f} MB, of which {size / 1e6:.1f} MB are weights) for "
    f"{', '.join(program.platforms)} and {count} a call, the inputs of {len(inputs['index'])} samples as "
    f"{out}.npz, and what they mean as {out}.json"
  )


def _destination(path):
  """The path without an ending; UserError where its files cannot be written."""
  out = path
  for ending in ENDINGS:
    out = out.removesuffix(ending)
  if not os.path.basename(out).strip("."):
    raise UserError(f"--export={path} is a folder and no file in it: add a name, such as sampler.jax")
  folder = os.path.dirname(os.path.abspath(out))
  try:
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(
      f"--export={path} cannot be written ({error.strerror}: {folder}): name a file in a folder of your own"
    ) from error
  for ending in ENDINGS:
    if os.path.isdir(out + ending):
      raise UserError(f"--export={path}: {out}{ending} is a folder; choose another name")
  return out


def decoding(opened: Any) -> Callable[[jax.Array], dict[str, jax.Array]]:
  """A function within the program from samples x [B, ...] of an opened run to `stored`, values of its data.

  Raises UserError for data in double precision, which the program has not.
  """
  parts, scaling = opened.parts, opened.parts.dataset.scaling
  if scaling.to_data(np.zeros(1, scaling.dtype)).dtype == np.float64:
    raise UserError(
      "--export: these data are stored in double precision, because their mean is so large beside their "
      "deviation that float32 would not hold both, and the program computes in float32: take the mean off "
      "the data, and train again"
    )
  codec, params = parts.codec, jax.device_get(opened.codec_params)

  def decode(x):
    return {"stored": scaling.to_data(x if codec is None else codec.decode(params, x), jnp)}

  return decode


def _words(program, solver, rows, denoiser, notes):
  """What the JSON says."""
  meanings = {
    "key": "the sequence of samples: jax.random.PRNGKey(seed), uint32[2]",
    "index": "which samples of the sequence",
    "label": "class of each sample, -1 for none",
    "guidance": "weight w of guidance, (1 + w) conditional - w unconditional",
    "start": "what each sample starts from, in the units of the model",
  }

  def of_input(name):
    if name.startswith(export.TABLE):
      return f"the solver's {name.removeprefix(export.TABLE)}"
    return meanings.get(name, "what the model is told of each sample, in the units of the model")

  def described(aval, words):
    shape = [size if isinstance(size, int) else str(size) for size in aval.shape]
    return {"shape": shape, "dtype": str(aval.dtype), "is": words}

  (given,), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
  found = jax.tree.unflatten(program.out_tree, program.out_avals)
  outputs = {"x": "samples in the units of the model", "stored": "samples in the values of the data"}

  return {
    "format": "jax.export.Exported, serialized; see jax.export.deserialize",
    "jax": jax.__version__,
    "calling_convention_version": program.calling_convention_version,
    "platforms": list(program.platforms),
    "batch": rows,
    "inputs": {name: described(aval, of_input(name)) for name, aval in sorted(given.items())},
    "outputs": {name: described(found[name], words) for name, words in outputs.items() if name in found},
    "solver": solver.name,
    "evaluations": solver.cost,
    "network_evaluations": None if solver.cost is None else solver.cost * denoiser.cost,
    **notes,
  }
