"""Diffusion recovery likelihood: an energy for each noise level.

It is fitted by recovering a point from a noisier one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Objective, split_keys, terms
from diffusion.losses.directions import noised
from diffusion.losses.short_run import short_run
from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import expand
from diffusion.processes.recovery import recovery_levels

STARTS = ("noisy", "gaussian")


def recovery_likelihood(
  process: Any,
  levels: Any = 10,
  *,
  steps: int = 30,
  step: Any = 0.3,
  start: str = "noisy",
  adjusted: bool = False,
  data_std: float = 1.0,
) -> Objective:
  """Diffusion recovery likelihood: the likelihood of x_i given the noisier x_{i+1}.

  It is taken as a contrast of energies, with x_{i+1} = gain x_i + noise eps (arXiv:2012.08125, eq. 7-9).

    p(x_i | x_{i+1}) ~ exp(-energy(x_i, t_i) - |x_{i+1} - gain x_i|^2 / (2 noise^2))

  The value is energy(x_i) - energy(negative): its gradient is that of the negative log-likelihood where
  negatives have this law, so follow the metric `energy_gap`, which should stay near nought, rather than look
  for a minimum. Negatives are the end of `steps` Langevin steps from the noisy point, made in `evaluate` from
  the draw's keys, with no gradient through them. The energy is that of x_i, with the process's own p_{t_i} ~
  exp(-energy); the paper's, of y_i = gain x_i, is the same function of y_i / gain. The gradient is half that
  of `denoising_score_matching` where steps between levels are small, so it needs no weight.

  The bias is that of the chain. Long plain Langevin: of first order in `step`, whatever the levels.
  `adjusted` (Metropolis): none. What a chain that is too short adds falls like exp(-steps step / 2).
  start='gaussian', steps=0 is the paper's normal approximation, N(x - v energy'(x), v) around x = x_{i+1} /
  gain with v = (noise / gain)^2: the minimiser is off by O(noise^2), so order 2.

  Args:
    process: a Gaussian process.
    levels: a number of steps T, or T + 1 ascending times (`processes.T6_TIMES` on `processes.ddpm_ladder()`
      is the paper's): see `processes.recovery_levels`. The sampled time chooses the level that it lies above;
      `level_times` gives each the same share.
    steps: of the chain, one energy gradient each.
    step: the square of a step as a share of the variance of x_i given x_{i+1}, or a function such as
      `processes.published_step()`.
    start: 'noisy', or 'gaussian': a draw of the normal approximation.
    adjusted: whether steps are accepted or rejected (MALA).
    data_std: of the data, for the size of the steps.

  batch: a dict with 'x' [B, ...]; needs `energy`. Raises ValueError for levels, steps or a start that do not
  exist.

  >>> from diffusion import losses, processes
  >>> drl = losses.recovery_likelihood(processes.ddpm_ladder(), processes.T6_TIMES)
  >>> sorted(drl.needs["model"]), drl.bias_order
  (['energy'], 1)
  """
  name = "recovery_likelihood"
  table = recovery_levels(process, levels, step=step, data_std=data_std)
  if start not in STARTS:
    raise ValueError(f"{name} has no start {start!r}: choose one of {', '.join(STARTS)}")
  if not isinstance(steps, int) or steps < (start == "noisy"):
    raise ValueError(
      f"{name} takes steps=1 or more from the noisy point, 0 or more from start='gaussian', got {steps!r}"
    )
  inner = noised(process, name)

  def draw(key, batch, t, state):
    at = level_of(table, t)
    drawn = inner(key, batch, jnp.asarray(table.t, t.dtype)[at], state)
    own, keys = split_keys(drawn.keys, 2)
    normal = jax.vmap(lambda k: jax.random.normal(k, drawn.x0.shape[1:], drawn.x0.dtype))(own)
    return drawn.replace(keys=keys, targets={"level": at, "normal": normal})

  def evaluate(roles, placed, params, state, clock):
    x, at = placed.x_t, placed.targets["level"]
    row = lambda leaf: expand(jnp.asarray(leaf, x.dtype)[at], x)
    noisy = row(table.gain) * x + row(table.noise) * placed.targets["normal"]
    energy = lambda x: roles["model"](x, placed.t, placed.cond, views=("energy",)).energy.astype(
      at_least_single(x.dtype)
    )
    point = row(table.start) * noisy
    of_noise = lambda x: 0.5 * sum_rows(jnp.square((noisy - row(table.gain) * x) / row(table.noise)))
    size = row(table.step) if steps else None
    before = row(
      np.where(table.seen, table.noise / np.where(table.seen, table.gain, 1.0), table.deviation[:-1])
    )
    negative, accepted = short_run(
      energy,
      of_noise,
      point,
      placed.keys,
      size,
      steps=steps,
      adjusted=adjusted,
      first=before if start == "gaussian" else None,
    )
    gap = energy(x) - energy(negative)
    metrics = {"energy_gap": gap, "negative_distance": jnp.sqrt(sum_rows(jnp.square(negative - x)))}
    return terms(gap, metrics=metrics | ({"acceptance": accepted} if adjusted and steps else {}))

  order = 2 if steps == 0 else None if adjusted else 1
  return Objective(
    name=name,
    draw=draw,
    evaluate=evaluate,
    process=process,
    needs={"model": {"energy": name}},
    bias_order=order,
  )


def level_of(table: Any, t: jax.Array) -> jax.Array:
  """The level [B] that each time lies at or above; the lowest for times below it."""
  edges = jnp.asarray(table.t, t.dtype)
  return jnp.clip(jnp.searchsorted(edges, t, side="right") - 1, 0, table.count - 1)
