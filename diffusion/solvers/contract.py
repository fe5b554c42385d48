"""What a solver is, and what most solvers share.

A solver does not call a denoiser: it is asked where to evaluate and told what was seen there, so the executor
counts the calls, a solver around another sees every prediction, and a step of several evaluations keeps its
stage in the state.

    begin(x, keys) -> S
    ask(S, i) -> (x, t, views)
    tell(S, i, prediction, keys, post_step=None) -> S
    end(S) -> x
"""

from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.solvers import randomness
from diffusion.solvers.about import About


class PostStep(Protocol):
  """What a user may do to x wherever a solver has finished a step."""

  def __call__(self, x: Any, t: jax.Array, keys: jax.Array | None, prediction: Any) -> Any:
    """The x to go on with.

    Args:
      x: [B, ...] where the step ended.
      t: [B] time there.
      keys: [B] typed keys of its own, or None where the solver has none.
      prediction: of the evaluation that finished the step, with the views that the solver and `sample` ask
        for.
    """
    ...


class Solver(Protocol):
  """How noise becomes data: a pytree with these attributes and methods. A `Table` is one.

  Attributes:
    name: for messages, with the arguments that matter.
    num_steps: how many asks there are; at most so many where `loop` is not 'scan'.
    cost: evaluations of the denoiser for one sample; None where steps are sized by their error.
    stochastic: whether sampling needs keys.
    order: order of convergence (weak if stochastic), or None where there is none to claim.
    about: name, order and process, which `sample` compares with the denoiser's.
    views: what of a prediction is asked for; static.
    times: [..., N + 1] times of the rows and of the end, [...] () or [B]; None where they are not known
      beforehand.
    loop: 'scan' for num_steps asks; 'until_done' for a `SelfPaced` solver; 'own' for a `SelfDriven` one.
    acts_on: the kind of numbers of x, np.floating or np.integer.
  """

  @property
  def name(self) -> str: ...
  @property
  def num_steps(self) -> Any: ...
  @property
  def cost(self) -> int | None: ...
  @property
  def stochastic(self) -> bool: ...
  @property
  def order(self) -> int | None: ...
  @property
  def about(self) -> About: ...
  @property
  def views(self) -> tuple[str, ...]: ...
  @property
  def times(self) -> Any: ...
  @property
  def loop(self) -> str: ...
  @property
  def acts_on(self) -> Any: ...

  def begin(self, x: Any, keys: jax.Array | None) -> Any:
    """The state before the first evaluation, from x: [B, ...] at the first time and keys: [B]."""
    ...

  def ask(self, state: Any, i: Any) -> tuple[Any, jax.Array, tuple[str, ...]]:
    """Evaluation i (traced): x [B, ...], t [B], and the views that are wanted."""
    ...

  def tell(
    self, state: Any, i: Any, prediction: Any, keys: jax.Array | None, post_step: PostStep | None = None
  ) -> Any:
    """The state after evaluation i, whose prediction this is."""
    ...

  def end(self, state: Any) -> Any:
    """The newest x: [B, ...]."""
    ...


class SelfPaced(Solver, Protocol):
  """A solver that says when it is done (`loop` 'until_done'): each sample has its own number of steps.

  max_steps: attempts at a step after which a sample is given up.
  """

  @property
  def max_steps(self) -> Any: ...

  def done(self, state: Any) -> jax.Array:
    """Whether nothing is left to ask: bool [] or [B]."""
    ...

  def evaluations(self, state: Any) -> jax.Array:
    """Evaluations that each sample needed: [B] int32. `end` gives NaN where a sample did not arrive."""
    ...


class SelfDriven(Protocol):
  """A solver whose loop belongs to another library (`loop` 'own').

  That library calls the denoiser itself: the one exception to ask and tell. The solver has the attributes of
  a `Solver` but no `begin`, `ask`, `tell` and `end`, calls no post_step and cannot be wrapped.

  diffrax is one: it drives a vector field from inside its own loops and has no place to stop and ask.
  """

  @property
  def max_steps(self) -> Any: ...

  def run(self, denoiser: Any, x: jax.Array, keys: jax.Array | None, cond: Any) -> tuple[Any, jax.Array]:
    """(x [B, ...], NaN where a sample did not arrive; evaluations of each sample [B] int32)."""
    ...


class Described:
  """What a solver with a field `about` states of itself unless it says otherwise.

  It makes one evaluation an ask, in one `lax.scan`, and acts on floats.
  """

  about: Any
  num_steps: Any
  replace: Any  # flax's, of a dataclass
  times: Any = None
  loop: ClassVar[str] = "scan"
  acts_on: ClassVar[type] = np.floating

  @property
  def name(self) -> str:
    """What messages call it."""
    return self.about.name

  @property
  def order(self) -> int | None:
    """Claimed order of convergence, weak if stochastic, or None."""
    return self.about.order

  @property
  def cost(self) -> int | None:
    """Evaluations of the denoiser for one sample: one an ask."""
    return self.num_steps


