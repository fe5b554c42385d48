"""Steps sized by their own error, for each sample by itself: what is common to all such samplers.

A step is tried at two orders. Their difference, in units of a tolerance, says whether to keep the higher one
and how long the next step may be (arXiv:2206.00927, appendix C; arXiv:2105.14080, algorithm 1). Every sample
has its own clock and step; one that has arrived waits for the others, so the batch does not change a sample,
and a batch costs what its slowest sample does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes import expand
from diffusion.solvers import brownian, clock, randomness
from diffusion.solvers.table import About

# A step never changes by more than these factors at once, so that neither an error of zero nor one that is
# not finite ends the run.
SHRINK, GROW = 0.2, 5.0
# Steps are powers of 2^(1/8). Another batch size or device rounds errors otherwise, and steps that followed
# them closely would turn that into differences as large as the tolerance.
PER_OCTAVE = 8


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two orders of one step.

  Attributes:
    attempt: (look, node, u [B, ...], lambda [B], h [B], path, before) -> (lower, higher, path at the end),
      each [B, ...]; look(u, node) evaluates the denoiser, node(lambda) gives a place; path(lambdas [k, B])
      reads B(e^2lambda) at k places, of which `before` is the value at the start of the step; None without
      noise.
    view: what the network is asked for.
    evaluations: denoiser calls of one attempt.
    exponent: the next step is safety * error^-exponent times this one.
    random: whether it needs noise.
  """

  attempt: Callable[..., Any]
  view: str
  evaluations: int
  exponent: float
  random: bool = False


@struct.dataclass
class State:
  """Of B samples.

  Attributes:
    u: [B, ...] x over its norm.
    before: [B, ...] the lower-order result of the last step kept, for the size of the relative error.
    clock: [B] lambda reached.
    h: [B] step to try next.
    path: [B, ...] the Brownian path there, or None.
    evaluations: [B] denoiser calls so far.
    stuck: [B] whether the step became too small to change the clock.
  """

  u: Any
  before: Any
  clock: Any
  h: Any
  path: Any
  evaluations: Any
  stuck: Any


