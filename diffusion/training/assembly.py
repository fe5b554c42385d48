"""From a config to its parts: data, process, network, denoiser, loss. Training and sampling use the same
functions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import configuration, data, denoisers, losses, networks, solvers
from diffusion.errors import UserError
from diffusion.factories import plain
from diffusion.training import codec as codec_of_run, ema, players, roles, state as states
from diffusion.training.roles import Role

SECTIONS = ("data", "process", "network", "training")
"""What every config has; without a `denoiser` it may lack a `process` too: its losses are of clean data."""

AROUND_THE_OBJECTIVE = ("weight", "times", "condition_dropout", "uncertainty", "transforms", "reweight")
"""Keys of config.loss that are not arguments of the objective's factory."""

TOP_LEVEL = (
  *SECTIONS,
  "loss",
  "optimizer",
  "denoiser",
  "codec",
  "roles",
  "players",
  "seed",
  "sampler",
  "evaluation",
  "claim",
  "measure",
)
SAMPLER_KEYS = ("solver", "steps", "grid", "guidance", "interval", "options", "denoise", "tolerance")

# Purposes, folded into keys.
_INIT, _NETWORKS, _LOSSES = 0x696E6974, 0x6E657473, 0x6C6F7373


class Parts(NamedTuple):
  """What a config describes; nothing here holds parameters.

  Attributes:
    config: the config.
    dataset: `diffusion.data.Dataset`.
    process: the forward process; None where the losses are of clean data.
    network: a linen module or another `networks.Network`.
    parameterization: of `diffusion.denoisers`; None for a network that is no denoiser.
    roles: {name: `training.roles.Role`} of all that the losses ask, the model among them.
    codec: between the data and what the networks see, or None (`codecs.Codec`).
  """

  config: Any
  dataset: Any
  process: Any
  network: Any
  parameterization: Any
  roles: Mapping[str, Role]
  codec: Any = None

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one example as the networks see it: that of the data, or of what the codec makes of them."""
    shape = tuple(self.dataset.shape)
    return shape if self.codec is None else self.codec.shape_of(shape)


def assemble(config: Any, dataset: Any = None) -> Parts:
  """The parts that a config describes, around another data set if one is given.

  Raises UserError naming the section for whatever does not fit.
  """
  if "teacher" in config:
    raise UserError(
      "config.teacher is config.roles.teacher now: write roles=dict(teacher=dict(run=FOLDER, ema=None, "
      "guidance=[...])), "
      "with guidance=[dict(factory='guidance.by_condition')] for guided=True"
    )
  configuration.check_keys(config, TOP_LEVEL, "config")
  needed = SECTIONS if config.get("players") else (*SECTIONS, "loss", "optimizer")
  if not config.get("denoiser"):
    needed = tuple(section for section in needed if section != "process")
  for section in needed:
    if section not in config:
      raise UserError(f"the config has no section '{section}'; it needs {', '.join(needed)}")
  make = lambda section: configuration.build(config[section], where=f"config.{section}")
  dataset = make("data") if dataset is None else dataset
  process, network = make("process") if "process" in config else None, make("network")
  parameterization = make("denoiser") if config.get("denoiser") else None
  if parameterization is not None:
    _check_parameterization(parameterization, process)
  own = own_views(network)
  if parameterization is None and not own:
    raise UserError(
      f"the config has no section 'denoiser', and {type(network).__name__} states no view that a loss "
      "could ask for: add denoiser=dict(factory='denoisers.eps') or another of diffusion.denoisers, or give "
      "the "
      "network an attribute views=('energy',) with the names of its methods (energy, score, time_score, "
      "hessian, "
      "concrete_score, context and head, or your own)"
    )
  classes = getattr(network, "num_classes", None)
  if classes is not None and classes != dataset.num_classes:
    raise UserError(
      f"config.network.num_classes={classes}, but the data set {dataset.name} has {dataset.num_classes} "
      f"classes; "
      f"set --config.network.num_classes={dataset.num_classes}"
      + (" or --config.data.num_classes=0" if not classes else "")
    )
  model = Role("model", "network", None, network, parameterization, process)
  cast, codec = roles.build(config, model), codec_of_run.build(config, dataset)
  return Parts(config, dataset, process, network, parameterization, cast, codec)


def _check_parameterization(parameterization, process):
  """UserError for an output that the process does not convert, or a clock that it does not have."""
  try:
    process.views_of(parameterization.kind)
  except ValueError as error:
    raise UserError(f"config.denoiser: {error}") from error
  if parameterization.time_input != "t" and process.kind != "gaussian":
    raise UserError(
      f"config.denoiser.time_input='{parameterization.time_input}' is a clock of Gaussian processes, and "
      f"'{process.name}' is {process.kind}: set time_input='t'"
    )


def example_batch(parts: Parts, size: int) -> dict[str, Any]:
  """Shapes of a global batch, as `jax.ShapeDtypeStruct`: x, and conditions and a pair's half by name."""
  return jax.tree.map(
    lambda spec: jax.ShapeDtypeStruct((size, *spec.shape), spec.dtype), parts.dataset.batch_shapes
  )


