"""Translation between two models through their shared latents (DDIB), which is its own inverse up to the
solver's error."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion import solvers
from diffusion.likelihood.flow_map import decode, encode
from diffusion.processes.comparison import apart
from diffusion.solvers.about import About
from diffusion.solvers.table import Table, build
from diffusion.tasks.encoding import swapped


class Translated(NamedTuple):
  """x: [B, ...] in the target's domain; latent: [B, ...] that both models share."""

  x: jnp.ndarray
  latent: jnp.ndarray


def translate(
  source, target, x, *, source_cond=None, target_cond=None, num_steps=64, encoder=None, decoder=None
) -> Translated:
  """x of the source's domain carried to noise by the source's flow, and from there to data by the target's
  (arXiv:2203.08382, algorithm 1).

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

  >>> from diffusion import oracles, processes
  >>> wide, narrow = (oracles.gaussian(processes.vp_cosine(), [mean], [std**2]) for mean, std in ((1.0, 2.0), (-1.0, 0.5)))
  >>> translate(wide, narrow, jnp.array([[3.0]])).x.round(1).tolist()         # one standard deviation above the mean
  [[-0.5]]
  """
  check_shared(source, target)
  if encoder is None:
    latent = encode(source, x, cond=source_cond, num_steps=num_steps)
  elif encoder.about.process_name == swapped(source.process).name:
    latent = solvers.sample(swapped(source), encoder, x, cond=source_cond)
  else:
    if encoder.times is None or encoder.times[..., 0].max() > encoder.times[..., -1].min():
      raise ValueError(
        "the encoder goes from noise to data: make one that goes from data to noise, such as "
        "tasks.encoder('heun', process, grid)"
      )
    latent = solvers.sample(source, encoder, x, cond=source_cond)
  if decoder is None:
    return Translated(decode(target, latent, cond=target_cond, num_steps=num_steps), latent)
  return Translated(solvers.sample(target, decoder, latent, cond=target_cond), latent)


def check_shared(source, target, tolerance=1e-4) -> None:
  """Raises ValueError unless the noise levels of two denoisers agree all along their time, on a grid of 64
  points.

  >>> from diffusion import oracles, processes
  >>> check_shared(oracles.gaussian(processes.edm(), [0.0], [1.0]), oracles.gaussian(processes.vp_cosine(), [0.0], [1.0]))
  Traceback (most recent call last):
  ...
  ValueError: the two models do not share their latents: ...
  """
  wrong = apart(source.process, target.process, tolerance)
  if wrong:
    raise ValueError(f"the two models do not share their latents: {wrong}; train both on one process")


def ddim_encoder(process, grid, dtype=np.float32) -> Table:
  """DDIM from data to noise: x' = (alpha'/alpha) x + (sigma' - sigma alpha'/alpha) eps at the times of a
  grid, upwards (arXiv:2203.08382, eq. 12).

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
