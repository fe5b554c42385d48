"""Several denoisers as one: further views beside a denoiser's own, and several networks in one role."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import jax
from flax import struct

from diffusion.denoisers.contract import Denoiser, Prediction, Wrapper, check_views


@struct.dataclass
class Extended(Wrapper):
  """A denoiser that answers further views by functions of the same parameters; see `extend`."""

  inner: Any
  functions: tuple[tuple[str, Callable[..., Any]], ...] = struct.field(pytree_node=False)

  @property
  def views(self) -> tuple[str, ...]:
    """Those of the inner denoiser and of the functions."""
    return tuple(dict.fromkeys((*(name for name, _ in self.functions), *self.inner.views)))

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
    """The prediction at x: [B, ...], t: [B]; see `Denoiser`."""
    check_views(views, self.views)
    functions = dict(self.functions)
    asked = tuple(name for name in views if name not in functions)
    found = self.inner(x, t, cond, views=asked, key=key, train=train) if asked else Prediction()
    own = {name: functions[name](self.params, x, t, cond) for name in views if name in functions}
    return found.replace(**own)


def extend(denoiser: Denoiser, **functions: Callable[..., Any]) -> Extended:
  """A denoiser with further views, each a function of the denoiser's own parameters.

  Args:
    denoiser: any denoiser.
    **functions: view -> (params, x [B, ...], t [B], cond) -> value; one of the denoiser's own names takes its
      place.

  >>> import jax.numpy as jnp
  >>> from diffusion import denoisers, processes
  >>> line = lambda a, x, t, cond: a * x
  >>> plain = denoisers.from_function(line, processes.edm(), denoisers.x0(), jnp.float32(0.5))
  >>> both = denoisers.extend(plain, slope=lambda a, x, t, cond: a + 0 * x)
  >>> both(jnp.ones((1, 2)), jnp.ones(1), views=("x0", "slope")).slope.tolist()
  [[0.5, 0.5]]
  """
  return Extended(denoiser, tuple(functions.items()))


@struct.dataclass
class Untold(Wrapper):
  """A denoiser that hears no condition; see `untold`."""

  inner: Any

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
    """The prediction at x: [B, ...], t: [B], whatever the condition says."""
    del cond
    return self.inner(x, t, None, views=views, key=key, train=train)


def untold(denoiser: Denoiser) -> Untold:
  """A denoiser to which no condition is passed on: a network without any beside one that has some.

  >>> from diffusion import denoisers, oracles, processes
  >>> deaf = denoisers.untold(oracles.gaussian(processes.edm(), [0.0], [1.0]))
  >>> x, t = jax.numpy.ones((1, 1)), jax.numpy.ones(1)
  >>> float(deaf(x, t, {"label": jax.numpy.zeros(1, int)}).x0[0, 0])
  0.5
  """
  return Untold(denoiser)


@struct.dataclass
class Together:
  """Several denoisers, each with its own parameters, that answer as one; see `together`."""

  members: dict[str, Any]

  inner: ClassVar[None] = None

  @property
  def process(self) -> Any:
    """The process of the first that has one."""
    return next((one.process for one in self.members.values() if one.process is not None), None)

  @property
  def params(self) -> dict[str, Any]:
    """{name: the parameters of that denoiser}."""
    return {name: one.params for name, one in self.members.items()}

  @property
  def collections(self) -> dict[str, Any]:
    """{name: the mutable collections of that denoiser}, of those that have any."""
    return {name: one.collections for name, one in self.members.items() if jax.tree.leaves(one.collections)}

  @property
  def cost(self) -> int:
    """Network evaluations of a call that asks all of them."""
    return sum(one.cost for one in self.members.values())

  @property
  def needs_signal(self) -> bool:
    """Whether one of them says nothing of x0 where alpha = 0."""
    return any(one.needs_signal for one in self.members.values())

  @property
  def needs_unconditional(self) -> bool:
    """Whether one of them asks its network without a condition."""
    return any(one.needs_unconditional for one in self.members.values())

  @property
  def own_conditions(self) -> tuple[str, ...]:
    """Conditions that one of them takes itself."""
    return tuple(dict.fromkeys(name for one in self.members.values() for name in one.own_conditions))

  @property
  def views(self) -> tuple[str, ...]:
    """All that one of them can answer."""
    return tuple(dict.fromkeys(view for one in self.members.values() for view in one.views))

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
    """The prediction at x: [B, ...], t: [B]; each view from the first that can answer it."""
    check_views(views, self.views)
    found, collections = Prediction(), {}
    for name, one in self.members.items():
      asked = tuple(view for view in views if view not in found and view in one.views)
      if asked:
        said = one(x, t, cond, views=asked, key=key, train=train)
        found = found.replace(**said.views)
        if said.collections:
          collections[name] = said.collections
    return found.replace(collections=collections or None)

  def with_params(self, params: Any, collections: Any = None) -> Self:
    """The same with other parameters, {name: parameters}. Raises ValueError where a name is missing."""
    missing = [name for name in self.members if name not in params]
    if missing:
      raise ValueError(
        f"the parameters of denoisers together are {{name: ...}} of {sorted(self.members)}; '{missing[0]}' "
        "is missing"
      )
    collections = collections or {}
    members = {
      name: one.with_params(params[name], collections.get(name)) for name, one in self.members.items()
    }
    return self.replace(members=members)  # pyright: ignore[reportAttributeAccessIssue] (of struct.dataclass)


def together(**members: Denoiser) -> Together:
  """Several denoisers as one whose parameters are {name: parameters}: a role of several networks.

  Args:
    **members: name -> denoiser. A view that several can answer comes from the first.

  >>> import jax.numpy as jnp
  >>> from diffusion import denoisers
  >>> line = lambda a, x, t, cond: a * x
  >>> both = denoisers.together(
  ...   first=denoisers.from_functions(2.0, score=line), second=denoisers.from_functions(3.0, hessian=line)
  ... )
  >>> both.params, both.views
  ({'first': 2.0, 'second': 3.0}, ('score', 'hessian'))
  """
  if not members:
    raise ValueError("together needs at least one denoiser, such as together(first=denoiser)")
  return Together(dict(members))


def function_of(denoiser: Denoiser, view: str) -> Callable[..., Any]:
  """One view of a denoiser as a function (x [B, ...], t [B], cond=None) -> value.

  It is a pytree: the denoiser's parameters are data.

  >>> import jax.numpy as jnp
  >>> from diffusion import oracles, processes
  >>> score = function_of(oracles.gaussian(processes.edm(), [0.0], [1.0]), "score")
  >>> score(jnp.ones((1, 1)), jnp.ones(1)).tolist()
  [[-0.5]]
  """
  check_views((view,), denoiser.views)
  return jax.tree_util.Partial(_Ask(view), denoiser)


@dataclasses.dataclass(frozen=True)
class _Ask:
  """Asks a denoiser for one view; equal for equal names."""

  view: str

  def __call__(self, denoiser: Denoiser, x: jax.Array, t: jax.Array, cond: Any = None) -> Any:
    return denoiser(x, t, cond, views=(self.view,))[self.view]