class OnGrid(Described):
  """`Described` for a solver with a field t: [..., N + 1] of decreasing times, one evaluation a step."""

  t: Any

  @property
  def num_steps(self) -> int:  # read only here
    """Evaluations N."""
    return self.t.shape[-1] - 1

  @property
  def times(self) -> Any:  # read only here
    """The grid."""
    return self.t

  def time(self, i: Any, x: Any) -> jax.Array:
    """Node i (traced) for each row of x: [B], in the precision of x."""
    rows, dtype = layout(x)
    return jnp.broadcast_to(row_at(self.t, i, 0, dtype), (rows,))


class Around:
  """What a solver around another, its field `inner`, states: what the inner one does.

  A wrapper is told every prediction: it overrides `begin`, `tell` or `end`, and adds to `views` what it wants
  to see.
  """

  inner: Any

  name: ClassVar[Any] = property(lambda self: self.inner.name, doc="The inner solver's.")
  num_steps: ClassVar[Any] = property(lambda self: self.inner.num_steps, doc="The inner solver's.")
  cost: ClassVar[Any] = property(lambda self: self.inner.cost, doc="The inner solver's.")
  stochastic: ClassVar[Any] = property(lambda self: self.inner.stochastic, doc="The inner solver's.")
  order: ClassVar[Any] = property(lambda self: self.inner.order, doc="The inner solver's.")
  about: ClassVar[Any] = property(lambda self: self.inner.about, doc="The inner solver's.")
  views: ClassVar[Any] = property(lambda self: self.inner.views, doc="The inner solver's.")
  times: ClassVar[Any] = property(lambda self: self.inner.times, doc="The inner solver's.")
  loop: ClassVar[Any] = property(lambda self: self.inner.loop, doc="The inner solver's.")
  acts_on: ClassVar[Any] = property(lambda self: self.inner.acts_on, doc="The inner solver's.")
  max_steps: ClassVar[Any] = property(lambda self: self.inner.max_steps, doc="The inner solver's.")

  def begin(self, x: Any, keys: jax.Array | None) -> Any:
    """The inner solver's state."""
    return self.inner.begin(x, keys)

  def ask(self, state: Any, i: Any) -> tuple[Any, jax.Array, tuple[str, ...]]:
    """Where the inner solver evaluates, with the views of both."""
    x, t, asked = self.inner.ask(state, i)
    return x, t, both(asked, self.views)

  def tell(
    self, state: Any, i: Any, prediction: Any, keys: jax.Array | None, post_step: PostStep | None = None
  ) -> Any:
    """The inner solver's next state."""
    return self.inner.tell(state, i, prediction, keys, post_step)

  def end(self, state: Any) -> Any:
    """The inner solver's newest x."""
    return self.inner.end(state)

  def done(self, state: Any) -> jax.Array:
    """Whether the inner solver has nothing left to ask."""
    return self.inner.done(state)

  def evaluations(self, state: Any) -> jax.Array:
    """Of each sample: [B]."""
    return self.inner.evaluations(state)


def finished(
  post_step: PostStep | None,
  x: Any,
  t: jax.Array,
  keys: jax.Array | None,
  step: Any,
  prediction: Any,
  purpose: Any = randomness.HOOK,
) -> Any:
  """x: [B, ...] after post_step, in its own precision; x itself where there is none.

  Args:
    post_step: `PostStep` or None.
    x, t: where the step ended.
    keys: the solver's keys [B], or None.
    step: number of the step, counted from 1 (traced).
    prediction: what finished the step.
    purpose: of its keys, where a step calls post_step more than once.
  """
  if post_step is None:
    return x
  own = None if keys is None else randomness.fold(keys, step, purpose)
  return jax.tree.map(lambda new, old: new.astype(old.dtype), post_step(x, t, own, prediction), x)


def both(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
  """The views of two, each once.

  >>> both(("score",), ("x0", "score"))
  ('score', 'x0')
  """
  return tuple(dict.fromkeys((*first, *second)))


def layout(x: Any) -> tuple[int, Any]:
  """(rows B, precision of its times) of a pytree of arrays [B, ...]: float64 where x has it, else float32."""
  leaves = jax.tree.leaves(x)
  double = any(leaf.dtype == np.float64 for leaf in leaves)
  return leaves[0].shape[0], jnp.dtype(np.float64 if double else np.float32)


def row_at(leaf: Any, i: Any, tail: int, dtype: Any) -> jax.Array:
  """Entry i of the row axis, which has `tail` axes after it: [..., (tail)]."""
  leaf = jnp.asarray(leaf, dtype)
  return jax.lax.dynamic_index_in_dim(
    leaf, i, leaf.ndim - 1 - tail, keepdims=False, allow_negative_indices=False
  )
