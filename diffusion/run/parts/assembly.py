"""From a config to its parts: data, process, network, denoiser, loss.

Training and sampling use the same functions.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion import denoisers, losses, networks
from diffusion.config import factories, loading
from diffusion.config.errors import UserError
from diffusion.run import ema, state as states
from diffusion.run.parts import codec as codec_of_run, loss_config, players, roles
from diffusion.run.parts.roles import Role

SECTIONS = ("data", "process", "network", "training")
"""What every config has; without a `denoiser` it may lack a `process` too: its losses are of clean data."""

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
    roles: {name: `parts.roles.Role`} of all that the losses ask, the model among them.
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
  loading.check_keys(config, TOP_LEVEL, "config")
  needed = SECTIONS if config.get("players") else (*SECTIONS, "loss", "optimizer")
  if not config.get("denoiser"):
    needed = tuple(section for section in needed if section != "process")
  for section in needed:
    if section not in config:
      raise UserError(f"the config has no section '{section}'; it needs {', '.join(needed)}")
  make = lambda section: factories.build(config[section], where=f"config.{section}")
  dataset = make("data") if dataset is None else dataset
  process, network = make("process") if "process" in config else None, make("network")
  parameterization = make("denoiser") if config.get("denoiser") else None
  if parameterization is not None:
    _check_parameterization(parameterization, process)
  if process is not None and process.kind == "discrete":
    _check_values(process, dataset)
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


def _check_values(process, dataset):
  """UserError where data have values that the process has not, its mask among them."""
  levels, dtype = dataset.scaling.levels, dataset.scaling.dtype
  if levels is not None and jnp.issubdtype(dtype, jnp.integer) and levels > process.num_values:
    raise UserError(
      f"the data set {dataset.name} has {levels} values and the process '{process.name}' has "
      f"{process.num_values}: set --config.process.num_values={levels}"
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


def players_of(parts: Parts) -> list[players.Player]:
  """The players of a run, with their closed losses. Raises UserError for what does not fit."""
  templates = {name: template(role) for name, role in parts.roles.items()}
  conditional = parts.dataset.conditional
  close = lambda section, trains, where: loss_config.closed_loss(
    section, parts.process, conditional, templates, trains, where
  )
  return players.build(parts.config, parts.roles, close)


def loss(parts: Parts) -> losses.Loss:
  """The closed loss that trains the model."""
  return model_player(parts).loss


def model_player(parts: Parts) -> players.Player:
  """The player that trains the model."""
  return next(player for player in players_of(parts) if "model" in player.trains)


def init_network(parts: Parts, network: Any, key: jax.Array) -> tuple[Any, dict[str, Any]]:
  """(parameters, mutable collections) of a new network for the run's data."""
  one = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), network_batch(parts, 1))
  return networks.as_network(network).init(key, one["x"], jnp.zeros((1,), jnp.float32), one.get("cond"))


def init_state(parts: Parts) -> states.TrainState:
  """The state before the first step: a pure function of the config, to be jitted or shaped.

  Roles of other runs, copies and averages hold zeros, which `parts.roles.load` fills.
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
  learned = {**{role: params[role] for role in trained}, "loss": loss_params}
  return states.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=learned,
    opt_state={player.name: player.transform.init(player.own(learned)) for player in playing},
    emas={
      **{name: jax.tree.map(jnp.copy, params["model"]) for name in ema.averages(parts.config.training)},
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
  ema.averages(parts.config.training)
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
  """The network's parameters of a train state.

  They are one of its averages, or the parameters themselves if it has none; see `ema.average_name`. Raises
  UserError for an average that is to be made of snapshots.
  """
  name = ema.average_name(parts.config, ema_name)
  if name is not None and name not in state.emas:
    raise UserError(
      f"the average of relative length {name} is not in the train state, but made of a run's snapshots: open "
      "the run with diffusion.run.opening.open_run"
    )
  return state.params["model"] if name is None else state.emas[name]


def trained_denoiser(
  parts: Parts, state: states.TrainState, ema_name: str | None = None
) -> denoisers.NetworkDenoiser:
  """The denoiser of a train state, with its `trained_params`: all that its network can answer."""
  return denoiser(parts, trained_params(parts, state, ema_name), state.loss_state["collections"].get("model"))
