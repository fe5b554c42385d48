"""From a config to its parts: data, process, network, denoiser, loss. Training and sampling use the same
functions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion import configuration, denoisers, guidance, losses, solvers
from diffusion.errors import UserError
from diffusion.factories import plain
from diffusion.training import ema, optimizer, state as states, student

SECTIONS = ("data", "process", "network", "loss", "optimizer", "training")
AROUND_THE_OBJECTIVE = ("weight", "times", "condition_dropout", "uncertainty", "transforms", "reweight")
"""Keys of config.loss that are not arguments of the objective's factory."""

TOP_LEVEL = (*SECTIONS, "denoiser", "seed", "sampler", "evaluation", "claim", "measure", "teacher")
SAMPLER_KEYS = ("solver", "steps", "grid", "guidance", "interval", "options", "denoise", "tolerance")

METHODS = tuple(name for name in losses.binding.NAMES if name != "denoise")
"""Methods by which a network can compute more than its output."""

_INIT = 0x696E6974  # a purpose, folded into the seed's key


class Parts(NamedTuple):
  """What a config describes; nothing here holds parameters.

  Attributes:
    config: the config.
    dataset: `diffusion.data.Dataset`.
    process: the forward process.
    network: a linen module.
    parameterization: of `diffusion.denoisers`; None for a network that is no denoiser.
    teacher: the parts of the model that a distillation loss learns from, on the same data set; None without
      one.
  """

  config: Any
  dataset: Any
  process: Any
  network: Any
  parameterization: Any
  teacher: Any = None


def check_keys(section, allowed, where):
  """UserError for a key that a section does not have, with the closest one."""
  for key in section:
    if key not in allowed:
      raise UserError(
        f"unknown key {where}.{key}{configuration.closest(key, allowed)}; it has {', '.join(allowed)}"
      )


def assemble(config) -> Parts:
  """The parts that a config describes. Raises UserError naming the section for whatever does not fit."""
  check_keys(config, TOP_LEVEL, "config")
  for section in SECTIONS:
    if section not in config:
      raise UserError(f"the config has no section '{section}'; it needs {', '.join(SECTIONS)}")
  make = lambda section: configuration.build(config[section], where=f"config.{section}")
  parts = Parts(
    config,
    make("data"),
    make("process"),
    make("network"),
    make("denoiser") if config.get("denoiser") else None,
  )
  if parts.parameterization is None and not methods(parts.network):
    raise UserError(
      f"the config has no section 'denoiser', and {type(parts.network).__name__} has no method that a loss "
      "could call: add "
      "denoiser=dict(factory='denoisers.eps') or another of diffusion.denoisers, or give the network one of "
      f"{', '.join(METHODS)}"
    )
  classes = getattr(parts.network, "num_classes", None)
  if classes is not None and classes != parts.dataset.num_classes:
    raise UserError(
      f"config.network.num_classes={classes}, but the data set {parts.dataset.name} has "
      f"{parts.dataset.num_classes} classes; "
      f"set --config.network.num_classes={parts.dataset.num_classes}"
      + (" or --config.data.num_classes=0" if not classes else "")
    )
  if config.get("teacher"):
    if "saved" not in config.teacher:
      raise UserError(
        "config.teacher has no 'saved', which says what the teacher is: a run gets it from "
        "`training.teacher.resolve`, as train.py does"
      )
    saved = config.teacher.saved
    make = lambda section: configuration.build(saved[section], where=f"config.teacher.saved.{section}")
    parts = parts._replace(
      teacher=Parts(saved, parts.dataset, make("process"), make("network"), make("denoiser"))
    )
  return parts


def example_batch(parts: Parts, size: int):
  """Shapes of a global batch, as `jax.ShapeDtypeStruct`: x, and by name the conditions and the other half of a
  pair."""
  return jax.tree.map(
    lambda spec: jax.ShapeDtypeStruct((size, *spec.shape), spec.dtype), parts.dataset.batch_shapes
  )


def denoiser(parts: Parts, params=None, collections=None):
  """The network as a denoiser with these parameters; without any it is a template for a loss."""
  return denoisers.from_flax(parts.network, parts.process, parts.parameterization, params, collections)


def teacher(parts: Parts, collections=None):
  """The teacher as a template for a loss: its denoiser, with guidance around it where config.teacher is
  `guided`."""
  section, plainly = parts.config.teacher, denoiser(parts.teacher, collections=collections)
  try:
    return (
      guidance.by_condition(tuple(section.get("interval") or ()) or None)(plainly)
      if section.get("guided")
      else plainly
    )
  except ValueError as error:
    raise UserError(f"config.teacher: {error}") from error


