"""Networks of any make under one contract: Flax linen, Flax NNX, and a plain pair (init, apply).

    config.network = dict(factory="networks.MLP", width=64)  # linen: as it is
    config.network = dict(factory="networks.from_nnx", module="mine.Net", width=64)  # a class or a function
    config.network = dict(factory="networks.from_pair", init="mine.init", apply="mine.apply")

Anything else that is a `Network` itself may be what a config's factory returns.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
from flax import linen as nn

from diffusion.config.factories import resolve


@runtime_checkable
class Network(Protocol):
  """A network as training and a denoiser see it: two pure functions, and the views that it answers itself.

  A network is static: two that are made alike compare equal and have one hash, so that rebuilding one
  compiles nothing. Parameters are a pytree of arrays; collections are a dict of whatever else changes in
  training (batch statistics), {} without.

  Attributes:
    views: names of the views that it answers by a method of its own.
  """

  @property
  def views(self) -> tuple[str, ...]: ...

  def init(self, key: jax.Array, x: Any, t: jax.Array, cond: Any) -> tuple[Any, dict[str, Any]]:
    """(parameters, collections) of a new network for x [B, ...], t [B] and conditions alike."""
    ...

  def apply(
    self, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any, key: jax.Array | None, train: bool
  ) -> tuple[Any, Any]:
    """(output [B, ...], collections), which are as given unless train is true; `key` is for dropout."""
    ...

  def answer(self, view: str, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any) -> Any:
    """The view of that name by the network's own method (x, t, cond), in evaluation: nothing is updated."""
    ...


def as_network(network: Any) -> Network:
  """What a config's factory returned under the contract: a linen module in `Linen`, a `Network` as it is.

  Raises TypeError for anything else.

  >>> from diffusion import networks
  >>> as_network(networks.MLP(width=8, depth=1)) == Linen(networks.MLP(width=8, depth=1))
  True
  """
  if isinstance(network, nn.Module):  # the one place that tells: such a module states nothing of ours
    return Linen(network)
  if not isinstance(network, Network):
    raise TypeError(
      f"{type(network).__name__} is no network: a network is a linen module, networks.from_nnx(module=...) "
      "around an NNX class, networks.from_pair(init=..., apply=...), or has init, apply, answer and views "
      "itself"
    )
  return network


def _stated(owner, name):
  """The attribute `views` of a module, () without one; ValueError for a view that has no method."""
  stated = tuple(getattr(owner, "views", ()))
  for view in stated:
    if not callable(getattr(owner, view, None)):
      raise ValueError(
        f"{name}.views names '{view}' and it has no such method (x, t, cond): add it, or take the name out"
      )
  return stated


@dataclasses.dataclass(frozen=True)
class Linen:
  """A linen module `(x, t, cond, train) -> output`, whose rng for dropout is 'dropout'."""

  module: Any

  @property
  def views(self) -> tuple[str, ...]:
    """Its attribute `views`, () without one."""
    return _stated(self.module, type(self.module).__name__)

  def init(self, key: jax.Array, x: Any, t: jax.Array, cond: Any) -> tuple[Any, dict[str, Any]]:
    """(parameters, collections); see `Network`."""
    variables = dict(self.module.init(key, x, t, cond))
    return variables.pop("params"), variables

  def apply(
    self, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any, key: jax.Array | None, train: bool
  ) -> tuple[Any, Any]:
    """(output, collections); see `Network`."""
    variables = {"params": params, **(collections or {})}
    rngs = {"dropout": key} if train and key is not None else None
    if train and collections:
      output, updated = self.module.apply(
        variables, x, t, cond, train=True, rngs=rngs, mutable=list(collections)
      )
      return output, updated
    return self.module.apply(variables, x, t, cond, train=train, rngs=rngs), collections

  def answer(self, view: str, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any) -> Any:
    """The method of that name; see `Network`."""
    return self.module.apply({"params": params, **(collections or {})}, x, t, cond, method=view)


