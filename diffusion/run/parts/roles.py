"""The roles of a run beside its model: other runs, copies, averages, networks of their own and oracles.

    config.roles = dict(
      teacher=dict(run="runs/digits", guidance=[dict(factory="guidance.classifier_free", weight=1.0)]),
      fake=dict(copy_of="teacher"),  # starts as the teacher, without its guidance
      target=dict(average_of="model", decay=0.999),  # or half_life_images=...
      other=dict(weights="edm-cifar10-32x32-cond-vp.pkl"),  # a published model; `told` as of weights.load
      critic=dict(network=dict(...), denoiser=dict(...)),
      truth=dict(factory="oracles.gaussian", mean=(0.0,), covariance=(1.0,)),  # any denoiser of the process
    )

The first start writes into `saved` what the model of a run or of a file is, and keeps its weights in the
train state: from then on its folder is not needed.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion import guidance
from diffusion.config import factories, loading
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.run import ema
from diffusion.run.parts import warm_start
from diffusion.run.saved import averages, checkpoints, workdir as workdirs

FOUND = ("run", "weights")
"""Kinds whose weights lie elsewhere and are found at the first start."""

KINDS = {
  "run": ("run", "ema", "guidance", "saved"),
  "weights": ("weights", "told", "guidance", "saved"),
  "copy_of": ("copy_of",),
  "average_of": ("average_of", "decay", "half_life_images"),
  "network": ("network", "denoiser"),
}
"""What decides a role's kind, and the keys that it has."""


class Role(NamedTuple):
  """One role of a run, without parameters.

  Attributes:
    name: of the role.
    kind: a key of `KINDS`, or 'factory' for a denoiser as it is.
    source: the role that it copies or follows; the folder of a run; the file of a published model.
    network, parameterization, process: what its denoiser is made of; those of its source for a copy or
      an average.
    guidance: what goes around it, a function from denoiser to denoiser.
    share: step, images an update -> the share of the new parameters in an average.
    denoiser: of a factory.
    saved: what is known of another run: step, ema, shape, num_classes and its sections; of a published model
      the same without step, ema and loss, and whether it is `unconditional`.
  """

  name: str
  kind: str
  source: str | None = None
  network: Any = None
  parameterization: Any = None
  process: Any = None
  guidance: Callable[[Any], Any] = guidance.chain()
  share: Callable[..., jax.Array] | None = None
  denoiser: Any = None
  saved: Any = None


def resolve(config: Any, workdir: str, say: Callable[[str], None] = print) -> Any:
  """The config with config.roles.NAME.saved for every other run and published model.

  It comes from the run in `workdir` if that has a checkpoint, else from the folder that the role names.
  A config without such a role is returned as it is; the one given is never changed. Raises UserError for a
  role that is no role, a folder without a run, and a run without a checkpoint or a denoiser.
  """
  runs = [
    name
    for name, section in (config.get("roles") or {}).items()
    if name != "model" and kind_of(name, section) in FOUND
  ]
  if not runs:
    return config
  kept: Any = {}
  if checkpoints.steps(workdirs.checkpoints(workdir)):
    kept = workdirs.read(workdir).get("roles") or {}
  config = config.copy_and_resolve_references()
  for name in runs:
    section = config.roles[name]
    find = _found if "run" in section else _published
    saved = (kept.get(name) or {}).get("saved") or find(name, section, say)
    with config.unlocked():
      section.saved = saved
  return config


def kind_of(name: str, section: Any) -> str:
  """The kind of a role's section. Raises UserError for none, two, or an unknown key."""
  where = f"config.roles.{name}"
  if not isinstance(plain(section), Mapping):
    raise UserError(f"{where} is a section such as dict(run=FOLDER); it is {section!r}")
  kinds = [kind for kind in (*KINDS, "factory") if kind in section]
  if "factory" in kinds and "weights" in kinds:  # an argument of the factory: those of a mixture
    kinds.remove("weights")
  if len(kinds) != 1:
    raise UserError(
      f"{where} has {', '.join(kinds) or 'none'} of {', '.join(KINDS)} and factory: give "
      f"exactly one, such as "
      "dict(run=FOLDER), dict(copy_of='model') or dict(average_of='model', decay=0.999)"
    )
  if kinds[0] != "factory":
    loading.check_keys(section, KINDS[kinds[0]], where)
  return kinds[0]


