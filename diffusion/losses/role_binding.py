"""Roles: which denoiser plays which part in a loss, with whose parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from diffusion.denoisers import Denoiser, InTraining


@dataclasses.dataclass(frozen=True, eq=False)
class Roles:
  """Maps parameters to denoisers; see `roles`.

  Attributes:
    denoisers: {role: denoiser}; those whose parameters are given when it is called are templates.
    trainable: roles that pass gradients to their parameters and run in training mode.
  """

  denoisers: Mapping[str, Denoiser]
  trainable: tuple[str, ...]

  @property
  def collections(self) -> dict[str, Any]:
    """{role: initial mutable collections} of the roles whose network has any."""
    found = {role: denoiser.collections for role, denoiser in self.denoisers.items()}
    return {role: collections for role, collections in found.items() if jax.tree.leaves(collections)}

  def __call__(
    self, params: Mapping[str, Any], collections: Mapping[str, Any] | None = None, train: bool = False
  ) -> dict[str, Any]:
    """{role: denoiser} with these parameters. `train` reaches the trainable roles only.

    A role without an entry in `params` keeps the parameters of its own denoiser: an oracle has none, and
    published weights bring theirs. Raises ValueError for one whose denoiser is a template without any.
    """
    collections = collections or {}
    bound = {}
    for role, denoiser in self.denoisers.items():
      trained = role in self.trainable
      own = params.get(role, denoiser.params)
      if own is None:
        raise ValueError(
          f"params has {sorted(params)}, and the denoiser of the role '{role}' has none of its own: pass "
          f"params={{'{role}': ..., ...}}"
        )
      if not trained:
        own = jax.lax.stop_gradient(own)
      denoiser = denoiser.with_params(own, collections.get(role))
      bound[role] = InTraining(denoiser) if train and trained else denoiser
    return bound


def roles(*, trainable: tuple[str, ...] = ("model",), **denoisers: Denoiser) -> Roles:
  """The roles of a loss: which denoiser plays which part.

  Each role (model, teacher, fake, target, ...) is any denoiser: a network, an oracle, a guided model, a
  composition, or functions (`denoisers.from_functions(energy=f)`). Parameters are arguments: the loss is
  called with params = {role: parameters, 'loss': loss parameters}. Only trainable roles pass gradients to
  their parameters and run in training mode; gradients with respect to inputs pass through all.

  Raises ValueError for a role that does not exist, TypeError for what is no denoiser.

  >>> from diffusion import denoisers, losses
  >>> slope = denoisers.from_functions(score=lambda params, x, t, cond: params * x)
  >>> found = losses.roles(model=slope)({"model": 2.0})["model"]
  >>> found(jax.numpy.full((1, 1), 3.0), jax.numpy.zeros(1), views=("score",)).score.tolist()
  [[6.0]]
  """
  if "loss" in denoisers:
    raise ValueError("'loss' is the place of the loss's own parameters, not a role: rename it")
  unknown = [role for role in trainable if role not in denoisers and role != "model"]
  if unknown:
    raise ValueError(f"trainable={tuple(trainable)} names {unknown}, but the roles are {sorted(denoisers)}")
  for role, given in denoisers.items():
    if not (callable(given) and hasattr(given, "with_params")):  # what a caller may give by mistake
      raise TypeError(
        f"role '{role}' is a denoiser, got {type(given).__name__}: make one of functions with "
        "denoisers.from_functions(score=f), naming what each computes"
      )
  return Roles(dict(denoisers), tuple(trainable))


def check_needs(objective: Any, given: Roles) -> None:
  """Raises ValueError if the roles lack one that the objective needs, or one of its views."""
  for role, names in objective.needs.items():
    for name, who in names.items():
      if role not in given.denoisers:
        raise ValueError(
          f"{who} needs '{name}' of the role '{role}', but losses.roles(...) has the roles "
          f"{sorted(given.denoisers)}: pass losses.roles({role}=...) too"
        )
      answered = given.denoisers[role].views
      if name not in answered:
        raise ValueError(
          f"{who} needs '{name}' of the role '{role}', which answers only {sorted(answered)}: pass a "
          f"denoiser with that view, such as denoisers.from_functions({name}=f)"
        )
