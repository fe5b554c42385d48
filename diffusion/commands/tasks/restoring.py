"""`--task=inpaint|super_resolve|colorize`: posterior samples of what was measured.

With their mean and their spread.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import pictures, solvers, tasks
from diffusion.commands.tasks import inputs, rows
from diffusion.commands.tasks.choices import check_grid, check_table, condition, given_label, guided
from diffusion.commands.tasks.flags import METHODS, MOST_ROWS, MOST_SAMPLES, OWN_SOLVERS
from diffusion.commands.tasks.outcome import Outcome, counted, shown
from diffusion.config.errors import UserError
from diffusion.data import load
from diffusion.data.dataset import Dataset
from diffusion.likelihood.steps import LOWEST_LOG_SNR
from diffusion.processes.base import GaussianProcess
from diffusion.run.opened import Opened
from diffusion.run.opening import make_sampler

STEPS, DRAWS, SOLVER = 40, 16, "dpmpp_2m_sde"
OF_LATENTS = ("dps", "daps", "replacement")
"""Methods for a model of latents; the first is the default."""
ENCODED = 256
"""Records that are encoded to know the deviation of latents."""
LEAST_NOISE = 0.01
"""Of dps, and of daps through a decoder, in standard deviations of the data: their likelihood has to have a
width, and this one says no more than that the residual is none."""


def restore(args: argparse.Namespace, sampler: dict[str, Any], opened: Opened) -> Outcome:
  """Samples of p(image | measurement) for each image; see `flags` for the arguments.

  Raises:
    UserError: an operator, a method or images that do not fit the model; before anything is sampled.
  """
  dataset = opened.parts.dataset
  shape, scaling = tuple(dataset.shape), dataset.scaling
  hidden = inputs.mask(args.mask or "half", shape, args.seed) if args.task == "inpaint" else None
  noise = args.noise or 0.0
  operator = measured(args, shape, hidden, noise * rows.unit(scaling))
  name, seen = chosen(args, opened), operator
  if opened.parts.codec is not None:
    seen = through(args, name, opened, operator, hidden)
  denoiser, around = method(args, name, sampler, opened, seen)
  label = given_label(args.label, dataset)
  smaller = operator.measured if operator.measured != shape else None
  given = inputs.read(args.input, dataset, args.first, args.num, smaller)
  whole = given.stored.shape[1:] == shape
  x = jnp.asarray(scaling.to_model(given.stored))
  count, draws, size = len(x), args.draws or DRAWS, opened.parts.shape
  y = (
    operator.observe(
      x,
      rows.keys(
        args.seed, jnp.asarray(given.index, jnp.int32), jnp.zeros(count, jnp.int32), rows.MEASUREMENT
      ),
    )
    if whole
    else x
  )
  told = jnp.asarray(seen(jnp.asarray(opened.encode(np.asarray(x))))) if _on_latents(name, opened) else y

  def draw(position, image, number):
    y_rows = opened.place(told[position])
    noise = rows.prior(denoiser.process, rows.keys(args.seed, image, number, rows.NOISE), size)
    transform, solve, post_step = around(y_rows)
    own = rows.keys(args.seed, image, number, rows.SOLVER)
    return solvers.sample(
      transform(denoiser), solve, noise, keys=own, cond=condition(label, position), post_step=post_step
    )

  (x,), seconds = rows.run(draw, count, draws, args.batch, opened.place, args.quiet, given.index)
  transform, solve, _ = around(told[:1])
  passes = solve.cost * transform(denoiser).cost
  values = opened.decode(x.reshape(count * draws, *size))
  gap = (
    np.asarray(operator(jnp.asarray(values))).reshape(count, draws, *operator.measured)
    - np.asarray(y)[:, None]
  )
  values = values.reshape(count, draws, *shape)
  misfit = _rms(gap if hidden is None else gap[..., hidden == 0]) / rows.unit(scaling)
  exact = hidden is not None and not noise
  # What is known without noise stands: no method that guides by a network's Jacobian meets it to the last
  # digit.
  if exact:
    values = np.where(hidden == 0, np.asarray(y)[:, None], values)
  stored = scaling.to_data(values)
  arrays = dict(
    measurement=rows.in_data_values(scaling, y),
    x=values if opened.parts.codec is None else x,
    stored=stored,
    index=given.index,
    label=given.label,
    mean=stored.astype(np.float64).mean(1),
    spread=stored.astype(np.float64).std(1),
  )
  if whole:
    arrays["input"] = given.stored
  if hidden is not None:
    arrays["mask"] = hidden
  words = (
    f"{args.task} by {name} of {given.source}: {draws} samples each in {seconds:.1f} s (compilation "
    "included); "
    + counted(count * draws, solve.cost, passes)
    + (f", each with a pass back through {_back(opened)}" if name in ("pigdm", "dps") else "")
    + f"; samples meet the measurement within {misfit:.2g} (root mean square, in the data's values; its "
    f"noise is {noise:g})" + (", and then what is known was put back exactly" if exact else "")
  )
  if whole and draws > 1:
    words += (
      f"; energy score {energy_score(stored, given.stored):.2f} (distance from the input less half of that "
      "between samples; less is better)"
    )
  return Outcome(
    words, arrays, lambda path: _draw(path, args, dataset, arrays, name), shown(count, draws, "samples")
  )


def measured(
  args: argparse.Namespace, shape: tuple[int, ...], hidden: np.ndarray | None, noise: float
) -> tasks.Measurement:
  """The measurement operator of a task, with noise in the model's units.

  Raises UserError where it does not fit images of this shape.
  """
  if args.task == "colorize" and shape[2] != 3:
    raise UserError(
      f"--task=colorize needs a model of colour images (3 channels) and this one's have {shape[2]}: take a "
      "run on colour images, or another task"
    )
  try:
    if hidden is not None:
      return tasks.inpainting(1 - hidden, noise)
    return (
      tasks.colorization(shape, noise)
      if args.task == "colorize"
      else tasks.super_resolution(shape, args.factor or 2, noise)
    )
  except ValueError as error:
    raise UserError(str(error)) from error


def chosen(args: argparse.Namespace, opened: Opened) -> str:
  """The method, by name. Raises UserError for one that does not go through the decoder of a codec."""
  if opened.parts.codec is None:
    return args.method or METHODS[0]
  name = args.method or OF_LATENTS[0]
  if name not in OF_LATENTS or (name == "replacement" and args.task != "inpaint"):
    raise UserError(
      f"--method={name} needs a linear measurement of what the model sees, and this run's model sees latents "
      "of the images: take --method=dps or daps"
      + (", or replacement, of latents" if args.task == "inpaint" else "")
    )
  return name


def through(
  args: argparse.Namespace, name: str, opened: Opened, operator: tasks.Measurement, hidden: Any
) -> tasks.Measurement:
  """What a measurement of images says of the latents of a run with a codec.

  Through its decoder; with 'replacement' the latents of the known pixels themselves. Raises UserError for
  latents that are no picture, of which no mask says which ones are known.
  """
  try:
    if _on_latents(name, opened):
      return tasks.inpainting(1 - tasks.latent_mask(hidden, opened.parts.shape))
    return tasks.decoded(operator, opened.parts.codec, opened.codec_params, opened.parts.shape)
  except ValueError as error:
    raise UserError(f"--task={args.task} --method={name}: {error}; take --method=dps or daps") from error


def _on_latents(name, opened):
  return name == "replacement" and opened.parts.codec is not None


def _back(opened):
  return "the network" if opened.parts.codec is None else "the decoder and the network"


def method(
  args: argparse.Namespace, name: str, sampler: dict[str, Any], opened: Opened, operator: tasks.Measurement
) -> tuple[Any, Callable[[jax.Array], tuple[Callable[[Any], Any], Any, Any]]]:
  """(denoiser, function y -> (transform of the denoiser, solver, post_step)) of a method."""
  steps = sampler["steps"] or STEPS
  process, clean = opened.denoiser.process, not float(opened.denoiser.process.marginal(0.0).sigma) > 0
  changes = sampler | dict(steps=steps, guidance=sampler["guidance"] or 0.0)
  check_grid(sampler["grid"])
  if name in OWN_SOLVERS:
    if not clean:
      raise UserError(
        f"--method={name} ends in clean data, and the process '{process.name}' keeps noise at t = 0: take "
        "--method=pigdm, dps or replacement"
      )
    denoiser = guided(opened, sampler)
    times = solvers.GRIDS[sampler["grid"] or "karras"](process, steps, t_max=first_time(process), clean=True)
  else:
    solver = sampler["solver"] or SOLVER
    if first_time(process) < float(process.t_max) and solver in solvers.SOLVERS:
      changes["grid"] = dict(
        factory=f"solvers.grids.{sampler['grid'] or 'vp_time'}", t_max=first_time(process), clean=clean
      )
    denoiser, solver = make_sampler(opened, **(changes | dict(solver=solver)))
    check_table(solver, sampler["solver"] or SOLVER, args.task)
  std = spread = float("nan")
  if name in ("daps", "dps", "pigdm"):  # dps measures images, daps moves what the model sees
    spread = data_std(opened.parts.dataset)
    std = latent_std(opened) if name == "daps" else spread
  if name == "dps" or (name == "daps" and not operator.linear):
    operator = dataclasses.replace(operator, noise=max(float(operator.noise), LEAST_NOISE * spread))
  same = lambda denoiser: denoiser
  around = {
    "ddrm": lambda y: (same, tasks.ddrm(process, times, operator, y), None),
    "daps": lambda y: (same, tasks.daps(process, times, operator, y, data_std=std), None),
    "pigdm": lambda y: (tasks.pigdm(operator, y, std), solver, None),
    "dps": lambda y: (tasks.dps(operator, y, normalized=True), solver, None),
    "replacement": lambda y: (same, solver, tasks.replacement(process, operator, y)),
  }[name]
  return denoiser, around


def first_time(process: GaussianProcess) -> float:
  """The time at which sampling starts: t_max, or a little earlier.

  It is earlier on a process that has no signal at t_max, which no likelihood can be carried to.
  """
  return (
    float(process.t_max)
    if float(process.marginal(float(process.t_max)).alpha) > 0
    else float(process.t_of_log_snr(LOWEST_LOG_SNR))
  )


def data_std(dataset: Dataset, most: int = 2000) -> float:
  """Standard deviation of the data in the model's units, about one scalar mean.

  Of pictures without records a quarter of their range, as EDM has it for [-1, 1] (arXiv:2206.00364, table 1).
  """
  if not len(dataset.train):
    low, high = dataset.scaling.model_range(np.zeros(0))
    return (high - low) / 4
  return float(np.std(dataset.scaling.to_model(load(dataset.train, most)["x"])))


def latent_std(opened: Opened) -> float:
  """Standard deviation of what a run's model sees of its data, about one scalar mean.

  Without records that which the model was made for: latents are scaled to it.
  """
  dataset = opened.parts.dataset
  if opened.parts.codec is None:
    return data_std(dataset)
  if not len(dataset.train):
    return float(opened.parts.parameterization.data_std)
  return float(np.std(opened.encode(dataset.scaling.to_model(load(dataset.train, ENCODED)["x"]))))


def energy_score(samples: np.ndarray, truth: np.ndarray) -> float:
  """The energy score E |X - x| - E |X - X'| / 2, as the mean over images.

  It is least in expectation if X is drawn from the posterior of x.

  Args:
    samples: [N, K, ...], K at least 2; truth: [N, ...].

  >>> energy_score(np.array([[[1.0], [3.0]]]), np.array([[0.0]]))
  1.0
  """
  count, draws = samples.shape[:2]
  x, truth = (
    np.asarray(a, np.float64).reshape(count, -1, np.prod(samples.shape[2:])) for a in (samples, truth)
  )
  away = np.linalg.norm(x - truth, axis=2).mean()
  between = np.mean([np.linalg.norm(one[:, None] - one[None], axis=2).sum() for one in x]) / (
    draws * (draws - 1)
  )
  return float(away - 0.5 * between)


def _rms(gap):
  return float(np.sqrt(np.mean(np.square(np.asarray(gap, np.float64)))))


def _draw(path, args, dataset, arrays, name):
  """Input, measurement, samples, mean and spread."""
  scale = dataset.scaling.shown_range(arrays["stored"])
  columns = [pictures.Column("input", arrays["input"], scale)] if "input" in arrays else []
  y = arrays["measurement"]
  columns.append(
    pictures.Column(
      "measured",
      pictures.unmeasured(y, arrays["mask"], scale) if "mask" in arrays else y,
      (0, 1) if "mask" in arrays else scale,
    )
  )
  columns += [
    pictures.Column(f"sample {k + 1}", arrays["stored"][:, k], scale)
    for k in range(min(MOST_SAMPLES, arrays["stored"].shape[1]))
  ]
  columns.append(pictures.Column("mean", arrays["mean"], scale))
  most = float(arrays["spread"].max())
  columns.append(pictures.Column("spread", pictures.heat(arrays["spread"])))
  note = (
    f"{name}; mean and spread (standard deviation, black 0 to white {most:.3g} of {scale[1] - scale[0]:g}) "
    f"of {arrays['stored'].shape[1]} samples" + ("; blue was not measured" if "mask" in arrays else "")
  )
  titles = dict(
    inpaint="Inpainting",
    colorize="Colourisation",
    super_resolve=f"Super-resolution, {args.factor or 2} times",
  )
  pictures.side_by_side(path, columns, titles[args.task], note, most_rows=MOST_ROWS)
