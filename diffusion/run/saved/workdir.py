"""The folder of a run: its config, and whether it is this run's."""

import os

from ml_collections import ConfigDict

from diffusion.config import loading
from diffusion.config.errors import UserError
from diffusion.run import distributed

FREE = (
  "training.steps",
  "training.log_every",
  "training.checkpoint_every",
  "training.keep",
  "training.keep_every",
  "training.layout",
  "training.model_devices",
  "training.sinks",
  "sampler",
  "evaluation",
  "claim",
  "measure",
)
"""Keys that may differ between the parts of one run: its length, what it writes, where its arrays lie, how it
is sampled."""


def claim(workdir: str, config: ConfigDict) -> None:
  """Makes the folder and saves `config.json`; UserError if it holds checkpoints of another config."""
  os.makedirs(workdir, exist_ok=True)
  path = os.path.join(workdir, "config.json")
  if os.path.exists(path) and os.path.isdir(checkpoints(workdir)) and os.listdir(checkpoints(workdir)):
    different = loading.differences(read(workdir), config, ignore=FREE)
    if different:
      shown = "; ".join(f"{key} is {old!r} there and {new!r} here" for key, old, new in different[:3])
      more = f" and {len(different) - 3} more" if len(different) > 3 else ""
      raise UserError(
        f"{workdir} holds a run of another config: {shown}{more}; give another --workdir, or the same config "
        "to go on"
      )
  if distributed.first():
    with open(path + ".tmp", "w") as file:
      file.write(loading.to_json(config))
    os.replace(path + ".tmp", path)


def read(workdir: str) -> ConfigDict:
  """The config of the run in `workdir`. Raises UserError if there is none."""
  path = os.path.join(workdir, "config.json")
  if not os.path.exists(path):
    raise UserError(
      f"no config.json in {workdir}: it is not the folder of a run; train first, or name another --workdir"
    )
  try:
    with open(path) as file:
      return upgraded(loading.from_json(file.read()))
  except ValueError:
    raise UserError(f"{path} is not whole: copy config.json from a folder in {workdir}/checkpoints") from None


def upgraded(config: ConfigDict) -> ConfigDict:
  """A config that was saved when a teacher had a section of its own, with the role that it is today.

  >>> old = ConfigDict(dict(teacher=dict(workdir="runs/a", ema=None, guided=False, interval=())))
  >>> upgraded(old).roles.teacher.to_dict()
  {'ema': None, 'guidance': (), 'run': 'runs/a'}
  """
  if "teacher" not in config:
    return config
  old = config.teacher
  around = dict(factory="guidance.by_condition", interval=tuple(old.get("interval") or ()) or None)
  role = dict(run=old.workdir, ema=old.get("ema"), guidance=(around,) if old.get("guided") else ())
  if "saved" in old:
    role["saved"] = old.saved.to_dict()
  with config.unlocked():
    del config.teacher
    config.roles = ConfigDict(dict(teacher=role))
  return config


def checkpoints(workdir: str) -> str:
  """Where the run keeps its checkpoints."""
  return os.path.join(os.path.abspath(workdir), "checkpoints")


def snapshots(workdir: str) -> str:
  """Where the run keeps the averages of earlier steps."""
  return os.path.join(os.path.abspath(workdir), "snapshots")
