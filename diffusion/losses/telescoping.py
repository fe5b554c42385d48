"""Ratios by classification: one classifier, or one a bridge, in the place of a time score."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Objective, noised_by, terms
from diffusion.losses.time_score import checked, drawing, point
from diffusion.math.precision import at_least_single
from diffusion.processes.paths import as_path


def telescoping_ratio(path: Any, num_bridges: int, *, power: float = 1.0) -> Objective:
  """Telescoping ratio estimation: a logistic classifier between each two neighbouring waymarks.

  The loss is that of arXiv:2006.12204, eq. 4-6.

  It trains the same view as time score matching, so that the baseline has the same interface: the logit
  between the waymarks t_k and t_k+1 is (t_k+1 - t_k) time_score(x, middle), so the log-ratio is the sum over
  `density_ratio.bridges(path, num)`, and as the bridges grow in number the logit over the length becomes the
  time score (arXiv:2111.11010, section 3).

  The sampled time chooses the bridge that it lies in; all bridges weigh alike. The value is the cross-entropy
  in nats of both ends of the bridge, made from the same examples and noise (2 log 2 for a time score of
  zero).

  Args:
    path: a path or a Gaussian process.
    num_bridges: at least one; one is a single classifier between p_1 and p_0.
    power: waymarks at the places (k / num_bridges)^power of the interval.

  Raises:
    ValueError: no path, no bridge, or a power that is not positive.

  >>> from diffusion import losses, processes
  >>> losses.telescoping_ratio(processes.spherical(), 4).bias_order
  2
  """
  name = "telescoping_ratio" if num_bridges != 1 else "classifier_ratio"
  walk = as_path(path, name)
  if num_bridges < 1 or not power > 0:
    raise ValueError(
      f"{name} has at least one bridge and a positive power, got num_bridges={num_bridges}, power={power}"
    )
  low, high = float(walk.t_min), float(walk.t_max)
  marks = low + (high - low) * (np.arange(num_bridges + 1) / num_bridges) ** power

  def evaluate(roles, placed, params, state, clock):
    t = placed.t
    edges = jnp.asarray(marks, t.dtype)
    k = jnp.clip(jnp.searchsorted(edges, t, side="right") - 1, 0, num_bridges - 1)
    start, stop = edges[k], edges[k + 1]
    middle, length = 0.5 * (start + stop), stop - start

    def logit(at):
      value = roles["model"](point(walk, placed, at), middle, placed.cond, views=("time_score",)).time_score
      value = checked(value, t, name)
      return (length * value).astype(at_least_single(value.dtype))

    below, above = logit(start), logit(stop)
    # Under uniform times a bridge is met in proportion to its length.
    share = (jnp.asarray((high - low) / num_bridges, t.dtype) / length).astype(above.dtype)
    right = 0.5 * ((above > 0).astype(above.dtype) + (below < 0).astype(above.dtype))
    return terms(share * (jax.nn.softplus(-above) + jax.nn.softplus(below)), metrics={"accuracy": right})

  return Objective(
    name=name,
    draw=drawing(walk, name),
    place=noised_by(walk),
    evaluate=evaluate,
    process=path,
    bias_order=2,
    needs={"model": {"time_score": name}},
  )


def classifier_ratio(path: Any) -> Objective:
  """A single logistic classifier between p_1 and p_0.

  It is noise contrastive estimation of their ratio (arXiv:2006.12204, eq. 2), and `telescoping_ratio` with
  one bridge. It fails where the two densities hardly overlap: every classifier that separates the samples has
  nearly no loss left, and the ratio saturates.

  >>> from diffusion import losses, processes
  >>> classifier_ratio(processes.linear()).name
  'classifier_ratio'
  """
  return telescoping_ratio(path, 1)
