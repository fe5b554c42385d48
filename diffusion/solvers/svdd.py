"""Sampling towards a reward without gradients: of several candidates for a step one is kept by its value."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from diffusion.math.precision import at_least_single
from diffusion.processes.base import expand
from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import Described, PostStep, both

# Purposes of keys, beside those of the solver inside.
PICK, CANDIDATE = 2**20, 2**20 + 1


@struct.dataclass
class Choice:
  """Of B samples, between two evaluations.

  Attributes:
    decided: state of the inner solver that the candidates of this step come from.
    seen: {view: array} what the denoiser said there.
    candidate: state of the inner solver that is evaluated next.
    best, best_seen, score: the candidate to keep so far, what was said there, and its score [B].
  """

  decided: Any
  seen: Any
  candidate: Any
  best: Any
  best_seen: Any
  score: jax.Array


@struct.dataclass
class SVDD(Described):
  """See `svdd`.

  Attributes:
    inner: a solver of one evaluation a step.
    reward: x [B, ...] -> [B].
    value: (x, t, prediction) -> [B].
    alpha: [].
    process: of the inner solver.
    candidates: M.
    views: of the inner solver and of the value.
    about: name, order and process.
  """

  inner: Any
  reward: Any
  value: Any
  alpha: Any
  process: Any
  candidates: int = struct.field(pytree_node=False)
  views: tuple[str, ...] = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True

  @property
  def acts_on(self) -> Any:  # read only here
    """What the inner solver acts on."""
    return self.inner.acts_on

  @property
  def num_steps(self) -> int:  # read only here
    """One evaluation of the start, M for each step but the last."""
    return 1 + (self.inner.num_steps - 1) * self.candidates

  @property
  def times(self) -> Any:  # read only here
    """Of the evaluations and of the end."""
    inner = self.inner.times
    if inner is None:
      return None
    xp = np if isinstance(inner, np.ndarray) else jnp
    middle = xp.repeat(inner[..., 1:-1], self.candidates, axis=-1)
    return xp.concatenate([inner[..., :1], middle, inner[..., -1:]], axis=-1)

  def begin(self, x: Any, keys: jax.Array | None) -> Choice:
    """The start is the only candidate of its step."""
    state = self.inner.begin(x, keys)
    nothing = {view: jnp.zeros(*self._like(view, x)) for view in self.inner.views}
    return Choice(state, nothing, state, state, nothing, self._worst(x))

  def ask(self, state: Choice, i: Any) -> tuple[Any, jax.Array, tuple[str, ...]]:
    """The candidate."""
    x, t, _ = self.inner.ask(state.candidate, self._step(i))
    return x, t, self.views

  def tell(
    self, state: Choice, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Choice:
    """The candidate is scored; after the M-th of its step the best goes on, and the next one is made."""
    x, t, _ = self.inner.ask(state.candidate, self._step(i))
    seen = {view: prediction[view] for view in self.inner.views}
    score = self._score(self.value(x, t, prediction), keys, i)
    better = (score > state.score) | (state.score == -jnp.inf)
    best = _where(better, state.candidate, state.best)
    best_seen = _where(better, seen, state.best_seen)
    score = jnp.where(better, score, state.score)
    number = (i - 1) % self.candidates  # of the candidate within its step
    last = (i == 0) | (number == self.candidates - 1)
    decided, decided_seen = _where(last, best, state.decided), _where(last, best_seen, state.seen)
    score = jnp.where(last, self._worst(x), score)
    step = self._step(i + 1) - 1  # that the next candidate takes
    make = lambda number: self.inner.tell(
      decided, step, prediction.replace(**decided_seen), _own(keys, number), post_step
    )
    # After the last step nothing is evaluated: its candidates are told apart by the reward itself.
    candidate = jax.lax.cond(
      i == self.num_steps - 1,
      lambda: self._final(make, keys),
      lambda: make(jnp.where(last, 0, number + 1)),
    )
    decided = _where(i == self.num_steps - 1, candidate, decided)
    return Choice(decided, decided_seen, candidate, best, best_seen, score)

  def end(self, state: Choice) -> Any:
    """The newest x that was decided on: [B, ...]."""
    return self.inner.end(state.decided)

  def _final(self, make, keys):
    """The candidate to end with."""

    def one(number, carry):
      best, score = carry
      candidate = make(number)
      own = self._score(self.reward(self.inner.end(candidate)), keys, self.num_steps + number)
      better = own > score
      return _where(better, candidate, best), jnp.where(better, own, score)

    first = make(0)
    score = self._score(self.reward(self.inner.end(first)), keys, self.num_steps)
    return jax.lax.fori_loop(1, self.candidates, one, (first, score))[0]

  def _score(self, value, keys, number):
    """Scores [B] whose largest is a draw from the weights exp(value / alpha)."""
    value = value.astype(at_least_single(value.dtype))
    draw = lambda key: jax.random.gumbel(key, (), value.dtype, mode="high")
    noise = jax.vmap(draw)(randomness.fold(keys, number, PICK))
    alpha = jnp.asarray(self.alpha, value.dtype)
    return jnp.where(alpha > 0, value / jnp.where(alpha > 0, alpha, 1.0) + noise, value)

  def _step(self, i):
    """The step of the inner solver that evaluation i belongs to."""
    return jnp.where(i == 0, 0, 1 + (i - 1) // self.candidates)

  def _worst(self, x):
    leaf = jax.tree.leaves(x)[0]
    return jnp.full(leaf.shape[0], -jnp.inf, at_least_single(leaf.dtype))

  def _like(self, view, x):
    """(shape, dtype) of a view of x [B, ...]."""
    if self.process.kind != "discrete":
      return x.shape, x.dtype
    values = view in ("logits", "probabilities")
    return (*x.shape, self.process.num_values if values else self.process.num_states), jnp.float32


@struct.dataclass
class PosteriorMean:
  """See `posterior_mean`."""

  reward: Any
  discrete: bool = struct.field(pytree_node=False)
  mask: int | None = struct.field(pytree_node=False)

  def __call__(self, x: Any, t: jax.Array, prediction: Any) -> jax.Array:
    """The reward of what x is expected to become: [B]."""
    if not self.discrete:
      return self.reward(prediction.x0)
    likely = jnp.argmax(prediction.logits, axis=-1).astype(x.dtype)
    return self.reward(likely if self.mask is None else jnp.where(x == self.mask, likely, x))


def posterior_mean(process: Any, reward: Callable[..., Any]) -> PosteriorMean:
  """The value of x_t as the reward of the data expected of it (arXiv:2408.08252, algorithm 3).

  The mean E[x_0 | x_t], or the most probable value of each coordinate where data are whole numbers. The soft
  value is alpha log E[exp(r(x_0) / alpha) | x_t]: this one is exact, up to a constant, for a linear reward of
  Gaussian data, and above it (below it) for a concave (convex) reward and large alpha.

  >>> from diffusion import processes
  >>> value = posterior_mean(processes.edm(), lambda x: x[:, 0])
  >>> import types
  >>> value(jnp.ones((1, 2)), jnp.ones(1), types.SimpleNamespace(x0=jnp.full((1, 2), 0.5))).tolist()
  [0.5]
  """
  discrete = process.kind == "discrete"
  return PosteriorMean(_data(reward), discrete, process.mask if discrete else None)


def svdd(
  process: Any,
  solver: Any,
  reward: Callable[..., Any],
  *,
  candidates: int = 10,
  alpha: Any = 0.0,
  value: Callable[..., Any] | None = None,
  views: tuple[str, ...] | None = None,
) -> SVDD:
  """Soft value-based decoding: samples of p(x) exp(r(x) / alpha) without a gradient (arXiv:2408.08252).

  From the state of each step M candidates are drawn by a random solver; one is kept with probability in
  proportion to exp(v / alpha), v its soft value (algorithm 1). With alpha = 0 the best is kept. Samples do
  not look at one another. With the exact soft value the law of the samples is the tilted one as M grows; with
  M = 1 it is that of the solver, whose draws it then makes. Candidates of the last step are told apart by the
  reward itself.

  Each candidate is evaluated once, which serves its value and, if it is kept, the next step.

  Args:
    process: that of the solver.
    solver: one that draws noise, with one evaluation a step: `solvers.ancestral(process, grid)`,
      `masked_ancestral`, a `dpmpp_2m_sde`.
    reward: x [B, ...] -> [B]; need not be differentiable. A plain function is part of the program, so make it
      once.
    candidates: M, at least 1.
    alpha: temperature of the reward, [] >= 0.
    value: (x [B, ...], t [B], prediction) -> [B], such as a learned value; `posterior_mean(process, reward)`
      by default.
    views: what `value` asks of the denoiser; by default x0, or logits of a discrete process.

  Returns:
    A solver of 1 + (N - 1) M evaluations for a solver of N.

  Raises:
    ValueError: a solver without noise or with another number of evaluations than steps, no candidates,
      alpha below 0.

  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.edm(sigma_min=0.02, sigma_max=10.0)
  >>> oracle = oracles.gaussian(process, np.zeros(1), np.ones(1))
  >>> ancestral = solvers.ancestral(process, solvers.grids.karras(process, 80, clean=True))
  >>> solver = svdd(process, ancestral, lambda x: x[:, 0], candidates=16, alpha=1.0)
  >>> keys = jax.random.split(jax.random.key(0), 500)
  >>> x = solvers.sample(oracle, solver, process.prior(keys, (1,)), keys=keys)
  >>> solver.cost, abs(float(x.mean()) - 1.0) < 0.2      # N(0, 1) e^x is N(1, 1); 80 steps lose a little
  (1265, True)
  """
  if not solver.stochastic:
    raise ValueError(
      f"svdd chooses among candidates that a solver draws, and {solver.name} draws none: take one with "
      "noise, such as ancestral or masked_ancestral"
    )
  if solver.loop != "scan" or solver.cost != solver.num_steps or not _one_a_step(solver):
    raise ValueError(
      f"svdd makes candidates at each evaluation, and {solver.name} takes several a step or chooses its "
      "steps as it goes: take one with one evaluation a step, such as ancestral or masked_ancestral"
    )
  if int(candidates) != candidates or candidates < 1:
    raise ValueError(f"candidates is a whole number of at least 1, got {candidates}")
  if not isinstance(alpha, Tracer) and not np.all(np.asarray(alpha) >= 0):
    raise ValueError(f"alpha is at least 0, got {alpha}: give 0 to keep the best")
  views = (("logits",) if process.kind == "discrete" else ("x0",)) if views is None else tuple(views)
  value = posterior_mean(process, reward) if value is None else _data(value)
  return SVDD(
    solver,
    _data(reward),
    value,
    alpha if isinstance(alpha, Tracer) else np.float32(alpha),
    process,
    int(candidates),
    both(solver.views, views),
    About(f"svdd({solver.name}, {candidates})", None, process),
  )


def _one_a_step(solver):
  """Whether every evaluation finishes a step, as far as its times say: they decrease."""
  times = solver.times
  if times is None or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(times)):
    return times is not None
  times = np.asarray(times)
  return bool(np.all(times[..., 1:] < times[..., :-1]))


def _data(function: Any) -> Any:
  """A callable as a pytree: a plain function as one that has no leaves."""
  return jax.tree_util.Partial(function) if jax.tree_util.all_leaves([function]) else function


def _own(keys: jax.Array, number: Any) -> jax.Array:
  """The keys [B] of a candidate; those of the first are the keys themselves."""
  folded = randomness.fold(keys, number, CANDIDATE)
  return jax.lax.select(jnp.broadcast_to(number == 0, keys.shape), keys, folded)


def _where(flag: jax.Array, new: Any, old: Any) -> Any:
  """Leaves [B, ...] of one tree or of the other by flags [B] or []."""
  select = lambda a, b: jnp.where(expand(flag, a) if jnp.ndim(flag) else flag, a.astype(b.dtype), b)
  return jax.tree.map(select, new, old)
