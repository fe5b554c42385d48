"""`sample.py --shards`: many samples as files.

One process's part of them, going on where it or another process stopped.
"""

import argparse
import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffusion import sampling
from diffusion.commands import texts
from diffusion.commands.opened import open_model
from diffusion.commands.sample import bar, check_batch, check_numbers, choose_labels
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.data import conditions_of_records, shards, stored_conditions, stored_starts
from diffusion.run import interruption, sharding
from diffusion.run.opened import Opened
from diffusion.run.opening import check_no_class, make_sampler, sampler_section
from diffusion.run.parts import sampler_config


def run(args: argparse.Namespace, sampler: Mapping[str, Any], process: int = 0, processes: int = 1) -> str:
  """Writes the shards of one process that are not there yet; returns the sentence that says what was done.

  Args:
    args: the parsed command line of sample.py.
    sampler: changes to the config's sampler, None for those not given.
    process, processes: which of how many this is. They say nothing to each other: each takes every
      `processes`-th shard, on its own devices.

  Raises:
    UserError: numbers out of range, a folder of another command.
    interruption.Stopped: SIGTERM or Ctrl-C; whole shards are kept.
  """
  check_numbers(args)
  if args.shard_size < 1:
    raise UserError(f"--shard-size={args.shard_size} must be at least 1")
  opened = open_model(args, mesh=sharding.make_mesh(devices=jax.local_devices()))
  check_batch(args.batch, opened)
  denoiser, solver = make_sampler(opened, **sampler)
  check_no_class(opened, args.label)
  labels, dataset = choose_labels(args.label, opened.parts.dataset), opened.parts.dataset
  cond, starts = conditions_of_records(dataset), sampler_config.starts(opened.parts)
  given = texts.given(args, opened)
  digest = shards.claim(args.shards, command_of(args, sampler, opened), args.num)
  mine = shards.plan(args.first, args.num, args.shard_size, process, processes)
  path = lambda shard: os.path.join(args.shards, shards.name(*shard))
  missing, notes = [], []
  for shard in mine:
    wrong = shards.problem(path(shard), *shard, digest)
    if wrong:
      missing.append(shard)
      notes += [f"{path(shard)} is made again: {wrong}"] if wrong != "missing" else []
  kept = sum(count for _, count in mine) - sum(count for _, count in missing)
  begun, made, passes = time.perf_counter(), 0, 0
  with (
    interruption.Watch(alone=True) as watch,
    bar(sum(count for _, count in mine), args.quiet, kept) as shown,
  ):
    for note in notes:
      shown.write(note)

    def progress(number):
      shown.update(number)
      if watch.signal is not None:
        raise interruption.Stopped(
          f"{watch.signal.name}: {made} shards were written to {args.shards} and {len(missing) - made} are "
          "left; run the same command to go on",
          128 + watch.signal,
          alone=True,
        )

    for first, count in missing:
      samples = sampling.generate(
        denoiser,
        solver,
        opened.parts.shape,
        count,
        seed=args.seed,
        first=first,
        labels=labels,
        cond=cond,
        starts=given or starts,
        batch=args.batch,
        place=opened.place,
        progress=progress,
      )
      index = first + np.arange(count)
      arrays = {"stored": opened.to_data(samples.x), "index": index}
      arrays |= stored_conditions(dataset, index)
      if samples.labels is not None:
        arrays["label"] = samples.labels
      arrays |= opened.noted(index)
      if starts is not None:
        arrays["start"] = stored_starts(dataset, index)
      if dataset.scaling.vocabulary is not None:
        arrays["text"] = np.array(texts.of(dataset, arrays["stored"]))
      shards.write(path((first, count)), digest, **arrays)
      made, passes = made + 1, passes + count * samples.forward_passes
  seconds = time.perf_counter() - begun
  whole = shards.plan(args.first, args.num, args.shard_size)
  there = sum(os.path.exists(path(shard)) for shard in whole)
  part = f"process {process} of {processes}: " if processes > 1 else ""
  return (
    f"{part}{made} shards written in {seconds:.1f} s (compilation included), {len(mine) - len(missing)} were "
    f"there; {round(passes):,} network evaluations; {there} of the {len(whole)} shards of {args.num:,} "
    f"samples are in {args.shards}"
  )


def command_of(args: argparse.Namespace, sampler: Mapping[str, Any], opened: Opened) -> dict[str, Any]:
  """All that decides the samples: which weights, which sampler, which sequence, in files of which size."""
  section = {key: plain(value) for key, value in sampler_section(opened, sampler).items()}
  solver = str(section.get("solver", ""))
  if solver.endswith(".npz"):  # what is in the file counts, not its name
    with open(solver, "rb") as file:
      section["solver"] = "sha256 " + hashlib.file_digest(file, "sha256").hexdigest()
  return {
    **opened.identity,
    "sampler": section,
    "label": args.label,
    "seed": args.seed,
    "first": args.first,
    "size": args.shard_size,
    **({"given": texts.asked_for(args), "hole": args.hole} if texts.asked_for(args) else {}),
  }