def finished(
  folder: Any, ema_name: Any, place: str, say: Callable[[str], None] = print
) -> tuple[Any, str, str]:
  """(config, checkpoint, average) of another run, whose weights are to be used.

  Args:
    folder: of the run.
    ema_name: half-life in images or relative length of the average, as text; None for its first, 'none' for
      the raw weights.
    place: the section that names them, `run` and `ema`, in messages.

  Raises UserError for a folder without a run, a run without a checkpoint, or an average that it has not.
  """
  if not isinstance(folder, str) or not folder:
    raise UserError(f"{place}.run is the folder of a finished run, such as 'runs/digits'; it is {folder!r}")
  where = f"{place}.run={folder}"
  if not os.path.exists(os.path.join(folder, "config.json")):
    raise UserError(f"{where}: there is no run; train it first, or name the folder of one")
  config = workdirs.read(folder)
  chosen = checkpoints.choose(workdirs.checkpoints(folder), say=say)
  if chosen is None:
    raise UserError(f"{where}: that run has no checkpoint yet; train it first")
  try:
    average = averages.choose(chosen, config, None if ema_name is None else str(ema_name)).name
  except UserError as error:
    raise UserError(f"{place}.ema={ema_name}: {error}, and 'none' for the raw weights") from error
  return config, chosen, average or "none"


def _found(name, section, say):
  """What another run's model is, read from its folder."""
  where = f"config.roles.{name}.run={section.run}"
  config, chosen, average = finished(section.run, section.get("ema"), f"config.roles.{name}", say)
  if not config.get("denoiser"):
    raise UserError(
      f"{where}: that run's network is no denoiser; name the folder of one with a section 'denoiser'"
    )
  dataset = factories.build(config.data, where=f"{where}, config.data")
  return dict(
    step=checkpoints.read_meta(chosen)["step"],
    ema=average,
    shape=tuple(dataset.shape),
    num_classes=dataset.num_classes,
    **{part: plain(config[part]) for part in ("process", "network", "denoiser", "loss")},
    **({"codec": plain(config.codec)} if config.get("codec") else {}),
  )


def _published(name, section, say):
  """What a published model is, read from its file."""
  from diffusion.weights import families, loading  # the published networks, which no other run needs

  del say
  where = f"config.roles.{name}.weights"
  if not isinstance(section.weights, str) or not section.weights:
    raise UserError(f"{where} is a file or folder of weights, such as 'model.pkl'; it is {section.weights!r}")
  try:
    description = loading.find(section.weights, plain(section.get("told"))).description
  except UserError as error:
    raise UserError(f"{where}: {error}") from error
  parts = families.parts(description)
  return dict(
    shape=tuple(parts.shape),
    num_classes=parts.classes,
    unconditional=parts.unconditional,
    denoises=parts.denoises,
    told=plain(section.get("told")),
    **families.sections(description),
  )


def build(config: Any, model: Role) -> dict[str, Role]:
  """{name: role} of config.roles, the model among them. Raises UserError for a role that does not fit."""
  found, waiting = {"model": model}, dict(config.get("roles") or {})
  waiting.pop("model", None)
  for name in waiting:
    if not name.isidentifier() or name in ("loss", "codec"):
      raise UserError(f"config.roles.{name}: a role has a name such as 'teacher', and not 'loss' or 'codec'")
  while waiting:
    ready = [name for name, section in waiting.items() if _source(name, section) in (None, *found)]
    if not ready:
      name, section = next(iter(waiting.items()))
      raise UserError(
        f"config.roles.{name} is of the role '{_source(name, section)}', which there is not; there are "
        f"{', '.join(found)}"
      )
    for name in ready:
      found[name] = _role(name, waiting.pop(name), found)
  return found


