"""Guidance on discrete processes: what acts on the log-probabilities of each coordinate, and what follows."""

from typing import Any

import jax

from diffusion.denoisers import Prediction


def asks(denoiser: Any, views: tuple[str, ...]) -> tuple[str, ...]:
  """What to ask a denoiser for so that guidance can act on it: the views themselves, or logits alone.

  Logits where the process is discrete and all the views follow from them: guidance is linear in
  log-probabilities, and not in probabilities, ratios and rates.

  >>> from diffusion import oracles, processes
  >>> process = processes.masked(2, (1,))
  >>> asks(oracles.masked_categorical(process, [[0.5, 0.5]]), ("probabilities",))
  ('logits',)
  """
  return ("logits",) if on_logits(denoiser, views) else views


def on_logits(denoiser: Any, views: tuple[str, ...]) -> bool:
  """Whether these views are of a discrete process, and follow from logits that the denoiser answers."""
  process = denoiser.process
  if process is None or process.kind != "discrete" or "logits" not in denoiser.views:
    return False
  follows = process.views_of("logits")
  return all(view in follows for view in views)


def follow(denoiser: Any, prediction: Prediction, x: Any, t: jax.Array, views: tuple[str, ...]) -> Prediction:
  """The views from a prediction of what `asks` said: of logits, normalised, or as they are.

  Args:
    denoiser: that was asked.
    prediction: of `asks(denoiser, views)`, changed by guidance; logits [B, ..., K] need not be normalised.
    x: [B, ...].
    t: [B].
    views: which to give.
  """
  if not on_logits(denoiser, views):
    return prediction
  found = denoiser.process.convert("logits", prediction.logits, x, t, views)
  return Prediction(collections=prediction.collections, **found)
