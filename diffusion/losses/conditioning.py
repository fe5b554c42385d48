"""Conditions that the draw changes: dropped, or given a random guidance weight.

Dropped, they let one network learn both scores of guidance.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion.denoisers import null_condition
from diffusion.losses.base import Objective, example_keys
from diffusion.processes.base import expand


def condition_dropout(rate: float) -> Callable[[Objective], Objective]:
  """Replaces batch['cond'] by the null condition with probability `rate`, per example.

  Source: arXiv:2207.12598, algorithm 1. All leaves of one example are dropped together. Raises ValueError
  unless 0 <= rate <= 1, and for a batch without 'cond'.

  >>> from diffusion import losses, processes
  >>> dsm = losses.chain(losses.denoising_score_matching(processes.edm()), losses.condition_dropout(1.0))
  >>> batch = {"x": jnp.zeros((2, 3)), "cond": {"label": jnp.array([4, 7])}}
  >>> dsm.draw(jax.random.key(0), batch, jnp.ones(2), {}).cond["label"].tolist()
  [-1, -1]
  """
  if not 0.0 <= rate <= 1.0:
    raise ValueError(f"condition_dropout takes a probability between 0 and 1, got rate={rate}")

  def transform(objective):
    def draw(key, batch, t, state):
      if not isinstance(batch, dict) or batch.get("cond") is None:
        raise ValueError(
          "condition_dropout needs a conditional batch: a dict with 'cond', such as "
          "{'x': ..., 'cond': {'label': ...}}; without a condition leave it out"
        )
      own_key = jax.random.fold_in(key, DROPOUT)
      keys = example_keys(own_key, batch)
      dropped = jax.vmap(lambda k: jax.random.bernoulli(k, rate))(keys)
      null = null_condition(batch["cond"])
      cond = jax.tree.map(
        lambda leaf, empty: jnp.where(expand(dropped, leaf), empty, leaf), batch["cond"], null
      )
      # The rest is drawn with the same key, so that dropout leaves the noise as it was.
      return objective.draw(key, {**batch, "cond": cond}, t, state)

    return objective.replace(
      name=f"condition_dropout({objective.name})",
      draw=draw,
      drops_condition=objective.drops_condition or rate > 0,
    )

  return transform


def random_guidance(
  low: float = 0.0, high: float = 4.0, power: float = 1.0
) -> Callable[[Objective], Objective]:
  """Adds a random guidance weight to the condition of each example, as 'guidance' [B].

  The weight is w = low + (high - low) u^power (arXiv:2210.03142, section 3.1).

  For `distillation` and `progressive_distillation`: one model learns every weight between the two. Weights
  are in this library's convention, (1 + w) conditional - w unconditional. u is uniform; power 1 is the
  paper's. Targets grow with w, so a power above 1, with more of the small weights, keeps them from being
  learned last. Raises ValueError for an empty or negative range, a power that is not positive, and for a
  batch without 'cond'.

  >>> from diffusion import losses, processes
  >>> stage_one = losses.chain(losses.distillation(processes.edm()), losses.random_guidance(1.0, 4.0))
  >>> batch = {"x": jnp.zeros((2, 3)), "cond": {"label": jnp.array([4, 7])}}
  >>> sorted(stage_one.draw(jax.random.key(0), batch, jnp.ones(2), {}).cond)
  ['guidance', 'label']
  """
  if not 0.0 <= low < high < float("inf"):
    raise ValueError(
      f"random_guidance draws weights between 0 <= low < high, got [{low}, {high}]: 0 is the conditional "
      "model without guidance"
    )
  if not power > 0:
    raise ValueError(f"random_guidance takes a power above 0, 1 for equal shares, got {power}")

  def transform(objective):
    def draw(key, batch, t, state):
      if not isinstance(batch, dict) or not jax.tree.leaves(batch.get("cond")):
        raise ValueError(
          "guidance without a conditional model: random_guidance needs a batch with 'cond', such as {'x': "
          "..., 'cond': "
          "{'label': ...}}; to distil an unguided model leave it out"
        )
      keys = example_keys(jax.random.fold_in(key, GUIDANCE), batch)
      weight = low + (high - low) * jax.vmap(lambda k: jax.random.uniform(k, (), t.dtype))(keys) ** power
      # The rest is drawn with the same key, so that the weight leaves the noise as it was.
      return objective.draw(key, {**batch, "cond": {**batch["cond"], "guidance": weight}}, t, state)

    conditions = {**objective.conditions, "guidance": (float(low), float(high))}
    return objective.replace(name=f"random_guidance({objective.name})", draw=draw, conditions=conditions)

  return transform


# Purposes, folded into the key: any numbers that no other draw folds in.
DROPOUT = 0x5EED
GUIDANCE = 0x6D1DE
