"""From a config to its parts: data, process, network, denoiser, loss. Training and sampling use the same functions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion import configuration, denoisers, losses, solvers
from diffusion.errors import UserError
from diffusion.factories import plain
from diffusion.training import ema, optimizer, state as states

SECTIONS = ("data", "process", "network", "denoiser", "loss", "optimizer", "training")
AROUND_THE_OBJECTIVE = ("weight", "times", "condition_dropout", "uncertainty", "transforms", "reweight")
"""Keys of config.loss that are not arguments of the objective's factory."""

TOP_LEVEL = (*SECTIONS, "seed", "sampler", "evaluation", "claim", "measure")
SAMPLER_KEYS = ("solver", "steps", "grid", "guidance", "interval", "options", "denoise")

_INIT = 0x696E6974  # a purpose, folded into the seed's key


class Parts(NamedTuple):
  """What a config describes; nothing here holds parameters.

  Attributes:
    config: the config.
    dataset: `diffusion.data.Dataset`.
    process: the forward process.
    network: a linen module.
    parameterization: of `diffusion.denoisers`.
  """

  config: Any
  dataset: Any
  process: Any
  network: Any
  parameterization: Any


def check_keys(section, allowed, where):
  """UserError for a key that a section does not have, with the closest one."""
  for key in section:
    if key not in allowed:
      raise UserError(f"unknown key {where}.{key}{configuration.closest(key, allowed)}; it has {', '.join(allowed)}")


def assemble(config) -> Parts:
  """The parts that a config describes. Raises UserError naming the section for whatever does not fit."""
  check_keys(config, TOP_LEVEL, "config")
  for section in SECTIONS:
    if section not in config:
      raise UserError(f"the config has no section '{section}'; it needs {', '.join(SECTIONS)}")
  make = lambda section: configuration.build(config[section], where=f"config.{section}")
  parts = Parts(config, make("data"), make("process"), make("network"), make("denoiser"))
  classes = getattr(parts.network, "num_classes", None)
  if classes is not None and classes != parts.dataset.num_classes:
    raise UserError(
        f"config.network.num_classes={classes}, but the data set {parts.dataset.name} has {parts.dataset.num_classes} classes; "
        f"set --config.network.num_classes={parts.dataset.num_classes}" + (" or --config.data.num_classes=0" if not classes else ""))
  return parts


def example_batch(parts: Parts, size: int):
  """Shapes of a global batch, as `jax.ShapeDtypeStruct`."""
  batch = {"x": jax.ShapeDtypeStruct((size, *parts.dataset.shape), jnp.float32)}
  if parts.dataset.num_classes:
    batch["cond"] = {"label": jax.ShapeDtypeStruct((size,), jnp.int32)}
  return batch


def denoiser(parts: Parts, params=None, collections=None):
  """The network as a denoiser with these parameters; without any it is a template for a loss."""
  return denoisers.from_flax(parts.network, parts.process, parts.parameterization, params, collections)


def functions(parts: Parts, collections=None):
  """What the network can compute, as templates for `losses.fields`: its denoiser, and its energy if it has one.

  A network with a method `energy` (see `networks.Energy`) returns the score, at the time that the parameterisation tells it;
  UserError if the parameterisation makes something else of it.
  """
  if not callable(getattr(parts.network, "energy", None)):
    return denoiser(parts, collections=collections)
  p = parts.parameterization
  if p.kind != "score":
    raise UserError(f"config.denoiser makes '{p.kind}' of a network whose energy gives the score: set factory='denoisers.score'")

  def energy(params, x, t, cond=None):
    return parts.network.apply({"params": params}, x, p.clock(parts.process.marginal(t), t), cond, method="energy")
  return {"denoise": denoiser(parts, collections=collections), "energy": energy}


