"""`--task=edit`: strokes and composites to images (SDEdit).

With a mask, a sweep over strengths, and repeats.
"""

import argparse
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion import pictures, solvers, tasks
from diffusion.commands.tasks import inputs, rows
from diffusion.commands.tasks.choices import check_grid, check_table, condition, given_label, guided
from diffusion.commands.tasks.flags import MOST_ROWS, MOST_SAMPLES, STRENGTH
from diffusion.commands.tasks.outcome import Outcome, counted, shown
from diffusion.config.errors import UserError
from diffusion.config.factories import closest
from diffusion.processes.base import GaussianProcess
from diffusion.run.opened import Opened

STEPS, DRAWS, SOLVER = 40, 4, "dpmpp_2m_sde"


def edit(args: argparse.Namespace, sampler: dict[str, Any], opened: Opened) -> Outcome:
  """Each image noised to each strength and denoised; see `flags` for the arguments.

  Raises:
    UserError: a strength that is no noise level of the process, a mask or images of another size; before
      anything is sampled.
  """
  dataset = opened.parts.dataset
  shape, scaling = tuple(dataset.shape), dataset.scaling
  denoiser = guided(opened, sampler)
  strengths = args.strength or [STRENGTH]
  starts = [starting(sampler, denoiser.process, strength) for strength in strengths]
  mask = inputs.mask(args.mask, shape, args.seed) if args.mask else None
  inside = None if mask is None else masked(opened, mask)
  label = given_label(args.label, dataset)
  given = inputs.read(args.input, dataset, args.first, args.num)
  guide = jnp.asarray(opened.encode(scaling.to_model(given.stored)))
  count, draws, repeats = len(guide), args.draws or DRAWS, args.repeats or 1

  def draw(position, image, number):
    # Every strength sees the same noise, so a sweep shows what the strength does.
    own, guides = rows.keys(args.seed, image, number, rows.NOISE), opened.place(guide[position])
    one = lambda solver: (
      tasks.edit(
        denoiser, solver, guides, own, mask=inside, repeats=repeats, cond=condition(label, position)
      ).x
    )
    return tuple(one(solver) for solver in starts)

  found, seconds = rows.run(draw, count, draws, args.batch, opened.place, args.quiet, given.index)
  x = np.stack(found, axis=1)  # [images, strengths, draws, ...]
  values = opened.decode(x.reshape(-1, *x.shape[3:])).reshape(*x.shape[:3], *shape)
  stored = scaling.to_data(values)
  if mask is not None:
    stored = np.where(mask > 0, stored, given.stored[:, None, None])  # a decoder gives no pixel back exactly
  moved = np.abs(stored.astype(np.float64) - given.stored[:, None, None])
  where = np.ones(shape, bool) if mask is None else mask > 0
  change = [float(np.sqrt(np.mean(np.square(moved[:, k][:, :, where])))) for k in range(len(strengths))]
  arrays = dict(
    input=given.stored,
    x=x,
    stored=stored,
    strength=np.array(strengths),
    index=given.index,
    label=given.label,
    mean=stored.astype(np.float64).mean(2),
    spread=stored.astype(np.float64).std(2),
  )
  if mask is not None:
    arrays["mask"] = mask
  nfe = repeats * starts[0].cost
  words = (
    f"edit of {given.source} at strength {', '.join(f'{s:g}' for s in strengths)}: {draws} results each in "
    f"{seconds:.1f} s (compilation included); "
    + counted(count * draws * len(strengths), nfe, repeats * starts[0].cost * denoiser.cost)
    + f"; moved from the guide by {', '.join(f'{c:.2g}' for c in change)} (root mean "
    f"square{' inside the mask' if mask is not None else ''}, in the data's values)"
  )
  if mask is not None:
    words += f", outside the mask by {moved[..., ~where].max():g} at the most"
  return Outcome(
    words,
    arrays,
    lambda path: _draw(path, dataset, arrays, repeats),
    shown(count, draws, most_results=MOST_SAMPLES if len(strengths) == 1 else 1),
  )


def masked(opened: Opened, mask: np.ndarray) -> np.ndarray:
  """A mask on pixels as one on what the model sees; UserError for latents that are no picture."""
  if opened.parts.codec is None:
    return mask
  try:
    return tasks.latent_mask(mask, opened.parts.shape)
  except ValueError as error:
    raise UserError(f"--mask: {error}; leave it out, or use a run whose codec keeps the picture") from error


def starting(sampler: dict[str, Any], process: GaussianProcess, strength: float) -> Any:
  """The solver that starts at a noise level sigma/alpha; UserError if there is none."""
  name, grid = sampler["solver"] or SOLVER, sampler["grid"] or "log_snr"
  if name not in solvers.SOLVERS:
    raise UserError(
      f"--task=edit starts a built-in solver at the strength, and {name} is "
      f"none{closest(name, solvers.SOLVERS)}: choose one such as {SOLVER} or ddim"
    )
  check_grid(grid)
  low, high = (float(process.marginal(float(t)).noise_to_signal) for t in (process.t_min, process.t_max))
  if not low < strength <= high:
    raise UserError(
      f"--strength={strength:g} is no noise level sigma/alpha of this model: choose one above {low:.3g} and "
      f"up to {high:.3g}"
    )
  try:
    t0 = min(float(process.t_of_log_snr(-2.0 * np.log(strength))), float(process.t_max))
    solver = tasks.start_at(
      process, t0, sampler["steps"] or STEPS, solver=name, grid=grid, **sampler["options"] or {}
    )
  except (ValueError, TypeError) as error:
    raise UserError(f"--task=edit: {error}") from error
  check_table(solver, name, "edit")
  return solver


def _draw(path, dataset, arrays, repeats):
  """Draws the guide, the mask and the results.

  There is one result of each strength, or several of one strength with their mean and spread.
  """
  scale = dataset.scaling.shown_range(arrays["input"])
  columns = [pictures.Column("guide", arrays["input"], scale)]
  if "mask" in arrays:
    columns.append(
      pictures.Column("to be made anew", pictures.unmeasured(arrays["input"], arrays["mask"], scale))
    )
  strengths, draws = arrays["stored"].shape[1:3]
  times = f", {repeats} times" if repeats > 1 else ""
  if strengths > 1:
    columns += [
      pictures.Column(f"{arrays['strength'][k]:g}", arrays["stored"][:, k, 0], scale)
      for k in range(strengths)
    ]
    note = (
      f"each guide noised to the noise level sigma/alpha above its column and denoised{times}: the more, the "
      "more realistic and the less faithful"
    )
  else:
    columns += [
      pictures.Column(f"result {k + 1}", arrays["stored"][:, 0, k], scale)
      for k in range(min(draws, MOST_SAMPLES))
    ]
    most = float(arrays["spread"].max())
    columns += [
      pictures.Column("mean", arrays["mean"][:, 0], scale),
      pictures.Column("spread", pictures.heat(arrays["spread"][:, 0])),
    ]
    note = (
      f"each guide noised to sigma/alpha = {arrays['strength'][0]:g} and denoised{times}; spread: standard "
      f"deviation of {draws} results, black 0 to white {most:.3g}"
    )
  pictures.side_by_side(
    path, columns, "Editing", note + ("; blue is made anew" if "mask" in arrays else ""), most_rows=MOST_ROWS
  )
