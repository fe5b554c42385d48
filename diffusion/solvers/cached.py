"""A solver of whole numbers that evaluates again only where something has changed."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.solvers.contract import Around, PostStep


@struct.dataclass
class AtOwnStep:
  """Of B samples.

  Attributes:
    inner: the inner solver's state, whose arrays are [B, ...].
    step: [B] int32, the inner solver's next step.
    evaluations: [B] int32 so far.
  """

  inner: Any
  step: Any
  evaluations: Any


@struct.dataclass
class Cached(Around):
  """See `cached`."""

  inner: Any

  loop: ClassVar[Any] = "until_done"
  times: ClassVar[Any] = None  # each sample has its own step
  cost: ClassVar[Any] = None

  @property
  def name(self) -> str:
    """The inner solver's, cached."""
    return f"cached({self.inner.name})"

  @property
  def max_steps(self) -> int:
    """Evaluations at most: the inner solver's."""
    return self.inner.num_steps

  def begin(self, x: jax.Array, keys: jax.Array | None) -> AtOwnStep:
    """The inner solver's state, each sample at its first step."""
    none = jnp.zeros(x.shape[0], jnp.int32)
    return AtOwnStep(self.inner.begin(x, keys), none, none)

  def ask(self, state: AtOwnStep, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """Where each sample's own step evaluates."""

    def row(inner, step):
      x, t, _ = self.inner.ask(_batch(inner), step)
      return x[0], t[0]

    x, t = jax.vmap(row)(state.inner, state.step)
    return x, t, self.inner.views

  def tell(
    self, state: AtOwnStep, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> AtOwnStep:
    """Each sample makes steps with this prediction until it has changed, or is at the end."""
    steps = self.inner.num_steps

    def row(inner, step, prediction, key):
      inner, prediction, key = _batch(inner), _batch(prediction), key[None]
      seen = self.inner.ask(inner, step)[0]

      def going(carry):
        inner, step = carry
        return (step < steps) & jnp.all(self.inner.ask(inner, step)[0] == seen)

      def once(carry):
        inner, step = carry
        return self.inner.tell(inner, step, prediction, key, post_step), step + 1

      inner, step = jax.lax.while_loop(going, once, (inner, step))
      return jax.tree.map(lambda leaf: leaf[0], inner), step

    inner, step = jax.vmap(row)(state.inner, state.step, prediction, keys)
    return AtOwnStep(inner, step, state.evaluations + (state.step < steps).astype(jnp.int32))

  def end(self, state: AtOwnStep) -> jax.Array:
    """The newest x: [B, ...]."""
    return self.inner.end(state.inner)

  def done(self, state: AtOwnStep) -> jax.Array:
    """Whether a sample has made all steps: [B]."""
    return state.step >= self.inner.num_steps

  def evaluations(self, state: AtOwnStep) -> jax.Array:
    """Calls that each sample needed: [B] int32."""
    return state.evaluations


def _batch(tree):
  """One sample as a batch of one."""
  return jax.tree.map(lambda leaf: leaf[None], tree)


def cached(inner: Any) -> Cached:
  """A solver that evaluates again only where a token has changed (the cache of arXiv:2406.07524).

  A denoiser of masked tokens that takes no account of time (section 3.5.1 there) says the same of the same
  state, so its prediction serves all steps until one changes something. Samples are those of the inner solver
  where the denoiser is such a one; of a denoiser that sees the time, they are those of predictions that are
  held.

  In a compiled program nothing is saved by leaving out single samples of a batch. So each sample goes on by
  itself to the step at which it has changed, and there waits for the next call, which serves all: a batch
  makes as many calls as the sample that changes most often, at most D + 1 for D masks in place of N, one
  after the last change among them where steps are left. `sample(..., evaluations=True)` says how many each
  sample needed. The steps between are made one by one without the network.

  Args:
    inner: a solver of whole numbers on a fixed number of steps, whose state holds arrays [B, ...] alone, such
      as `masked_ancestral` or `remasking`.

  Raises:
    ValueError: a solver that paces itself already.

  >>> from diffusion import processes, solvers
  >>> process = processes.masked(3, (4,))
  >>> solver = cached(solvers.masked_ancestral(process, process.default_grid(100)))
  >>> solver.name, solver.max_steps, solver.cost
  ('cached(masked_ancestral)', 100, None)
  """
  if inner.loop != "scan":
    raise ValueError(f"{inner.name} makes no call that changes nothing: use it without a cache")
  return Cached(inner)
