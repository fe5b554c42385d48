"""What follows from what on a path x_t = a x_0 + b x_1 + s eps: the conversions between kinds of output.

With the posterior means of its parts, x_t = a E[x_0] + b E[x_1] + s E[eps] and velocity = a' E[x_0] + b'
E[x_1] + s' E[eps] are two equations (arXiv:2303.08797, section 2). A path with two parts is therefore known
from x_t and any one view, as a diffusion is. With all three, two data sets and noise between them, nothing
follows from a velocity alone; the score and eps follow from each other.
"""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.processes.base import expand


def parts_of(ends: tuple[str, str], noisy: bool) -> tuple[str, ...]:
  """The parts of x_t, each named as the view that is its posterior mean.

  >>> parts_of(("data", "data"), False), parts_of(("normal", "data"), True)
  (('x0', 'x1'), ('x1', 'eps'))
  """
  return tuple(
    name for name, there in (("x0", ends[0] == "data"), ("x1", ends[1] == "data"), ("eps", noisy)) if there
  )


def follows(kind: str, parts: tuple[str, ...]) -> tuple[str, ...]:
  """The views that follow exactly from an output of one kind.

  >>> follows("velocity", ("x0", "x1")), follows("velocity", ("x0", "x1", "eps"))
  (('velocity', 'x0', 'x1'), ('velocity',))
  """
  scores = ("score",) if "eps" in parts else ()
  every = ("velocity", *parts, *scores)
  if kind in every and len(parts) == 2:
    return every
  return ("eps", "score") if kind in ("eps", "score") and scores else (kind,)


def factors(blend: Any, parts: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
  """{part: (its factor in x_t, that factor's time derivative)}, each shaped like the blend.

  Where the variance is zero its root has no slope, or an infinite one: there it is taken as zero, at single
  times.
  """
  found = {"x0": (blend.first, blend.d_first), "x1": (blend.second, blend.d_second)}
  if "eps" in parts:
    there = blend.variance > 0
    root = jnp.sqrt(jnp.where(there, blend.variance, 1.0))
    slope = jnp.where(there, 0.5 * blend.d_variance / root, 0.0)
    found["eps"] = (jnp.where(there, root, 0.0), slope)
  return {part: found[part] for part in parts}


def convert(
  blend: Any, parts: tuple[str, ...], kind: str, output: jax.Array, x_t: jax.Array, views: tuple[str, ...]
) -> dict[str, jax.Array]:
  """Views of x_t from an output of one kind, of those that `follows` names.

  x_t and the output are [B, ...]. Returns {view: [B, ...]}.
  """
  numbers: dict[str, tuple[Any, ...]] = {
    part: tuple(expand(value, x_t).astype(output.dtype) for value in pair)
    for part, pair in factors(blend, parts).items()
  }
  found: dict[str, Any] = {kind: output}
  if kind == "score" and "eps" in parts:
    found["eps"] = -numbers["eps"][0] * output
  known = "eps" if kind == "score" else kind
  if len(parts) == 2 and known in ("velocity", *parts):
    (p, (f, df)), (q, (g, dg)) = numbers.items()
    if known == "velocity":
      determinant = f * dg - g * df
      found[p] = (dg * x_t - g * output) / determinant
      found[q] = (f * output - df * x_t) / determinant
    else:
      if known == p:
        found[q] = (x_t - f * found[p]) / g
      else:
        found[p] = (x_t - g * found[q]) / f
      found["velocity"] = df * found[p] + dg * found[q]
  if "eps" in found and "score" not in found:
    found["score"] = -found["eps"] / numbers["eps"][0]
  return {view: found[view] for view in views}
