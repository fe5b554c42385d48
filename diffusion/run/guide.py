"""A second network that guides a model as it is sampled: autoguidance, and EDM2's `gnet`.

    sample.py --weights=FILE --guide-weights=WORSE --guidance=W

It is a published file, of the same data and the same process as the model. A network without classes that
guides one with classes is told none, which is EDM2's classifier-free guidance by two networks.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffusion import denoisers, guidance, weights
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.processes.comparison import difference


@dataclasses.dataclass(frozen=True)
class Guide:
  """The network that guides.

  Attributes:
    denoiser: with its parameters, which takes the conditions of the model that it guides.
    path: of its file.
    identity: the digest of what it is and of its parameters.
  """

  denoiser: Any
  path: str
  identity: str

  def around(self, denoiser: Any, weight: Any, interval: tuple[float, float] | None) -> Any:
    """The denoiser guided away from it: `guidance.autoguidance`."""
    return guidance.autoguidance(self.denoiser, weight, interval)(denoiser)


def open_guide(path: str, model: Any, told: Mapping[str, Any] | None = None, place: Any = None) -> Guide:
  """The network of a file, that is to guide an opened model.

  Args:
    path: as of `weights.load`.
    model: `run.opened.Opened`, the model that is guided.
    told: as of `weights.load`.
    place: puts its parameters on devices, as of `weights.load`.

  Raises:
    UserError: as `weights.load`, and for a network of another shape, other classes, other values or another
      process.
  """
  own = f"--guide-weights={path} is of"
  if model.parts.parameterization is None:
    raise UserError(f"--guide-weights={path}: {model.source} is no denoiser, and nothing guides it")
  found, parts = weights.load(path, told=told, place=place), model.parts
  classes, named = parts.dataset.num_classes, parts.dataset.conditions
  if tuple(found.shape) != tuple(parts.shape):
    sizes = f"samples of {list(found.shape)}, and {model.source} of {list(parts.shape)}"
    raise UserError(f"{own} {sizes}: {SAME}")
  if found.classes not in (0, classes):
    counts = f"{found.classes} classes, and {model.source} of {classes}"
    raise UserError(f"{own} {counts}: give a network of the same classes, or of none")
  if found.parts.told or found.text is not None or (named and found.classes):
    raise UserError(
      f"{own} a model, or for one, that is told more than a class, which is not known here: give one without "
      "conditions"
    )
  wrong = difference(model.denoiser.process, found.denoiser.process)
  if wrong:
    raise UserError(f"{own} another process than {model.source} ({wrong}): {SAME}")
  denoiser = found.denoiser
  if (classes or named) and not found.classes:
    denoiser = denoisers.untold(denoiser)
  return Guide(denoiser, path, digest(found.description, found.denoiser.params))


SAME = "give a network that was trained on the same data and noise"


def digest(description: Mapping[str, Any], *trees: Any) -> str:
  """The SHA-256 of a description and of trees of arrays: a file may move, and a model may lie in many."""
  found = hashlib.sha256(json.dumps(plain(description), sort_keys=True).encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
    found.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
    found.update(np.asarray(leaf).tobytes())
  return found.hexdigest()