def methods(network) -> tuple[str, ...]:
  """The methods of a network that are named like a field of `losses.Field`: what it computes besides its
  output.

  >>> from diffusion import networks
  >>> methods(networks.Energy(networks.MLP(width=8, depth=1))), methods(networks.MLP(width=8, depth=1))
  (('energy',), ())
  """
  return tuple(name for name in METHODS if callable(getattr(type(network), name, None)))


def functions(parts: Parts, collections=None):
  """What the network can compute, as templates for `losses.fields`.

  With a parameterisation, its denoiser. Besides, each of its methods that is named like a field: `energy`,
  `score`, `hessian`, `time_score`, `concrete` and `context` take (x, t, cond), `head` takes (context, x, t,
  cond). Initialising the network by calling it has to make the parameters of its methods too. They see the
  time that the parameterisation tells them; without one, t itself.

  Raises UserError for a network with an energy or a score of which the parameterisation makes something else
  than the score.
  """
  p = parts.parameterization
  stated = [name for name in ("energy", "score") if name in methods(parts.network)]
  if p is not None and stated and p.kind != "score":
    raise UserError(
      f"config.denoiser makes '{p.kind}' of a network whose method {stated[0]} gives the score: set "
      "factory='denoisers.score'"
    )
  templates = {name: _method(parts, name) for name in methods(parts.network)}
  if p is None:
    return templates
  return {"denoise": denoiser(parts, collections=collections), **templates}


def _method(parts, name):
  """A method of the network as a function of (params, x, t, cond), or (params, context, x, t, cond) of a
  head."""
  p, count = parts.parameterization, 2 if name == "head" else 1

  def call(params, *inputs):
    inputs, t, cond = inputs[:count], inputs[count], inputs[count + 1 :]
    if p is not None:
      t = p.clock(parts.process.marginal(t), t)
    return parts.network.apply({"params": params}, *inputs, t, *cond, method=name)

  return call


def loss(parts: Parts, collections=None, teacher_collections=None):
  """The closed loss of config.loss.

  The section's `factory` makes the objective from the process; around it come, in this order,
  `condition_dropout` (a rate), `transforms` (a list of sections), `weight` (a section), `uncertainty` (true
  or false), and the section `times` with `reweight`. Of these, what the factory has an argument of that name
  for goes to the factory. An objective of a teacher's steps (see `student.taught`) has their times if `times`
  is left out.

  Raises UserError for a loss and a config.teacher of which one is there without the other.
  """
  section = parts.config.loss
  where = "config.loss"
  factory = configuration.resolve(section["factory"], where) if "factory" in section else None
  own = configuration.arguments(factory) if callable(factory) else {}
  around = {
    key: section.get(key) for key in AROUND_THE_OBJECTIVE if key not in own
  }  # a weight that is part of a derivation is an argument
  steps = ()
  if callable(factory) and "teacher_grid" in own:
    try:
      steps = (losses.student_steps(parts.process, *student.taught(section, parts.process)),)
    except ValueError as error:
      raise UserError(f"{where}: {error}") from error
  objective = configuration.build(
    section, parts.process, *steps, where=where, without=(*around, *(student.OF_STEPS if steps else ()))
  )
  if ("teacher" in objective.needs) != (parts.teacher is not None):
    name = section["factory"]
    raise UserError(
      f"config.loss: {name} learns from a teacher and the config has none: add teacher=dict(workdir=FOLDER, "
      "guided=True or False) with the folder of a"
      " finished run"
      if parts.teacher is None
      else f"config.teacher names a teacher and {name} learns from none: choose losses.distillation or"
      " losses.progressive_distillation, or leave config.teacher out"
    )
  transforms = []
  try:
    if around.get("condition_dropout") and parts.dataset.conditional:
      transforms.append(losses.condition_dropout(section["condition_dropout"]))
    for index, transform in enumerate(around.get("transforms") or ()):
      transforms.append(configuration.build(transform, where=f"{where}.transforms[{index}]"))
    if around.get("weight"):
      transforms.append(losses.weight_by(configuration.build(around["weight"], where=f"{where}.weight")))
    if around.get("uncertainty"):
      transforms.append(losses.uncertainty())
    times = configuration.build(around["times"], where=f"{where}.times") if around.get("times") else None
    if steps and times is None:
      times = losses.low_discrepancy(losses.step_times(*steps))
    roles = {"model": functions(parts, collections)}
    if parts.teacher is not None:
      roles["teacher"] = teacher(parts, teacher_collections)
    fields = losses.fields(**roles)
    return losses.chain(
      objective, *transforms, losses.at_times(times, fields=fields, reweight=bool(around.get("reweight")))
    )
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error


