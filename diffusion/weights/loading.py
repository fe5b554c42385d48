"""A published model by its file: a denoiser of this library, and the sampler that its authors use.

| what the file says | model |
|---|---|
| a pickle with a module of EDM or EDM2, under 'ema' | that of its class |
| a config.json beside it | that of its `_class_name` |
| names of arrays of a kind that is known | `architectures.authors` |
| nothing, and it is told to be a DiT or SiT | that, of its arrays' sizes (`architectures.dit_sizes`) |

A folder of diffusers may be a whole pipeline: its network is read, its scheduler, and its autoencoder.
`families` has the models that are known.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, solvers
from diffusion.config.errors import UserError
from diffusion.weights import autoencoders, families
from diffusion.weights.architectures import authors, clip, dit_files, dit_sizes, edm, unet2d_condition
from diffusion.weights.contents import Contents
from diffusion.weights.formats import mapped, opening

NETWORKS = ("unet", "transformer")
"""Folders of a pipeline that hold its network."""

AUTOENCODERS = ("vae", "vqvae", "movq")
"""Folders of a pipeline whose network sees latents."""

OF_AUTHORS = ("DiT", "SiT")
"""Models whose authors' files tell their sizes, and have to be told apart."""

STEPS = {"DDPMScheduler": 1000}
"""Steps of diffusers' pipelines by their scheduler; 50 for the others."""


@dataclasses.dataclass(frozen=True)
class Model:
  """A published model.

  Attributes:
    denoiser: with its parameters.
    parts: of which it is made: network, process, shape, classes, values (`families.Parts`).
    description: of it in plain words (`families`).
    path: of the file or folder.
    format: of the file, see `weights`.
    sampler: the solver that its authors use; None where it is not known here, and `no_sampler` says why.
    no_sampler: why `sampler` is None, in a sentence; "" where it is not.
    codec: between pictures in [-1, 1] and the latents that the denoiser sees (`codecs.Codec`); None without.
    codec_params: its parameters.
    text: what embeds prompts for the condition 'text', `architectures.clip.TextEncoder`; None without.
  """

  denoiser: Any
  parts: families.Parts
  description: Mapping[str, Any]
  path: str
  format: str
  sampler: Any
  no_sampler: str = ""
  codec: Any = None
  codec_params: Any = None
  text: Any = None

  @property
  def shape(self) -> tuple[int, int, int]:
    """Of one sample, (H, W, C); H and W are those of the training data."""
    return self.parts.shape

  @property
  def classes(self) -> int:
    """Number of classes that the condition 'label' counts, 0 without."""
    return self.parts.classes


