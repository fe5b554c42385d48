"""One update, jitted over the mesh: loss -> gradient -> optax -> averages."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from diffusion import activations
from diffusion.errors import UserError
from diffusion.training import ema, sharding, update
from diffusion.training.state import TrainState, run_key


def make_step(
  loss,
  transform: optax.GradientTransformation,
  rate: Callable,
  averages: Mapping[str, float],
  *,
  mesh,
  state_sharding,
  seed: int,
  accumulate: int = 1,
  ramp: float | None = None,
):
  """A jitted (state, batch) -> (state, metrics) that takes the state's buffers over.

  Args:
    loss: a closed loss, (params, loss_state, step, key, batch) -> (scalar, (loss_state, metrics)).
    transform: the optax chain without the learning rate.
    rate: step -> learning rate.
    averages: name -> half-life in images.
    mesh, state_sharding: from `sharding`.
    seed: of the run's randomness.
    accumulate: parts that the batch is taken in, one after another; the gradient is the same to rounding.
    ramp: see `ema.rate`.

  The metrics are scalars: those of the loss, `grad_norm` (before clipping) and `learning_rate`.
  """
  if accumulate > 1 and loss.objective.coupled:
    raise UserError(
      f"config.training.accumulate={accumulate}: {loss.objective.name} couples the examples of a batch, "
      "which cannot then be taken in parts; set accumulate=1"
    )

  def step(state: TrainState, batch):
    key = run_key(seed)
    value = update.gradient if accumulate == 1 else lambda *a: _accumulated(*a, accumulate, mesh)
    # What learns nothing is a role's parameters for the loss, and goes from one state to the next as it is.
    kept = {name: part for name, part in state.loss_state.items() if name == "fixed"}
    changing = state.replace(
      loss_state={name: part for name, part in state.loss_state.items() if name != "fixed"}
    )
    with activations.placing(sharding.activations(mesh)):
      fixed = sharding.whole(kept["fixed"], state_sharding.loss_state["fixed"], mesh) if kept else {}
      gradient, loss_state, metrics = value(
        loss,
        changing,
        key,
        batch,
        lambda params: {**sharding.whole(params, state_sharding.params, mesh), **fixed},
      )
    learning_rate = rate(state.step)
    size = jax.tree.leaves(batch)[0].shape[0]
    shares = {name: ema.rate(half_life, state.step, size, ramp) for name, half_life in averages.items()}
    metrics = metrics | {"grad_norm": optax.global_norm(gradient), "learning_rate": learning_rate}
    return update.advance(state, gradient, {**loss_state, **kept}, transform, learning_rate, shares), metrics

  return jax.jit(
    step,
    donate_argnums=0,
    in_shardings=(state_sharding, sharding.batch_sharding(mesh)),
    out_shardings=(state_sharding, sharding.replicated(mesh)),
  )


def _accumulated(loss, state, key, batch, whole, accumulate, mesh):
  """The same in parts. Every example keeps the noise and the time that it has in the whole batch.

  Dropout masks belong to a part, not to an example, so they differ from part to part and from the whole.
  """
  size = jax.tree.leaves(batch)[0].shape[0]
  if not isinstance(batch, Mapping):
    raise UserError("config.training.accumulate needs batches that are dicts; set accumulate=1")
  times = loss.sample_times(state.step, key, batch)

  def split(rows):  # row i goes to part i mod accumulate, so that a device splits only what it holds
    rows = jnp.swapaxes(rows.reshape(size // accumulate, accumulate, *rows.shape[1:]), 0, 1)
    return jax.lax.with_sharding_constraint(rows, sharding.microbatch_sharding(mesh))

  rows = jax.tree.map(split, {**batch, "index": jnp.arange(size)})

  def part(carry, inputs):
    total, loss_state = carry
    number, rows, t = inputs
    own = _of_part(loss, number)

    def of(params):
      values, terms = own.per_example(whole(params), loss_state, state.step, key, rows, t=t)
      return jnp.mean(values), terms

    (value, terms), gradient = jax.value_and_grad(of, has_aux=True)(state.params)
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

  zeros = jax.tree.map(jnp.zeros_like, state.params)
  (total, loss_state), metrics = jax.lax.scan(
    part, (zeros, state.loss_state), (jnp.arange(accumulate), rows, split(times))
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
def all_finite(tree) -> jax.Array:
  """[] bool: no leaf of floats holds a NaN or an infinity.

  >>> bool(all_finite({"a": jnp.ones(2), "n": jnp.int32(1)})), bool(all_finite(jnp.asarray([1.0, jnp.inf])))
  (True, False)
  """
  leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.asarray(True)