def network_batch(parts: Parts, size: int) -> dict[str, Any]:
  """The same as the networks see it: after the codec, where there is one."""
  batch = example_batch(parts, size)
  if parts.codec is not None:
    latent = jax.ShapeDtypeStruct((size, *parts.shape), jnp.float32)
    batch |= {name: latent for name in ("x", "x1") if name in batch}
  return batch


def denoiser(parts: Parts, params: Any = None, collections: Any = None) -> denoisers.NetworkDenoiser:
  """The model's network as a denoiser with these parameters."""
  return template(parts.roles["model"], collections).with_params(params)


def template(role: Role, collections: Any = None) -> Any:
  """The denoiser of a role, a template for a loss: its parameters are given when it is called.

  It answers the views of the process through the parameterisation, where there is one, and those that the
  network states (`own_views`), which see the time as the parameterisation tells it.

  Raises UserError for a network with an energy or a score of which the parameterisation makes something else
  than the score, and for guidance that does not fit.
  """
  if role.kind == "factory":
    return role.denoiser
  network = networks.as_network(role.network)
  p, own = role.parameterization, own_views(role.network)
  stated = [name for name in ("energy", "score") if name in own]
  if p is not None and stated and p.kind != "score":
    raise UserError(
      f"config.denoiser makes '{p.kind}' of a network whose method {stated[0]} gives the score: set "
      f"factory='denoisers.score'"
    )
  try:
    return role.guidance(denoisers.from_network(network, role.process, p, None, collections, own))
  except (ValueError, TypeError) as error:
    raise UserError(f"config.roles.{role.name}.guidance: {error}") from error


def own_views(network: Any) -> tuple[str, ...]:
  """The views that a network answers by methods of its own, as its attribute `views` states; () without one.

  Each method takes (x, t, cond); initialising the network by calling it has to make the parameters of its
  methods too.

  Raises UserError for a view without a method, and for what is no network.

  >>> own_views(networks.Energy(networks.MLP(width=8, depth=1))), own_views(networks.MLP(width=8, depth=1))
  (('energy',), ())
  """
  try:
    return networks.as_network(network).views
  except (ValueError, TypeError) as error:
    raise UserError(f"config.network: {error}") from error


