"""Linear combination of objectives."""

import functools
import operator
from collections.abc import Callable
from typing import Any

from diffusion.losses.base import Objective, Terms, layer, merge_needs


def scale(factor: Any) -> Callable[[Objective], Objective]:
  """The transform that multiplies an objective, boundary terms included, by a constant.

  >>> from diffusion import losses, processes
  >>> losses.chain(losses.denoising_score_matching(processes.vp_linear()), losses.scale(0.5)).name
  'scale(denoising_score_matching)'
  """

  def change(terms, roles, placed, params, state, clock):
    return terms.replace(interior=factor * terms.interior, boundary=factor * terms.boundary)

  return lambda objective: layer(objective, change, name="scale")


def add(*objectives: Objective) -> Objective:
  """The sum of objectives, each with its own draw, parameters and state; weights come from `scale`.

  All parts draw from the same key, so parts on one process meet the same noise and the sum is exactly the sum
  of the values of the parts. Parts that update the same role's mutable collections: the last one's update is
  kept. Raises TypeError for anything that is not an Objective.

  >>> from diffusion import losses, processes
  >>> dsm = losses.denoising_score_matching(processes.vp_linear())
  >>> losses.add(dsm, losses.chain(dsm, losses.scale(2.0))).name
  'add(denoising_score_matching, scale(denoising_score_matching))'
  """
  if not objectives or not all(isinstance(part, Objective) for part in objectives):
    raise TypeError(
      f"add takes objectives, got {[type(part).__name__ for part in objectives]}: "
      "close the sum with at_times, not its parts"
    )

  def init(key):
    pairs = [part.init(key) for part in objectives]
    return tuple(params for params, _ in pairs), tuple(state for _, state in pairs)

  def draw(key, batch, t, state):
    return tuple(part.draw(key, batch, t, own) for part, own in zip(objectives, state))

  def place(roles, draw):
    return tuple(part.place(roles, drawn) for part, drawn in zip(objectives, draw))

  def evaluate(roles, placed, params, state, clock):
    inner = tuple(
      part.evaluate(roles, where, loss_params, own, clock)
      for part, where, loss_params, own in zip(objectives, placed, params, state)
    )
    metrics, collections = {}, {}
    for i, value in enumerate(inner):
      metrics.update({f"{i}/{name}": metric for name, metric in value.metrics.items()})
      metrics[f"{i}/value"] = value.interior + value.boundary
      collections.update(value.collections or {})
    return Terms(
      interior=functools.reduce(operator.add, (value.interior for value in inner)),
      boundary=functools.reduce(operator.add, (value.boundary for value in inner)),
      metrics=metrics,
      collections=collections or None,
      inner=inner,
    )

  def update(state, t, terms):
    return tuple(part.update(own, t, value) for part, own, value in zip(objectives, state, terms.inner))

  same_process = all(part.process is objectives[0].process for part in objectives)
  orders = [part.bias_order for part in objectives if part.bias_order is not None]
  return Objective(
    name=f"add({', '.join(part.name for part in objectives)})",
    init=init,
    draw=draw,
    place=place,
    evaluate=evaluate,
    update=update,
    needs=merge_needs(*(part.needs for part in objectives)),
    process=objectives[0].process if same_process else None,
    coupled=any(part.coupled for part in objectives),
    takes_weight=any(part.takes_weight for part in objectives),
    bias_order=min(orders) if orders else None,
    parts=objectives,
  )
