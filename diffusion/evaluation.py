"""What a trained model is worth: metrics, held-out loss, likelihood and pictures of a saved run."""

import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import configuration, likelihood, metrics, pictures, sampling, solvers
from diffusion.data import load
from diffusion.saved_run import make_sampler, open_run
from diffusion.training import logging, model, state as states, student

EVALUATION_KEYS = ("num_samples", "batch", "seed", "held_out", "own")
# Held-out examples that the loss and the likelihood are measured on, unless config.evaluation.held_out says
# otherwise.
MOST_HELD_OUT = 512
# Real images that the metrics are measured against, at the most.
MOST_REAL = 10000
# Samples that the grid picture chooses from.
MOST_SHOWN = 200
# Passes over the held-out data, each with its own times and noise, that the held-out loss is averaged over.
LOSS_PASSES = 16


def evaluate_run(workdir, *, checkpoint=None, ema=None, quiet=False, **sampler) -> dict:
  """Samples from a run, measures them against held-out data and writes `metrics.json` and the pictures.

  The section `own` of config.evaluation names a function (run, workdir, **arguments) -> dict of numbers,
  which are kept beside the others as `own`; it may draw pictures too. A run that learned something else than
  a denoiser has these, its held-out loss and its costs.

  Args:
    workdir: folder of the run; gets metrics.json, samples.png, loss.png and, for images, trajectory.png.
    checkpoint, ema: see `open_run`.
    quiet: no progress bar.
    **sampler: changes to the config's sampler, see `make_sampler`.

  Returns:
    The metrics as a dict of JSON types.
  """
  run = open_run(workdir, checkpoint, ema)
  section = dict(run.config.get("evaluation", {}))
  model.check_keys(section, EVALUATION_KEYS, "config.evaluation")
  found = (
    _of_samples(run, workdir, section, quiet, sampler)
    if run.denoiser is not None
    else _of_estimator(run, workdir, section, sampler)
  )
  if section.get("own"):
    found["own"] = configuration.build(section["own"], run, workdir, where="config.evaluation.own")
  _write_json(os.path.join(workdir, "metrics.json"), found)
  return found


def _of_estimator(run, workdir, section, sampler) -> dict:
  """Held-out loss and costs of a run that has no denoiser; draws loss.png."""
  if any(value is not None for value in sampler.values()):
    make_sampler(run)  # says why there is nothing to sample with
  found = dict(step=run.step, num_parameters=states.count_parameters(run.params), **_training_costs(workdir))
  held = load(run.parts.dataset.held_out, MOST_REAL)
  most = min(section.get("held_out", MOST_HELD_OUT), len(held["x"]))
  if most > 1:
    found["held_out_loss"] = held_out_loss(run, held, most)
  draw_loss(workdir, run, found)
  return found


def _of_samples(run, workdir, section, quiet, sampler) -> dict:
  """Metrics of samples, held-out loss, likelihood and costs of a denoiser; draws all pictures."""
  denoiser, solver = make_sampler(run, **sampler)
  dataset = run.parts.dataset
  classes = dataset.num_classes
  labels = (lambda index: index % classes) if classes else None
  num, batch = section.get("num_samples", 1000), section.get("batch", 250)
  begun = time.perf_counter()
  with _bar(num, quiet) as bar:
    samples = sampling.generate(
      denoiser,
      solver,
      dataset.shape,
      num,
      seed=section.get("seed", 0),
      labels=labels,
      batch=_fits(batch, run.mesh),
      place=run.place,
      progress=bar.update,
    )
  seconds = time.perf_counter() - begun
  stored = dataset.scaling.to_data(samples.x)
  train, held = load(dataset.train, MOST_REAL), load(dataset.held_out, MOST_REAL)
  images = len(dataset.shape) == 3
  if images:
    found = metrics.evaluate_samples(
      stored,
      samples.labels,
      train["x"],
      train.get("label") if classes else None,
      held["x"],
      held.get("label") if classes else None,
    )
  else:
    found = metrics.evaluate_points(stored, train["x"], held["x"])
  found.update(
    nfe=samples.nfe,
    forward_passes=samples.forward_passes,
    sampling_seconds=seconds,
    step=run.step,
    num_parameters=states.count_parameters(run.state.params["model"]),
    **_training_costs(workdir),
  )
  most = min(section.get("held_out", MOST_HELD_OUT), len(held["x"]))
  if most > 1:
    found["held_out_loss"] = held_out_loss(run, held, most)
    # The probability flow needs a denoiser at all times and without guidance: a student of steps is none, nor
    # is what starts at some weight.
    if (
      student.own_solver(run.config.loss, run.denoiser.process) is None
      and not (student.guidance_range(run.config.loss) or (0.0,))[0]
    ):
      found.update(held_out_likelihood(run, held, most))
  draw_pictures(workdir, run, denoiser, solver, stored, samples.labels, train, held, found)
  return found


