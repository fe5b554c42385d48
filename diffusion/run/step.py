"""One step, jitted over the mesh: player by player loss -> gradient -> optax, then averages."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from diffusion.config.errors import UserError
from diffusion.losses import batch_size
from diffusion.networks.layers import placing
from diffusion.run import ema, sharding
from diffusion.run.parts import codec
from diffusion.run.parts.players import Player
from diffusion.run.parts.roles import Role
from diffusion.run.state import TrainState


def make_step(
  playing: Sequence[Player],
  roles: Mapping[str, Role],
  averages: Mapping[str, ema.Share],
  *,
  mesh: Any,
  state_sharding: Any,
  seed: int,
  accumulate: int = 1,
  encode: Callable[[Any, Any, jax.Array], Any] | None = None,
) -> Callable[..., Any]:
  """A jitted (state, batch) -> (state, metrics) that takes the state's buffers over.

  Args:
    playing: the players, who take turns in this order.
    roles: {name: role}; those that are averages follow their source.
    averages: of the model, name -> share of the new parameters, from `ema.averages`.
    mesh, state_sharding: from `sharding`.
    seed: of the run's randomness.
    accumulate: parts that the batch is taken in, one after another; the gradient is the same to rounding.
    encode: (the codec's parameters, batch, key of the step) -> the batch that the players see; None for the
      batch as it is.

  The metrics are scalars: those of the loss, `grad_norm` (before clipping) and `learning_rate`; with several
  players those that do not train the model under their names, 'fake/loss', and for each 'moved', whether it
  moved at this step (its others are 0 where it did not).
  """
  for player in playing:
    if accumulate > 1 and player.loss.objective.coupled:
      raise UserError(
        f"config.training.accumulate={accumulate}: {player.loss.objective.name} couples the examples of a "
        "batch, which cannot then be taken in parts; set accumulate=1"
      )
  followed = [
    (name, role.source, role.share)
    for name, role in roles.items()
    if role.kind == "average_of" and role.source is not None and role.share is not None
  ]

  def step(state: TrainState, batch):
    metrics = {}
    if encode is not None:
      with placing(sharding.activations(mesh)):
        own, places = (one.loss_state["fixed"][codec.PLACE] for one in (state, state_sharding))
        batch = encode(sharding.whole(own, places, mesh), batch, codec.key(seed, state.step))
    for index, player in enumerate(playing):
      turn = lambda state, player=player, index=index: _turn(
        player, state, run_key(seed, index), batch, state_sharding, mesh, accumulate
      )
      moved = (state.step + 1) % player.every == 0
      if player.every == 1:
        state, found = turn(state)
      else:
        nothing = lambda state, turn=turn: (state, jax.tree.map(_zero, jax.eval_shape(turn, state)[1]))
        state, found = jax.lax.cond(moved, turn, nothing, state)
      if len(playing) > 1:
        before = "" if "model" in player.trains else f"{player.name}/"
        found = {f"{before}{name}": value for name, value in found.items()}
        found[f"{before}moved"] = jnp.asarray(moved, jnp.float32)
      metrics |= found
    size = batch_size(batch)
    emas = dict(state.emas)
    for name, share in averages.items():
      emas[name] = ema.update(emas[name], state.params["model"], share(state.step, size))
    for name, of, own in followed:
      every = next((player.every for player in playing if of in player.trains), 1)
      share = jnp.where((state.step + 1) % every == 0, own(state.step, size * every), 0.0)
      emas[name] = ema.update(emas[name], state.params[of] if of in state.params else emas[of], share)
    return dataclasses.replace(state, step=state.step + 1, emas=emas), metrics

  return jax.jit(
    step,
    donate_argnums=0,
    in_shardings=(state_sharding, sharding.batch_sharding(mesh)),
    out_shardings=(state_sharding, sharding.replicated(mesh)),
  )


def run_key(seed: int, player: int = 0) -> jax.Array:
  """The key of a run's training randomness, one a player.

  The loss folds the step into it, and each example its index.

  >>> run_key(0).shape
  ()
  """
  return jax.random.fold_in(jax.random.key(seed), 0x7261696E + player)


class ClosedLoss(Protocol):
  """What is minimised: `losses.Loss`, or anything around one."""

  def init(self, key: jax.Array, /) -> tuple[Any, Any]:
    """(the loss's own parameters, its state)."""
    ...

  def __call__(
    self, params: Any, state: Any, step: jax.Array, key: jax.Array, batch: Any, /
  ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """([] value, (the next state, metrics of which 'loss' is the value))."""
    ...


def gradient(
  loss: ClosedLoss,
  params: Any,
  loss_state: Any,
  step: jax.Array,
  key: jax.Array,
  batch: Any,
  roles: Callable[[Any], Any],
) -> tuple[Any, Any, dict[str, jax.Array]]:
  """(gradient with respect to the parameters, the loss's next state, metrics) of one batch.

  Args:
    loss: a closed loss, such as `losses.at_times` makes.
    params: what is trained.
    loss_state, step: of the loss, and the updates done.
    key: of the whole run; the loss folds the step into it.
    batch: what the loss takes, arrays [B, ...].
    roles: the trained parameters -> what the loss is given, such as the same beside a teacher's.
  """

  def of(params):
    return loss(roles(params), loss_state, step, key, batch)

  found, (loss_state, metrics) = jax.grad(of, has_aux=True)(params)
  return found, loss_state, metrics


def descend(
  params: Any, gradient: Any, opt_state: Any, transform: optax.GradientTransformation, rate: jax.Array
) -> tuple[Any, Any]:
  """(parameters, state of the optimiser) after one update.

  Args:
    params, gradient: pytrees alike.
    opt_state: of `transform`.
    transform: optax's; `rate` times what it returns is taken off the parameters.
    rate: [] the learning rate, or -1 for a transformation that has its own rate and sign in it.
  """
  updates, opt_state = transform.update(gradient, opt_state, params)
  take = lambda old, update: old - rate.astype(old.dtype) * update.astype(old.dtype)
  return jax.tree.map(take, params, updates), opt_state


def _zero(shape):
  return jnp.zeros(shape.shape, shape.dtype)


def _turn(player, state, key, batch, places, mesh, accumulate):
  """(the state after one update of a player, its metrics)."""
  own_places = player.own(places.params)
  # What it does not train is given to its loss as it is, and goes from one state to the next untouched.
  others, loss_state = player.inputs(state)
  others = {role: value for role, value in others.items() if role not in (*player.trains, "loss")}
  with placing(sharding.activations(mesh)):
    others = sharding.whole(others, {role: _place(places, role) for role in others}, mesh)
    whole = lambda own: {**sharding.whole(own, own_places, mesh), **others}
    own = player.own(state.params)
    # Not divided by one: the compiler repeats the division in every leaf's update.
    step = state.step if player.every == 1 else state.step // player.every
    arguments = (player.loss, own, loss_state, step, key, batch, whole)
    found, loss_state, metrics = (
      gradient(*arguments) if accumulate == 1 else _accumulated(*arguments, accumulate, mesh)
    )
  rate = player.rate(step)
  new, opt_state = descend(own, found, state.opt_state[player.name], player.transform, rate)
  loss_params = {**state.params["loss"], player.name: new.pop("loss")}
  kept = state.loss_state
  state = state.replace(
    params={**state.params, **new, "loss": loss_params},
    opt_state={**state.opt_state, player.name: opt_state},
    loss_state={
      **kept,
      "objective": {**kept["objective"], player.name: loss_state["objective"]},
      "collections": loss_state["collections"],
    },
  )
  return state, metrics | {"grad_norm": optax.global_norm(found), "learning_rate": rate}


def _place(places, role):
  """Where a role's parameters lie, whatever part of the state holds them."""
  return next(part[role] for part in (places.params, places.emas, places.loss_state["fixed"]) if role in part)


def _accumulated(loss, own, loss_state, step, key, batch, whole, accumulate, mesh):
  """The same in parts. Every example keeps the noise and the time that it has in the whole batch.

  Dropout masks belong to a part, not to an example, so they differ from part to part and from the whole.
  """
  size = batch_size(batch)
  if not isinstance(batch, Mapping):
    raise UserError("config.training.accumulate needs batches that are dicts; set accumulate=1")
  times = loss.sample_times(step, key, batch)

  def split(rows):  # row i goes to part i mod accumulate, so that a device splits only what it holds
    rows = jnp.swapaxes(rows.reshape(size // accumulate, accumulate, *rows.shape[1:]), 0, 1)
    return jax.lax.with_sharding_constraint(rows, sharding.microbatch_sharding(mesh))

  rows = jax.tree.map(split, {**batch, "index": jnp.arange(size)})

  def part(carry, inputs):
    total, loss_state = carry
    number, rows, t = inputs
    of_part = _of_part(loss, number)

    def of(own):
      values, terms = of_part.per_example(whole(own), loss_state, step, key, rows, t=t, size=size)
      return jnp.mean(values), terms

    (value, terms), gradient = jax.value_and_grad(of, has_aux=True)(own)
    terms = jax.lax.stop_gradient(terms)
    collections = {
      role: new for role, new in (terms.collections or {}).items() if role in loss_state["collections"]
    }
    loss_state = {
      "objective": loss.objective.update(loss_state["objective"], t, terms),
      "collections": {**loss_state["collections"], **collections},
    }
    metrics = {name: jnp.mean(metric) for name, metric in terms.metrics.items()} | {"loss": value}
    return (jax.tree.map(jnp.add, total, gradient), loss_state), metrics

  (total, loss_state), metrics = jax.lax.scan(
    part,
    (jax.tree.map(jnp.zeros_like, own), loss_state),
    (jnp.arange(accumulate), rows, split(times)),
  )
  gradient = jax.tree.map(lambda leaf: leaf / accumulate, total)
  return gradient, loss_state, {name: jnp.mean(metric) for name, metric in metrics.items()}


def _of_part(loss, number):
  """The loss with keys that are not one example's (dropout) made the part's own."""
  inner = loss.objective.draw

  def draw(key, batch, t, state):
    def own(leaf):
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) and leaf.ndim == 0:
        return jax.random.fold_in(leaf, number)
      return leaf

    return jax.tree.map(own, inner(key, batch, t, state))

  return dataclasses.replace(loss, objective=loss.objective.replace(draw=draw))


@jax.jit
def all_finite(tree: Any) -> jax.Array:
  """[] bool: no leaf of floats holds a NaN or an infinity.

  >>> bool(all_finite({"a": jnp.ones(2), "n": jnp.int32(1)})), bool(all_finite(jnp.asarray([1.0, jnp.inf])))
  (True, False)
  """
  leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.asarray(True)