@dataclasses.dataclass(frozen=True)
class NNX:
  """A Flax NNX module `(x, t, cond) -> output`; made by `from_nnx`.

  It is built once, as shapes, to know its graph; each call merges the arrays into that graph anew, so that
  the module never holds state. Whether it trains is told by `module.train()` and `module.eval()`; every
  stream of random numbers in it starts, at each call, at the key of that call and its own place.

  Attributes:
    factory: a class, or a function, that takes `rngs` and the options.
    options: pairs of an option's name and its value.
  """

  factory: Callable[..., Any]
  options: tuple[tuple[str, Any], ...] = ()

  @property
  def num_classes(self) -> int | None:
    """Its option of that name, None without: the classes that its condition 'label' may have."""
    return dict(self.options).get("num_classes")

  @property
  def guidance_size(self) -> int | None:
    """Its option of that name, None without: whether it takes the condition 'guidance'."""
    return dict(self.options).get("guidance_size")

  @property
  def views(self) -> tuple[str, ...]:
    """The attribute `views` of the factory, () without one."""
    return _stated(self.factory, self.factory.__name__)

  def init(self, key: jax.Array, x: Any, t: jax.Array, cond: Any) -> tuple[Any, dict[str, Any]]:
    """(parameters, collections); see `Network`. The arrays say nothing: an NNX module knows its sizes."""
    from flax import nnx

    _, params, _, rest = _split(self._build(nnx.Rngs(key)))
    collections = _arrays(rest)
    return _arrays(params), {"state": collections} if collections else {}

  def apply(
    self, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any, key: jax.Array | None, train: bool
  ) -> tuple[Any, Any]:
    """(output, collections); see `Network`."""
    module = self._merged(params, collections, key)
    module.train() if train else module.eval()
    output = module(x, t, cond)
    if train and collections:
      collections = {"state": _arrays(_split(module)[3])}
    return output, collections

  def answer(self, view: str, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any) -> Any:
    """The method of that name; see `Network`."""
    module = self._merged(params, collections, None)
    module.eval()
    return getattr(module, view)(x, t, cond)

  def _build(self, rngs):
    return self.factory(**dict(self.options), rngs=rngs)

  def _merged(self, params, collections, key):
    from flax import nnx

    graph, own, streams, rest = _shapes(self)
    key = jax.random.key(0) if key is None else key
    filled = (_filled(own, params), _streams(streams, key), _filled(rest, (collections or {}).get("state")))
    return nnx.merge(graph, *filled)


@functools.lru_cache(maxsize=64)
def _shapes(network):
  """(graph, parameters, random streams, other state) of an NNX network, with shapes for arrays."""
  from flax import nnx

  return _split(nnx.eval_shape(lambda: network._build(nnx.Rngs(0))))


def _split(module):
  from flax import nnx

  return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _arrays(state):
  """The arrays of an NNX state as nested dicts; places in lists become text, as a checkpoint needs."""
  from flax import nnx

  root: dict[str, Any] = {}
  for path, variable in nnx.to_flat_state(state):
    place = root
    for name in path[:-1]:
      place = place.setdefault(str(name), {})
    place[str(path[-1])] = variable.get_value()
  return root


def _filled(state, arrays):
  """The NNX state with arrays of `_arrays` in place of its shapes."""
  from flax import nnx

  take = lambda path: functools.reduce(lambda place, name: place[str(name)], path, arrays)
  return nnx.from_flat_state(
    [(path, variable.replace(take(path))) for path, variable in nnx.to_flat_state(state)]
  )


def _streams(state, key):
  """The random streams of an NNX module, each at a key of its own and its first number."""
  from flax import nnx

  flat = []
  for number, (path, variable) in enumerate(nnx.to_flat_state(state)):
    stream = jax.random.fold_in(key, number)
    is_key = jax.numpy.issubdtype(variable.get_value().dtype, jax.dtypes.prng_key)
    flat.append((path, variable.replace(stream if is_key else jax.numpy.zeros((), jax.numpy.uint32))))
  return nnx.from_flat_state(flat)


