"""`sample.py --fit`: a sampler fitted to a trained run.

Guidance is included, and the sampler is saved beside the checkpoint.
"""

import argparse
import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion import sampling, solvers
from diffusion.commands.opened import open_model
from diffusion.commands.sample import choose_labels
from diffusion.config.errors import UserError
from diffusion.data import conditions_of_records
from diffusion.run.opening import check_no_class, make_sampler, sampler_section

NUM = 1024  # noises, of which a quarter judges
BATCH = 256


def run(args: argparse.Namespace, sampler: Mapping[str, Any]) -> str:
  """Fits as the command line asks; returns the sentences that say what was done.

  Args:
    args: the parsed command line of sample.py; num, seed and batch may be None.
    sampler: changes to the config's sampler, None for those not given. Without a solver and a grid the best
      of `solvers.fit_starts` is taken.
  """
  num, seed, batch = (
    default if given is None else given
    for given, default in ((args.num, NUM), (args.seed, 0), (args.batch, BATCH))
  )
  if num < 8 or batch < 1:
    raise UserError(
      f"--num={num} and --batch={batch}: a fit needs at least 8 noises, some hundred to be of use"
    )
  if not 0 <= seed < 2**31:
    raise UserError(f"--seed={seed} must be from 0 to {2**31 - 1}")
  opened = open_model(args)
  if opened.parts.process.kind != "gaussian":
    raise UserError(
      f"--fit is for Gaussian processes, and this run's, '{opened.parts.process.name}', is "
      f"{opened.parts.process.kind}: take more --steps"
    )
  if not opened.objective.denoises:
    raise UserError(
      f"--fit follows the probability flow of a denoiser, and {opened.title} is a student of few steps: "
      "sample it as it is, or fit the model that it learned from"
    )
  dataset, devices = opened.parts.dataset, opened.mesh.shape["data"]
  batch = min(batch, (num - num // 4) // devices * devices)
  if batch % devices or not batch:
    raise UserError(
      f"--batch={batch} does not divide over {devices} devices: use a multiple of {devices} and a larger "
      "--num"
    )
  section = sampler_section(opened, sampler)
  # A last denoising evaluation belongs to no step of the flow: the fit is without, and it is added again.
  denoiser, start = make_sampler(
    opened, **{**sampler, "solver": sampler["solver"] or "dpmpp_2m", "denoise": False}
  )
  process = denoiser.process
  name, tables = sampler["solver"], start
  if name is None and sampler["grid"]:
    name = "dpmpp_2m"
  elif name is None:
    name, tables = "best", solvers.fit_starts(process, start.num_steps)
  check_no_class(opened, args.label)
  labels, told = choose_labels(args.label, dataset), conditions_of_records(dataset)
  # Samples are drawn from other sequences: no sample that is looked at was fitted.
  x, _ = sampling.draw_noise(process, 2**31 - 1 - seed, jnp.arange(num), opened.parts.shape)
  cond = {} if told is None else told(np.arange(num))
  cond |= {} if labels is None else {"label": labels(np.arange(num)).astype(np.int32)}
  cond = {name: jnp.asarray(array) for name, array in cond.items()} or None
  with _bar(args.quiet) as bar:

    def progress(done, whole, error):
      bar.total = whole
      bar.set_postfix_str(f"held-out error {error:.4g}", refresh=False)
      bar.update(done - bar.n)

    try:
      found = solvers.fit(
        denoiser, tables, x, cond=cond, batch=batch, seed=seed, place=opened.place, progress=progress
      )
    except ValueError as error:
      raise UserError(f"--fit: {error}") from error
  table = found.table
  if float(process.marginal(0.0).sigma) > 0 and section.get("denoise", True):
    table = solvers.with_denoising(table, process)
  guidance = float(section.get("guidance") or 0.0)
  path = args.out or os.path.join(
    args.workdir, "solvers", f"{name}_{start.num_steps}" + (f"_guidance{guidance:g}" if guidance else "")
  )
  path = path.removesuffix(".npz") + ".npz"
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
  notes = dict(
    guidance=guidance,
    interval=list(section.get("interval") or []),
    **opened.record,
    start_error=found.start_error,
    error=found.error,
    start_median=found.start_median,
    median=found.median,
    reference_error=found.reference_error,
    noises=num,
    improved=found.improved,
  )
  solvers.save(path, table, process, notes)
  return (
    f"{found}; {num} noises, {opened.title}, guidance {guidance:g}; wrote {path}: use it with --solver={path}"
  )


def _bar(quiet):
  from tqdm import tqdm

  return tqdm(disable=quiet, unit="step", desc="fitting", dynamic_ncols=True)
