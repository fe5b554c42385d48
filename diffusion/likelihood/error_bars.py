"""Standard errors of log-likelihoods.

Of one example over its random draws, and of a data set over its examples.
"""

import jax
import jax.numpy as jnp


@jax.jit
def over_draws(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and standard error over independent draws: [R, B] -> ([B], [B]); the error is NaN for one draw.

  Draws are few, so an interval of stated confidence takes Student's t with R - 1 degrees of freedom in place
  of the normal quantile: mean ± 2.36 error holds 95% for R = 8.

  >>> mean, error = over_draws(jnp.array([[1.0], [3.0]]))
  >>> float(mean[0]), round(float(error[0]), 5)
  (2.0, 1.0)
  """
  count = values.shape[0]
  mean = jnp.mean(values, axis=0)
  if count == 1:
    return mean, jnp.full_like(mean, jnp.nan)
  return mean, jnp.std(values, axis=0, ddof=1) / count**0.5


@jax.jit
def over_batch(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and standard error over examples: [B] -> ([], []), also where each value carries one draw's noise.

  Examples and their draws are independent, so the spread over examples holds both: one probe an example is
  enough for the error bar of a data set's mean.

  >>> mean, error = over_batch(jnp.array([1.0, 3.0]))
  >>> float(mean), round(float(error), 5)
  (2.0, 1.0)
  """
  mean, error = over_draws(values[:, None])
  return mean[0], error[0]