def report(found) -> str:
  """The metrics as a few lines for a person."""
  lines = []

  def line(text, name, *more):
    if name in found:
      lines.append(text.format(found[name], *(found[other] for other in more)))

  line(
    "class accuracy        {:.1%}   (the classifier on real held-out data: {:.1%})",
    "class_accuracy",
    "classifier_accuracy_on_heldout",
  )
  line("Frechet distance      {:.3f}   (real training data: {:.3f})", "frechet_distance", "frechet_floor")
  line("kernel distance       {:.5f} (real training data: {:.5f})", "kernel_distance", "kernel_floor")
  line(
    "sliced Wasserstein    {:.4f}  (real training data: {:.4f})",
    "sliced_wasserstein",
    "sliced_wasserstein_floor",
  )
  line(
    "neighbour ratio       {:.3f}   (1: as far from the training data as real data are; 0: copies)",
    "neighbour_ratio",
  )
  line("held-out loss         {:.4f}  (training: {:.4f})", "held_out_loss", "train_loss")
  line("bits per dimension    {:.3f} ± {:.3f}", "bits_per_dim", "bits_per_dim_error")
  line("nats per dimension    {:.3f} ± {:.3f}", "nats_per_dim", "nats_per_dim_error")
  lines += [f"{name:<21} {value:.4g}" for name, value in found.get("own", {}).items()]
  line("cost of a sample      {} denoiser calls, {} network evaluations", "nfe", "forward_passes")
  line(
    "training              {:.0f} s, {:,.0f} images/s, {:,} parameters",
    "train_seconds",
    "images_per_second",
    "num_parameters",
  )
  return "\n".join(lines)


def held_out_loss(run, held, most=MOST_HELD_OUT) -> float:
  """The training loss on held-out data, averaged over several draws of times and noise.

  With the averaged weights and the network in evaluation mode (no dropout); the loss itself, its condition
  dropout included, is that of training.
  """
  loss = model.loss(run.parts)
  batch = _model_batch(run, held, most)
  params = {**run.state.params, **run.state.loss_state.get("fixed", {}), "model": run.params}

  @jax.jit
  def value(params, state, batch, passes):
    one = lambda number: loss(
      params, state, jnp.int32(0), jax.random.fold_in(jax.random.key(1), number), batch, train=False
    )[0]
    return jnp.mean(jax.lax.map(one, passes))

  return float(value(params, run.state.loss_state, batch, jnp.arange(LOSS_PASSES)))


def held_out_likelihood(run, held, most=MOST_HELD_OUT) -> dict:
  """bits_per_dim of pixels (uniform dequantisation) or nats_per_dim of real-valued data, by the probability
  flow.

  One Rademacher probe and one draw of noise an example; the error is over examples. A model of pixels trained
  without dequantisation has this likelihood too, but was not trained for it: `dequantized_in_training` says
  which it is.
  """
  dataset = run.parts.dataset
  pixels = hasattr(dataset.scaling, "levels")
  values = jnp.asarray(held["x"])[:most]
  cond = {"label": jnp.asarray(held["label"][:most], jnp.int32)} if dataset.num_classes else None

  def log_prob(x, keys):
    return likelihood.log_likelihood(
      run.denoiser, x, cond=cond, keys=keys, num_steps=24, divergence="rademacher"
    )[0]

  nats, _ = likelihood.log_likelihood_of_values(
    log_prob,
    values,
    dataset.scaling,
    dequantization="uniform" if pixels else "none",
    keys=jax.random.split(jax.random.key(2), values.shape[0]),
  )
  if pixels:
    name, found = "bits_per_dim", np.asarray(likelihood.bits_per_dim(nats, dataset.shape))
  else:
    name, found = "nats_per_dim", -np.asarray(nats) / np.prod(dataset.shape)
  result = {name: float(found.mean()), f"{name}_error": float(found.std(ddof=1) / np.sqrt(len(found)))}
  return result | ({"dequantized_in_training": dataset.scaling.uses_noise} if pixels else {})


