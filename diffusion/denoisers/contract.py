"""What every denoiser is: a network, an oracle, a guided or composed one, one loaded from a file."""

from collections.abc import Iterator
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
from flax import struct


@jax.tree_util.register_pytree_with_keys_class
class Prediction:
  """The views of x_t that a denoiser was asked for, each by its name, as one pytree.

  A view of a Gaussian process is x0, eps, score, v or velocity, each [B, ...]; other processes and estimators
  have their own names: logits, energy [B], hessian, time_score [B], concrete_score [B, N], and yours.

  `collections` holds the network's updated mutable collections where it was called with `train=True`, and is
  None elsewhere. Asking for a view that is not there raises AttributeError, or KeyError with [].

  >>> import jax.numpy as jnp
  >>> prediction = Prediction(x0=jnp.ones(2), eps=jnp.zeros(2))
  >>> prediction.x0.tolist(), sorted(prediction), "score" in prediction
  ([1.0, 1.0], ['eps', 'x0'], False)
  >>> jax.tree.map(lambda leaf: 2 * leaf, prediction)["x0"].tolist()
  [2.0, 2.0]
  """

  __slots__ = ("collections", "views")

  def __init__(self, *, collections: Any = None, **views: Any) -> None:
    self.collections = collections
    self.views = views

  def __getattr__(self, name: str) -> Any:
    # Only reached for what is no slot. Copying and pickling look for names before there are slots.
    if name.startswith("__") or name in Prediction.__slots__:
      raise AttributeError(name)
    if name not in self.views:
      raise AttributeError(
        f"the prediction holds {', '.join(sorted(self.views)) or 'nothing'} and no '{name}': ask the "
        f"denoiser for it with views=('{name}',)"
      )
    return self.views[name]

  def __getitem__(self, name: str) -> Any:
    return self.views[name]

  def __contains__(self, name: str) -> bool:
    return name in self.views

  def __iter__(self) -> Iterator[str]:
    return iter(self.views)

  def __repr__(self) -> str:
    return f"Prediction({', '.join(f'{name}={value!r}' for name, value in sorted(self.views.items()))})"

  def replace(self, **changes: Any) -> "Prediction":
    """The same prediction with other or further views, or other `collections`."""
    collections = changes.pop("collections", self.collections)
    return Prediction(collections=collections, **{**self.views, **changes})

  def only(self, views: tuple[str, ...]) -> "Prediction":
    """These views alone, and the collections."""
    return Prediction(collections=self.collections, **{name: self.views[name] for name in views})

  def tree_flatten_with_keys(self) -> tuple[Any, Any]:
    """For JAX: the views in the order of their names, then the collections."""
    key = jax.tree_util.GetAttrKey
    return ((key("views"), self.views), (key("collections"), self.collections)), None

  @classmethod
  def tree_unflatten(cls, _: None, children: tuple[Any, Any]) -> "Prediction":
    """For JAX: the inverse of `tree_flatten_with_keys`."""
    made = object.__new__(cls)
    made.views, made.collections = children
    return made


class Denoiser(Protocol):
  """Whatever answers questions about x_t, as a pytree: its parameters are leaves.

  Attributes:
    process: the process that x_t belongs to; None for estimators on clean data.
    params: its parameters, a pytree; {} where it has none.
    collections: the mutable collections of its network, {} where it has none.
    cost: network evaluations of one call.
    inner: the denoiser that it wraps, or None.
    needs_signal: whether what it says of x0 does not exist where alpha = 0, as for a network of eps or score.
    views: names of the views that it can answer.
    needs_unconditional: whether it asks its network without a condition, as classifier-free guidance does,
      so that the network must have been trained to know the data without one too.
    own_conditions: names of conditions that it takes itself, such as a weight of guidance.
  """

  @property
  def process(self) -> Any: ...

  @property
  def params(self) -> Any: ...

  @property
  def collections(self) -> Any: ...

  @property
  def cost(self) -> int: ...

  @property
  def inner(self) -> Any: ...

  @property
  def needs_signal(self) -> bool: ...

  @property
  def views(self) -> tuple[str, ...]: ...

  @property
  def needs_unconditional(self) -> bool: ...

  @property
  def own_conditions(self) -> tuple[str, ...]: ...

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("x0", "eps"),
    key: jax.Array | None = None,
    train: bool = False,
  ) -> Prediction:
    """The prediction at x_t.

    Args:
      x: [B, ...] noisy data, or a pytree of such arrays where the network takes it.
      t: [B] times.
      cond: None, or a dict of arrays with leading axis B ('label': int, -1 for none; 'vector': float).
      views: what to answer.
      key: randomness of the network (dropout) while training.
      train: whether dropout is on and mutable collections are updated.

    Raises ValueError for a view that it can not answer.
    """
    ...

  def with_params(self, params: Any, collections: Any = None) -> Self:
    """The same denoiser with other parameters and, if given, other mutable collections."""
    ...


