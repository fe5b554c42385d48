"""Fields: named functions of a role, bound to that role's parameters."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
  """What a role can compute; None for what it cannot. Everything but `denoise` and `head` is (x [B, ...], t
  [B], cond=None, ...).

  denoise(x, t, cond=None, *, views, key, train) -> Prediction; score -> [B, ...]; hessian -> that of log p_t,
  [B, D, D] or a form of `diffusion.symmetric`; third_derivative -> that of log p_t, [B, D, D, D]; energy ->
  [B], with p proportional to exp(-energy); time_score -> [B]; concrete -> [B, neighbours]; context and head:
  the two halves of an autoregressive field, context(x, t, cond) -> [B, ..., C], one vector a coordinate of
  what comes before it, and head(context, x, t, cond) -> [B, ...], each coordinate alone with its context, any
  number of them.
  """

  denoise: Callable | None = None
  score: Callable | None = None
  hessian: Callable | None = None
  third_derivative: Callable | None = None
  energy: Callable | None = None
  time_score: Callable | None = None
  concrete: Callable | None = None
  context: Callable | None = None
  head: Callable | None = None


NAMES = tuple(field.name for field in dataclasses.fields(Field))


@dataclasses.dataclass(frozen=True, eq=False)
class select:
  """A template that reads params[key] of its role: for a role of several networks.

  >>> from diffusion import losses
  >>> binder = losses.fields(model={"score": losses.select("first", lambda params, x, t, cond=None: params * x)})
  >>> bound = binder({"model": {"first": 2.0}, "loss": {}}, {})
  >>> bound["model"].score(3.0, None)
  6.0
  """

  key: str
  template: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Binder:
  """Maps parameters to fields; see `fields`."""

  roles: Mapping[str, Mapping[str, Any]]
  trainable: tuple[str, ...]

  @property
  def provides(self) -> dict[str, frozenset]:
    """{role: names of its functions}."""
    return {
      role: frozenset(templates) | ({"score"} if {"denoise", "energy"} & set(templates) else frozenset())
      for role, templates in self.roles.items()
    }

  @property
  def collections(self) -> dict[str, Any]:
    """{role: initial mutable collections} of the roles whose network has any."""
    found = {
      role: getattr(_denoiser_of(templates), "collections", None) for role, templates in self.roles.items()
    }
    return {role: collections for role, collections in found.items() if jax.tree.leaves(collections)}

  def __call__(self, params, collections=None, train: bool = False) -> dict[str, Any]:
    """{role: Field} and 'loss': params['loss']. `train` reaches the trainable roles only."""
    missing = [role for role in self.roles if role not in params]
    if missing:
      raise ValueError(
        f"params has {sorted(params)}, but fields(...) binds {missing} too: "
        f"pass params={{'{missing[0]}': ..., ...}}"
      )
    collections = collections or {}
    bound = {"loss": params.get("loss", {})}
    for role, templates in self.roles.items():
      own = params[role]
      trains = role in self.trainable
      if not trains:
        own = jax.lax.stop_gradient(own)
      bound[role] = _bind(templates, own, collections.get(role), train and trains)
    return bound


def fields(*, trainable=("model",), **roles) -> Binder:
  """The binder of a loss: which function plays which part, with which parameters.

  Each role (model, ema, teacher, fake, ...) is a denoiser, or a dict of the names of `Field` with, for each,
  a denoiser or a plain function f(params, x, t, cond=None). Parameters are arguments: the binder is called
  with params = {role: parameters, 'loss': loss parameters}; a denoiser is a template whose own parameters are
  not used. A denoiser also gives `score`, and so does an energy: minus its gradient. Only trainable roles
  pass gradients to their parameters and run in training mode; gradients with respect to inputs pass through
  all.

  Raises ValueError for a name that no Field has, TypeError for what can not be called.

  >>> from diffusion import losses
  >>> binder = losses.fields(model={"energy": lambda params, x, t, cond=None: params * x})
  >>> sorted(binder.provides["model"])
  ['energy', 'score']
  """
  if "loss" in roles:
    raise ValueError("'loss' is the place of the loss's own parameters, not a role: rename it")
  unknown = [role for role in trainable if role not in roles and role != "model"]
  if unknown:
    raise ValueError(f"trainable={tuple(trainable)} names {unknown}, but the roles are {sorted(roles)}")
  table = {}
  for role, given in roles.items():
    templates = dict(given) if isinstance(given, Mapping) else {"denoise": given}
    for name, template in templates.items():
      if name not in NAMES:
        raise ValueError(f"role '{role}' has no function '{name}': the names are {', '.join(NAMES)}")
      inner = template.template if isinstance(template, select) else template
      if not callable(inner):
        raise TypeError(f"'{name}' of role '{role}' is a denoiser or a function, got {type(inner).__name__}")
    if not isinstance(given, Mapping) and not hasattr(given, "with_params"):
      raise TypeError(
        f"role '{role}' is a denoiser, or a dict such as {{'score': f}}; got a bare "
        f"{type(given).__name__}: name what it computes"
      )
    table[role] = templates
  return Binder(table, tuple(trainable))


def check_needs(objective, binder: Binder) -> None:
  """Raises ValueError if the binder lacks a role or a function of the objective."""
  provides = binder.provides
  for role, names in objective.needs.items():
    for name, who in names.items():
      if role not in provides:
        raise ValueError(
          f"{who} needs '{name}' of the role '{role}', but fields(...) has the roles "
          f"{sorted(provides)}: pass losses.fields({role}=...) too"
        )
      if name not in provides[role]:
        raise ValueError(
          f"{who} needs '{name}' of the role '{role}', which gives only {sorted(provides[role])}: "
          f"pass losses.fields({role}={{'{name}': ...}})"
        )


def _denoiser_of(templates):
  template = templates.get("denoise")
  template = template.template if isinstance(template, select) else template
  return template


def _bind(templates, params, collections, train):
  functions = {}
  for name, template in templates.items():
    own = params
    if isinstance(template, select):
      own, template = params[template.key], template.template
    if hasattr(template, "with_params"):
      function = template.with_params(own, collections) if name == "denoise" else template.with_params(own)
    else:
      function = functools.partial(template, own)
    functions[name] = functools.partial(_in_mode, function, train) if name == "denoise" else function
  if "denoise" in functions and "score" not in functions:
    functions["score"] = functools.partial(_score, functions["denoise"])
  if "energy" in functions and "score" not in functions:
    functions["score"] = functools.partial(_minus_gradient, functions["energy"])
  return Field(**functions)


def _in_mode(denoise, default_train, x, t, cond=None, *, views=("x0", "eps"), key=None, train=None):
  return denoise(x, t, cond, views=views, key=key, train=default_train if train is None else train)


def _score(denoise, x, t, cond=None, *, key=None, train=None):
  return denoise(x, t, cond, views=("score",), key=key, train=train).score


def _minus_gradient(energy, x, t, cond=None):
  return -jax.grad(lambda x: energy(x, t, cond).sum())(x)
