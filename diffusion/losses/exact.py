"""Score matching with the exact trace: the reference for every estimate of it."""

from typing import Any

import jax

from diffusion.losses.base import Objective, Placed, Terms, terms
from diffusion.losses.directions import constant, noise_level, noised, predicted_noise
from diffusion.math.directional import WIDTH, trace
from diffusion.math.precision import sum_rows
from diffusion.processes.base import expand


def score_matching(process: Any = None, *, width: int = WIDTH) -> Objective:
  """Score matching: Hyvarinen's objective with the exact trace of the Jacobian.

  The trace takes D directional derivatives (JMLR 6, 2005, theorem 1).

  On x_t of a process it matches the score of p_t and is stated in units of eps,

      sigma^2 (||s||^2 + 2 tr ds/dx) + D,

  whose expectation is that of `denoising_score_matching`, value and gradient. On clean data (process=None) it
  is
  ||s||^2 + 2 tr ds/dx, twice the paper's; the time is passed on to the model and means what it makes of it.
  Clean data must have a density that vanishes at the border of its support: a trace of discrete or bounded
  data diverges, and noise is the cure.

  batch: a dict with 'x' [B, ...]; needs `score`, from a score, a denoiser or an energy. `width` directional
  derivatives are held in memory at a time. Raises ValueError for what is no process, or width below 1.

  >>> from diffusion import losses, processes
  >>> sorted(losses.score_matching(processes.edm()).needs["model"])
  ['score']
  """
  name = "score_matching"
  draw = noised(process, name)
  if not isinstance(width, int) or width < 1:
    raise ValueError(f"{name} holds width=1 or more directional derivatives at a time, got {width!r}")

  def evaluate(roles, placed, params, state, clock):
    x = placed.x_t
    function = predicted_noise(process, roles, placed)
    scaled, collections = function(x)
    sigma = expand(noise_level(process, placed), x)
    slope = lambda v: jax.jvp(lambda x: function(x)[0], (x,), (sigma * v,))[1]
    return matching_terms(process, placed, sum_rows(scaled**2), trace(slope, x, width=width), collections)

  return Objective(name=name, draw=draw, evaluate=evaluate, process=process, needs={"model": {"score": name}})


def matching_terms(
  process: Any, draw: Placed, square: jax.Array, trace: jax.Array, collections: Any = None
) -> Terms:
  """The terms of every form of score matching, from its square [B] and its trace [B]."""
  return terms(
    square + 2.0 * trace + constant(process, draw),
    metrics={"square": square, "trace": trace},
    collections=None if collections is None else {"model": collections},
  )
