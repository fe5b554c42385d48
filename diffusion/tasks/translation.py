"""Translation between two models through their shared latents (DDIB).

It is its own inverse up to the solver's error.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import numpy.typing as npt
from jax.typing import DTypeLike

from diffusion import solvers
from diffusion.likelihood.flow_map import decode, encode
from diffusion.processes.base import GaussianProcess
from diffusion.processes.comparison import difference
from diffusion.solvers.about import About
from diffusion.solvers.table import Table, build
from diffusion.tasks.encoding import swapped


class Translated(NamedTuple):
  """x: [B, ...] in the target's domain; latent: [B, ...] that both models share."""

  x: jax.Array
  latent: jax.Array


def translate(
  source: Any,
  target: Any,
  x: jax.Array,
  *,
  source_cond: Mapping[str, jax.Array] | None = None,
  target_cond: Mapping[str, jax.Array] | None = None,
  num_steps: int = 64,
  encoder: Any = None,
  decoder: Any = None,
) -> Translated:
  """DDIB: x translated from one model's domain to another's (arXiv:2203.08382, algorithm 1).

  x of the source's domain is carried to noise by the source's flow, and from there to data by the target's.
  The two models were trained apart and share their process alone. With one model of classes as both, it
  translates between its classes. Translating back returns x up to the error of the solver.

  Args:
    source, target: denoisers on one process.
    x: [B, ...] data of the source in units of the model.
    source_cond, target_cond: conditions, for instance {'label': [B]}.
    num_steps: Runge-Kutta steps each way, of order 4, four evaluations each.
    encoder, decoder: deterministic solvers in their place, such as `encoder("heun", process, grid)` and
      `solvers.heun(process, grid)`, tables or adaptive. Where a decoder's last step denoises (a grid that
      ends in clean data, or denoise=True), translating back does not undo that step.

  Raises:
    ValueError: two processes that differ, so that a latent means two things; an encoder that does not start
      at data.

  >>> import jax.numpy as jnp
  >>> from diffusion import oracles, processes
  >>> wide = oracles.gaussian(processes.vp_cosine(), [1.0], [2.0**2])
  >>> narrow = oracles.gaussian(processes.vp_cosine(), [-1.0], [0.5**2])
  >>> translate(wide, narrow, jnp.array([[3.0]])).x.round(1).tolist()  # one deviation above the mean
  [[-0.5]]
  """
  check_shared(source, target)
  if encoder is None:
    latent = encode(source, x, cond=source_cond, num_steps=num_steps)
  elif encoder.about.process_name == swapped(source.process).name:
    latent = _solved(swapped(source), encoder, x, source_cond)
  else:
    if encoder.times is None or encoder.times[..., 0].max() > encoder.times[..., -1].min():
      raise ValueError(
        "the encoder goes from noise to data: make one that goes from data to noise, such as "
        "tasks.encoder('heun', process, grid)"
      )
    latent = _solved(source, encoder, x, source_cond)
  if decoder is None:
    return Translated(decode(target, latent, cond=target_cond, num_steps=num_steps), latent)
  return Translated(_solved(target, decoder, latent, target_cond), latent)


def _solved(denoiser: Any, solver: Any, x: jax.Array, cond: Mapping[str, jax.Array] | None) -> jax.Array:
  return cast(jax.Array, solvers.sample(denoiser, solver, x, cond=cond))  # nothing else was asked for


def check_shared(source: Any, target: Any, tolerance: float = 1e-4) -> None:
  """Checks that two denoisers share their latents.

  Raises ValueError unless their noise levels agree all along their time, on a grid of 64 points.

  >>> from diffusion import oracles, processes
  >>> one = oracles.gaussian(processes.edm(), [0.0], [1.0])
  >>> check_shared(one, oracles.gaussian(processes.vp_cosine(), [0.0], [1.0]))
  Traceback (most recent call last):
  ...
  ValueError: the two models do not share their latents: ...
  """
  wrong = difference(source.process, target.process, tolerance)
  if wrong:
    raise ValueError(f"the two models do not share their latents: {wrong}; train both on one process")


def ddim_encoder(process: GaussianProcess, grid: npt.ArrayLike, dtype: DTypeLike = np.float32) -> Table:
  """DDIM from data to noise, upwards at the times of a grid (arXiv:2203.08382, eq. 12).

  A step is x' = (alpha'/alpha) x + (sigma' - sigma alpha'/alpha) eps.

  Args:
    process: the Gaussian process.
    grid: [n + 1] times, in either direction; the first one upwards has noise, the last one signal.
    dtype: at run time.

  Raises:
    ValueError: a node without noise, where eps is not defined, or without signal.

  >>> from diffusion import processes
  >>> ddim_encoder(processes.edm(), [2.0, 1.0]).t.tolist()
  [1.0, 2.0]
  """
  t = np.sort(np.asarray(grid, np.float64).astype(dtype).astype(np.float64))
  m = process.marginal(t)
  alpha, sigma = (np.broadcast_to(np.asarray(part, np.float64), t.shape) for part in (m.alpha, m.sigma))
  if not (np.all(alpha > 0) and np.all(sigma > 0)):
    raise ValueError(
      "an encoder's nodes have noise and signal: start it a little above t = 0, and end it where alpha is "
      "not 0"
    )
  ratio = alpha[1:] / alpha[:-1]
  return build(
    t,
    A=[[ratio]],
    B=[sigma[1:] - ratio * sigma[:-1]],
    view="eps",
    about=About("ddim_encoder", 1, process),
    dtype=dtype,
  )
