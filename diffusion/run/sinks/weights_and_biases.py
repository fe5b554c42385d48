"""Weights & Biases, where its package is installed."""

import importlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion.config.errors import UserError
from diffusion.run.sinks.contract import Sink, numbers

RUN_ID = "wandb_run_id"
"""File in the run's folder with the identifier under which W&B knows the run, over all its parts."""


class _WandB:
  """See `wandb`."""

  def __init__(self, package: Any, options: dict[str, Any]):
    self._package, self._options = package, options
    self._run: Any = None

  def open(self, workdir: str, step: int | None) -> None:
    config = None
    if os.path.exists(os.path.join(workdir, "config.json")):
      with open(os.path.join(workdir, "config.json")) as file:
        config = json.load(file)
    options = {"name": os.path.basename(os.path.abspath(workdir)), **self._options}
    self._run = self._package.init(
      dir=workdir, config=config, id=_identifier(workdir), resume="allow", **options
    )
    # An evaluation has a step of its own: W&B drops what comes with a step before the last it has seen.
    self._run.define_metric("evaluation/*", step_metric="evaluation/step")

  @property
  def _opened(self) -> Any:
    assert self._run is not None, "a sink that was not opened"
    return self._run

  def log(self, step: int, scalars: Mapping[str, float]) -> None:
    self._opened.log(dict(scalars), step=step)

  def metrics(self, step: int, found: Mapping[str, Any]) -> None:
    values = {f"evaluation/{name}": value for name, value in numbers(found).items()}
    self._opened.log({**values, "evaluation/step": step})

  def picture(self, step: int, name: str, path: str) -> None:
    self._opened.log({f"evaluation/{name}": self._package.Image(path), "evaluation/step": step})

  def close(self) -> None:
    if self._run is not None:
      self._run.finish()


def _identifier(workdir: str) -> str:
  """What W&B knows this run by: made once, and kept in the run's folder."""
  path = os.path.join(workdir, RUN_ID)
  if not os.path.exists(path):
    with open(path + ".tmp", "w") as file:
      file.write(uuid.uuid4().hex[:12] + "\n")
    os.replace(path + ".tmp", path)
  with open(path) as file:
    return file.read().strip()


def wandb(
  project: str,
  name: str | None = None,
  entity: str | None = None,
  group: str | None = None,
  tags: Sequence[str] = (),
  mode: str | None = None,
) -> Sink:
  """Weights & Biases: log lines, the numbers of an evaluation as `evaluation/...`, its pictures, the config.

  All parts of a run and its evaluations are one run there. What is written again after a kill has the steps
  and the values that W&B has already, and W&B leaves it out.

  Args:
    project, entity, group, tags: where the run is filed.
    name: of the run; by default that of its folder.
    mode: 'online', 'offline' or 'disabled'; by default what W&B's own settings say (WANDB_MODE).

  Raises:
    UserError: the package is not installed.
    ValueError: a mode that W&B does not have.
  """
  if mode not in (None, "online", "offline", "disabled"):
    raise ValueError(f"mode='{mode}': it is 'online', 'offline' or 'disabled'")
  try:
    package = importlib.import_module("wandb")  # late: nothing else needs it
  except ImportError as error:
    raise UserError(
      f"run.sinks.wandb needs the package wandb, which cannot be imported ({error}): pip install wandb, "
      "or leave this sink out of config.training.sinks"
    ) from error
  given = dict(project=project, name=name, entity=entity, group=group, tags=list(tags) or None, mode=mode)
  return _WandB(package, {key: value for key, value in given.items() if value is not None})