def _source(name, section):
  kind = kind_of(name, section)
  return section[kind] if kind in ("copy_of", "average_of") else None


def _role(name, section, found):
  kind, where = kind_of(name, section), f"config.roles.{name}"
  model = found["model"]
  made = lambda part, there, at: (
    factories.build(there[part], where=f"{at}.{part}") if there.get(part) else None
  )
  if kind == "factory":
    return Role(
      name, kind, denoiser=factories.build(section, model.process, where=where), process=model.process
    )
  if kind in FOUND:
    if "saved" not in section:
      raise UserError(
        f"{where} has no 'saved', which says what that model is: a run gets it from `parts.roles.resolve`, "
        f"as train.py does"
      )
    there, at = section.saved, f"{where}.saved"
    around = [
      factories.build(one, where=f"{where}.guidance[{i}]")
      for i, one in enumerate(section.get("guidance") or ())
    ]
    network, parameterization, process = (
      made(part, there, at) for part in ("network", "denoiser", "process")
    )
    return Role(
      name, kind, section[kind], network, parameterization, process, guidance.chain(*around), saved=there
    )
  if kind == "network":
    return Role(
      name, kind, None, made("network", section, where), made("denoiser", section, where), model.process
    )
  source = found[section[kind]]
  if source.kind == "factory":
    raise UserError(
      f"{where}: the role '{source.name}' has no parameters to copy or to average; use it as it is"
    )
  role = source._replace(
    name=name, kind=kind, source=source.name, guidance=guidance.chain(), share=None, saved=None
  )
  return role._replace(share=_share(where, section)) if kind == "average_of" else role


def _share(where, section):
  """(step, images an update) -> the share of the new parameters in an average."""
  decay, half_life = section.get("decay"), section.get("half_life_images")
  if (decay is None) == (half_life is None):
    raise UserError(f"{where} has its own decay (0.999, say) or half_life_images, one of the two")
  if decay is not None:
    if not 0 <= decay < 1:
      raise UserError(f"{where}.decay={decay}: it is at least 0 and below 1")
    return lambda step, images: jnp.asarray(1.0 - decay, jnp.float32)
  (length,) = ema.half_lives(half_life).values()
  return lambda step, images: ema.rate(length, step, images)


def load(roles: Mapping[str, Role], state: Any, say: Callable[[str], None] = print) -> Any:
  """The state with other runs' weights in place, and copies and averages started at what they are of."""
  params, emas, loss_state = dict(state.params), dict(state.emas), dict(state.loss_state)
  fixed, collections = dict(loss_state["fixed"]), dict(loss_state["collections"])
  place = lambda name: next(part for part in (params, emas, fixed) if name in part)
  for name, role in roles.items():
    if role.kind == "run":
      folder, where = str(role.source), f"config.roles.{name}.run={role.source}"
      found, theirs = averages.of_run(folder, role.saved.step, role.saved.ema, name, where, say)
      place(name)[name] = warm_start.fit(found, place(name)[name], where)
      if name in collections:
        collections[name] = warm_start.fit(theirs, collections[name], where)
    elif role.kind == "weights":
      found = warm_start.published(str(role.source), plain(role.saved.told))
      place(name)[name] = warm_start.fit(
        found, place(name)[name], f"config.roles.{name}.weights={role.source}"
      )
    elif role.kind in ("copy_of", "average_of"):
      place(name)[name] = jax.tree.map(jnp.copy, place(role.source)[role.source])
      if name in collections:
        collections[name] = jax.tree.map(jnp.copy, collections[role.source])
  return state.replace(
    params=params, emas=emas, loss_state={**loss_state, "fixed": fixed, "collections": collections}
  )
