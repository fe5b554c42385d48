"""Steps sized by their own error, for each sample by itself: what is common to all such samplers.

A step is tried at two orders. Their difference, in units of a tolerance, says whether to keep the higher one
and how long the next step may be (arXiv:2206.00927, appendix C; arXiv:2105.14080, algorithm 1). Every sample
has its own clock and step; one that has arrived waits for the others, so the batch does not change a sample,
and a batch costs what its slowest sample does.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes import expand
from diffusion.solvers import brownian, clock
from diffusion.solvers.about import About
from diffusion.solvers.contract import Described, PostStep, both, finished

# A step never changes by more than these factors at once, so that neither an error of zero nor one that is
# not finite ends the run.
SHRINK, GROW = 0.2, 5.0
# Steps are powers of 2^(1/8). Another batch size or device rounds errors otherwise, and steps that followed
# them closely would turn that into differences as large as the tolerance.
PER_OCTAVE = 8


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two orders of one step, made of `evaluations` evaluations of which the first is where the step starts.

  Attributes:
    points: one function for each later evaluation, (step, seen) -> (lambda [B], u there [B, ...]), of a
      `Step` and the predictions so far.
    results: (step, seen) -> (lower order, higher order, higher - lower), each u [B, ...] at the end of the
      step. The difference is made of those of predictions, where it has the digits that two results that
      are nearly equal have lost: with it, rounding hardly ever reaches the length of a step.
    view: what the network is asked for.
    exponent: the next step is safety * error^-exponent times this one.
    fractions: of the step, at which its Brownian path is read, the last of them 1; none without noise.
  """

  points: tuple[Callable[..., Any], ...]
  results: Callable[..., Any]
  view: str
  exponent: float
  fractions: tuple[float, ...] = ()

  @property
  def evaluations(self) -> int:
    """Of an attempt at a step."""
    return len(self.points) + 1

  @property
  def random(self) -> bool:
    """Whether it needs noise."""
    return bool(self.fractions)


class Step(NamedTuple):
  """An attempt at a step, for its `Pair`.

  Attributes:
    node: lambda [B] -> `clock.Node`.
    u: [B, ...] where it starts.
    clock: [B] lambda there.
    h: [B] its length in lambda.
    path: B(e^2lambda) at its start [B, ...], or None without noise.
    noise: the same at each of the pair's fractions.
  """

  node: Callable[..., clock.Node]
  u: jax.Array
  clock: jax.Array
  h: jax.Array
  path: Any
  noise: tuple


@struct.dataclass
class State:
  """Of B samples, which make their attempts side by side.

  Attributes:
    point, t: [B, ...] and [B] where the next evaluation is made; at the end, the result.
    stage: [] which evaluation that is, see `Adaptive`.
    u: [B, ...] x over its norm where the attempt starts.
    before: [B, ...] the lower-order result of the last step kept, for the size of the relative error.
    clock: [B] lambda reached.
    h: [B] step to try next.
    there: [B] lambda that this attempt leads to.
    seen: predictions of this attempt, each [B, ...], but for its last.
    path: [B, ...] the Brownian path at the clock, or None.
    noise: the path within this attempt, each [B, ...].
    evaluations: [B] denoiser calls so far.
    stuck: [B] whether the step became too small to change the clock.
  """

  point: Any
  t: Any
  stage: Any
  u: Any
  before: Any
  clock: Any
  h: Any
  there: Any
  seen: tuple
  path: Any
  noise: tuple
  evaluations: Any
  stuck: Any


