"""Training in memory by one jitted scan, for what is small enough to need no checkpoints."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion.run.step import ClosedLoss, descend, gradient


class Fit(NamedTuple):
  """What a training in memory ends with.

  Attributes:
    params: {'model': parameters, 'loss': the loss's own}.
    loss_state: of the loss after the last step.
    history: [steps, ...], what was observed after each step.
  """

  params: dict[str, Any]
  loss_state: Any
  history: Any


def fit(
  loss: ClosedLoss,
  params: Any,
  transform: optax.GradientTransformation,
  batch: Callable[[jax.Array], Any],
  *,
  steps: int,
  seed: int | jax.Array,
  fixed: Mapping[str, Any] | None = None,
  observe: Callable[[Any], Any] | None = None,
) -> Fit:
  """Minimises a closed loss.

  Args:
    loss: from `losses.at_times`.
    params: of the model (the role 'model'); the loss's own come from its init.
    transform: an optax transformation with its learning rate, such as `optax.adam(1e-3)`.
    batch: function key -> batch, called inside the scan.
    steps: how many.
    seed: of the batches, the draws and the loss's init; [] int, traced or not.
    fixed: {role: parameters} of other roles, such as a teacher, that stay as they are.
    observe: function of the parameters after each step; by default the loss before it is kept.

  >>> from diffusion import denoisers, losses
  >>> model = denoisers.from_functions(score=lambda mean, x, t, cond=None: mean - x)
  >>> times = losses.uniform_times(0.0, 1.0)
  >>> loss = losses.chain(losses.score_matching(), losses.at_times(times, roles=losses.roles(model=model)))
  >>> data = lambda key: {"x": 3.0 + jax.random.normal(key, (64, 1))}
  >>> params, _, _ = fit(loss, jnp.zeros(()), optax.sgd(0.1), data, steps=100, seed=0)
  >>> abs(float(params["model"]) - 3.0) < 0.2
  True
  """
  init_key, data_key, draw_key = jax.random.split(jax.random.key(seed), 3)
  loss_params, loss_state = loss.init(init_key)

  @jax.jit  # the keys are arguments, so every seed is one program
  def run(*arguments):
    return minimise(loss, transform, batch, *arguments, steps=steps, observe=observe)

  return run({"model": params, "loss": loss_params}, loss_state, data_key, draw_key, fixed or {})


def minimise(
  loss: ClosedLoss,
  transform: optax.GradientTransformation,
  batch: Callable[[jax.Array], Any],
  params: dict[str, Any],
  loss_state: Any,
  data_key: jax.Array,
  draw_key: jax.Array,
  fixed: Mapping[str, Any],
  *,
  steps: int,
  observe: Callable[[Any], Any] | None = None,
) -> Fit:
  """The scan of `fit`, for a jitted function of your own.

  Args:
    loss, transform, batch, steps, observe: as in `fit`.
    params, loss_state: {'model': parameters, 'loss': the loss's own} and the loss's state, to start from.
    data_key: of the batches; step i takes the key folded with i.
    draw_key: of the loss's randomness.
    fixed: {role: parameters} of the other roles.
  """

  def step(carry, number):
    params, loss_state, opt_state = carry
    arguments = (loss_state, number, draw_key, batch(jax.random.fold_in(data_key, number)))
    found, loss_state, metrics = gradient(loss, params, *arguments, lambda params: {**params, **fixed})
    params, opt_state = descend(params, found, opt_state, transform, jnp.float32(-1.0))
    return (params, loss_state, opt_state), metrics["loss"] if observe is None else observe(params)

  start = (params, loss_state, transform.init(params))
  (params, loss_state, _), history = jax.lax.scan(step, start, jnp.arange(steps, dtype=jnp.int32))
  return Fit(params, loss_state, history)