def closed_loss(
  section: Any,
  parts: Parts,
  templates: Mapping[str, Any],
  trains: tuple[str, ...] = ("model",),
  where: str = "config.loss",
) -> losses.Loss:
  """The closed loss of a loss section: its objective, how times are drawn, and the roles that it asks.

  Args:
    section: its `factory` makes the objective from the process (None without one); around it come, in this
      order, `condition_dropout` (a rate), `transforms` (a list of sections), `weight` (a section),
      `uncertainty` (true or false), and the section `times` with `reweight`. Of these, what the factory has
      an argument of that name for goes to the factory. An objective of a teacher's steps has their times if
      `times` is left out.
    parts: of the run.
    templates: {role: denoiser}.
    trains: the roles that learn from it.
    where: the section's name in messages.

  Raises UserError for whatever does not fit, a role that the objective needs and the config lacks among it.
  """
  objective, times = _objective(section, parts, where)
  if parts.process is None and times is None:
    times = losses.uniform_times(0.0, 1.0)  # which nobody reads
  for role in objective.needs:
    if role not in templates:
      raise UserError(
        f"{where}: {section['factory']} learns from the role '{role}' and config.roles has none of that "
        f"name: add "
        f"roles=dict({role}=dict(run=FOLDER)) with the folder of a finished run, or another kind of role"
      )
  asked = {role: templates[role] for role in dict.fromkeys((*trains, *objective.needs))}
  try:
    cast = losses.roles(trainable=trains, **asked)
    return losses.chain(
      objective, losses.at_times(times, roles=cast, reweight=bool(plain(section).get("reweight")))
    )
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error


def players_of(parts: Parts) -> list[players.Player]:
  """The players of a run, with their closed losses. Raises UserError for what does not fit."""
  templates = {name: template(role) for name, role in parts.roles.items()}
  close = lambda section, trains, where: closed_loss(section, parts, templates, trains, where)
  return players.build(parts.config, parts.roles, close)


def loss(parts: Parts) -> losses.Loss:
  """The closed loss that trains the model."""
  return model_player(parts).loss


def model_player(parts: Parts) -> players.Player:
  """The player that trains the model."""
  return next(player for player in players_of(parts) if "model" in player.trains)


def objective_of(config: Any, process: Any, conditional: Any) -> losses.Objective:
  """The objective that trains the model of a config, with what its transforms state. Raises UserError."""
  (section,) = [one for one in players.sections(config) if "model" in one["trains"]]
  return _objective_of(section["loss"], process, conditional, section["where"])[0]


def _objective(section, parts, where):
  return _objective_of(section, parts.process, parts.dataset.conditional, where)


def _objective_of(section, process, conditional, where):
  """(the objective with its transforms, the sampler of times or None)."""
  section = plain(section)
  factory = configuration.resolve(section["factory"], where) if "factory" in section else None
  own = configuration.arguments(factory) if callable(factory) else {}
  around = {key: section.get(key) for key in AROUND_THE_OBJECTIVE if key not in own}  # else it is an argument
  section = {key: value for key, value in section.items() if key not in around}
  if "teacher_grid" in own:
    section["teacher_grid"] = _teacher_grid(section, process, where)
    section.pop("teacher_steps", None)
  try:
    objective = configuration.build(section, process, where=where)
  except (AttributeError, TypeError, UserError) as error:
    if process is not None:
      raise
    raise UserError(
      f"{where}: {section.get('factory')} is not of clean data, and the config has no section 'process' "
      f"({error}): add process=dict(factory='processes.edm') or another of diffusion.processes"
    ) from error
  transforms = []
  try:
    if around.get("condition_dropout") and conditional:
      transforms.append(losses.condition_dropout(around["condition_dropout"]))
    for index, transform in enumerate(around.get("transforms") or ()):
      transforms.append(configuration.build(transform, where=f"{where}.transforms[{index}]"))
    if around.get("weight"):
      transforms.append(losses.weight_by(configuration.build(around["weight"], where=f"{where}.weight")))
    if around.get("uncertainty"):
      transforms.append(losses.uncertainty())
    times = configuration.build(around["times"], where=f"{where}.times") if around.get("times") else None
    if objective.steps is not None and times is None:
      times = losses.low_discrepancy(losses.step_times(losses.student_steps(process, *objective.steps)))
    return losses.chain(objective, *transforms), times
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error