@struct.dataclass
class Adaptive(Described):
  """A sampler of such steps; see `dpm_solver_adaptive` and `adaptive_sde`. Tolerances are data.

  Its evaluations in order: the first-order step out of pure noise where t_max has no signal; those of an
  attempt, again and again; the posterior mean at the end, with `denoise`.

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

  loop: ClassVar[str] = "until_done"

  @property
  def cost(self) -> None:
    """Steps are sized by their error."""

  @property
  def num_steps(self) -> Any:
    """Evaluations at most."""
    return self.first + self.pair.evaluations * self.max_steps + int(self.denoise)

  @property
  def first(self) -> int:
    """The stage at which attempts start, which is how many evaluations come before them."""
    return int(self.span.from_noise)

  @property
  def last(self) -> int:
    """The stage after the attempts."""
    return self.first + self.pair.evaluations

  @property
  def stochastic(self) -> bool:
    """Whether sampling needs keys."""
    return self.pair.random

  @property
  def views(self) -> tuple[str, ...]:
    """The pair's view, and the clean data at the ends."""
    return both((self.pair.view,), ("x0",) if self.denoise or self.span.from_noise else ())

  def begin(self, x: jax.Array, keys: jax.Array | None) -> State:
    """The state at the start, from x: [B, ...] at t_max."""
    del keys
    rows = lambda value, dtype=x.dtype: clock.rows(x, value, dtype)
    none = expand(rows(0.0), x) * jnp.zeros_like(x)
    start = self._node(rows(self.span.start))
    u = none if self.span.from_noise else x / expand(start.norm, x)
    t = rows(self.span.t_max) if self.span.from_noise else start.t
    return State(
      point=x if self.span.from_noise else expand(start.norm, x) * u,
      t=t,
      stage=jnp.max(rows(0, jnp.int32)),
      u=u,
      before=u,
      clock=rows(self.span.start),
      h=rows(self.h_init),
      there=rows(self.span.start),
      seen=(none,) * len(self.pair.points),
      path=none if self.pair.random else None,
      noise=(none,) * len(self.pair.fractions),
      evaluations=rows(0, jnp.int32),
      stuck=rows(0) > 0,
    )

  def ask(self, state: State, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """The point of the stage."""
    del i
    return state.point, state.t, self.views

  def tell(
    self, state: State, i: Any, prediction: Any, keys: jax.Array | None, post_step: PostStep | None = None
  ) -> State:
    """The state after the stage: within an attempt the next point, after it the step kept or not."""
    attempt = (i - self.first) // self.pair.evaluations
    stages = [lambda: self._out_of_noise(state, prediction)] if self.span.from_noise else []
    for number in range(len(self.pair.points)):
      stages.append(functools.partial(self._next_point, state, number, prediction, keys))
    stages.append(lambda: self._attempted(state, attempt, prediction, keys, post_step))
    stages += [lambda: self._denoised(state, prediction)] if self.denoise else []
    return jax.lax.switch(state.stage, stages)

  def done(self, state: State) -> jax.Array:
    """Whether all samples have arrived, or are given up: []."""
    return state.stage >= self.last + int(self.denoise)

  def evaluations(self, state: State) -> jax.Array:
    """Of each sample: [B]."""
    return state.evaluations

  def end(self, state: State) -> jax.Array:
    """x: [B, ...]; NaN where a sample did not arrive."""
    arrived = self._at_end(state) & ~state.stuck
    return jnp.where(expand(arrived, state.point), state.point, jnp.nan)

  def _node(self, at):
    return clock.node(self.span, at)

  def _at_end(self, state):
    return state.clock >= jnp.asarray(self.span.end, state.clock.dtype)

  def _out_of_noise(self, state, prediction):
    """A DDIM step from t_max, where there is no signal, to `span.start`."""
    x, here = state.point, self._node(state.clock)
    sigma = self.span.process.marginal(state.t).sigma
    u = expand(here.a, x) * prediction.x0.astype(x.dtype) + expand(here.s / sigma, x) * x
    return state.replace(
      point=expand(here.norm, x) * u,
      t=here.t,
      stage=state.stage + 1,
      u=u,
      before=u,
      evaluations=state.evaluations + 1,
    )

  def _step(self, state):
    return Step(self._node, state.u, state.clock, state.there - state.clock, state.path, state.noise)

  def _next_point(self, state, number, prediction, keys):
    """After evaluation `number` of an attempt, to its next."""
    u = state.u
    if not number:
      end, longest = (jnp.asarray(leaf, u.dtype) for leaf in (self.span.end, self.h_max))
      there = jnp.minimum(state.clock + jnp.minimum(state.h, longest), end)
      state = state.replace(there=there, noise=self._read(state.clock, there - state.clock, keys, u))
    seen = list(state.seen)
    seen[number] = self._seen(state, prediction)
    place, at = self.pair.points[number](self._step(state), tuple(seen[: number + 1]))
    node = self._node(place)
    return state.replace(point=expand(node.norm, u) * at, t=node.t, stage=state.stage + 1, seen=tuple(seen))

  def _seen(self, state, prediction):
    return getattr(prediction, self.pair.view).astype(state.u.dtype)

  def _read(self, at, length, keys, u):
    """The Brownian path at the pair's fractions of a step."""
    if not self.pair.random:
      return ()
    read = jax.vmap(lambda place: brownian.path(keys, place, self.span.start, self.span.end, u))
    found = read(jnp.stack([at + fraction * length for fraction in self.pair.fractions]))
    return tuple(found[k] for k in range(len(self.pair.fractions)))

  def _attempted(self, state, attempt, prediction, keys, post_step):
    """The step is kept or not, sample by sample; then another, or the end."""
    u, dtype = state.u, state.u.dtype
    active = ~(self._at_end(state) | state.stuck)
    number = lambda leaf: jnp.asarray(leaf, dtype)
    there = state.there
    low, high, gap = self.pair.results(self._step(state), (*state.seen, self._seen(state, prediction)))

    allowed = jnp.maximum(number(self.atol), number(self.rtol) * jnp.maximum(abs(low), abs(state.before)))
    error = jnp.sqrt(jnp.mean((gap / allowed).reshape(u.shape[0], -1) ** 2, axis=-1))
    accept = active & (error <= 1)
    change = number(self.safety) * jnp.maximum(error, 1e-20) ** -self.pair.exponent
    change = jnp.where(jnp.isfinite(error), jnp.clip(change, SHRINK, GROW), SHRINK)
    h = jnp.exp2(jnp.floor(PER_OCTAVE * jnp.log2((there - state.clock) * change)) / PER_OCTAVE)
    h = jnp.where(active, h, state.h)

    if post_step is not None:
      node = self._node(there)
      x = finished(post_step, expand(node.norm, u) * high, node.t, keys, attempt + 1, prediction)
      high = x / expand(node.norm, u)
    keep = lambda new, old: jnp.where(expand(accept, new), new, old)
    state = state.replace(
      u=keep(high, u),
      before=keep(low, state.before),
      clock=keep(there, state.clock),
      h=h,
      path=keep(state.noise[-1], state.path) if self.pair.random else None,
      evaluations=state.evaluations + jnp.where(active, self.pair.evaluations, 0).astype(jnp.int32),
      stuck=state.stuck | (active & ~accept & (h < 100 * np.finfo(dtype).eps)),
    )
    over = jnp.all(self._at_end(state) | state.stuck) | (attempt + 1 >= self.max_steps)
    node = self._node(state.clock)
    return state.replace(
      point=expand(node.norm, u) * state.u,
      t=node.t,
      stage=jnp.where(over, self.last, self.first).astype(jnp.int32),
    )

  def _denoised(self, state, prediction):
    """The posterior mean where the samples have arrived."""
    x0 = prediction.x0.astype(state.u.dtype)
    return state.replace(point=x0, stage=state.stage + 1, evaluations=state.evaluations + 1)

  def __str__(self) -> str:
    return (
      f"{self.name}: order {self.order}, steps by error (rtol={float(self.rtol):g}, "
      f"atol={float(self.atol):g}), {self.pair.evaluations} evaluations an attempt, asks for {self.pair.view}"
    )


def build(
  process: Any,
  pair: Pair,
  name: str,
  order: int,
  *,
  rtol: float,
  atol: float,
  h_init: float,
  h_max: float,
  safety: float,
  t_max: float | None,
  t_min: float | None,
  denoise: bool,
  max_steps: int,
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


def check_tolerances(rtol: float, atol: float, max_steps: int) -> None:
  """Raises ValueError unless tolerances are positive and there is at least one step."""
  if not rtol >= 0 or not atol > 0 or not np.isfinite(rtol) or not np.isfinite(atol):
    raise ValueError(f"tolerances must be positive (rtol may be 0), got rtol={rtol} and atol={atol}")
  if int(max_steps) != max_steps or max_steps < 1:
    raise ValueError(f"max_steps must be a whole number of at least 1, got {max_steps}")
