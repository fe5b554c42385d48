"""`--task=translate`: images translated by shared latents (DDIB).

An image is carried to noise by one model and back to data by another, or as another class.
"""

import argparse
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion import pictures, tasks
from diffusion.commands.tasks import inputs, rows
from diffusion.commands.tasks.choices import condition, given_label, guided
from diffusion.commands.tasks.flags import MOST_ROWS
from diffusion.commands.tasks.outcome import Outcome, counted, shown
from diffusion.config.errors import UserError
from diffusion.run.opened import Opened
from diffusion.run.opening import class_of, open_run

STEPS = 32


def translate(args: argparse.Namespace, sampler: dict[str, Any], opened: Opened) -> Outcome:
  """Each image translated there and back; see `flags` for the arguments.

  Raises:
    UserError: models that do not share a prior or a shape, a class that is missing; before anything is
      sampled.
  """
  dataset = opened.parts.dataset
  if args.other_workdir is None and args.to_label is None:
    raise UserError(
      "--task=translate needs to know where to: give --to-label=CLASS, or the run of another model with "
      "--other-workdir"
    )
  other = opened if args.other_workdir is None else open_run(args.other_workdir)
  there = other.parts.dataset
  for what, first, second in (
    ("images", dataset.shape, there.shape),
    ("latents", opened.parts.shape, other.parts.shape),
  ):
    if tuple(first) != tuple(second):
      raise UserError(
        f"{args.workdir} is a model of {what} of {_written(first)} and {args.other_workdir} of "
        f"{_written(second)}: translation needs one shape"
      )
  source, target = (guided(run, sampler) for run in (opened, other))
  try:
    tasks.check_shared(source, target)
  except ValueError as error:
    raise UserError(f"--task=translate: {error}") from error
  to_label = (
    given_label(None, there) if args.to_label is None else class_of(there, args.to_label, "--to-label")
  )
  given = inputs.read(args.input, dataset, args.first, args.num)
  from_label = given.label if args.label is None and dataset.num_classes else given_label(args.label, dataset)
  if other is opened and np.any(np.asarray(from_label) < 0) and str(args.label) != "-1":
    raise UserError(
      "--task=translate from class to class needs to know the class of the images: give --label=CLASS, or an "
      "NPZ with the array label"
    )
  x = jnp.asarray(opened.encode(dataset.scaling.to_model(given.stored)))
  steps = args.steps or STEPS

  def draw(position, image, number):
    del image, number  # nothing here is random
    first, second = condition(from_label, position), condition(to_label, position)
    moved = tasks.translate(
      source, target, opened.place(x[position]), source_cond=first, target_cond=second, num_steps=steps
    )
    again = tasks.translate(target, source, moved.x, source_cond=second, target_cond=first, num_steps=steps)
    return moved.x, moved.latent, again.x

  (moved, latent, back), seconds = rows.run(
    draw, len(x), 1, args.batch, opened.place, args.quiet, given.index
  )
  stored = other.to_data(moved[:, 0])
  values = lambda z: rows.in_data_values(dataset.scaling, opened.decode(np.asarray(z)))
  back = values(back[:, 0])
  gap = float(np.sqrt(np.mean(np.square(back - values(x)))))
  arrays = dict(
    input=given.stored,
    x=moved[:, 0],
    latent=latent[:, 0],
    stored=stored,
    back=back,
    index=given.index,
    label=given.label,
  )
  if to_label is not None:
    arrays["to_label"] = np.full(len(x), to_label, np.int32)
  nfe, cost = 16 * steps, source.cost
  both = (
    ""
    if other is opened
    else f" of {args.other_workdir} at {other.title}, from {args.workdir} at {opened.title}"
  )
  words = (
    f"translation of {given.source} to {_name(there, to_label)}{both}, and back in {seconds:.1f} s "
    f"(compilation included); {counted(len(x), nfe, nfe * cost)} ({steps} Runge-Kutta steps of four each, "
    f"four ways); they come back within {gap:.2g} (root mean square, in the data's values)"
  )
  return Outcome(words, arrays, lambda path: _draw(path, dataset, there, arrays, to_label), shown(len(x)))


def _name(dataset, label):
  if label is None or label < 0:
    return "the data"
  return f"class {dataset.class_names[label] if dataset.class_names else label}"


def _written(shape):
  return "x".join(map(str, shape))


def _draw(path, dataset, there, arrays, to_label):
  """The image, its latent, the translation, and the way back."""
  scale, other = dataset.scaling.shown_range(arrays["input"]), there.scaling.shown_range(arrays["stored"])
  latent = arrays["latent"] / arrays["latent"].std()
  drawn = latent.ndim == 4 and latent.shape[-1] in (1, 3)  # and not those of a codec, which are no picture
  columns = [
    pictures.Column("input", arrays["input"], scale),
    *([pictures.Column("latent", latent, (-2.5, 2.5))] if drawn else []),
    pictures.Column(_name(there, to_label), arrays["stored"], other),
    pictures.Column("and back", arrays["back"], scale),
  ]
  names = [_name(dataset, int(label)) if label >= 0 else "" for label in arrays["label"]]
  pictures.side_by_side(
    path,
    columns,
    "Translation through the latent",
    "the latent is what both ends share; back: its own inverse up to the solver's error",
    names,
    MOST_ROWS,
  )
