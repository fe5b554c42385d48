"""Discrete flow matching: cross-entropy of the data along a mixture path (arXiv:2407.15595)."""

from typing import Any

import jax.numpy as jnp

from diffusion.losses.base import Objective, terms
from diffusion.losses.whole_numbers import check_path, drawn_values, log_p_of, of_model
from diffusion.math.precision import sum_rows


def discrete_flow_matching(process: Any, *, weight: str = "one") -> Objective:
  """The cross-entropy -log p(x_0 | x_t) of all coordinates along a mixture path, in nats.

  On the path each coordinate is the data's own with probability kappa = alpha(t), else it is drawn from the
  noise, apart from all others (arXiv:2407.15595, eq. 9 and 25). The model of p(x_0 | x_t) gives the velocity
  kappa' / (1 - kappa) (p - delta_x) of sampling.

  Args:
    process: a discrete process; for 'generalised_kl' a mixture path, under which a coordinate keeps its value
      with probability alpha or is drawn anew, such as `processes.masked` and `processes.uniform_resample`.
    weight: 'one', the cross-entropy as it is, of which the value is the mean over t of what x_t leaves
      unknown; or 'generalised_kl', the divergence of the model's velocity from that given x_0, whose integral
      is an upper bound of -log p(x_0) (arXiv:2412.03487, section 5): with c = -alpha' / (1 - alpha) each
      coordinate costs c times -log p(x_0 | x_t) where x_t is not x_0, less p(x_t | x_t), plus one where x_t
      is x_0. Under masks that is `masked_cross_entropy`. Under other noise the bound is above the entropy
      even at the exact posterior, for paths given x_0 jump once, and their mixture remembers whether it has.

  batch: a dict with 'x' [B, ...] int below K and, if conditional, 'cond'. The model is asked for 'logits'
  [B, ..., K].

  Raises ValueError for a process that is no mixture, another weight, or a batch without 'x' or of values that
  the process has not.

  >>> from diffusion import denoisers, losses, processes
  >>> objective = losses.discrete_flow_matching(processes.uniform_resample(4))
  >>> even = denoisers.from_functions(logits=lambda params, x, t, cond: jnp.zeros((*x.shape, 4)))
  >>> noise = dict(uniform=jnp.ones((1, 1)), value=jnp.zeros((1, 1), int))
  >>> draw = losses.Draw(t=jnp.full(1, 0.5), x0=jnp.array([[1]]), noise=noise)
  >>> objective({"model": even}, draw).interior.round(3).tolist()  # log(4)
  [1.386...]
  """
  name = "discrete_flow_matching"
  if weight not in ("one", "generalised_kl"):
    raise ValueError(f"{name} takes weight='one' or 'generalised_kl', got {weight!r}")
  check_path(process, name, mixes=weight == "generalised_kl")

  def evaluate(roles, placed, params, state, clock):
    prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=("logits",), key=placed.key)
    nats = -log_p_of(prediction.logits, placed.x0)
    metrics = {"cross_entropy": sum_rows(nats)}
    value = metrics["cross_entropy"]
    if weight == "generalised_kl":
      same = placed.x_t == placed.x0
      # A state that is no value, such as the mask, is nothing that the model expects.
      at = jnp.minimum(placed.x_t, process.num_values - 1)
      stays = jnp.where(placed.x_t < process.num_values, jnp.exp(log_p_of(prediction.logits, at)), 0.0)
      keep = process.clock(placed.t)
      rate = -keep.d_alpha / jnp.where(keep.noised > 0, keep.noised, 1.0)
      value = rate.astype(value.dtype) * sum_rows(jnp.where(same, 1.0 - stays, nats - stays))
    return terms(value, metrics=metrics, collections=of_model(prediction.collections))

  return Objective(
    name=name,
    draw=drawn_values(process, name),
    evaluate=evaluate,
    process=process,
    needs={"model": {"logits": name}},
  )
