"""Time score matching: the slope of log p_t(x) in t, learned without knowing it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import (
  Draw,
  Objective,
  Placed,
  example_keys,
  no_init,
  no_update,
  noised_by,
  split_keys,
  terms,
)
from diffusion.losses.time_weights import LossHistory, Weighting, noise_variance
from diffusion.losses.weights import check_weight
from diffusion.math.precision import at_least_single
from diffusion.processes.paths import Path, as_path


def time_score_matching(
  path: Any,
  *,
  weight: Callable[[Any, Any], Any] | None = None,
  history: LossHistory | None = None,
  t_min: Any = None,
  t_max: Any = None,
) -> Objective:
  """Time score matching: the squared error of the time score d/dt log p_t(x), up to a constant.

  The constant is free of the model (arXiv:2111.11010, eq. 11).

  Integrated by parts in t at fixed x, under uniform times on [t_min, t_max] of length T and with w the
  weight:

    interior = w s^2 + 2 w ds/dt + 2 w' s at x_t,   boundary = (2 w s at t_min - 2 w s at t_max) / T

  so that the mean is that of w (s - d/dt log p_t)^2 - w (d/dt log p_t)^2. The boundary terms are left out
  where w is zero.

  Args:
    path: a path, or a Gaussian process (data at t_min, noise at t_max).
    weight: (path, t [B]) -> [B], differentiable in t: `noise_variance()` (default),
      `diffusion_coefficient()`, `both_ends()`, `uniform()`, or any other. It is part of the derivation, so
      `weight_by` raises on this objective.
    history: `loss_history()` for importance weights by the history of the loss, which is then the objective's
      state.
    t_min, t_max: the interval, inside of the path's; the time sampler must have the same.

  The batch is a dict with 'x' [B, ...] where one end of the path is data, and a pair of such dicts, that of
  p_0 and that of p_1, where both are. View needed: 'time_score', [B], whose derivative in t is
  taken in forward mode.

  Raises:
    ValueError: something without a path, an interval outside of it, a weight that does not fit, a batch of
      another form.

  >>> from diffusion import losses, processes
  >>> objective = losses.time_score_matching(processes.linear(), weight=losses.both_ends())
  >>> objective.takes_weight, sorted(objective.needs["model"])
  (True, ['time_score'])
  """
  name = "time_score_matching"
  weighting = make_weighting(path, weight, history, t_min, t_max, name)
  inner = weighting.path

  def evaluate(roles, placed, params, state, clock):
    t, cond = placed.t, placed.cond
    time_score = lambda x, t: checked(roles["model"](x, t, cond, views=("time_score",)).time_score, t, name)
    value, slope = jax.jvp(lambda t: time_score(placed.x_t, t), (t,), (jnp.ones_like(t),))
    value, slope = (a.astype(at_least_single(a.dtype)) for a in (value, slope))
    objective = lambda w, d_w: w * jnp.square(value) + 2.0 * (w * slope + d_w * value)
    factor, d_factor = weighting(t, state)
    interior = objective(factor.astype(value.dtype), d_factor.astype(value.dtype))
    boundary = jnp.zeros_like(interior)
    for end, sign in ((inner.t_min, 2.0), (inner.t_max, -2.0)):
      factor = weighting.at_end(end, t, state)
      if factor is not None:
        at = jnp.full_like(t, end)
        ended = time_score(point(path_of(path), placed, at), at).astype(value.dtype)
        boundary += sign * factor.astype(value.dtype) * ended / _length(inner, value.dtype)
    metrics = {"time_score": value}
    if history is not None:
      metrics["without_history"] = objective(*(a.astype(value.dtype) for a in weighting.base(t)))
    return terms(interior, boundary, metrics)

  init, update = (no_init, no_update) if history is None else _kept(history, weighting)
  return Objective(
    name=name,
    draw=drawing(path_of(path), name),
    place=noised_by(path_of(path)),
    evaluate=evaluate,
    process=_on_interval(path, inner),
    takes_weight=True,
    init=init,
    update=update,
    needs={"model": {"time_score": name}},
    interval=(inner.t_min, inner.t_max),
  )


def _kept(history: LossHistory, weighting: Weighting) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """The init and update of an objective whose state is a history of its losses."""
  init = lambda key: ({}, history.init())
  update = lambda state, t, terms: history.update(state, weighting.place(t), terms.metrics["without_history"])
  return init, update


def path_of(path: Any) -> Path:
  """The path itself, or that of a process."""
  return as_path(path, "time_score_matching")


def make_weighting(
  path: Any, weight: Callable[[Any, Any], Any] | None, history: Any, t_min: Any, t_max: Any, name: str
) -> Weighting:
  """The weight on the interval, checked. Raises ValueError."""
  inner = as_path(path, name)
  low, high = (end if given is None else given for end, given in ((inner.t_min, t_min), (inner.t_max, t_max)))
  if t_min is not None or t_max is not None:
    if not float(low) < float(high):
      raise ValueError(f"{name} needs t_min below t_max, got [{low}, {high}]")
    start = inner.t_min if isinstance(path, Path) else 0.0  # a process is defined below its own t_min
    if not (float(start) <= float(low) and float(high) <= float(inner.t_max)):
      raise ValueError(
        f"{name} got times [{low}, {high}], but {inner.name} runs from {start} to {inner.t_max}: "
        "choose t_min and t_max inside of it"
      )
  if history is not None and not isinstance(history, LossHistory):
    raise ValueError(f"history is losses.loss_history(...), got {history!r}")
  weight = noise_variance() if weight is None else weight
  if not callable(weight):
    raise ValueError(f"weight is a function (path, t) such as losses.both_ends(), got {weight!r}")
  inner = inner.replace(t_min=low, t_max=high)  # pyright: ignore[reportAttributeAccessIssue] (of struct.dataclass)
  check_weight(weight, inner, name)
  return Weighting(inner, weight, history)


def drawing(path: Path, name: str) -> Callable[..., Draw]:
  """The draw of an objective on a path: paired examples of its ends, and noise."""
  pair = path.ends == ("data", "data")

  def draw(key, batch, t, state):
    del state
    x0, x1, cond, rows = _ends_of(path, batch, pair, name)
    like = x1 if x0 is None else x0
    noise_keys, keys = split_keys(example_keys(key, rows), 2)
    return Draw(t=t, x0=x0, noise=path.noise(noise_keys, like), x1=x1, cond=cond, keys=keys)

  return draw


def point(path: Path, placed: Placed, t: jax.Array) -> jax.Array:
  """Where the path is at times t: [B, ...], with the same ends and noise."""
  return path.corrupt(placed.x0, placed.noise, t, placed.x1).astype(placed.x_t.dtype)


def checked(value: jax.Array, t: jax.Array, name: str) -> jax.Array:
  """The time score, which is one number an example."""
  if value.shape != t.shape:
    raise ValueError(
      f"{name}: time_score returned shape {value.shape} for times {t.shape}; it is one number per example"
    )
  return value


def _ends_of(path, batch, pair, name) -> tuple[Any, Any, Any, Any]:
  """(x0, x1, cond, the dict with the rows) of a batch. Raises ValueError for another form."""
  if pair:
    if (
      not isinstance(batch, (tuple, list))
      or len(batch) != 2
      or not all(isinstance(b, dict) and "x" in b for b in batch)
    ):
      raise ValueError(
        f"{name} on {path.name}, whose two ends are data, takes a pair of batches ({{'x': of p_0}}, {{'x': "
        f"of p_1}})"
      )
    if batch[0]["x"].shape != batch[1]["x"].shape:
      raise ValueError(
        f"the two ends of a path are paired row by row, got shapes {batch[0]['x'].shape} and "
        f"{batch[1]['x'].shape}: "
        "draw as many of one as of the other"
      )
    return batch[0]["x"], batch[1]["x"], batch[0].get("cond"), batch[0]
  if not isinstance(batch, dict) or "x" not in batch:
    raise ValueError(
      f"{name} on {path.name} takes a batch that is a dict with 'x' [B, ...], got "
      f"{sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
    )
  x = batch["x"]
  return (
    (x, None, batch.get("cond"), batch) if path.ends[0] == "data" else (None, x, batch.get("cond"), batch)
  )


def _on_interval(path, inner):
  """What was given, with the objective's interval."""
  return inner if isinstance(path, Path) else path.replace(t_min=inner.t_min, t_max=inner.t_max)


def _length(path, dtype):
  return jnp.asarray(path.t_max - path.t_min, dtype)
