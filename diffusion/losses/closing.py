"""Closing an objective into a loss: how times are sampled, and which denoiser plays which part."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.denoisers import Denoiser, InTraining
from diffusion.losses import times
from diffusion.losses.base import Clock, Objective, batch_size
from diffusion.math.precision import at_least_single


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


@dataclasses.dataclass(frozen=True, eq=False)
class Loss:
  """A pure function (params, state, step, key, batch) -> (scalar, (state, metrics)).

  params = {'model': ..., 'loss': loss parameters, other roles}; state = {'objective': ..., 'collections':
  ...};
  metrics: dict of scalars. `step` is folded into `key`, so one key serves a whole run.
  """

  objective: Objective
  sampler: Any
  roles: Roles
  reweight: bool = False

  def init(self, key: jax.Array) -> tuple[Any, dict[str, Any]]:
    """(loss_params, state), to be kept as params['loss'] and in the train state."""
    loss_params, state = self.objective.init(key)
    return loss_params, {"objective": state, "collections": self.roles.collections}

  def sample_times(self, step: Any, key: jax.Array, batch: Any) -> jax.Array:
    """The times [B] that the loss takes at this step and key."""
    time_key, _ = self._keys(step, key)
    return self.sampler.sample(time_key, batch_size(batch), time_dtype(batch))

  def per_example(
    self,
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    step: Any,
    key: jax.Array,
    batch: Any,
    *,
    t: jax.Array | None = None,
    train: bool = True,
    size: int | None = None,
  ) -> tuple[jax.Array, Any]:
    """(values [B], Terms): the loss before the mean; `t` [B] replaces the sampled times.

    With `t` and batch['index'] given, a part of a batch inside a user's own shard_map or pmap takes the
    values that the whole batch takes outside. `size` is the number of examples of the whole batch, for
    the clock.
    """
    if t is None:
      t = self.sample_times(step, key, batch)
    _, draw_key = self._keys(step, key)
    roles = self.roles(params, state["collections"], train)
    clock = Clock(step, jnp.asarray(step, jnp.float32) * np.float32(size or batch_size(batch)))
    own = state["objective"]
    placed = self.objective.place(roles, self.objective.draw(draw_key, batch, t, own))
    terms = self.objective.evaluate(roles, placed, params.get("loss", {}), own, clock)
    for part, value in (("interior", terms.interior), ("boundary", terms.boundary)):
      if value.shape != t.shape:
        raise ValueError(
          f"{self.objective.name} returned {part} of shape {value.shape}; it is one number per "
          f"example, {t.shape}: sum over the other axes"
        )
    interior = terms.interior
    if self.reweight:
      uniform = -jnp.log(jnp.asarray(self.sampler.t_max - self.sampler.t_min, t.dtype))
      ratio = jnp.exp(uniform - self.sampler.log_density(t))
      interior = ratio.astype(interior.dtype) * interior
    return interior + terms.boundary, terms

  def __call__(
    self,
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    step: Any,
    key: jax.Array,
    batch: Any,
    *,
    train: bool = True,
  ) -> tuple[jax.Array, tuple[dict[str, Any], dict[str, jax.Array]]]:
    """(scalar, (state, metrics)); with `train=False` the network runs in evaluation mode."""
    t = self.sample_times(step, key, batch)
    values, terms = self.per_example(params, state, step, key, batch, t=t, train=train)
    loss = jnp.mean(values)
    still = jax.lax.stop_gradient(terms)
    metrics = {name: jnp.mean(value) for name, value in still.metrics.items()}
    metrics["loss"] = jax.lax.stop_gradient(loss)
    # A network without mutable collections reports an empty set of them: the state keeps its structure.
    collections = {
      role: value
      for role, value in (still.collections or {}).items()
      if value is not None and role in state["collections"]
    }
    state = {
      "objective": self.objective.update(state["objective"], t, still),
      "collections": {**state["collections"], **collections},
    }
    return loss, (state, metrics)

  @staticmethod
  def _keys(step, key):
    return jax.random.split(jax.random.fold_in(key, step))


def at_times(
  sampler: Any = None, *, roles: Roles | None = None, reweight: bool = False
) -> Callable[[Objective], Loss]:
  """Closes an objective into a `Loss`: times from `sampler` (default: uniform), denoisers from `roles`.

  A sampler left open (`low_discrepancy()`) takes its interval from the objective's process. With
  `reweight=True` the interior is multiplied by uniform density over sampling density, so that the expectation
  stays what it is under uniform times (importance sampling); without it, the sampler is itself a weighting.

  Raises ValueError if `roles` is missing or lacks what the objective needs, or if reweighting makes no
  sense.

  >>> import jax, jax.numpy as jnp
  >>> from diffusion import denoisers, losses, processes
  >>> process = processes.vp_linear()
  >>> linear = lambda params, x, t, cond: params * x
  >>> template = denoisers.from_function(linear, process, denoisers.eps(), jnp.ones(()))
  >>> loss = losses.chain(
  ...     losses.denoising_score_matching(process),
  ...     losses.weight_by(losses.min_snr(5.0)),
  ...     losses.at_times(losses.low_discrepancy(), roles=losses.roles(model=template)))
  >>> loss_params, state = loss.init(jax.random.key(0))
  >>> params = {"model": jnp.ones(()), "loss": loss_params}
  >>> value, (state, metrics) = loss(params, state, 0, jax.random.key(1), {"x": jnp.zeros((16, 2))})
  >>> value.shape, sorted(metrics)
  ((), ['eps_mse', 'loss'])
  """

  def close(objective: Objective) -> Loss:
    if roles is None:
      raise ValueError(
        f"at_times has to know the denoisers that {objective.name} calls: pass "
        "roles=losses.roles(model=denoiser)"
      )
    check_needs(objective, roles)
    chosen = times.closed(times.uniform_times() if sampler is None else sampler, objective)
    check_interval(objective, chosen)
    if reweight and getattr(chosen, "discrete", False):
      raise ValueError(
        "reweight=True divides a uniform density on an interval by the sampler's, which a ladder of "
        "discrete times does not have: use a continuous sampler, or weight_by(...)"
      )
    return Loss(objective, chosen, roles, reweight)

  return close


def check_interval(objective: Objective, sampler: Any) -> None:
  """Checks that an objective integrates over the times that are sampled.

  Raises ValueError where the objective, or a part of a sum, integrates over other times.
  """
  for part in objective.parts:
    check_interval(part, sampler)
  if objective.interval is not None:
    wanted, got = (
      [float(end) for end in ends] for ends in (objective.interval, (sampler.t_min, sampler.t_max))
    )
    if any(abs(a - b) > 1e-6 * (wanted[1] - wanted[0]) for a, b in zip(wanted, got)):
      raise ValueError(
        f"{objective.name} integrates over times {wanted}, but the sampler draws from {got}: leave "
        "the "
        "sampler's interval open, or give both the same t_min and t_max"
      )


def time_dtype(batch: Any) -> Any:
  """The dtype of times: that of the data, at least float32."""
  for leaf in jax.tree.leaves(batch):
    if jnp.issubdtype(leaf.dtype, jnp.floating):
      return at_least_single(leaf.dtype)
  return jnp.result_type(float)
