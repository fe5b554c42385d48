"""A training loop of one jitted scan, for measurements small enough to need no checkpoints."""

import functools

import jax
import jax.numpy as jnp


def fit(loss, params, transform, batches, *, steps: int, seed: int, fixed=None, observe=None):
  """Minimises a closed loss.

  Args:
    loss: from `losses.at_times`.
    params: of the model (the role 'model'); the loss's own come from its init.
    transform: an optax transformation.
    batches: function key -> batch, called inside the scan.
    steps: how many.
    seed: of the batches, the draws and the loss's init.
    fixed: {role: parameters} of other roles, such as a teacher, that stay as they are.
    observe: function of the parameters after each step; by default the loss before it is kept.

  Returns:
    (params {'model', 'loss'}, the loss's state, what was observed [steps, ...]).

  >>> import optax
  >>> from diffusion import denoisers, losses
  >>> loss = losses.chain(losses.score_matching(), losses.at_times(losses.uniform_times(0.0, 1.0), roles=losses.roles(
  ...     model=denoisers.from_functions(score=lambda mean, x, t, cond: mean - x))))
  >>> data = lambda key: {"x": 3.0 + jax.random.normal(key, (64, 1))}
  >>> params, _, _ = fit(loss, jnp.zeros(()), optax.sgd(0.1), data, steps=100, seed=0)
  >>> abs(float(params["model"]) - 3.0) < 0.2
  True
  """
  import optax

  init_key, data_key, draw_key = jax.random.split(jax.random.key(seed), 3)
  loss_params, state = loss.init(init_key)
  params = {"model": params, "loss": loss_params}
  at = lambda params, fixed, *rest: loss({**params, **fixed}, *rest)

  def step(fixed, carry, number):
    params, state, opt_state, data_key, draw_key = carry
    batch = batches(jax.random.fold_in(data_key, number))
    (value, (state, _)), gradient = jax.value_and_grad(at, has_aux=True)(
      params, fixed, state, number, draw_key, batch
    )
    updates, opt_state = transform.update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
    return (params, state, opt_state, data_key, draw_key), value if observe is None else observe(params)

  @jax.jit  # the keys are arguments, so every seed is one program
  def run(fixed, *start):
    return jax.lax.scan(functools.partial(step, fixed), start, jnp.arange(steps))

  (params, state, *_), values = run(fixed or {}, params, state, transform.init(params), data_key, draw_key)
  return params, state, values