def _teacher_grid(section, process, where):
  """The times [n + 1] of a teacher's steps, of `teacher_steps` and `teacher_grid`.

  The grid is a name, a section, or DDIM's own.
  """
  steps, grid = section.get("teacher_steps"), section.get("teacher_grid") or None
  if not isinstance(steps, int):
    raise UserError(
      f"{where}.teacher_steps is the number of the teacher's steps, such as 64; it is {steps!r}"
    )
  try:
    if isinstance(grid, Mapping):
      grid = configuration.build(grid, process, steps, where=f"{where}.teacher_grid")
    return solvers.times("ddim", process, steps, grid)
  except (ValueError, TypeError) as error:
    raise UserError(f"{where}.teacher_grid: {error}") from error


def solver(section: Mapping[str, Any], process: Any) -> Any:
  """The solver of a config's sampler section.

  Args:
    section: `solver` (a name of `solvers.SOLVERS`, or of `solvers.BEYOND_GAUSSIAN`; `solvers.DEFAULT` of the
      process's kind if left out), `steps`, `grid` (a name, a section with a factory such as
      solvers.grids.uniform, or nothing for the solver's own), `options` of its builder, and `denoise` (true
      by default): on a Gaussian process with noise at t = 0, whether one more evaluation removes it. A name
      of `solvers.ADAPTIVE` has `tolerance` in place of steps and grid.
    process: the process of the model.

  Raises UserError for a key, a name or an option that does not exist, a solver of another kind of process,
  and a grid that leaves masks.
  """
  configuration.check_keys(section, SAMPLER_KEYS, "config.sampler")
  name = section.get("solver", solvers.DEFAULT[process.kind])
  grid = plain(section.get("grid")) or None
  adaptive = name in solvers.ADAPTIVE
  steps = section.get("steps", None if adaptive else 20)
  options = dict(plain(section.get("options")) or {})
  try:
    if adaptive:
      options.setdefault("denoise", bool(section.get("denoise", True)))
      return solvers.build(name, process, steps, grid=grid, tolerance=section.get("tolerance"), **options)
    if isinstance(grid, Mapping):
      grid = configuration.build(grid, process, steps, where="config.sampler.grid")
    noisy = process.kind == "gaussian" and float(process.marginal(0.0).sigma) > 0
    cleans = section.get("denoise", True) and name != "annealed_langevin" and noisy
    if cleans and name in ("predictor_corrector", "euler_maruyama", "reverse_diffusion"):
      options.setdefault("denoise", False)  # the last evaluation does it
    built = solvers.build(name, process, steps, grid=grid, tolerance=section.get("tolerance"), **options)
  except (ValueError, TypeError, ImportError) as error:
    raise UserError(f"config.sampler: {error}") from error
  if process.ends[1] == "mask" and float(process.level(float(built.times[-1]))) > 0:
    raise UserError(
      f"config.sampler.grid ends at t = {float(built.times[-1]):g}, where '{process.name}' still masks: end "
      f"it at t = {float(process.t_of_level(0.0)):g}, or leave it out"
    )
  return solvers.with_denoising(built, process) if cleans else built


def check_asked(solver: Any, denoiser: Any) -> None:
  """UserError where a solver asks for a view that the model does not answer."""
  missing = [view for view in solver.views if view not in denoiser.views]
  if missing:
    raise UserError(
      f"{solver.name} asks the model for {', '.join(missing)}, and config.denoiser answers "
      f"{', '.join(denoiser.views)} on '{denoiser.process.name}': choose another solver, or another "
      "parameterisation to train"
    )


def starts(parts: Parts) -> Callable[[np.ndarray], np.ndarray] | None:
  """What samples start from, by their indices, where the process runs between two data sets; None where its
  prior is drawn. See `data.starts_of_records`.

  Raises UserError for such a process and data that are no pairs.
  """
  if parts.process.ends[1] != "data":
    return None
  if parts.dataset.pair is None:
    raise UserError(
      f"sampling on '{parts.process.name}' starts from a second data set, and {parts.dataset.name} has none: "
      "name the array of its records that is, config.data.pair=NAME, or join two sets by data.two_sets"
    )
  return data.starts_of_records(parts.dataset)


