"""The noun of the loss algebra: an objective, what it draws, what it returns, and how objectives compose."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Draw:
  """Everything random about one evaluation, so that terms can share it and a test can fix it.

  It knows no parameters: x_t is made of it by `place`.

  Attributes:
    t: [B] times.
    x0: [B, ...] data at the first end, or None where the objective has no such thing.
    noise: what the process makes x_t with; on a Gaussian process eps, [B, ...] standard normal; None without.
    x1: [B, ...] data at the second end of a process with two, or None.
    cond: None or a dict of [B, ...].
    keys: [B] typed keys, for randomness of one example that must meet the model (chains, slices).
    key: one typed key for the network itself (dropout masks of a whole batch).
    targets: what else the objective regresses on, a dict of [B, ...].
  """

  t: jax.Array
  x0: Any = None
  noise: Any = None
  x1: Any = None
  cond: Any = None
  keys: Any = None
  key: Any = None
  targets: dict[str, Any] = flax.struct.field(default_factory=dict)

  if TYPE_CHECKING:  # of struct.dataclass

    def replace(self, **changes: Any) -> Self: ...


@flax.struct.dataclass
class Placed:
  """A draw with its x_t: [B, ...], the point where the model is asked."""

  x_t: Any
  t: jax.Array
  x0: Any = None
  noise: Any = None
  x1: Any = None
  cond: Any = None
  keys: Any = None
  key: Any = None
  targets: dict[str, Any] = flax.struct.field(default_factory=dict)

  if TYPE_CHECKING:  # of struct.dataclass

    def replace(self, **changes: Any) -> Self: ...


def placed_at(draw: Draw, x_t: Any) -> Placed:
  """The draw placed at x_t.

  >>> placed_at(Draw(t=jnp.zeros(1), x0=jnp.ones((1, 2))), jnp.zeros((1, 2))).x0.tolist()
  [[1.0, 1.0]]
  """
  return Placed(x_t=x_t, **{field.name: getattr(draw, field.name) for field in dataclasses.fields(draw)})


@flax.struct.dataclass
class Clock:
  """How far a run is, for schedules of discretisations and weights.

  Attributes:
    step: [] int32, updates done.
    images: [] float32, examples seen in them.
  """

  step: Any
  images: Any


START = Clock(np.int32(0), np.float32(0.0))
"""The clock before the first step."""


@flax.struct.dataclass
class Terms:
  """What an objective returns, per example.

  interior: [B], weighted in time (by `weight_by` and by importance sampling of t); boundary: [B], not
  weighted; metrics: dict name -> [B]; collections: None or {role: updated mutable collections};
  inner: the terms of the wrapped objective(s), so that each layer's `update` sees its own.
  """

  interior: jax.Array
  boundary: jax.Array
  metrics: dict
  collections: Any = None
  inner: Any = None

  if TYPE_CHECKING:  # of struct.dataclass

    def replace(self, **changes: Any) -> Self: ...


def terms(
  interior: jax.Array,
  boundary: jax.Array | None = None,
  metrics: Mapping[str, jax.Array] | None = None,
  collections: Any = None,
) -> Terms:
  """Terms with the parts that most objectives lack filled in.

  >>> terms(jnp.ones(3)).boundary
  Array([0., 0., 0.], dtype=float32)
  """
  boundary = jnp.zeros_like(interior) if boundary is None else boundary
  return Terms(interior, boundary, dict(metrics or {}), collections)


def no_init(key: jax.Array) -> tuple[dict, dict]:
  """The init of an objective without parameters or state."""
  del key
  return {}, {}


def no_update(state: Any, t: jax.Array, terms: Terms) -> Any:
  """The update of an objective whose state never changes."""
  del t, terms
  return state


def at_data(roles: Mapping[str, Any], draw: Draw) -> Placed:
  """The place of an objective on clean data: x_t is x0."""
  del roles
  return placed_at(draw, draw.x0)


def noised_by(process: Any) -> Callable[..., Placed]:
  """The place of an objective on a process: process.corrupt(x0, noise, t, x1), in the dtype of the data."""

  def place(roles, draw):
    del roles
    like = draw.x1 if draw.x0 is None else draw.x0
    return placed_at(draw, process.corrupt(draw.x0, draw.noise, draw.t, draw.x1).astype(like.dtype))

  return place


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
  """What is minimised, as pure functions: randomness, a place, and a value.

  draw(key, batch, t, state) -> Draw                         all randomness; times t [B] are sampled outside
  place(roles, draw) -> Placed                               x_t: by default the process's `corrupt`; a
                                                             teacher's step, a generator or a solver may
                                                             make it
  evaluate(roles, placed, params, state, clock) -> Terms     roles: {role: denoiser}; params: the loss's own
  init(key) -> (params, state)                               pytrees; {} where there is nothing
  update(state, t, terms) -> state                           after each evaluation, outside of the gradient

  Attributes:
    name: for messages.
    needs: {role: {view: who needs it}}.
    process: the forward process, or None.
    coupled: row i depends on other rows too (MMD, compositional).
    takes_weight: the derivation contains the time weight, so the objective takes it as an argument and
      `weight_by` raises.
    bias_order: None if unbiased, else the order of the bias in the objective's own small parameter.
    interval: the times (t_min, t_max) that the derivation integrates over, where it does: the sampler must
      have the same.
    parts: the objectives of a sum.
    conditions: {name: (low, high)} of the conditions that it draws itself, such as a weight of guidance.
    drops_condition: whether conditions are dropped now and then, so that the model knows the data without
      too.
    denoises: whether its model learns posterior means, as a likelihood or a restoration needs; a student of
      few steps learns where a step should end.
    steps: (the teacher's grid [n + 1], sampler) where it learns the steps of one solver alone, else None.
  """

  name: str
  draw: Callable[..., Any]
  evaluate: Callable[..., Any]
  place: Callable[..., Any] = None  # pyright: ignore[reportAssignmentType] (the process's own takes its place)
  init: Callable[..., Any] = no_init
  update: Callable[..., Any] = no_update
  needs: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
  process: Any = None
  coupled: bool = False
  takes_weight: bool = False
  bias_order: float | None = None
  interval: tuple | None = None
  parts: tuple = ()
  conditions: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
  drops_condition: bool = False
  denoises: bool = True
  steps: tuple | None = None

  def __post_init__(self) -> None:
    if self.place is None:
      object.__setattr__(self, "place", at_data if self.process is None else noised_by(self.process))

  def replace(self, **changes: Any) -> "Objective":
    """The same objective with other attributes."""
    return dataclasses.replace(self, **changes)

  def __call__(
    self, roles: Mapping[str, Any], draw: Any, params: Any = None, state: Any = None, clock: Clock = START
  ) -> Terms:
    """The terms at one draw, placed and evaluated; parameters and state are {} by default.

    >>> from diffusion import denoisers, losses, processes
    >>> dsm = losses.denoising_score_matching(processes.edm())
    >>> zero = denoisers.from_function(lambda params, x, t, cond: 0 * x, dsm.process, denoisers.eps())
    >>> draw = losses.Draw(t=jnp.ones(1), x0=jnp.zeros((1, 2)), noise=jnp.full((1, 2), 2.0))
    >>> dsm({"model": zero}, draw).interior.tolist()
    [8.0]
    """
    params, state = ({} if given is None else given for given in (params, state))
    return self.evaluate(roles, self.place(roles, draw), params, state, clock)


def identity() -> Callable[[Objective], Objective]:
  """The transform that changes nothing."""
  return lambda objective: objective


def compose(*transforms: Callable[[Objective], Any]) -> Callable[[Objective], Any]:
  """One transform out of several, applied from left to right; `compose()` is `identity()`.

  >>> from diffusion import losses
  >>> halved_twice = losses.compose(losses.scale(0.5), losses.scale(0.5))
  """

  def transform(objective):
    for step in transforms:
      objective = _apply(step, objective)
    return objective

  return transform


def chain(objective: Objective, *transforms: Callable[[Objective], Any]) -> Any:
  """The objective after every transform, from left to right; the last may be `at_times`, which closes it.

  Raises TypeError where a part is not what it should be, ValueError from the transform that does not fit.
  """
  if not isinstance(objective, Objective):
    raise TypeError(
      "chain starts with an Objective such as denoising_score_matching(process), got "
      f"{type(objective).__name__}: "
      "put the transforms after it, or use compose(...) for a chain of transforms alone"
    )
  return compose(*transforms)(objective)


def _apply(transform, objective):
  if not isinstance(objective, Objective):
    raise TypeError(
      f"the chain was already closed into a {type(objective).__name__}: at_times(...) comes last"
    )
  if isinstance(transform, Objective):
    raise TypeError(f"chain got a second objective, {transform.name}: sum objectives with add(a, b)")
  if not callable(transform):
    raise TypeError(f"a transform is a function from Objective to Objective, got {transform!r}")
  return transform(objective)


def layer(
  objective: Objective,
  change: Callable[..., Terms],
  *,
  name: str,
  init: Callable[..., Any] | None = None,
  update: Callable[..., Any] | None = None,
  needs: Mapping[str, Mapping[str, str]] | None = None,
  **metadata: Any,
) -> Objective:
  """An objective around another one on the same draw: the way to write most transforms.

  Args:
    objective: the inner one.
    change: (terms, roles, placed, params, state, clock) -> Terms, from the inner terms.
    name: for messages.
    init: key -> (params, state) of the layer's own, which `change` is given and which are kept apart from the
      inner ones; without it `change` is given {} and {}.
    update: (state, t, terms) -> state, of the layer's own.
    needs: what it needs beyond the inner objective.
    **metadata: other attributes of the `Objective`.

  >>> from diffusion import losses
  >>> def squared():
  ...   def change(terms, roles, placed, params, state, clock):
  ...     return terms.replace(interior=terms.interior**2)
  ...   return lambda objective: losses.layer(objective, change, name="squared")
  """
  nested = init is not None

  def split(both):
    return (both["inner"], both["own"]) if nested else (both, {})

  def layer_init(key):
    inner_key, own_key = jax.random.split(key)
    inner_params, inner_state = objective.init(inner_key)
    own_params, own_state = (init or no_init)(own_key)
    return {"inner": inner_params, "own": own_params}, {"inner": inner_state, "own": own_state}

  def layer_draw(key, batch, t, state):
    return objective.draw(key, batch, t, split(state)[0])

  def layer_evaluate(roles, placed, params, state, clock):
    inner_params, own_params = split(params)
    inner_state, own_state = split(state)
    inner = objective.evaluate(roles, placed, inner_params, inner_state, clock)
    return change(inner, roles, placed, own_params, own_state, clock).replace(inner=inner)

  def layer_update(state, t, terms):
    inner_state, own_state = split(state)
    inner_state = objective.update(inner_state, t, terms.inner)
    if not nested:
      return inner_state
    return {"inner": inner_state, "own": (update or no_update)(own_state, t, terms)}

  return objective.replace(
    name=f"{name}({objective.name})",
    init=layer_init if nested else objective.init,
    draw=layer_draw,
    evaluate=layer_evaluate,
    update=layer_update,
    needs=merge_needs(objective.needs, needs or {}),
    **metadata,
  )


def times_of(draw: Any) -> jax.Array:
  """The times [B] of a draw; those of the first part for a sum, whose parts share them."""
  while isinstance(draw, tuple):
    draw = draw[0]
  return draw.t


def merge_needs(*needs: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
  """The union of several {role: {name: who}}."""
  merged = {}
  for need in needs:
    for role, names in need.items():
      merged[role] = {**names, **merged.get(role, {})}
  return merged


def batch_size(batch: Any) -> int:
  """The common leading size of every array of a batch (a dict, or a pair of data sets)."""
  sizes = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(batch)}
  size = next(iter(sizes), None)
  if len(sizes) != 1 or size is None:
    raise ValueError(
      f"every array of a batch has the same leading size [B, ...], got sizes {sorted(sizes, key=str)}"
    )
  return int(size)


def example_keys(key: jax.Array, batch: Any) -> jax.Array:
  """Typed keys [B], each a function of `key` and the example's index alone.

  The index is the row, or batch['index'] [B] where a user's own pmap or shard_map holds a part of the batch.
  """
  index = batch.get("index") if isinstance(batch, Mapping) else None
  if index is None:
    index = jnp.arange(batch_size(batch))
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def split_keys(keys: jax.Array, num: int) -> jax.Array:
  """`num` independent arrays of keys [B] out of one."""
  return jnp.moveaxis(jax.vmap(lambda k: jax.random.split(k, num))(keys), 1, 0)
