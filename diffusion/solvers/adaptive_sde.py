"""The reverse SDE with steps sized by their error."""

import jax.numpy as jnp

from diffusion.processes import expand
from diffusion.solvers import adaptive


def adaptive_sde(
  process,
  *,
  rtol=0.05,
  atol=0.0078,
  h_init=0.01,
  h_max=1.0,
  safety=0.9,
  t_max=None,
  t_min=None,
  denoise=True,
  max_steps=2000,
) -> adaptive.Adaptive:
  """Two-stage steps of the reverse SDE, each sample at its own pace (step control of arXiv:2105.14080,
  algorithm 1).

  As there, a one-stage step x' and a two-stage step x'' share their noise; x'' is kept if they differ by less
  than max(atol, rtol |x|), root mean square, and the next step is safety * E^-0.9 times as long. Two
  evaluations an attempt. Three things are different. The linear part and the noise of a step in
  log(alpha/sigma) are exact, as in SDE-DPM-Solver++ (arXiv:2211.01095, section 5), so that only the change of
  the denoiser is an error. The second stage lies in the middle of the
  step: at its end a step from pure noise to data would confirm itself, because the mean of the data is its
  own denoised image. And a rejected step does not draw anew, which would favour some noises, but reads the
  same Brownian path at a nearer
  place: with smaller tolerances samples converge path by path.

  Args:
    process: the Gaussian process.
    rtol, atol: tolerances for x over sqrt(alpha^2 + sigma^2); the paper's atol is 2/256 for data in [-1, 1],
      its rtol 0.01 to 0.5.
    h_max: longest step in log(alpha/sigma). In few dimensions the two stages agree by accident now and then:
      on a Gaussian at the tolerances (0.02, 0.005) samples have 8% too little variance in 1 dimension, and in
      16 none that 8,000 numbers could show. There take a smaller h_max or a table.
    h_init, safety, t_max, t_min, denoise, max_steps: as in `dpm_solver_adaptive`.

  Raises:
    TypeError: a process without log-SNR.
    ValueError: a tolerance that is not positive, bad ends.

  >>> from diffusion import processes
  >>> print(adaptive_sde(processes.edm(), rtol=0.02))
  adaptive_sde: order 1, steps by error (rtol=0.02, atol=0.0078), 2 evaluations an attempt, asks for x0
  """
  steps = dict(rtol=rtol, atol=atol, h_init=h_init, h_max=h_max, safety=safety, max_steps=max_steps)
  return adaptive.build(process, PAIR, "adaptive_sde", 1, t_max=t_max, t_min=t_min, denoise=denoise, **steps)


def _attempt(look, node, u, clock, h, path, before):
  """x' = (s'/s) e^-h x + a' (1 - e^-2h) D + s' e^-lambda' dB, and x'' with the D of the middle of the step,
  reached likewise."""
  here = node(clock)
  of = lambda weight, y: expand(weight, u) * y

  def step(place, h, seen, noise):
    return (
      of(place.s / here.s * jnp.exp(-h), u)
      - of(place.a * jnp.expm1(-2 * h), seen)
      + of(place.s * jnp.exp(-(clock + h)), noise)
    )

  first = look(u, here)
  middle, there = node(clock + h / 2), node(clock + h)
  inside, at_end = path(jnp.stack([clock + h / 2, clock + h]))
  second = look(step(middle, h / 2, first, inside - before), middle)
  return step(there, h, first, at_end - before), step(there, h, second, at_end - before), at_end


PAIR = adaptive.Pair(_attempt, "x0", 2, 0.9, random=True)