def init_network(parts: Parts, network: Any, key: jax.Array) -> tuple[Any, dict[str, Any]]:
  """(parameters, mutable collections) of a new network for the run's data."""
  one = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), network_batch(parts, 1))
  return networks.as_network(network).init(key, one["x"], jnp.zeros((1,), jnp.float32), one.get("cond"))


def init_state(parts: Parts) -> states.TrainState:
  """The state before the first step: a pure function of the config, to be jitted or shaped.

  Roles of other runs, copies and averages hold zeros, which `training.roles.load` fills.
  """
  network_key, loss_key = jax.random.split(
    jax.random.fold_in(jax.random.key(parts.config.get("seed", 0)), _INIT)
  )
  params, collections, made = {}, {}, 0
  for name, role in parts.roles.items():
    if role.kind == "factory":
      continue
    if role.kind == "network":
      key = network_key if name == "model" else jax.random.fold_in(loss_key, _NETWORKS + made)
      params[name], own = init_network(parts, role.network, key)
      made += 1
    else:
      shapes = jax.eval_shape(lambda role=role: init_network(parts, role.network, jax.random.key(0)))
      params[name], own = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    if jax.tree.leaves(own):
      collections[name] = own
  playing = players_of(parts)
  trained = {role for player in playing for role in player.trains}
  followed = {name for name, role in parts.roles.items() if role.kind == "average_of"}
  loss_params, objectives = {}, {}
  for index, player in enumerate(playing):
    key = loss_key if not index else jax.random.fold_in(loss_key, _LOSSES + index)
    loss_params[player.name], objectives[player.name] = player.loss.objective.init(key)
  half_lives = ema.half_lives(parts.config.training.get("ema_half_life_images", ()))
  learned = {**{role: params[role] for role in trained}, "loss": loss_params}
  return states.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=learned,
    opt_state={player.name: player.transform.init(player.own(learned)) for player in playing},
    emas={
      **{name: jax.tree.map(jnp.copy, params["model"]) for name in half_lives},
      **{name: params[name] for name in followed},
    },
    loss_state={
      "objective": objectives,
      "collections": collections,
      "fixed": {
        **{name: value for name, value in params.items() if name not in trained | followed},
        **({} if parts.codec is None else {codec_of_run.PLACE: parts.codec.init()}),
      },
    },
  )


def shape_state(parts: Parts) -> states.TrainState:
  """`init_state` as shapes, with nothing computed; UserError if the network does not take the data."""
  ema.half_lives(parts.config.training.get("ema_half_life_images", ()))
  return _shapes(parts, lambda: init_state(parts))


def shape_network(parts: Parts, network: Any) -> tuple[Any, dict[str, Any]]:
  """`init_network` as shapes, with nothing computed; UserError if the network does not take the data."""
  return _shapes(parts, lambda: init_network(parts, network, jax.random.key(0)))


def _shapes(parts, make):
  try:
    return jax.eval_shape(make)
  except (ValueError, TypeError, KeyError) as error:
    raise UserError(
      f"config.network does not take examples of shape {list(parts.shape)}{_told(parts)}: {error}"
    ) from error


def _told(parts):
  """The conditions that a network is given, in words."""
  shapes = parts.dataset.batch_shapes.get("cond", {})
  return " with " + ", ".join(f"{name} {list(one.shape)}" for name, one in shapes.items()) if shapes else ""


def trained_params(parts: Parts, state: states.TrainState, ema_name: str | None = None) -> Any:
  """The network's parameters of a train state: one of its averages, or the parameters themselves if it has
  none; see `ema.average_name`."""
  name = ema.average_name(parts.config, ema_name)
  return state.params["model"] if name is None else state.emas[name]


def trained_denoiser(
  parts: Parts, state: states.TrainState, ema_name: str | None = None
) -> denoisers.NetworkDenoiser:
  """The denoiser of a train state, with its `trained_params`: all that its network can answer."""
  return denoiser(parts, trained_params(parts, state, ema_name), state.loss_state["collections"].get("model"))