def solver(section, process):
  """The solver of a config's sampler section.

  Args:
    section: `solver` (a name of `solvers.SOLVERS`), `steps`, `grid` (a name, a section with a factory such as
      solvers.grids.uniform, or nothing for the solver's own), `options` of its builder, and `denoise` (true
      by default): on a process with noise at t = 0, whether one more evaluation removes it. A name of
      `solvers.ADAPTIVE` has `tolerance` in place of steps and grid.
    process: the process of the model.

  Raises UserError for a key, a name or an option that does not exist.
  """
  check_keys(section, SAMPLER_KEYS, "config.sampler")
  name, grid = section.get("solver", "dpmpp_2m"), plain(section.get("grid")) or None
  adaptive = name in solvers.ADAPTIVE
  steps = section.get("steps", None if adaptive else 20)
  options = dict(plain(section.get("options")) or {})
  try:
    if adaptive:
      options.setdefault("denoise", bool(section.get("denoise", True)))
      return solvers.build(name, process, steps, grid=grid, tolerance=section.get("tolerance"), **options)
    if isinstance(grid, Mapping):
      grid = configuration.build(grid, process, steps, where="config.sampler.grid")
    cleans = (
      section.get("denoise", True) and name != "annealed_langevin" and float(process.marginal(0.0).sigma) > 0
    )
    if cleans and name in ("predictor_corrector", "euler_maruyama", "reverse_diffusion"):
      options.setdefault("denoise", False)  # the last evaluation does it
    built = solvers.build(name, process, steps, grid=grid, tolerance=section.get("tolerance"), **options)
    return solvers.with_denoising(built, process) if cleans else built
  except (ValueError, TypeError, ImportError) as error:
    raise UserError(f"config.sampler: {error}") from error


def init_network(parts: Parts, key):
  """(parameters, mutable collections) of a new network."""
  one = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example_batch(parts, 1))
  variables = dict(parts.network.init(key, one["x"], jnp.zeros((1,), jnp.float32), one.get("cond")))
  return variables.pop("params"), variables


def init_state(parts: Parts) -> states.TrainState:
  """The state before the first step: a pure function of the config, to be jitted or shaped."""
  network_key, loss_key = jax.random.split(
    jax.random.fold_in(jax.random.key(parts.config.get("seed", 0)), _INIT)
  )
  params, collections = init_network(parts, network_key)
  fixed, theirs = {}, None
  if parts.teacher is not None:  # zeros, which `training.teacher.load` fills
    shapes = jax.eval_shape(lambda: init_network(parts.teacher, jax.random.key(0)))
    fixed["teacher"], theirs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  loss_params, loss_state = loss(parts, collections, theirs).init(loss_key)
  if fixed:
    loss_state = {**loss_state, "fixed": fixed}
  names = ema.half_lives(parts.config.training.get("ema_half_life_images", ()))
  transform = optimizer.direction(parts.config.optimizer)
  return states.create({"model": params, "loss": loss_params}, loss_state, transform, names)


def shape_state(parts: Parts) -> states.TrainState:
  """`init_state` as shapes, with nothing computed; UserError if the network does not take the data."""
  try:
    ema.half_lives(parts.config.training.get("ema_half_life_images", ()))
    return jax.eval_shape(lambda: init_state(parts))
  except (ValueError, TypeError, KeyError) as error:
    raise UserError(
      f"config.network does not take examples of shape {list(parts.dataset.shape)}{_told(parts)}: {error}"
    ) from error


def _told(parts):
  """The conditions that a network is given, in words."""
  shapes = parts.dataset.batch_shapes.get("cond", {})
  return " with " + ", ".join(f"{name} {list(one.shape)}" for name, one in shapes.items()) if shapes else ""


def trained_params(parts: Parts, state: states.TrainState, ema_name: str | None = None):
  """The network's parameters of a train state: one of its averages, or the parameters themselves if it has
  none.

  Args:
    ema_name: half-life in images, as text; None takes the first of the config, '0' or 'none' the parameters.
  """
  if ema_name in ("0", "none") and ema_name not in state.emas:
    return state.params["model"]
  if ema_name is None:
    names = [
      name
      for name in ema.half_lives(parts.config.training.get("ema_half_life_images", ()))
      if name in state.emas
    ]
    return state.emas[names[0]] if names else state.params["model"]
  if ema_name in state.emas:
    return state.emas[ema_name]
  raise UserError(
    f"this run has no average of half-life {ema_name} images; it has {', '.join(state.emas) or 'none'}"
  )


def trained_denoiser(parts: Parts, state: states.TrainState, ema_name: str | None = None):
  """The denoiser of a train state, with the parameters of `trained_params`."""
  return denoiser(parts, trained_params(parts, state, ema_name), state.loss_state["collections"].get("model"))


def trained_field(parts: Parts, state: states.TrainState, ema_name: str | None = None):
  """Everything that the network of a train state computes, as a `losses.Field` with the parameters of
  `trained_params`."""
  binder = losses.fields(model=functions(parts))
  params = {"model": trained_params(parts, state, ema_name), "loss": state.params["loss"]}
  return binder(params, state.loss_state["collections"])["model"]
