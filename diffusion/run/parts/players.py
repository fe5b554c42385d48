"""Players: who is trained, on which loss, with which optimiser, how often.

    config.players = [
      dict(trains=("fake",), loss=dict(...), optimizer=dict(...), every=1),
      dict(trains=("model",), loss=dict(...), optimizer=dict(...), every=5),
    ]

Without them there is one, which trains the model on config.loss with config.optimizer. They take turns within
a step, in this order, on the same batch; a player of `every` k moves at each k-th step. What is not given is
the config's own.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from diffusion import losses
from diffusion.config import loading
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.run.parts import optimizer

KEYS = ("trains", "loss", "optimizer", "every")


@dataclasses.dataclass(frozen=True, eq=False)
class Player:
  """One player of a run.

  Attributes:
    name: the roles that it trains, joined by '+'; also its place in the train state.
    trains: these roles.
    loss: the closed loss, or anything that is called as one (`step.ClosedLoss`).
    asks: the roles that the loss asks, those that it trains among them.
    transform: the optax chain without the learning rate.
    rate: its own updates done -> learning rate.
    every: steps of the run for one of its updates.
  """

  name: str
  trains: tuple[str, ...]
  loss: Any
  asks: tuple[str, ...]
  transform: optax.GradientTransformation
  rate: Callable[[jax.Array], jax.Array]
  every: int = 1

  def own(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """What it trains of the run's parameters: {role: parameters, 'loss': those of its loss}."""
    return {**{role: params[role] for role in self.trains}, "loss": params["loss"][self.name]}

  def inputs(self, state: Any, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, state) for its loss out of a train state: every role's parameters, some of them changed."""
    roles = {**state.loss_state["fixed"], **state.emas, **state.params, **changes}
    params = {role: roles[role] for role in self.asks if role in roles}
    own = {
      "objective": state.loss_state["objective"][self.name],
      "collections": state.loss_state["collections"],
    }
    return {**params, "loss": state.params["loss"][self.name]}, own


def one(
  loss: Any,
  transform: optax.GradientTransformation,
  rate: Callable[[jax.Array], jax.Array],
  asks: tuple[str, ...] = ("model",),
) -> list[Player]:
  """A single player that trains the role 'model'; see `Player` for the arguments."""
  return [Player("model", ("model",), loss, asks, transform, rate)]


def sections(config: Any) -> list[dict[str, Any]]:
  """The players of a config as plain sections with nothing left out: trains, loss, optimizer, every, where.

  Raises UserError for a section that is none, a role trained twice, or a player that never moves.

  >>> sections(dict(loss="L", optimizer="O"))[0]["trains"]
  ('model',)
  """
  given = config.get("players")
  if not given:
    found = dict(trains=("model",), loss=config["loss"], optimizer=config["optimizer"], every=1)
    return [found | dict(where="config.loss")]
  found, trained = [], {}
  for index, section in enumerate(given):
    where = f"config.players[{index}]"
    section = plain(section)
    if not isinstance(section, Mapping):
      raise UserError(
        f"{where} is a section such as dict(trains=('model',), loss=dict(...)); it is {section!r}"
      )
    loading.check_keys(section, KEYS, where)
    trains, every = section.get("trains"), section.get("every", 1)
    if isinstance(trains, str) or not trains or not all(isinstance(role, str) for role in trains):
      raise UserError(f"{where}.trains names the roles that it trains, such as ('model',); it is {trains!r}")
    for role in trains:
      if role in trained:
        raise UserError(
          f"{where}.trains: {trained[role]} trains the role '{role}' already; a role has one player"
        )
      trained[role] = where
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
      raise UserError(f"{where}.every is a whole number of steps, 1 or more; it is {every!r}")
    for name in ("loss", "optimizer"):
      if not (section.get(name) or config.get(name)):
        raise UserError(f"{where} has no {name}, and the config has none to take: add {name}=dict(...)")
    found.append(
      dict(
        trains=tuple(trains),
        loss=section.get("loss") or config["loss"],
        optimizer=section.get("optimizer") or config["optimizer"],
        every=every,
        where=f"{where}.loss" if section.get("loss") else "config.loss",
      )
    )
  return found


def build(
  config: Any, roles: Mapping[str, Any], close: Callable[[Any, tuple[str, ...], str], losses.Loss]
) -> list[Player]:
  """The players of a run.

  Args:
    config: of the run.
    roles: {name: `parts.roles.Role`}.
    close: (loss section, roles that are trained, its name in messages) -> closed loss.

  Raises UserError for a player of a role that there is not, and for a role that nobody needs.
  """
  training, found, used = config.training, [], set()
  for section in sections(config):
    trains, where = section["trains"], section["where"]
    for name in trains:
      if name not in roles:
        raise UserError(
          f"{where}: a player trains the role '{name}', and there are {', '.join(roles)}; add it to "
          f"config.roles"
        )
      if roles[name].kind in ("average_of", "factory"):
        raise UserError(
          f"{where}: a player trains the role '{name}', which is of the kind {roles[name].kind} and learns "
          f"nothing; make it "
          "a copy_of another role, a run or a network"
        )
    loss = close(section["loss"], trains, where)
    used |= {*loss.objective.needs, *trains}
    steps = max(1, training.steps // section["every"])
    rate = optimizer.learning_rate(section["optimizer"], training.batch_size, steps)
    asks, transform = tuple(loss.roles.denoisers), optimizer.direction(section["optimizer"])
    found.append(Player("+".join(trains), trains, loss, asks, transform, rate, section["every"]))
  sources = {role.source for role in roles.values() if role.kind in ("copy_of", "average_of")}
  trained = {role for player in found for role in player.trains}
  if "model" not in trained:
    raise UserError(
      f"no player of config.players trains the role 'model'; they train {', '.join(sorted(trained))}"
    )
  for name, role in roles.items():
    if name not in used | sources and name != "model":
      raise UserError(
        f"config.roles.{name}: no loss asks for this role; leave it out, or choose a loss that does"
      )
    if role.kind == "network" and name not in trained:
      raise UserError(
        f"config.roles.{name} is a network of its own and no player trains it; add one to config.players"
      )
  return found
