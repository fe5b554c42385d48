"""Whether an autoregressive model keeps its order: by derivatives, coordinate by coordinate."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.denoisers import Denoiser
from diffusion.losses.autoregressive import context_of, head_of


def check_order(model: Denoiser, x: jax.Array, t: Any = 0.0, cond: Any = None, *, rtol: float = 1e-4) -> None:
  """Raises ValueError for a model whose context or head sees what it may not.

  A context that sees its own coordinate or a later one still trains, to a low loss that means nothing. What
  is checked, at these x: the context of coordinate d has derivatives of exactly zero in x_d and all after it;
  the head's score of coordinate d has one of exactly zero in every other; and the head gives the same where
  coordinates stand in another order, so that it knows them by their contexts alone and can be given a grid of
  values of one of them.

  Args:
    model: a denoiser with the views `context` and `head`, with parameters: take some away from their zeros,
      or the check sees nothing.
    x: [B, ...] a few examples; the order is that of an example flattened row by row, channels last.
    t: a number, or [B].
    cond: None, or a dict of [B, ...].
    rtol: to which the head's scores in another order agree, relative to the largest.

  >>> from diffusion import denoisers
  >>> head = lambda params, x, t, cond: cond["context"][..., 0] - x
  >>> before = lambda params, x, t, cond: (jnp.cumsum(x, axis=1) - x)[..., None]
  >>> check_order(denoisers.from_functions(context=before, head=head), jnp.ones((1, 3)))
  >>> same = lambda params, x, t, cond: x[..., None]
  >>> check_order(denoisers.from_functions(context=same, head=head), jnp.ones((1, 3)))
  Traceback (most recent call last):
  ...
  ValueError: the context of coordinate 0 depends on coordinate 0, ...
  """
  t = jnp.broadcast_to(jnp.asarray(t, jnp.result_type(float)), x.shape[:1])
  size = math.prod(x.shape[1:])
  context = context_of(model, x, t, cond)
  if context.shape[:-1] != x.shape:
    raise ValueError(
      f"the context of x {x.shape} is one vector a coordinate, {(*x.shape, 'C')}; got {context.shape}"
    )
  seen = np.asarray(jax.jit(lambda: influence(lambda x: context_of(model, x, t, cond), x, size))())
  leak = np.argwhere(np.triu(seen != 0))  # [of, on] with on >= of
  if leak.size:
    of, on = leak[0]
    raise ValueError(
      f"the context of coordinate {of} depends on coordinate {on}, by a derivative of up to "
      f"{seen[of, on]:.2g}, and may only "
      "depend on what comes before it: make the first mask strict (>), and use no normalisation or pooling "
      "over coordinates"
    )
  for what, function, inputs in (
    ("", lambda x: head_of(model, context, x, t, cond), x),
    ("the context of ", lambda c: head_of(model, c, x, t, cond), context),
  ):
    met = np.asarray(jax.jit(lambda f=function, inputs=inputs: influence(f, inputs, size))())
    meeting = np.argwhere((met != 0) & ~np.eye(size, dtype=bool))
    if meeting.size:
      of, on = meeting[0]
      raise ValueError(
        f"the head of coordinate {of} depends on {what}coordinate {on}: it acts on each coordinate and its "
        "own context alone"
      )
  flat, values = context.reshape(x.shape[0], size, -1), x.reshape(x.shape[0], size)
  scores = head_of(model, context, x, t, cond).reshape(values.shape)
  turned = head_of(model, flat[:, ::-1], values[:, ::-1], t, cond)
  if turned.shape != values.shape or float(jnp.max(jnp.abs(turned[:, ::-1] - scores))) > rtol * float(
    jnp.max(jnp.abs(scores))
  ):
    raise ValueError(
      "the head gives other scores where coordinates stand in another order: what tells them apart belongs "
      "into the context, "
      "so that a grid of values of one coordinate can be given to it"
    )


def influence(function: Callable[[jax.Array], jax.Array], x: jax.Array, size: int) -> jax.Array:
  """The largest derivative of each entry of a function in each entry of its input: [D, D].

  Entry [of, on] is that of entry `of` of the function in entry `on` of its input, the largest over examples
  and features. Input and output are [B, ...] or [B, ..., C] with D = size coordinates; features of the
  input are moved together, each at its own rate.

  >>> influence(lambda x: 2.0 * x[:, ::-1], jnp.ones((1, 2)), 2).tolist()
  [[0.0, 2.0], [2.0, 0.0]]
  """
  flat = x.reshape(x.shape[0], size, -1)
  rates = jnp.cos(jnp.arange(flat.shape[2], dtype=x.dtype))

  def column(on):
    unit = (jnp.arange(size) == on).astype(x.dtype)[None, :, None] * rates[None, None, :]
    slope = jnp.abs(jax.jvp(function, (x,), (jnp.broadcast_to(unit, flat.shape).reshape(x.shape),))[1])
    return jnp.max(slope.reshape(x.shape[0], size, -1), axis=(0, 2))

  return jax.lax.map(column, jnp.arange(size)).T