class Found:
  """What is known of a model before its arrays are read: see `find`.

  Attributes:
    path, contents: of the file or folder.
    description: of the model (`families`).
  """

  def __init__(
    self,
    path: str,
    contents: Contents,
    description: Mapping[str, Any],
    prefix: str = "",
    names: Iterable[str] | None = None,
    loaded: Mapping[str, Any] | None = None,
  ) -> None:
    """Its arrays are those of these names, or under the prefix; some were read to know what it is."""
    self.path, self.contents, self.description = path, contents, description
    self._prefix, self._names, self._loaded = prefix, names, loaded or {}

  def params(self) -> Any:
    """The parameters as NumPy arrays, which are read now, but for those that `find` had to read.

    Raises UserError for arrays that are not those of the model.
    """
    names = self._names
    if names is None:
      names = [name for name in self.contents.arrays if name.startswith(self._prefix)]
    rest = self.contents.load(name for name in names if name not in self._loaded)
    arrays = {name: self._loaded[name] if name in self._loaded else rest.pop(name) for name in names}
    return families.convert(
      {name.removeprefix(self._prefix): array for name, array in arrays.items()}, self.description
    )

  def arrays(self, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin so, by the rest of their names."""
    names = [name for name in self.contents.arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): array for name, array in self.contents.load(names).items()}

  def text(self, dtype: Any) -> Any:
    """The text encoder beside a network that is told texts; None without."""
    if self.description["model"] != unet2d_condition.NAME:
      return None
    path = os.path.abspath(self.contents.path)
    beside = os.path.join(
      os.path.dirname(path if os.path.isdir(path) else os.path.dirname(path)), "text_encoder"
    )
    return clip.text_encoder(beside, dtype=dtype) if os.path.isdir(beside) else None


def load(
  path: str | os.PathLike[str],
  dtype: Any = jnp.float32,
  codec: str | os.PathLike[str] | None = None,
  *,
  told: Mapping[str, Any] | None = None,
  place: Callable[[Any], Any] | None = None,
) -> Model:
  """The model of a file or folder of weights.

  Args:
    path: the file, its folder, or the folder of a pipeline of diffusers.
    dtype: that the networks compute in; their parameters are float32.
    codec: file or folder of the AutoencoderKL whose latents the network was trained on. A pipeline has it in
      its folder 'vae' and needs none.
    told: what an authors' file does not say of its model, by their names for it, such as
      {"sde": "subvpsde"}, see `architectures.authors`; {"_class_name": "DiT"} or "SiT" for the files of
      those. A config.json beside the file may say it too.
    place: puts a tree of parameters on devices, in float32; the first device by default.

  Raises:
    UserError: for a file that cannot be read (`weights.read`), that is of a model not known here, or whose
      arrays and options do not fit it; for an autoencoder of other latents.

  >>> found = load("tests/weights/recorded/edm.pkl")
  >>> found.shape, found.classes, found.sampler.name, found.sampler.cost
  ((4, 4, 3), 4, 'heun', 35)
  """
  found = find(path, told)
  text, told, collections = found.text(dtype), {}, {}
  if text is not None:
    told, collections = unet2d_condition.without_text(found.description["config"], text.encode([""])[0])
  parts = families.parts(found.description, dtype=dtype, **told)
  place = place or (lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree))
  params = place(found.params())
  denoiser = denoisers.from_flax(parts.network, parts.process, parts.parameterization, params, collections)
  solver, why = sampler(found.description, parts.process)
  made = Model(denoiser, parts, found.description, found.path, found.contents.format, solver, why, text=text)
  beside = autoencoders.place_of(found.path, codec)
  if beside is None:
    return made
  own, params = _codec(found, beside, parts, dtype)
  return dataclasses.replace(made, codec=own, codec_params=place(params))


def _codec(found, beside, parts, dtype):
  """(codec, its parameters) of a model's latents, from the autoencoder's file."""
  own, params = autoencoders.load(beside, dtype)
  channels = own.network.options.latent_channels
  if channels != parts.shape[-1]:
    raise UserError(
      f"the AutoencoderKL in {beside} has latents of {channels} channels, and the network in {found.path} "
      f"takes {parts.shape[-1]}: give codec=PATH of the one that it was trained with"
    )
  encoder = found.arrays("encoder.")  # EDM2's snapshots say how their latents are scaled
  return autoencoders.of_edm2(own, params, encoder) if encoder else (own, params)


def find(path: str | os.PathLike[str], told: Mapping[str, Any] | None = None) -> Found:
  """What a file or folder is, before its arrays are read; arguments and errors as of `load`.

  Shapes tell it, and of few arrays their numbers.

  >>> find("tests/weights/recorded/edm.pkl").description["model"]
  'EDMPrecond'
  """
  path = os.path.expanduser(os.fspath(path))
  network, scheduler = _within(path)
  contents = opening.read(network)
  tree, config = contents.notes.get("tree"), contents.notes.get("config")
  snapshot = tree.get("ema") if isinstance(tree, Mapping) else None
  if isinstance(snapshot, Mapping) and "class_name" in snapshot:
    _nothing_told(path, snapshot["class_name"], told)
    return Found(path, contents, _of_edm(path, snapshot), "ema.")
  beside = {**(config if isinstance(config, Mapping) else {}), **(told or {})}
  name = beside.get("_class_name") or authors.kind_of(contents.arrays)
  if name in authors.KINDS:
    kind = authors.KINDS[name]
    names = kind.needed(contents.arrays)
    numbers = contents.load(one for one in names if one in kind.numbers)  # of the others, shapes are enough
    shapes = {one: contents.arrays[one] for one in names}
    return Found(path, contents, _described(name, kind.config(shapes | numbers, beside)), names=names)
  if name in OF_AUTHORS and "hidden_size" not in beside:
    return _of_sizes(path, contents, name, beside)
  if name not in families.FAMILIES or name in edm.PRECONDITIONERS:
    what = f"of {name}" if name else "of a model that it does not name"
    raise UserError(
      f"{path} is {what}, which is not known here: known are pickles of EDM and EDM2, a config.json of "
      f"{', '.join(one for one in families.FAMILIES if one not in (*edm.PRECONDITIONERS, *authors.KINDS))} "
      f"beside the weights, and the authors' files of {', '.join(authors.KINDS)}; those of DiT and SiT if "
      "told which, _class_name=DiT"
    )
  _nothing_told(path, name, told)
  description, loaded = _of_config(contents, beside, scheduler)
  return Found(path, contents, description, loaded=loaded)


def _described(name, config, **more):
  return {"model": name, "config": {key: one for key, one in config.items() if key != "_class_name"}} | more


def _nothing_told(path, name, told):
  if told:
    raise UserError(f"{path} is of {name}, whose file says what it is: leave told={dict(told)} out")


def _of_sizes(path, contents, name, told):
  """The authors' file of a DiT or SiT, which says nothing of itself."""
  prefix = next((one for one in ("ema.", "model.") if f"{one}pos_embed" in contents.arrays), "")
  arrays = {key.removeprefix(prefix): one for key, one in contents.arrays.items() if key.startswith(prefix)}
  strange = sorted(set(told) - {"_class_name", "num_heads"})
  if strange:
    raise UserError(f"what the file {path} of a {name} can be told is num_heads, not {', '.join(strange)}")
  config = dit_sizes.config_of(arrays, name, told.get("num_heads"))
  return Found(path, contents, _described(name, config, scheduler=None), prefix)


def sections(
  path: str | os.PathLike[str], told: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
  """The sections `network`, `process` and `denoiser` of a config whose model a file's weights fit.

  They are plain values, so that a run of such a config needs the file no more. Arguments and errors as of
  `load`.

  >>> sections("tests/weights/recorded/edm.pkl")["process"]["of"]["model"]
  'EDMPrecond'
  """
  return families.sections(find(path, told).description)


def sampler(description: Mapping[str, Any], process: Any, steps: int | None = None) -> tuple[Any, str]:
  """(the solver that a model's authors use, "") in so many steps or theirs, or (None, why there is none)."""
  if description["model"] in edm.PRECONDITIONERS:
    # Heun's method in 18 steps for CIFAR-10 and in 40 for images of 64 (arXiv:2206.00364), in 32 for EDM2.
    own = (
      32 if description["model"] == "Precond" else 18 if families.parts(description).shape[0] <= 32 else 40
    )
    return solvers.build("heun", process, steps or own), ""
  if description["model"] in authors.KINDS:
    kind = authors.KINDS[description["model"]]
    return kind.file.sampler(kind.options(description["config"]), *([] if steps is None else [steps])), ""
  if description["model"] == "DiT" and families.parts(description).parameterization.further:
    # The authors' sample.py: 250 random steps with the variance that was learned, and nothing clipped.
    grid = solvers.learned_ancestral_grid(process, steps or 250)
    return solvers.learned_ancestral(process, grid), ""
  scheduler = description.get("scheduler")
  if scheduler is None:
    return None, "there is no scheduler_config.json beside the network: choose a solver of solvers.build"
  try:
    return solvers.from_diffusers(scheduler, steps or STEPS.get(scheduler.get("_class_name"), 50))[1], ""
  except ValueError as error:
    return None, str(error)


def _within(path):
  """(the network's folder or file, contents of the scheduler's config or None)."""
  if os.path.isfile(os.path.join(path, "model_index.json")):
    folders = [os.path.join(path, name) for name in NETWORKS if os.path.isdir(os.path.join(path, name))]
    network = folders[0] if folders else path
  else:
    network = path
  folder = network if os.path.isdir(network) else os.path.dirname(network)
  for place in (folder, os.path.join(os.path.dirname(folder), "scheduler")):
    file = os.path.join(place, "scheduler_config.json")
    if os.path.isfile(file):
      with mapped.sound(file, "a scheduler config"), open(file, encoding="utf-8") as opened:
        return network, json.load(opened)
  return network, None


def _of_edm(path, snapshot):
  if snapshot["class_name"] not in edm.PRECONDITIONERS:
    raise UserError(
      f"{path} is of {snapshot['class_name']}, which is not known here: of EDM's classes known are "
      f"{', '.join(edm.PRECONDITIONERS)}"
    )
  config = {name: snapshot.get(name) for name in ("init_args", "init_kwargs")}
  return {"model": snapshot["class_name"], "config": config, "scheduler": None}


def _of_config(contents, config, scheduler):
  above = os.path.dirname(contents.path if os.path.isdir(contents.path) else os.path.dirname(contents.path))
  latents = any(os.path.isdir(os.path.join(above, one)) for one in AUTOENCODERS)
  found, embeddings = _described(config["_class_name"], config, scheduler=scheduler, latents=latents), {}
  if families.FAMILIES[found["model"]] is families.DIT:
    # What tells whether the blocks of diffusers' file share their embeddings is their numbers.
    embeddings = contents.load([one for one in contents.arrays if ".norm1.emb." in one])
    found["copies"] = dit_files.copies_of(embeddings, config)
  return found, embeddings
