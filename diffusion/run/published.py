"""A published model opened as a run is: for sampling, tasks, fits and evaluation, with no config of a run."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from diffusion import data, losses, weights
from diffusion.config.errors import UserError
from diffusion.data.scaling import Scaling, Standardize
from diffusion.run import sharding
from diffusion.run.guide import digest
from diffusion.run.opened import Opened
from diffusion.run.parts import teacher
from diffusion.run.parts.assembly import Parts
from diffusion.weights import families, loading


@dataclasses.dataclass(frozen=True)
class PublishedModel(Opened):
  """A model of `weights.load`, with a data set that has its shape and its classes.

  Attributes:
    model: of `weights.load`.
    prompts: texts that samples are told in turn; () of a model that is told none.
  """

  model: Any
  prompts: tuple[str, ...] = ()

  @property
  def objective(self) -> losses.Objective:
    """What is known of how it was trained: it learned posterior means, and maybe those of no class."""
    return teacher.of_published(self.model.parts.unconditional, self.model.parts.denoises)

  @property
  def title(self) -> str:
    """Its file."""
    return self.model.path

  @property
  def source(self) -> str:
    """Its file."""
    return self.model.path

  @property
  def mark(self) -> str:
    """None: its folder is its own."""
    return ""

  @property
  def record(self) -> dict[str, Any]:
    """Its file, the class of its model, and the digest of its parameters."""
    name = self.model.description["model"]
    own = {"weights": self.model.path, "model": name, "weights_sha256": self.own_identity["weights"]}
    return own | self.guide_record

  @property
  def why_no_loss(self) -> str:
    """A file does not say how its model was trained."""
    return "how a published model was trained is not said in its file"

  @functools.cached_property
  def own_identity(self) -> dict[str, Any]:
    """The digest of what it is and of its parameters."""
    found = digest(self.model.description, self.params, self.denoiser.collections, self.codec_params)
    return {"weights": found} | ({"prompts": list(self.prompts)} if self.prompts else {})

  def noted(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """The prompts of samples."""
    return {"prompt": np.array(self.prompts)[index % len(self.prompts)]} if self.prompts else {}

  @property
  def no_sampler(self) -> str:
    """Why the sampler of its authors is not known here."""
    return self.model.no_sampler

  def own_sampler(self, steps: int | None) -> Any:
    """That of its authors, in `steps` or theirs; None where it is not known here."""
    return loading.sampler(self.model.description, self.model.denoiser.process, steps)[0]


def open_weights(
  path: str,
  *,
  codec: str | None = None,
  data_path: str | None = None,
  prompts: Sequence[str] | None = None,
  told: Mapping[str, Any] | None = None,
  evaluation: Mapping[str, Any] | None = None,
  mesh: Any = None,
) -> PublishedModel:
  """The model of a file or folder of weights, with its parameters on the devices.

  Args:
    path, codec, told: as of `weights.load`.
    data_path: images that it is measured on and that tasks take theirs of: a folder or a zip of pictures,
      or an NPZ with x and label (`data.images`, `data.npz`); pictures are cropped and resized to the model's
      size.
    prompts: texts for a model that is told such; the empty one by default.
    evaluation: what a config's section of this name says: num_samples, batch, seed.
    mesh: devices; all of them by default.

  Raises:
    UserError: as `weights.load`, and for data that are not of the model's shape or classes.
  """
  mesh = mesh or sharding.make_mesh()
  found = weights.load(path, codec=codec, told=told, place=on(mesh))
  parts = found.parts
  dataset, texts = _dataset(found, data_path), ()
  if found.text is not None:
    texts = tuple(prompts or ("",))
    dataset = _with_texts(dataset, found.text.encode(list(texts)))
  elif prompts:
    raise UserError(f"--prompt: {path} is no model that is told texts; leave it out")
  config = {"evaluation": dict(evaluation or {}), "training": {}}
  return PublishedModel(
    Parts(
      ml_collections.ConfigDict(config),
      dataset,
      parts.process,
      parts.network,
      parts.parameterization,
      {},
      found.codec,
    ),
    found.denoiser.params,
    found.denoiser,
    mesh,
    found.codec_params,
    found,
    texts,
  )


def _with_texts(dataset, text):
  """The data set with records that lend samples their texts, [n, N, D], in turn."""
  empty = np.zeros((len(text), *dataset.shape), np.uint8)
  told = data.NamedArray("text", tuple(text.shape[1:]), Standardize(), kept=False)
  return dataclasses.replace(
    dataset, held_out=data.Arrays(empty, text=np.asarray(text, np.float32)), conditions=(told,)
  )


def on(mesh: Any) -> Callable[[Any], Any]:
  """Puts parameters on a mesh, in float32, one after another."""

  def place(params):
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), params)
    put = lambda leaf, where: jax.device_put(np.asarray(leaf, np.float32), where)
    return jax.tree.map(put, params, sharding.state_sharding(mesh, like))

  return place


def _dataset(model, path):
  """The data of a path, or a data set without records: shape, classes and scaling as the model has them."""
  parts, values, shape = model.parts, model.parts.values, model.parts.shape
  if model.codec is not None:  # its pictures are in [-1, 1]
    one = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    values, shape = families.PIXELS, jax.eval_shape(model.codec.decode, model.codec_params, one).shape[1:]
  centered = values is not None and values[0] < 0
  scaling = Standardize() if values is None else Scaling(256, centered)
  if parts.told and (path is None or not path.lower().endswith(".npz")):
    raise UserError(
      f"{model.path} is told {' and '.join(parts.told)} with each sample: give --data=FILE.npz with "
      f"{', '.join(parts.told)}, and with x and label as any data"
    )
  if path is None:
    return data.Dataset(
      name=model.path,
      train=(),
      held_out=(),
      shape=shape,
      num_classes=parts.classes,
      class_names=(),
      scaling=scaling,
      split="no data were given",
    )
  if values is None:
    raise UserError(
      f"--data={path}: {model.path} is a model of latents of shape {list(parts.shape)}, and these are "
      "pictures: give its autoencoder too, --codec=FOLDER"
    )
  height, width, channels = shape
  more: Mapping[str, Any] = {} if parts.classes else {"num_classes": 0}
  if path.lower().endswith(".npz"):
    names = (*(["label"] if parts.classes else []), *parts.told)
    found = data.npz(path, centered=centered, condition=names if parts.told else None, **more)
  else:
    found = data.images(path, image_size=(height, width), channels=channels, centered=centered, **more)
  if tuple(found.shape) != shape or found.scaling.dtype != scaling.dtype or found.scaling.levels != 256:
    raise UserError(
      f"--data={path} holds {found.scaling} of shape {list(found.shape)}, and {model.path} is of pictures of "
      f"256 levels and shape {list(shape)}: give such ones"
    )
  if found.num_classes not in (0, parts.classes):
    raise UserError(
      f"--data={path} has {found.num_classes} classes and {model.path} {parts.classes}, so that a number "
      "means another class: give data of its classes, or without any"
    )
  return dataclasses.replace(found, num_classes=parts.classes)