@struct.dataclass
class Adaptive:
  """A sampler of such steps; see `dpm_solver_adaptive` and `adaptive_sde`. Tolerances are data.

  Attributes:
    span: from where to where.
    rtol, atol: relative and absolute tolerance, in units of u.
    h_init, h_max: first and longest step in lambda.
    safety: factor below 1.
    max_steps: attempts after which a sample is given up.
    pair: the two orders.
    denoise: whether to return the posterior mean at the end, one more evaluation.
    about: name and order.
  """

  span: Any
  rtol: Any
  atol: Any
  h_init: Any
  h_max: Any
  safety: Any
  max_steps: Any
  pair: Pair = struct.field(pytree_node=False)
  denoise: bool = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  adaptive = True
  num_steps = None
  nfe = None

  @property
  def stochastic(self):
    """Whether sampling needs keys."""
    return self.pair.random

  @property
  def order(self):
    """Order of the result that is kept."""
    return self.about.order

  @property
  def name(self):
    """What messages call it."""
    return self.about.name

  def init(self, denoiser, x, keys, cond=None):
    """The state at the start, from x: [B, ...] at t_max."""
    del keys
    u = clock.begin(self.span, denoiser, x, cond)
    rows = lambda value, dtype=x.dtype: clock.rows(x, value, dtype)
    path = expand(rows(0.0), x) * jnp.zeros_like(x) if self.pair.random else None
    count = rows(int(self.span.from_noise), jnp.int32)
    return State(u, u, rows(self.span.start), rows(self.h_init), path, count, rows(0) > 0)

  def done(self, state):
    """Which samples have arrived or are stuck: [B]."""
    return (state.clock >= jnp.asarray(self.span.end, state.clock.dtype)) | state.stuck

  def step(self, denoiser, state, i, keys, cond=None, post_step=None):
    """One attempt at a step of every sample that is not done."""
    u, dtype = state.u, state.u.dtype
    active = ~self.done(state)
    number = lambda leaf: jnp.asarray(leaf, dtype)
    there = jnp.minimum(state.clock + jnp.minimum(state.h, number(self.h_max)), number(self.span.end))
    node = lambda at: clock.node(self.span, at)
    look = lambda u, place: clock.look(denoiser, u, place, cond, self.pair.view)
    read = jax.vmap(lambda at: brownian.path(keys, at, self.span.start, self.span.end, u))
    low, high, path = self.pair.attempt(look, node, u, state.clock, there - state.clock, read, state.path)

    allowed = jnp.maximum(number(self.atol), number(self.rtol) * jnp.maximum(abs(low), abs(state.before)))
    error = jnp.sqrt(jnp.mean(((high - low) / allowed).reshape(u.shape[0], -1) ** 2, axis=-1))
    accept = active & (error <= 1)
    change = number(self.safety) * jnp.maximum(error, 1e-20) ** -self.pair.exponent
    change = jnp.where(jnp.isfinite(error), jnp.clip(change, SHRINK, GROW), SHRINK)
    h = jnp.exp2(jnp.floor(PER_OCTAVE * jnp.log2((there - state.clock) * change)) / PER_OCTAVE)
    h = jnp.where(active, h, state.h)

    if post_step is not None:
      place = node(there)
      hook = None if keys is None else randomness.fold(keys, i + 1, randomness.HOOK)
      high = post_step(expand(place.norm, u) * high, place.t, hook).astype(dtype) / expand(place.norm, u)
    keep = lambda new, old: jnp.where(expand(accept, new), new, old)
    return State(
      keep(high, u),
      keep(low, state.before),
      keep(there, state.clock),
      h,
      None if path is None else keep(path, state.path),
      state.evaluations + jnp.where(active, self.pair.evaluations, 0).astype(jnp.int32),
      state.stuck | (active & ~accept & (h < 100 * np.finfo(dtype).eps)),
    )

  def finish(self, denoiser, state, cond=None):
    """(x [B, ...], evaluations [B]); NaN where a sample did not arrive."""
    place = clock.node(self.span, state.clock)
    x = expand(place.norm, state.u) * state.u
    count = state.evaluations
    if self.denoise:
      x, count = clock.look(denoiser, state.u, place, cond, "x0"), count + 1
    arrived = self.done(state) & ~state.stuck
    return jnp.where(expand(arrived, x), x, jnp.nan), count

  def __str__(self):
    return (
      f"{self.name}: order {self.order}, steps by error (rtol={float(self.rtol):g}, "
      f"atol={float(self.atol):g}),"
      f" {self.pair.evaluations} evaluations an attempt, asks for {self.pair.view}"
    )


def build(
  process, pair, name, order, *, rtol, atol, h_init, h_max, safety, t_max, t_min, denoise, max_steps
) -> Adaptive:
  """Checks the arguments that all adaptive samplers share.

  Raises:
    TypeError: a process without log-SNR.
    ValueError: a tolerance, first step, safety or max_steps out of range, or bad ends.
  """
  span = clock.span(process, t_max, t_min)
  check_tolerances(rtol, atol, max_steps)
  if not 0 < h_init <= h_max or not 0 < safety < 1:
    raise ValueError(
      f"the first step must be positive and at most the longest, and safety in (0, 1), got h_init={h_init}, "
      f"h_max={h_max} and"
      f" safety={safety}"
    )
  return Adaptive(
    span, rtol, atol, h_init, h_max, safety, int(max_steps), pair, denoise, About(name, order, process)
  )


def check_tolerances(rtol, atol, max_steps):
  """Raises ValueError unless tolerances are positive and there is at least one step."""
  if not rtol >= 0 or not atol > 0 or not np.isfinite(rtol) or not np.isfinite(atol):
    raise ValueError(f"tolerances must be positive (rtol may be 0), got rtol={rtol} and atol={atol}")
  if int(max_steps) != max_steps or max_steps < 1:
    raise ValueError(f"max_steps must be a whole number of at least 1, got {max_steps}")
