"""A network seen through a parameterisation and a process: (x, t, cond) -> x0, eps and other views.

Every view is computed straight from the network's own output by the process's table (`process.convert`); none
goes through another view, which would divide by a vanishing alpha or sigma and lose the digits that the
network has.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.denoisers.contract import Prediction, check_times, check_views
from diffusion.math.precision import at_least_single
from diffusion.processes.base import expand


@struct.dataclass
class Parameterization:
  """What a network's output means and which numbers it is fed.

  Attributes:
    data_std: standard deviation of the data, used by 'edm'.
    time_scale, time_shift: the network receives time_scale * clock + time_shift.
    kind: 'x0', 'eps', 'score', 'scaled_score', 'v', 'velocity' or 'edm' on a Gaussian process; another name
      that the process converts, such as 'logits' on a discrete one.
    time_input: the clock: 't', 'log_sigma' (log of the noise-to-signal ratio sigma/alpha) or 'log_snr'.
  """

  data_std: Any
  time_scale: Any
  time_shift: Any
  kind: str = struct.field(pytree_node=False)
  time_input: str = struct.field(pytree_node=False)

  @property
  def needs_signal(self) -> bool:
    """Whether its x0 does not exist where alpha = 0: an output of eps or score says nothing there."""
    return self.kind in ("eps", "score", "scaled_score")

  def inputs(self, process: Any, x: Any, t: jax.Array) -> tuple[Any, jax.Array]:
    """What the network is fed: (x_t, scaled by EDM's c_in for 'edm', and the clock [B])."""
    if self.kind == "edm":
      m = process.marginal(t)
      x = x * expand((m.sigma**2 + (m.alpha * self.data_std) ** 2) ** -0.5, x)
    return x, self.clock(process, t)

  def clock(self, process: Any, t: jax.Array) -> jax.Array:
    """The number that tells the network the time, [B]."""
    value = t
    if self.time_input != "t":
      log_snr = process.log_snr(t)
      # A network cannot be fed an infinite clock: ends without noise or without signal sit at log-SNR +-40.
      bound = 40.0 if self.time_input == "log_snr" else 20.0
      value = jnp.clip(log_snr if self.time_input == "log_snr" else -0.5 * log_snr, -bound, bound)
    return self.time_scale * value + self.time_shift


def _parameterization(kind, time_input, time_scale, time_shift, data_std=1.0):
  allowed = ("t", "log_sigma", "log_snr")
  if time_input not in allowed:
    raise ValueError(f"time_input {time_input!r} is unknown: choose one of {', '.join(allowed)}")
  if not data_std > 0:
    raise ValueError(
      f"data_std must be positive, got {data_std}: give the standard deviation of the training data"
    )
  return Parameterization(data_std, time_scale, time_shift, kind, time_input)


def x0(time_input: str = "t", time_scale: float = 1.0, time_shift: float = 0.0) -> Parameterization:
  """The network returns the clean data."""
  return _parameterization("x0", time_input, time_scale, time_shift)


def eps(time_input: str = "t", time_scale: float = 1.0, time_shift: float = 0.0) -> Parameterization:
  """The network returns the noise (arXiv:2006.11239, eq. 11-14).

  >>> eps(time_scale=999.0).kind
  'eps'
  """
  return _parameterization("eps", time_input, time_scale, time_shift)


def score(time_input: str = "t", time_scale: float = 1.0, time_shift: float = 0.0) -> Parameterization:
  """The network returns the score itself."""
  return _parameterization("score", time_input, time_scale, time_shift)


def scaled_score(
  time_input: str = "log_sigma", time_scale: float = 1.0, time_shift: float = 0.0
) -> Parameterization:
  """The network returns sigma times the score (arXiv:2006.09011, technique 3)."""
  return _parameterization("scaled_score", time_input, time_scale, time_shift)


def v(time_input: str = "t", time_scale: float = 1.0, time_shift: float = 0.0) -> Parameterization:
  """The network returns alpha eps - sigma x0 (arXiv:2202.00512)."""
  return _parameterization("v", time_input, time_scale, time_shift)


def velocity(time_input: str = "t", time_scale: float = 1.0, time_shift: float = 0.0) -> Parameterization:
  """The network returns the slope of the probability flow (arXiv:2209.03003, arXiv:2210.02747)."""
  return _parameterization("velocity", time_input, time_scale, time_shift)


def logits(time_input: str = "t", time_scale: float = 1.0, time_shift: float = 0.0) -> Parameterization:
  """The network returns logits over the values of the clean data, [B, ..., K], on a discrete process."""
  return _parameterization("logits", time_input, time_scale, time_shift)


def ratios(time_input: str = "t", time_scale: float = 1.0, time_shift: float = 0.0) -> Parameterization:
  """The network returns ratios of probabilities of a discrete process, [B, ..., S], positive.

  Those of x_t with one coordinate set to k over x_t itself (arXiv:2310.16834). Let a network answer their
  logarithms, and take exp of them.
  """
  return _parameterization("ratios", time_input, time_scale, time_shift)


def edm(
  data_std: float = 0.5, time_input: str = "log_sigma", time_scale: float = 0.25, time_shift: float = 0.0
) -> Parameterization:
  """EDM's preconditioned network (arXiv:2206.00364, table 1).

  Input, output and target have unit variance at every noise level. On a process with alpha < 1 it acts on
  x_t / alpha at noise level sigma / alpha.

  Args:
    data_std: standard deviation of the training data.
    time_input, time_scale, time_shift: EDM feeds log(sigma) / 4.
  """
  return _parameterization("edm", time_input, time_scale, time_shift, data_std)


@struct.dataclass
class NetworkDenoiser:
  """A network, its parameters, its parameterisation and its process, as one pytree.

  The parameters are leaves, so new parameters do not recompile anything. Made by `from_flax`,
  `from_network`, `from_function` and `from_functions`.

  Attributes:
    process: the process; None for functions on clean data.
    parameterization: what the output means; None where all views are functions of their own.
    params: parameters of the network.
    collections: its mutable collections, {} without.
    fn: (params, collections, x, clock, cond, key, train) -> (output, collections), or None.
    functions: pairs of a view's name and its function (params, collections, x, time, cond) -> value; the time
      is the clock of the parameterisation where there is one, as the network's own.
  """

  process: Any
  parameterization: Parameterization | None
  params: Any
  collections: Any
  fn: Callable[..., Any] | None = struct.field(pytree_node=False)
  functions: tuple[tuple[str, Callable[..., Any]], ...] = struct.field(pytree_node=False, default=())

  cost: ClassVar[int] = 1
  inner: ClassVar[None] = None
  needs_unconditional: ClassVar[bool] = False
  own_conditions: ClassVar[tuple[str, ...]] = ()

  @property
  def needs_signal(self) -> bool:
    """Whether its x0 does not exist where alpha = 0: that of its parameterisation."""
    return self.parameterization is not None and self.parameterization.needs_signal

  @property
  def views(self) -> tuple[str, ...]:
    """What it can answer: the views of the process, and those that have a function of their own."""
    own = tuple(name for name, _ in self.functions)
    of_output = () if self.parameterization is None else self.process.views_of(self.parameterization.kind)
    derived = ("score",) if "energy" in own else ()
    return tuple(dict.fromkeys((*own, *of_output, *derived)))

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
    """The prediction at x: [B, ...], t: [B]; see `Denoiser`. Views are in the dtype of x, if x is of floats.

    Raises ValueError for a view that it can not answer, or t not shaped [B].
    """
    check_views(views, self.views)
    check_times(x, t)
    p, functions = self.parameterization, dict(self.functions)
    found, collections = {}, None
    asked = tuple(name for name in views if name not in functions)
    fed, clock = (x, t) if p is None else p.inputs(self.process, x, t)
    if asked and p is None:  # a score that follows from an energy
      energy = functions["energy"]
      found["score"] = -jax.grad(lambda x: jnp.sum(energy(self.params, self.collections, x, t, cond)))(x)
    elif asked and p is not None and self.fn is not None:
      output, updated = self.fn(self.params, self.collections, fed, clock, cond, key, train)
      floats = jnp.issubdtype(x.dtype, jnp.floating)
      output = output.astype(x.dtype if floats else at_least_single(output.dtype))
      found = dict(self.process.convert(p.kind, output, x, t, asked, data_std=p.data_std))
      collections = updated if train else None
    for name in views:
      if name in functions:
        found[name] = functions[name](self.params, self.collections, x, clock, cond)
    return Prediction(**found, collections=collections)

  def with_params(self, params: Any, collections: Any = None) -> Self:
    """The same denoiser with other parameters and, if given, other mutable collections."""
    return self.replace(  # pyright: ignore[reportAttributeAccessIssue] (of struct.dataclass)
      params=params, collections=self.collections if collections is None else collections
    )


def from_function(
  fn: Callable[..., Any], process: Any, parameterization: Parameterization, params: Any = None
) -> NetworkDenoiser:
  """A denoiser from any pure function of (params, x, t, cond).

  Args:
    fn: (params, x [B, ...], time input [B], cond) -> output [B, ...]. Build it once: a new function object
      recompiles.
    process: the process.
    parameterization: what the output means, for example `denoisers.eps()`.
    params: the first argument of fn.

  >>> from diffusion import denoisers, processes
  >>> zero = lambda params, x, t, cond: 0.0 * x
  >>> denoiser = denoisers.from_function(zero, processes.edm(), denoisers.x0())
  >>> float(denoiser(jnp.ones((1, 2)), jnp.ones(1)).eps[0, 0])
  1.0
  """
  return NetworkDenoiser(process, parameterization, params, {}, _Plain(fn))


def from_functions(
  params: Any = None, *, process: Any = None, **functions: Callable[..., Any]
) -> NetworkDenoiser:
  """A denoiser that answers each view by a function of its own: an energy, a time score, a concrete score.

  Args:
    params: the first argument of every function.
    process: the process of x_t, or None for clean data.
    **functions: view -> (params, x [B, ...], t [B], cond) -> value. An energy gives a score too: minus its
      gradient.

  Raises:
    TypeError: a view that is no function; ValueError: none at all.

  >>> from diffusion import denoisers
  >>> energy = lambda k, x, t, cond: 0.5 * k * jnp.sum(x**2, axis=1)
  >>> bowl = denoisers.from_functions(jnp.float32(3.0), energy=energy)
  >>> bowl(jnp.ones((1, 2)), jnp.zeros(1), views=("score",)).score.tolist()
  [[-3.0, -3.0]]
  """
  if not functions:
    raise ValueError("from_functions needs at least one view, such as score=f with f(params, x, t, cond)")
  for name, function in functions.items():
    if not callable(function):
      raise TypeError(f"the view '{name}' is a function (params, x, t, cond), got {type(function).__name__}")
  views = tuple((name, _PlainView(function)) for name, function in functions.items())
  return NetworkDenoiser(process, None, params, {}, None, views)


def from_flax(
  module: Any,
  process: Any,
  parameterization: Parameterization | None,
  params: Any,
  collections: Any = None,
  methods: tuple[str, ...] = (),
) -> NetworkDenoiser:
  """A denoiser from a Flax linen module `(x, t, cond, train) -> output`; see `from_network`.

  Args:
    module: the linen module; it is told the clock of the parameterisation, not the process.
    process: the process.
    parameterization: what the output means; None for a module that has methods alone.
    params: the module's 'params' collection.
    collections: its other collections (batch statistics, spectral norms) as a dict, or None.
    methods: methods (x, t, cond) of the module, each of which answers the view of its name in evaluation: it
      reads the collections and changes none.
  """
  from diffusion.networks import Linen  # networks need more to import than denoisers do

  return from_network(Linen(module), process, parameterization, params, collections, methods)


def from_network(
  network: Any,
  process: Any,
  parameterization: Parameterization | None,
  params: Any,
  collections: Any = None,
  views: tuple[str, ...] = (),
) -> NetworkDenoiser:
  """A denoiser from a network of any make, such as `networks.from_nnx` and `networks.from_pair` give.

  Args:
    network: a `networks.Network`; it is told the clock of the parameterisation, not the process.
    process: the process.
    parameterization: what the output means; None for a network that has methods alone.
    params, collections: as `network.init` gives them.
    views: those that it answers by methods of its own.

  >>> from diffusion import denoisers, networks, processes
  >>> network = networks.from_pair(lambda *_: 0.5, lambda params, x, t, cond, key, train: params * x)
  >>> denoiser = denoisers.from_network(network, processes.edm(), denoisers.x0(), 0.5)
  >>> float(denoiser(jnp.ones((1, 2)), jnp.ones(1)).x0[0, 0])
  0.5
  """
  functions = tuple((name, _Answer(network, name)) for name in views)
  fn = None if parameterization is None else _Output(network)
  return NetworkDenoiser(process, parameterization, params, collections or {}, fn, functions)


@dataclasses.dataclass(frozen=True)
class _Plain:
  """Adapts (params, x, t, cond) -> output; equal functions compare equal, so rebuilding it is free."""

  fn: Callable[..., Any]

  def __call__(
    self, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any, key: Any, train: bool
  ) -> tuple[Any, Any]:
    del key, train
    return self.fn(params, x, t, cond), collections


@dataclasses.dataclass(frozen=True)
class _PlainView:
  """Adapts (params, x, time, cond) -> value of a view, as `_Plain` does."""

  fn: Callable[..., Any]

  def __call__(self, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any) -> Any:
    del collections
    return self.fn(params, x, t, cond)


@dataclasses.dataclass(frozen=True)
class _Output:
  """The output of a network; equal networks compare equal."""

  network: Any

  def __call__(
    self, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any, key: Any, train: bool
  ) -> tuple[Any, Any]:
    return self.network.apply(params, collections, x, t, cond, key, train)


@dataclasses.dataclass(frozen=True)
class _Answer:
  """A view that a network answers itself."""

  network: Any
  view: str

  def __call__(self, params: Any, collections: Any, x: Any, t: jax.Array, cond: Any) -> Any:
    return self.network.answer(self.view, params, collections, x, t, cond)