def draw_pictures(workdir, run, denoiser, solver, stored, labels, train, held, found):
  """samples.png, loss.png and, for images (not if the solver is adaptive), trajectory.png in the workdir."""
  path = lambda name: os.path.join(workdir, name)
  dataset = run.parts.dataset
  draw_loss(workdir, run, found)
  if len(dataset.shape) != 3:
    pictures.scatter2d(path("samples.png"), stored, held["x"])
  else:
    shown = slice(0, MOST_SHOWN)
    nearest, _ = metrics.nearest_neighbours(stored[shown], train["x"])
    pictures.sample_grid(
      path("samples.png"),
      stored[shown],
      None if labels is None else labels[shown],
      neighbours=np.asarray(train["x"])[nearest],
      class_names=dataset.class_names or None,
      value_range=(0, dataset.scaling.levels - 1),
    )
  if len(dataset.shape) != 3 or solver.cost is None:  # nor has an adaptive solver states to show
    return
  classes = dataset.num_classes
  number = classes or 8
  some = sampling.generate(
    denoiser,
    solver,
    dataset.shape,
    number,
    labels=(lambda index: index % classes) if classes else None,
    batch=_fits(number, run.mesh),
    place=run.place,
    trajectory=True,
  )
  states, levels = some.trajectory, np.arange(len(some.trajectory))
  known = isinstance(solver, solvers.Table)
  if known:
    # Rows in the middle of a step are left out.
    finished = np.flatnonzero(np.append(True, np.any(np.asarray(solver.hook) != 0, axis=-1)))
    times = np.asarray(solver.t, np.float64)[finished]
    states, levels = states[finished], run.denoiser.process.marginal(times).noise_to_signal
  low = 0.0 if not dataset.scaling.centered else -1.0
  pictures.trajectory(
    path("trajectory.png"),
    states,
    levels,
    labels=some.labels,
    class_names=dataset.class_names or None,
    value_range=(low, 1.0),
    symbol="σ/α" if known else "step",
  )


def draw_loss(workdir, run, found):
  """loss.png in the workdir, from the run's log."""
  log = logging.read(os.path.join(workdir, "log.jsonl"))
  if log:
    held_out = ([run.step], [found["held_out_loss"]]) if "held_out_loss" in found else None
    pictures.loss_curve(
      os.path.join(workdir, "loss.png"), [row["step"] for row in log], [row["loss"] for row in log], held_out
    )


def _model_batch(run, held, most):
  """Held-out records as the batch that a loss takes, with fixed dequantisation noise."""
  scaling, x = run.parts.dataset.scaling, np.asarray(held["x"])[:most]
  noise = np.random.default_rng(0).random(x.shape) if scaling.uses_noise else None
  batch = {"x": jnp.asarray(scaling.to_model(x, noise))}
  if run.parts.dataset.num_classes:
    batch["cond"] = {"label": jnp.asarray(held["label"][:most], jnp.int32)}
  return batch


def _training_costs(workdir):
  """Time and speed from the run's own log."""
  log = logging.read(os.path.join(workdir, "log.jsonl"))
  if not log:
    return {}
  return {
    "train_seconds": log[-1]["seconds"],
    "images_per_second": float(np.median([row["images_per_second"] for row in log])),
    "train_loss": log[-1]["loss"],
  }


def _fits(batch, mesh):
  """The batch rounded up to a multiple of the devices that share it."""
  return -(-batch // mesh.shape["data"]) * mesh.shape["data"]


def _bar(total, quiet):
  from tqdm import tqdm

  return tqdm(total=total, disable=quiet, unit="image", desc="sampling", dynamic_ncols=True)


def _write_json(path, content):
  with open(path + ".tmp", "w") as file:
    json.dump(content, file, indent=2, sort_keys=True)
    file.write("\n")
  os.replace(path + ".tmp", path)
