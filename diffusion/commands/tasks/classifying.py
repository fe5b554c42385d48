"""`--task=classify`: which class of a conditional model predicts the noise of an image best."""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import pictures, tasks
from diffusion.commands.tasks import inputs, rows
from diffusion.commands.tasks.flags import MOST_ROWS
from diffusion.commands.tasks.outcome import Outcome, counted, shown
from diffusion.config.errors import UserError
from diffusion.processes.base import GaussianProcess
from diffusion.run.opened import Opened

DRAWS, COLUMNS = 100, 2
LEVELS = 0.1, 10.0  # of sigma/alpha


def classify(args: argparse.Namespace, sampler: dict[str, Any], opened: Opened) -> Outcome:
  """Log-probabilities of the classes of each image; see `flags` for the arguments.

  Noise levels are spread evenly in log-SNR and weighted as in the variational bound, so that the numbers are
  the posterior of the classes, all equally probable, under the model's evidence bounds.

  Raises:
    UserError: a model without classes.
  """
  del sampler
  dataset, denoiser = opened.parts.dataset, opened.denoiser
  if dataset.num_classes < 2:
    raise UserError(
      "--task=classify needs a conditional model of two classes or more, and this one has none: train one on "
      "labelled data"
    )
  given = inputs.read(args.input, dataset, args.first, args.num)
  x = jnp.asarray(opened.encode(dataset.scaling.to_model(given.stored)))
  draws = args.draws or DRAWS
  times, weight = levels(denoiser.process, draws)

  def draw(position, image, number):
    own = rows.keys(args.seed, image, number, rows.NOISE)
    return tasks.classify(
      denoiser, opened.place(x[position]), dataset.num_classes, own, times, weight=weight
    ).log_prob

  (log_prob,), seconds = rows.run(draw, len(x), 1, args.batch, opened.place, args.quiet, given.index)
  log_prob = log_prob[:, 0]
  found, known = log_prob.argmax(axis=1), given.label >= 0
  arrays = dict(
    input=given.stored,
    log_prob=log_prob,
    found=found.astype(np.int32),
    label=given.label,
    index=given.index,
    draws=draws,
  )
  right = int((found == given.label)[known].sum())
  words = (
    f"classification of {given.source} in {seconds:.1f} s (compilation included); "
    f"{counted(len(x), dataset.num_classes * draws, dataset.num_classes * draws)} ({dataset.num_classes} "
    f"classes at {draws} noise levels)"
  )
  words += (
    f"; {right} of {known.sum()} right ({right / known.sum():.1%})"
    if known.any()
    else f"; found: {', '.join(_names(dataset)[c] for c in found)}"
  )
  return Outcome(
    words,
    arrays,
    lambda path: _draw(path, dataset, arrays, right, int(known.sum())),
    shown(len(x), most_images=COLUMNS * MOST_ROWS),
  )


def levels(
  process: GaussianProcess, count: int
) -> tuple[jax.Array, Callable[[GaussianProcess, jax.Array], jax.Array]]:
  """The noise levels that classes are told at, and their weight: (times [count], weight).

  The times are strata of log-SNR where sigma/alpha is from 0.1 to 10, as far as the process goes there.
  With more noise no class can be told and with less all of them agree, so those levels would only add noise
  to the differences.
  """
  ends = (float(process.marginal(float(t)).noise_to_signal) for t in (process.t_min, process.t_max))
  low, high = (f(*pair) for f, pair in zip((max, min), zip(LEVELS, ends)))
  share = 2.0 * np.log(high / low) / count
  return jnp.asarray(tasks.strata(process, count, low, high), jnp.float32), lambda process, t: jnp.full_like(
    t, share
  )


def _names(dataset):
  return [str(name) for name in dataset.class_names] or [str(number) for number in range(dataset.num_classes)]


def _draw(path, dataset, arrays, right, known):
  note = f"bars: p(class | image), from {int(arrays['draws'])} noise levels"
  note += f"; orange: the true class; {right} of {known} right" if known else ""
  pictures.class_bars(
    path,
    arrays["input"],
    np.exp(arrays["log_prob"]),
    _names(dataset),
    arrays["label"],
    dataset.scaling.shown_range(arrays["input"]),
    "A denoiser as a classifier",
    note,
    MOST_ROWS,
    COLUMNS,
  )
