"""The update direction as an optax chain, and the learning rate as a pure function of the global step.

The two are kept apart: the rate is computed from the step of the train state, never from a counter that a
process or a restart could advance on its own.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from diffusion.config import factories
from diffusion.config.errors import UserError

SCHEDULES = ("constant", "cosine", "linear")


def _span(section: Mapping, name: str, batch_size: int, default: float) -> float:
  """A length given in steps (`name_steps`) or images (`name_images`), in steps."""
  steps, images = section.get(f"{name}_steps"), section.get(f"{name}_images")
  if steps is not None and images is not None:
    raise UserError(f"config.optimizer has both {name}_steps and {name}_images; give one")
  if steps is not None:
    return float(steps)
  return float(default if images is None else images / batch_size)


def learning_rate(section: Mapping, batch_size: int, steps: int) -> Callable[[jax.Array], jax.Array]:
  """step [] int -> learning rate [] float32.

  Args:
    section: `learning_rate`, `schedule` ('constant', 'cosine' or 'linear'), `warmup_steps` or `warmup_images`
      (linear rise from 0), `decay_steps` or `decay_images` (where the decay ends; the whole run if absent),
      `final` (the last rate as a share of the first, 0).
    batch_size: images in one step.
    steps: of the whole run.

  >>> section = dict(learning_rate=1.0, schedule="cosine", warmup_images=40)
  >>> rate = learning_rate(section, batch_size=4, steps=110)
  >>> [round(float(rate(jnp.int32(step))), 3) for step in (0, 5, 10, 60, 110)]
  [0.0, 0.5, 1.0, 0.5, 0.0]
  """
  kind = section.get("schedule", "constant")
  if kind not in SCHEDULES:
    raise UserError(
      f"config.optimizer.schedule='{kind}'{factories.closest(str(kind), SCHEDULES)}; the schedules are "
      f"{', '.join(SCHEDULES)}"
    )
  peak, final = float(section["learning_rate"]), float(section.get("final") or 0.0)
  warm = _span(section, "warmup", batch_size, 0)
  end = _span(section, "decay", batch_size, steps)

  def rate(step):
    step = jnp.asarray(step).astype(jnp.float32)
    rise = jnp.minimum(1.0, step / warm) if warm > 0 else jnp.float32(1.0)
    if kind == "constant":
      return peak * rise
    part = jnp.clip((step - warm) / max(end - warm, 1.0), 0.0, 1.0)
    fall = 0.5 * (1.0 + jnp.cos(jnp.pi * part)) if kind == "cosine" else 1.0 - part
    return peak * rise * (final + (1.0 - final) * fall)

  return rate


KEYS = (
  "learning_rate",
  "schedule",
  "warmup_steps",
  "warmup_images",
  "decay_steps",
  "decay_images",
  "final",
  "b1",
  "b2",
  "eps",
  "clip",
  "weight_decay",
  "scale",
)


RANGES = (
  ("b1", lambda x: 0 <= x < 1, "at least 0 and below 1"),
  ("b2", lambda x: 0 <= x < 1, "at least 0 and below 1"),
  ("eps", lambda x: x > 0, "positive"),
  ("clip", lambda x: x >= 0, "0 (no clipping) or positive"),
  ("weight_decay", lambda x: x >= 0, "at least 0"),
  ("learning_rate", lambda x: x >= 0, "at least 0"),
)


def direction(section: Mapping) -> optax.GradientTransformation:
  """Gradient -> descent direction before the learning rate: clip, scale (Adam), add weight decay.

  Args:
    section: `b1`, `b2`, `eps` of Adam; `clip`, the largest global norm (None or 0: no clipping);
      `weight_decay`, decoupled from the gradient (AdamW), for the network but its fixed frequencies; `scale`,
      a section whose factory makes another optax transformation than Adam (`dict(factory='optax.identity')`
      is SGD).
  """
  for key in section:
    if key not in KEYS:
      raise UserError(
        f"unknown key config.optimizer.{key}{factories.closest(key, KEYS)}; it has {', '.join(KEYS)}"
      )
  for key, allowed, text in RANGES:
    if section.get(key) is not None and not allowed(section[key]):
      raise UserError(f"config.optimizer.{key}={section[key]}: it must be {text}")
  parts = []
  if section.get("clip"):
    parts.append(optax.clip_by_global_norm(float(section["clip"])))
  if section.get("scale"):
    parts.append(factories.build(section["scale"], where="config.optimizer.scale"))
  else:
    parts.append(
      optax.scale_by_adam(
        b1=section.get("b1", 0.9), b2=section.get("b2", 0.999), eps=section.get("eps", 1e-8)
      )
    )
  if section.get("weight_decay"):
    parts.append(optax.add_decayed_weights(float(section["weight_decay"]), mask=_learned))
  return optax.chain(*parts)


def _learned(params):
  """Which parameters decay: those of the network.

  The fixed frequencies of its Fourier embedding do not, nor do the loss's own parameters.
  """

  def decays(path, _):
    names = [getattr(entry, "key", None) for entry in path]
    return names[0] != "loss" and names[-1] != "frequencies"

  return jax.tree_util.tree_map_with_path(decays, params)
