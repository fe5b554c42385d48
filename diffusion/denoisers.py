"""A network seen through a parameterisation and a process: (x, t, cond) -> x0, eps and other views.

Every view is computed straight from the network's own output by the table in `views.py`; none goes through
another view, which would divide by a vanishing alpha or sigma and lose the digits that the network has.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.processes.base import GaussianProcess, expand
from diffusion.views import VIEWS, edm_views


@struct.dataclass
class Prediction:
  """What a denoiser says of x_t, each [B, ...] or None where not asked for.

  Attributes:
    x0: posterior mean of the clean data.
    eps: posterior mean of the noise.
    score: gradient of log p_t(x_t), = -eps / sigma.
    v: alpha eps - sigma x0 (arXiv:2202.00512, appendix D).
    velocity: d_alpha x0 + d_sigma eps, the slope of the probability flow (arXiv:2210.02747).
    collections: the network's updated mutable collections, when called with `train=True`.
  """

  x0: Any = None
  eps: Any = None
  score: Any = None
  v: Any = None
  velocity: Any = None
  collections: Any = None


@struct.dataclass
class Parameterization:
  """What a network's output means and which numbers it is fed.

  Attributes:
    data_std: standard deviation of the data, used by 'edm'.
    time_scale, time_shift: the network receives time_scale * clock + time_shift.
    kind: 'x0', 'eps', 'score', 'scaled_score', 'v', 'velocity' or 'edm'.
    time_input: the clock: 't', 'log_sigma' (log of the noise-to-signal ratio sigma/alpha) or 'log_snr'.
  """

  data_std: Any
  time_scale: Any
  time_shift: Any
  kind: str = struct.field(pytree_node=False)
  time_input: str = struct.field(pytree_node=False)

  def coefficients(self, view, marginal):
    """Factors of x_t and of the raw output that give a view, each shaped like t."""
    table = edm_views(self.data_std) if self.kind == "edm" else VIEWS[self.kind]
    m = marginal
    return table[view](m.alpha, m.sigma, m.d_alpha, m.d_sigma, m.d_variance)

  def input_scale(self, marginal):
    """Factor of x_t at the network's input: EDM's c_in, one for the others."""
    if self.kind != "edm":
      return jnp.ones_like(marginal.alpha)
    return (marginal.sigma**2 + (marginal.alpha * self.data_std) ** 2) ** -0.5

  def clock(self, marginal, t):
    """The number that tells the network the time, [B]."""
    if self.time_input == "t":
      value = t
    elif self.time_input == "log_sigma":
      value = -0.5 * marginal.log_snr
    else:
      value = marginal.log_snr
    # A network cannot be fed an infinite clock: ends without noise or without signal sit at log-SNR +-40.
    bound = 40.0 if self.time_input == "log_snr" else 20.0
    if self.time_input != "t":
      value = jnp.clip(value, -bound, bound)
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


def x0(time_input="t", time_scale=1.0, time_shift=0.0) -> Parameterization:
  """The network returns the clean data."""
  return _parameterization("x0", time_input, time_scale, time_shift)


def eps(time_input="t", time_scale=1.0, time_shift=0.0) -> Parameterization:
  """The network returns the noise (arXiv:2006.11239, eq. 11-14).

  >>> eps(time_scale=999.0).kind
  'eps'
  """
  return _parameterization("eps", time_input, time_scale, time_shift)


def score(time_input="t", time_scale=1.0, time_shift=0.0) -> Parameterization:
  """The network returns the score itself."""
  return _parameterization("score", time_input, time_scale, time_shift)


def scaled_score(time_input="log_sigma", time_scale=1.0, time_shift=0.0) -> Parameterization:
  """The network returns sigma times the score (arXiv:2006.09011, technique 3)."""
  return _parameterization("scaled_score", time_input, time_scale, time_shift)


def v(time_input="t", time_scale=1.0, time_shift=0.0) -> Parameterization:
  """The network returns alpha eps - sigma x0 (arXiv:2202.00512)."""
  return _parameterization("v", time_input, time_scale, time_shift)


def velocity(time_input="t", time_scale=1.0, time_shift=0.0) -> Parameterization:
  """The network returns the slope of the probability flow (arXiv:2209.03003, arXiv:2210.02747)."""
  return _parameterization("velocity", time_input, time_scale, time_shift)


def edm(data_std=0.5, time_input="log_sigma", time_scale=0.25, time_shift=0.0) -> Parameterization:
  """EDM's preconditioned network: unit-variance input, output and target at every noise level
  (arXiv:2206.00364, table 1).

  On a process with alpha < 1 it acts on x_t / alpha at noise level sigma / alpha.

  Args:
    data_std: standard deviation of the training data.
    time_input, time_scale, time_shift: EDM feeds log(sigma) / 4.
  """
  return _parameterization("edm", time_input, time_scale, time_shift, data_std)


@struct.dataclass
class Denoiser:
  """A network, its parameters, its parameterisation and its process, as one pytree.

  Calling it maps x: [B, ...], t: [B] and a condition to a `Prediction` with the views asked for. The
  parameters are leaves, so new parameters do not recompile anything.
  """

  process: GaussianProcess
  parameterization: Parameterization
  params: Any
  collections: Any
  fn: Callable[..., Any] = struct.field(pytree_node=False)

  def __call__(self, x, t, cond=None, *, views=("x0", "eps"), key=None, train=False) -> Prediction:
    """The prediction at x_t.

    Args:
      x: [B, ...] noisy data.
      t: [B] times.
      cond: None, or a dict of arrays with leading axis B ('label': int, -1 for none; 'vector': float).
      views: fields of the `Prediction` to fill.
      key: randomness of the network (dropout) while training.
      train: whether dropout is on and mutable collections are updated.

    Returns:
      A `Prediction`; the fields asked for are [B, ...] in the dtype of x.

    Raises:
      ValueError: an unknown view, or t not shaped [B].
    """
    check_views(views)
    check_times(x, t)
    marginal = self.process.marginal(t)
    p = self.parameterization
    network_input = x * expand(p.input_scale(marginal), x)
    output, collections = self.fn(
      self.params, self.collections, network_input, p.clock(marginal, t), cond, key, train
    )
    output = output.astype(x.dtype)

    def view(name):
      of_x, of_output = p.coefficients(name, marginal)
      if name == p.kind:
        return output
      return expand(of_x, x) * x + expand(of_output, x) * output

    return Prediction(**{name: view(name) for name in views}, collections=collections if train else None)

  def with_params(self, params, collections=None):
    """The same denoiser with other parameters (and, if given, other mutable collections)."""
    collections = self.collections if collections is None else collections
    return self.replace(params=params, collections=collections)


def check_views(views):
  """Raises ValueError on a name that is not a view."""
  allowed = ("x0", "eps", "score", "v", "velocity")
  unknown = [name for name in views if name not in allowed]
  if unknown:
    raise ValueError(f"unknown view {unknown[0]!r}: ask for some of {', '.join(allowed)}")


def check_times(x, t):
  """Raises ValueError unless t holds one time for each row of x."""
  if jnp.ndim(t) != 1 or jnp.shape(t)[0] != jnp.shape(x)[0]:
    raise ValueError(
      f"t has shape {jnp.shape(t)} and x has shape {jnp.shape(x)}: give one time for each row,"
      f" for example jnp.full(({jnp.shape(x)[0]},), t)"
    )


def from_function(fn, process, parameterization, params=None) -> Denoiser:
  """A denoiser from any pure function of (params, x, t, cond).

  Args:
    fn: (params, x [B, ...], time input [B], cond) -> output [B, ...]. Build it once: a new function object
      recompiles.
    process: the Gaussian process.
    parameterization: what the output means, for example `denoisers.eps()`.
    params: the first argument of fn.

  >>> from diffusion import denoisers, processes
  >>> zero = lambda params, x, t, cond: 0.0 * x
  >>> denoiser = denoisers.from_function(zero, processes.edm(), denoisers.x0())
  >>> float(denoiser(jnp.ones((1, 2)), jnp.ones(1)).eps[0, 0])
  1.0
  """
  return Denoiser(process, parameterization, params, None, fn=_Plain(fn))


def from_flax(module, process, parameterization, params, collections=None) -> Denoiser:
  """A denoiser from a Flax linen module `(x, t, cond, train) -> output`.

  Args:
    module: the linen module; it is told the clock of the parameterisation, not the process.
    process: the Gaussian process.
    parameterization: what the output means.
    params: the module's 'params' collection.
    collections: its other collections (batch statistics, spectral norms) as a dict, or None.
  """
  return Denoiser(process, parameterization, params, collections or {}, fn=_Linen(module))


@dataclasses.dataclass(frozen=True)
class _Plain:
  """Adapts (params, x, t, cond) -> output; equal functions compare equal, so rebuilding the wrapper is
  free."""

  fn: Callable[..., Any]

  def __call__(self, params, collections, x, t, cond, key, train):
    del key, train
    return self.fn(params, x, t, cond), collections


@dataclasses.dataclass(frozen=True)
class _Linen:
  """Adapts a linen module; equal modules compare equal."""

  module: Any

  def __call__(self, params, collections, x, t, cond, key, train):
    variables = {"params": params, **(collections or {})}
    rngs = {"dropout": key} if train and key is not None else None
    if train and collections:
      output, updated = self.module.apply(
        variables, x, t, cond, train=True, rngs=rngs, mutable=list(collections)
      )
      return output, updated
    return self.module.apply(variables, x, t, cond, train=train, rngs=rngs), collections


def null_condition(cond):
  """The condition that says nothing: integer leaves become -1 and float leaves 0.

  >>> null_condition({'label': jnp.array([3, 4])})['label'].tolist()
  [-1, -1]
  """

  def null(leaf):
    return jnp.full_like(leaf, -1) if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.zeros_like(leaf)

  return jax.tree.map(null, cond)