class WithoutParameters:
  """What denoisers without parameters, such as oracles, share: nothing to train, nothing wrapped."""

  cost: int = 1
  inner: Any = None
  needs_signal: bool = False
  needs_unconditional: bool = False
  own_conditions: tuple[str, ...] = ()

  @property
  def params(self) -> dict:
    """No parameters: {}."""
    return {}

  @property
  def collections(self) -> dict:
    """No mutable collections: {}."""
    return {}

  def with_params(self, params: Any, collections: Any = None) -> Self:
    """The denoiser itself. Raises ValueError for parameters that it does not have."""
    check_no_parameters(self, params, collections)
    return self


class Wrapper:
  """What a denoiser around another one, `inner`, takes over from it.

  A subclass is a struct.dataclass with that attribute. A transform that evaluates its network more than once
  says so by its own `cost`, and one that changes the score (of which x0 knows nothing where alpha = 0) by its
  own `needs_signal`.
  """

  inner: Any

  @property
  def process(self) -> Any:
    """The process of the inner denoiser."""
    return self.inner.process

  @property
  def params(self) -> Any:
    """The parameters of the inner denoiser."""
    return self.inner.params

  @property
  def collections(self) -> Any:
    """The mutable collections of the inner denoiser."""
    return self.inner.collections

  @property
  def cost(self) -> int:
    """Network evaluations of one call: those of the inner denoiser."""
    return self.inner.cost

  @property
  def needs_signal(self) -> bool:
    """Whether it says nothing of x0 where alpha = 0: as the inner denoiser."""
    return self.inner.needs_signal

  @property
  def views(self) -> tuple[str, ...]:
    """What it can answer: what the inner denoiser can."""
    return self.inner.views

  @property
  def needs_unconditional(self) -> bool:
    """Whether it asks its network without a condition: as the inner denoiser."""
    return self.inner.needs_unconditional

  @property
  def own_conditions(self) -> tuple[str, ...]:
    """Conditions that it takes itself: those of the inner denoiser."""
    return self.inner.own_conditions

  def with_params(self, params: Any, collections: Any = None) -> Self:
    """The same transform of the inner denoiser with other parameters."""
    return self.replace(inner=self.inner.with_params(params, collections))  # pyright: ignore[reportAttributeAccessIssue] (of struct.dataclass)


@struct.dataclass
class InTraining(Wrapper):
  """A denoiser in training mode, unless a call says otherwise: what a role that is trained is to a loss."""

  inner: Any

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("x0", "eps"),
    key: jax.Array | None = None,
    train: bool | None = None,
  ) -> Prediction:
    """The prediction at x: [B, ...], t: [B], with dropout and updated collections.

    Solvers ask for train=False.
    """
    return self.inner(x, t, cond, views=views, key=key, train=True if train is None else train)


def check_no_parameters(denoiser: Any, params: Any, collections: Any = None) -> None:
  """Raises ValueError where a denoiser without parameters is given some."""
  if jax.tree.leaves((params, collections)):
    raise ValueError(
      f"{type(denoiser).__name__} has no parameters and was given some: give {{}}, or leave its role out of "
      "params"
    )


def check_views(views: tuple[str, ...], allowed: tuple[str, ...]) -> None:
  """Raises ValueError on a name that is not a view."""
  unknown = [name for name in views if name not in allowed]
  if unknown:
    raise ValueError(f"unknown view {unknown[0]!r}: ask for some of {', '.join(allowed)}")


def check_times(x: jax.Array, t: jax.Array) -> None:
  """Raises ValueError unless t holds one time for each row of x."""
  if jnp.ndim(t) != 1 or jnp.shape(t)[0] != jnp.shape(x)[0]:
    raise ValueError(
      f"t has shape {jnp.shape(t)} and x has shape {jnp.shape(x)}: give one time for each row,"
      f" for example jnp.full(({jnp.shape(x)[0]},), t)"
    )


def null_condition(cond: Any) -> Any:
  """The condition that says nothing: integer leaves become -1 and float leaves 0.

  >>> null_condition({'label': jnp.array([3, 4])})['label'].tolist()
  [-1, -1]
  """

  def null(leaf):
    return jnp.full_like(leaf, -1) if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.zeros_like(leaf)

  return jax.tree.map(null, cond)
