"""Rotary positions: queries and keys turn with their place, so that their products see distances.

Source: arXiv:2104.09864.
"""

import jax
import jax.numpy as jnp


def rotary_angles(places: jax.Array, size: int, base: float = 10000.0, scale: float = 1.0) -> jax.Array:
  """The angles place / scale * base^(-2 i / size) of pair i: [L, size / 2].

  A larger base or scale turns slower, so that a trained network sees places of a longer sequence within the
  angles that it knows (arXiv:2306.15595 for the scale, arXiv:2506.14429 for the base).

  Args:
    places: [L] real numbers.
    size: of a query, even.
    base: of the frequencies.
    scale: what places are divided by.

  >>> rotary_angles(jnp.array([0.0, 2.0]), 4, base=100.0).round(3).tolist()
  [[0.0, 0.0], [2.0, 0.2...]]
  """
  frequencies = base ** (-jnp.arange(size // 2, dtype=places.dtype) * (2.0 / size)) / scale
  return places[:, None] * frequencies[None, :]


def rotate(h: jax.Array, angles: jax.Array) -> jax.Array:
  """h [B, L, heads, d] with feature i and feature i + d / 2 turned by the angles [L, d / 2]; in h's dtype.

  >>> rotate(jnp.array([[[[1.0, 0.0]]]]), jnp.array([[jnp.pi / 2]])).round(3).tolist()
  [[[[-0.0, 1.0]]]]
  """
  cos, sin = (value(angles)[None, :, None, :].astype(h.dtype) for value in (jnp.cos, jnp.sin))
  first, second = jnp.split(h, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
