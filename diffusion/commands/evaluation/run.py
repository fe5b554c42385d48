"""The evaluation of a run: what is measured, in which order, and what of it the data allow."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion.commands import texts
from diffusion.commands.evaluation import figures, held_out, protocol, samples as samples_of
from diffusion.commands.evaluation.record import Record
from diffusion.config import factories
from diffusion.config.errors import UserError
from diffusion.run import logging, sinks, state as states
from diffusion.run.opened import Opened
from diffusion.run.opening import make_sampler, open_run
from diffusion.run.parts import checks

OF_SAMPLES = ("samples", "sample_metrics", "samples.png", "trajectory.png")
OF_ALL = ("held_out_loss", "loss.png")
MOST_TEXTS = 64
"""Samples of text that samples.txt shows."""


def evaluate_run(
  workdir: str, *, checkpoint: int | None = None, ema: str | None = None, quiet: bool = False, **sampler: Any
) -> dict[str, Any]:
  """Evaluates the run in a workdir: see `evaluate`.

  Args:
    workdir: folder of the run.
    checkpoint, ema: see `open_run`.
    quiet, **sampler: see `evaluate`.
  """
  return evaluate(open_run(workdir, checkpoint, ema), workdir, quiet=quiet, **sampler)


def evaluate(run: Opened, workdir: str, *, quiet: bool = False, **sampler: Any) -> dict[str, Any]:
  """Samples from a model, measures them against held-out data and writes `metrics.json` and the pictures.

  All goes to the run's sinks too. Any data that the library trains on are evaluated. What cannot be measured
  on them is left out, and `left_out` says why by name; metrics.json is written anew whenever a part is ready.
  `subsets` says how many records of each set were taken, and by which seed they were drawn where that is not
  all.

  The section `own` of config.evaluation names a function (run, workdir, **arguments) -> dict of numbers,
  which are kept beside the others as `own`; it may draw pictures too. A run that learned something else than
  a denoiser has these, its held-out loss and its costs.

  Args:
    run: the opened model.
    workdir: folder that gets metrics.json, samples.npz, samples.png (samples.txt of text), loss.png and, for
      images, signals and volumes, trajectory.png.
    quiet: no progress bar.
    **sampler: changes to the config's sampler, see `make_sampler`.

  Returns:
    The metrics as a dict of JSON types.

  Raises:
    UserError: no run to open, or a config or a change of the sampler that does not fit it.
  """
  tell_sinks = sinks.of_evaluation(run.config, workdir)
  section = dict(run.config.get("evaluation", {}))
  checks.check_evaluation(section)
  sampled = run.parts.parameterization is not None or any(value is not None for value in sampler.values())
  denoiser, solver = make_sampler(run, **sampler) if sampled else (None, None)  # says why there is no sampler
  if not len(run.parts.dataset.train):
    raise UserError(
      f"--evaluate measures samples beside data, and {run.title} comes with none: give some with --data=PATH"
    )
  seed = section.get("seed", 0)
  own = ("own",) if section.get("own") else ()
  parts = (*OF_SAMPLES, *OF_ALL, "likelihood", *own) if sampled else (*OF_ALL, *own)
  record = Record(os.path.join(workdir, "metrics.json"), parts)
  record.found.update(
    **run.record, num_parameters=states.count_parameters(run.params), **_training_costs(workdir)
  )
  by_protocol = protocol.kept(record.path)
  record.found.update({"protocols": by_protocol} if by_protocol else {})
  record.found.update({"data_sha256": run.parts.dataset.digest} if run.parts.dataset.digest else {})
  train, held, counts = samples_of.real_data(run.parts.dataset, seed)
  record.found["subsets"] = counts
  drawn = _sample(record, run, workdir, denoiser, solver, section, quiet) if sampled else None
  if drawn is not None:
    stored, labels = drawn
    starts = samples_of.starts(run.parts, len(stored))
    record.measure(
      "sample_metrics",
      lambda: samples_of.measure(run.parts.dataset, stored, labels, train, held, seed, starts),
    )
  _held_out(record, run, held, section, seed, sampled)
  if run.why_no_loss:
    record.leave_out("loss.png", run.why_no_loss)
  else:
    record.draw(
      "loss.png", lambda: figures.draw_loss(workdir, run.record["step"], record.found.get("held_out_loss"))
    )
  if drawn is not None:
    _pictures(record, run, workdir, denoiser, solver, drawn, train, held)
  if own:
    record.measure(
      "own",
      lambda: {"own": factories.build(section["own"], run, workdir, where="config.evaluation.own")},
    )
  record.write()
  tell_sinks(run.record.get("step", 0), record.content())
  record.raise_first()
  return record.content()


def _sample(record, run, workdir, denoiser, solver, section, quiet):
  """(stored samples, labels) of the run, kept in samples.npz; None if they could not be drawn."""
  num, drawn = section.get("num_samples", 1000), []

  def sample():
    with _bar(num, quiet) as bar:
      samples, seconds = samples_of.draw(
        run, denoiser, solver, num, section.get("batch", 250), section.get("seed", 0), bar.update
      )
    stored = run.to_data(samples.x)
    arrays = {"stored": stored} | ({} if samples.labels is None else {"label": samples.labels})
    path = os.path.join(workdir, "samples.npz")
    with open(path + ".tmp", "wb") as file:
      np.savez(file, **arrays)
    os.replace(path + ".tmp", path)
    drawn.append((stored, samples.labels))
    return dict(nfe=samples.nfe, forward_passes=samples.forward_passes, sampling_seconds=seconds)

  record.measure("samples", sample)
  if drawn:
    return drawn[0]
  for part in OF_SAMPLES[1:]:
    record.leave_out(part, "there are no samples")
  return None


def _held_out(record, run, held, section, seed, sampled):
  """Held-out loss and likelihood."""
  count, most = len(held["x"]), section.get("held_out", held_out.MOST_HELD_OUT)
  why = "" if count else "there are no held-out records"
  why = why or ("" if most else "config.evaluation.held_out is 0")
  valued = held_out.has_likelihood(run)
  unit = held_out.name_of_likelihood(run) if valued else ""  # a run of clean data has no process
  if why:
    record.leave_out("held_out_loss", why)
    if valued:
      record.leave_out(unit, why, instead_of="likelihood")
    return
  record.found["subsets"]["held_out_loss"] = samples_of.subset_of(min(count, most), count, seed)
  if run.why_no_loss:
    record.leave_out("held_out_loss", run.why_no_loss)
  else:
    record.measure("held_out_loss", lambda: {"held_out_loss": held_out.held_out_loss(run, held, most, seed)})
  if valued:
    record.left_out.pop("likelihood", None)
    record.measure(unit, lambda: held_out.held_out_likelihood(run, held, most, seed))


def _pictures(record, run, workdir, denoiser, solver, drawn, train, held):
  """samples.png, and trajectory.png where the states of a sample are pictures and the solver has them."""
  stored, labels = drawn
  path = lambda name: os.path.join(workdir, name)
  dataset = run.parts.dataset
  if dataset.scaling.vocabulary is not None:
    for picture in ("samples.png", "trajectory.png"):
      record.left_out.pop(picture, None)
    texts.write(path("samples.txt"), texts.of(dataset, stored[:MOST_TEXTS]), 0)
    return
  record.draw(
    "samples.png",
    lambda: figures.draw_samples(path("samples.png"), run.parts, stored, labels, train, held),
  )
  if len(dataset.shape) == 1 or solver.cost is None:
    record.left_out.pop("trajectory.png", None)
    return
  data = held["x"] if len(held["x"]) else train["x"]
  record.draw(
    "trajectory.png",
    lambda: figures.draw_trajectory(path("trajectory.png"), run, denoiser, solver, data),
  )


def _training_costs(workdir: str) -> Mapping[str, float]:
  """Time and speed from the run's own log."""
  log = logging.read(os.path.join(workdir, "log.jsonl"))
  if not log:
    return {}
  return {
    "train_seconds": log[-1]["seconds"],
    "images_per_second": float(np.median([row["images_per_second"] for row in log])),
    "train_loss": log[-1]["loss"],
  }


def _bar(total, quiet):
  from tqdm import tqdm

  return tqdm(total=total, disable=quiet, unit="image", desc="sampling", dynamic_ncols=True)