def loss(parts: Parts, collections=None):
  """The closed loss of config.loss.

  The section's `factory` makes the objective from the process; around it come, in this order, `condition_dropout`
  (a rate), `transforms` (a list of sections), `weight` (a section), `uncertainty` (true or false), and the
  section `times` with `reweight`.
  """
  section = parts.config.loss
  where = "config.loss"
  objective = configuration.build(section, parts.process, where=where, without=AROUND_THE_OBJECTIVE)
  transforms = []
  try:
    if section.get("condition_dropout") and parts.dataset.num_classes:
      transforms.append(losses.condition_dropout(section["condition_dropout"]))
    for index, transform in enumerate(section.get("transforms") or ()):
      transforms.append(configuration.build(transform, where=f"{where}.transforms[{index}]"))
    if section.get("weight"):
      transforms.append(losses.weight_by(configuration.build(section["weight"], where=f"{where}.weight")))
    if section.get("uncertainty"):
      transforms.append(losses.uncertainty())
    times = configuration.build(section["times"], where=f"{where}.times") if section.get("times") else None
    fields = losses.fields(model=functions(parts, collections))
    return losses.chain(objective, *transforms, losses.at_times(times, fields=fields, reweight=bool(section.get("reweight"))))
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error


def solver(section, process):
  """The solver of a config's sampler section.

  Args:
    section: `solver` (a name of `solvers.SOLVERS`), `steps`, `grid` (a name, a section with a factory such as
      solvers.grids.uniform, or nothing for the solver's own), `options` of its builder, and `denoise` (true by default):
      on a process with noise at t = 0, whether one more evaluation removes it.
    process: the process of the model.

  Raises UserError for a key, a name or an option that does not exist.
  """
  check_keys(section, SAMPLER_KEYS, "config.sampler")
  name, steps, grid = section.get("solver", "dpmpp_2m"), section.get("steps", 20), plain(section.get("grid")) or None
  options = dict(plain(section.get("options")) or {})
  try:
    if isinstance(grid, Mapping):
      grid = configuration.build(grid, process, steps, where="config.sampler.grid")
    cleans = section.get("denoise", True) and name != "annealed_langevin" and float(process.marginal(0.0).sigma) > 0
    if cleans and name in ("predictor_corrector", "euler_maruyama", "reverse_diffusion"):
      options.setdefault("denoise", False)  # the last evaluation does it
    built = solvers.build(name, process, steps, grid=grid, **options)
    return solvers.with_denoising(built, process) if cleans else built
  except (ValueError, TypeError) as error:
    raise UserError(f"config.sampler: {error}") from error


def init_network(parts: Parts, key):
  """(parameters, mutable collections) of a new network."""
  shapes = example_batch(parts, 1)
  x, cond = jnp.zeros(shapes["x"].shape, jnp.float32), None
  if "cond" in shapes:
    cond = {"label": jnp.zeros((1,), jnp.int32)}
  variables = dict(parts.network.init(key, x, jnp.zeros((1,), jnp.float32), cond))
  return variables.pop("params"), variables


def init_state(parts: Parts) -> states.TrainState:
  """The state before the first step: a pure function of the config, to be jitted or shaped."""
  network_key, loss_key = jax.random.split(jax.random.fold_in(jax.random.key(parts.config.get("seed", 0)), _INIT))
  params, collections = init_network(parts, network_key)
  loss_params, loss_state = loss(parts, collections).init(loss_key)
  names = ema.half_lives(parts.config.training.get("ema_half_life_images", ()))
  transform = optimizer.direction(parts.config.optimizer)
  return states.create({"model": params, "loss": loss_params}, loss_state, transform, names)


def shape_state(parts: Parts) -> states.TrainState:
  """`init_state` as shapes, with nothing computed; UserError if the network does not take the data."""
  try:
    ema.half_lives(parts.config.training.get("ema_half_life_images", ()))
    return jax.eval_shape(lambda: init_state(parts))
  except (ValueError, TypeError) as error:
    raise UserError(f"config.network does not take examples of shape {list(parts.dataset.shape)}: {error}") from error


def trained_denoiser(parts: Parts, state: states.TrainState, ema_name: str | None = None):
  """The denoiser of a train state: with one of its averages, or with the parameters themselves if it has none.

  Args:
    ema_name: half-life in images, as text; None takes the first of the config, '0' or 'none' the parameters.
  """
  if ema_name in ("0", "none") and ema_name not in state.emas:
    params = state.params["model"]
  elif ema_name is None:
    names = [name for name in ema.half_lives(parts.config.training.get("ema_half_life_images", ())) if name in state.emas]
    params = state.emas[names[0]] if names else state.params["model"]
  elif ema_name in state.emas:
    params = state.emas[ema_name]
  else:
    raise UserError(f"this run has no average of half-life {ema_name} images; it has {', '.join(state.emas) or 'none'}")
  return denoiser(parts, params, state.loss_state["collections"].get("model"))
