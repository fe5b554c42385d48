"""What `sample.py` does: open a run, sample, write PNG and NPZ, say what it cost."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diffusion import pictures, sampling, solvers
from diffusion.commands import texts
from diffusion.commands.opened import open_model
from diffusion.config.errors import UserError
from diffusion.data import (
  classes_in_turn,
  conditions_of_records,
  load,
  records_of,
  stored_conditions,
  stored_starts,
)
from diffusion.run.opening import check_no_class, class_of, make_sampler, sampler_section
from diffusion.run.parts import sampler_config

# Records that are drawn beside samples, at the most.
MOST_BESIDE = 2000


def run(args: Any, sampler: Mapping[str, Any]) -> str:
  """Samples as the command line asks; returns the sentence that says what was done.

  The NPZ holds x (model values, or latents), stored (the data's own), index, label where there are classes,
  start where samples start from records (as stored), and whatever else the model was told, by name. A picture
  that cannot be drawn is said in the sentence. Samples of text go to a .txt in place of a picture, the first
  of them before the sentence, and the NPZ holds them as text too, and as given what they were to keep.

  Args:
    args: the parsed command line of sample.py.
    sampler: changes to the config's sampler, None for those not given.
  """
  check_numbers(args)
  opened = open_model(args)
  dataset = opened.parts.dataset
  check_batch(args.batch, opened)
  denoiser, solver = make_sampler(opened, **sampler)
  check_no_class(opened, args.label)
  labels, cond = choose_labels(args.label, dataset), conditions_of_records(dataset)
  starts, given = sampler_config.starts(opened.parts), texts.given(args, opened)
  out = destination(args.out or os.path.join(args.workdir, _name(args, opened, sampler, solver)))
  begun = time.perf_counter()
  with bar(args.num, args.quiet) as shown:
    samples = sampling.generate(
      denoiser,
      solver,
      opened.parts.shape,
      args.num,
      seed=args.seed,
      first=args.first,
      labels=labels,
      cond=cond,
      starts=given or starts,
      batch=args.batch,
      place=opened.place,
      progress=shown.update,
    )
  seconds = time.perf_counter() - begun
  stored, index = opened.to_data(samples.x), args.first + np.arange(args.num)
  arrays: dict[str, Any] = {"x": samples.x, "stored": stored, "index": index} | stored_conditions(
    dataset, index
  )
  if samples.labels is not None:
    arrays["label"] = samples.labels
  arrays |= opened.noted(index)
  if starts is not None:
    arrays["start"] = stored_starts(dataset, index)
  if given is not None:
    arrays["given"] = given(index)
  said, drawn = "", out + ".txt"
  if dataset.scaling.vocabulary is not None:
    written = texts.of(dataset, stored)
    arrays["text"] = np.array(written)
    texts.write(drawn, written, args.first)
    said = texts.listed(written[: texts.SHOWN], args.first)
  else:
    drawn = _draw(out + ".png", stored, dataset, arrays.get("start"))
  np.savez(out + ".npz", **arrays)
  some = samples.evaluations
  calls = (
    f"{samples.nfe}"
    if solver.cost is not None or some is None
    else f"{samples.nfe:.4g} ({some.min()} to {some.max()})"
  )
  return (
    f"{said}{args.num} samples from {opened.title} in {seconds:.1f} s (compilation included): {calls} "
    f"denoiser calls a sample, {samples.forward_passes:.4g} network evaluations each with guidance counted, "
    f"{round(args.num * samples.forward_passes):,} in all;"
    f" wrote {drawn} and {out}.npz"
    + _fitted_elsewhere(opened, sampler)
    + opened.said
    + _not_the_authors(opened, sampler)
  )


def _draw(path, stored, dataset, starts):
  """Draws the samples; the name of the picture, or why there is none."""
  records = records_of(dataset)
  data = load(records, MOST_BESIDE, seed=0)["x"] if len(records) else stored
  try:
    pictures.plain_sheet(path, stored, data, value_range=dataset.scaling.shown_range(data), starts=starts)
  except ValueError as error:
    return f"no picture ({error})"
  return path


def check_numbers(args: Any) -> None:
  """UserError for a number on the command line that is out of range."""
  for name in ("num", "batch"):
    if getattr(args, name) < 1:
      raise UserError(f"--{name}={getattr(args, name)} must be at least 1")
  if args.first < 0 or args.first + args.num > 2**31:
    raise UserError(f"--first={args.first} and --num={args.num}: indices run from 0 to {2**31 - 1}")
  if not 0 <= args.seed < 2**31:
    raise UserError(f"--seed={args.seed} must be from 0 to {2**31 - 1}")


def check_batch(batch: int, opened: Any) -> None:
  """UserError unless the devices share a batch evenly."""
  devices = opened.mesh.shape["data"]
  if batch % devices:
    raise UserError(f"--batch={batch} does not divide over {devices} devices: use a multiple of {devices}")


def destination(path: str, given: Sequence[str] = ()) -> str:
  """The path without an ending, of which PATH.png, PATH.txt and PATH.npz can be written.

  That they can is tried before anything is sampled.

  Args:
    path: what --out says, with or without one of the endings.
    given: files that are read and must stay as they are.

  Raises:
    UserError: a folder in place of a file, a place that cannot be written, or one of the files given.
  """
  out = path.removesuffix(".png").removesuffix(".txt").removesuffix(".npz")
  if not os.path.basename(out).strip("."):
    raise UserError(
      f"--out={path} is a folder and no file in it: add a name, such as "
      f"--out={os.path.join(os.path.dirname(out), 'result')}"
    )
  try:
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    for file in (out + ".png", out + ".txt", out + ".npz"):
      there = os.path.exists(file)
      if there and any(os.path.exists(other) and os.path.samefile(file, other) for other in given):
        raise UserError(f"--out={path} would write over {file}, which is read: choose another name")
      with open(file, "ab"):
        pass
      if not there:
        os.remove(file)
  except OSError as error:
    raise UserError(
      f"--out={path} cannot be written ({error.strerror}: {error.filename}): name a file in a folder of your "
      "own"
    ) from error
  return out


def choose_labels(label: Any, dataset: Any) -> Callable[[np.ndarray], np.ndarray] | None:
  """A function from sample indices to classes: one for all, or in turn those that training records have.

  None for a model without classes, and where each sample is told what a record says.
  """
  if label is not None:
    number = class_of(dataset, label)
    return lambda index: np.full_like(index, number)
  return None if dataset.conditions else classes_in_turn(dataset)


def _not_the_authors(opened, sampler):
  """What to know of samples of a published model by a solver that nobody named."""
  if not opened.no_sampler or sampler["solver"] is not None:
    return ""
  return f"; note that the sampler of its authors is not known here ({opened.no_sampler})"


def _fitted_elsewhere(opened, sampler):
  """What to know of a saved solver that was fitted at another guidance: it is another model's."""
  section = sampler_section(opened, sampler)
  solver, guidance = str(section.get("solver", "")), float(section.get("guidance") or 0.0)
  fitted = solvers.read_notes(solver).get("guidance", guidance) if solver.endswith(".npz") else guidance
  return (
    ""
    if fitted == guidance
    else f"; note that {solver} was fitted at guidance {fitted:g} and sampled at {guidance:g}"
  )


def _name(args, opened, sampler, built):
  """A file name that tells calls apart.

  It has the solver, the steps, guidance, class, average, seed, first index and checkpoint.
  """
  section = sampler_section(opened, sampler)
  solver = section["solver"]
  saved = solver.endswith(".npz")
  if sampler["solver"] is None and opened.own_sampler(None) is not None:
    solver, long = built.name, str(built.cost)
  elif solver in solvers.CHOOSE_STEPS:
    long = f"{args.tolerance:g}" if args.tolerance is not None else ""
  else:
    long = str(section.get("steps", 20))
  pieces = [f"samples_{os.path.basename(solver)[:-4] if saved else solver + long}"]
  pieces += [f"{name}{value}" for name, value in args.option or ()]
  pieces += [f"guidance{section['guidance']:g}"] if section.get("guidance") else []
  pieces += [f"label{args.label}"] if args.label is not None else []
  pieces += [f"ema{opened.average}"] if args.ema is not None else []
  pieces += texts.mark(args)
  return "_".join([*pieces, f"seed{args.seed}", f"from{args.first}", *([opened.mark] if opened.mark else [])])


def bar(total: int, quiet: bool, done: int = 0) -> Any:
  """A progress bar over images, of which some are done already."""
  from tqdm import tqdm

  return tqdm(total=total, initial=done, disable=quiet, unit="image", desc="sampling", dynamic_ncols=True)