@dataclasses.dataclass(frozen=True)
class Pair:
  """A network as two functions; made by `from_pair`.

  Attributes:
    start: (key, x [B, ...], t [B], cond) -> parameters.
    run: (params, x [B, ...], t [B], cond, key, train) -> output [B, ...].
  """

  start: Callable[..., Any]
  run: Callable[..., Any]

  views: ClassVar[tuple[str, ...]] = ()

  def init(self, key: jax.Array, x: Any, t: jax.Array, cond: Any) -> tuple[Any, dict[str, Any]]:
    """(parameters, {}); see `Network`."""
    return self.start(key, x, t, cond), {}

  def apply(
    self, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any, key: jax.Array | None, train: bool
  ) -> tuple[Any, Any]:
    """(output, collections); see `Network`."""
    return self.run(params, x, t, cond, key, train), collections

  def answer(self, view: str, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any) -> Any:
    """A pair has no methods: ValueError."""
    raise ValueError(f"a pair of functions answers no view '{view}' of its own")


def from_nnx(module: str | Callable[..., Any], **options: Any) -> NNX:
  """A Flax NNX module as a network: `module(x, t, cond)`, with dropout and batch statistics.

  Args:
    module: its class, or a function that makes it, or the dotted path of either; called with `rngs` and the
      options.
    **options: arguments of the class; hashable.

  Raises ValueError for an option that it does not take, or one that is missing.

  >>> import jax.numpy as jnp
  >>> from flax import nnx
  >>> class Scale(nnx.Module):
  ...   def __init__(self, size, *, rngs):
  ...     self.by = nnx.Param(jnp.full((size,), 3.0))
  ...   def __call__(self, x, t, cond=None):
  ...     return self.by[...] * x
  >>> network, x = from_nnx(Scale, size=2), jnp.ones((1, 2))
  >>> params, collections = network.init(jax.random.key(0), x, jnp.zeros(1), None)
  >>> network.apply(params, collections, x, jnp.zeros(1), None, None, False)[0].tolist()
  [[3.0, 3.0]]
  """
  factory = _function(module, "module")
  try:
    if inspect.isclass(factory):  # NNX's metaclass takes anything
      inspect.signature(factory.__init__).bind(None, **options, rngs=None)
    else:
      inspect.signature(factory).bind(**options, rngs=None)
  except TypeError as error:
    raise ValueError(
      f"'{factory.__name__}' is called with rngs and {', '.join(options) or 'no options'}: {error}"
    ) from error
  return NNX(factory, tuple(sorted(options.items())))


def from_pair(init: str | Callable[..., Any], apply: str | Callable[..., Any]) -> Pair:
  """Two plain functions as a network.

  Args:
    init: (key, x [B, ...], t [B], cond) -> parameters, any pytree of arrays; or its dotted path.
    apply: (params, x [B, ...], t [B], cond, key, train) -> output [B, ...]; `key` is None but in training.

  >>> import jax.numpy as jnp
  >>> init = lambda key, x, t, cond: {"scale": jnp.float32(2.0)}
  >>> network = from_pair(init, lambda params, x, t, cond, key, train: params["scale"] * x)
  >>> params, _ = network.init(jax.random.key(0), jnp.ones((1, 2)), jnp.zeros(1), None)
  >>> network.apply(params, {}, jnp.ones((1, 2)), jnp.zeros(1), None, None, False)[0].tolist()
  [[2.0, 2.0]]
  """
  return Pair(_function(init, "init"), _function(apply, "apply"))


def _function(given, name):
  found = resolve(given, f"config.network.{name}") if isinstance(given, str) else given
  if not callable(found):
    raise ValueError(f"{name} is a function, a class or the dotted path of one; it is {given!r}")
  return found
