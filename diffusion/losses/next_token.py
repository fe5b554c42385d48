"""The cross-entropy of each token given those before it: the exact negative log-likelihood of its order."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Draw, Objective, at_data, example_keys, terms
from diffusion.math.precision import at_least_single, sum_rows


def next_token(process: Any = None) -> Objective:
  """The cross-entropy of every token given those before it, in nats: -log p(x) = -sum_i log p(x_i | x_<i).

  It is the exact negative log-likelihood of an autoregressive model, what a bound of a masked model is
  compared with (arXiv:2406.07524, table 1). The model is asked for 'next_logits' [B, L, K] at the data: those
  of place i may see what comes before i alone, as `networks.SequenceTransformer` with causal=True. Nothing is
  noised.

  Args:
    process: None, or that of the solvers that sample, such as `processes.masked`, which takes no part here.

  batch: a dict with 'x' [B, L] int below K and, if conditional, 'cond'.

  Raises:
    ValueError: a batch without 'x', or one that is not of whole numbers [B, L].

  >>> from diffusion import denoisers, losses
  >>> even = denoisers.from_functions(next_logits=lambda params, x, t, cond: jnp.zeros((*x.shape, 2)))
  >>> draw = losses.Draw(t=jnp.zeros(1), x0=jnp.array([[1, 0, 1]]))
  >>> losses.next_token()({"model": even}, draw).interior.round(2).tolist()                # 3 log(2)
  [2.0...]
  """
  name = "next_token"

  def draw(key, batch, t, state):
    del state
    if not isinstance(batch, dict) or "x" not in batch:
      raise ValueError(
        f"{name} takes a batch that is a dict with 'x' [B, L], got "
        f"{sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
      )
    x0 = batch["x"]
    if x0.ndim != 2 or not jnp.issubdtype(x0.dtype, jnp.integer):
      raise ValueError(f"{name} takes whole numbers of shape [B, L], got {x0.dtype} of shape {x0.shape}")
    network_key, key = jax.random.split(key)
    return Draw(t=t, x0=x0, cond=batch.get("cond"), keys=example_keys(key, batch), key=network_key)

  def evaluate(roles, placed, params, state, clock):
    del params, state, clock
    nats = -of_tokens(roles["model"], placed.x_t, placed.t, placed.cond)
    return terms(sum_rows(nats), metrics={"nats_per_token": jnp.mean(nats, axis=-1)})

  return Objective(
    name=name,
    draw=draw,
    evaluate=evaluate,
    place=at_data,
    process=process,
    needs={"model": {"next_logits": name}},
  )


def of_tokens(model: Any, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
  """log p(x_i | x_<i) of each token, [B, L] nats, of a denoiser with the view 'next_logits'.

  Args:
    model: the denoiser.
    x: [B, L] int.
    t: [B], which a network of time is told.
    cond: None, or a dict of arrays with leading axis B.
  """
  logits = model(x, t, cond, views=("next_logits",)).next_logits
  log_p = jax.nn.log_softmax(logits.astype(at_least_single(logits.dtype)), axis=-1)
  return jnp.take_along_axis(log_p, x[..., None], axis=-1)[..., 0]
