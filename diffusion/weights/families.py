"""What a published model is made of, from a description of it in plain words; and its parameters.

    {"model": "UNet2DModel", "config": {...}, "scheduler": {...} or None, "latents": False}

`model` is the class that its authors gave it, `config` and `scheduler` are what its file says of it,
`latents` whether an autoencoder lies beside it. A description is JSON, so a config of a run can hold it:
`network`, `process` and `parameterization` are the factories of its sections, and `sections` are those.

| model | file |
|---|---|
| EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond, Precond | `architectures.edm` |
| UNet2DModel | `architectures.unet2d` |
| UNet2DConditionModel | `architectures.unet2d_condition` |
| DiTTransformer2DModel, Transformer2DModel, DiT, SiT | `architectures.dit_files` |
| UNetModel, SuperResModel, KarrasDenoiser, MeanFlow, ddpm, ncsnpp | `architectures.authors` |
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.weights.architectures import authors, dit_files, edm, unet2d, unet2d_condition
from diffusion.weights.architectures.dit_options import shape_of

Description = Mapping[str, Any]
"""See the head of this file."""

PIXELS, UNIT = (-1.0, 1.0), (0.0, 1.0)
"""(black, white) of what most models are trained on, and of Score SDE's."""


class Parts(NamedTuple):
  """A published model without its parameters.

  Attributes:
    network: the Flax module.
    process: that it was trained on.
    parameterization: what its output means there.
    shape: of one sample, (H, W, C); H and W are those of the training data.
    classes: number of classes that the condition 'label' counts, 0 without.
    unconditional: whether it knows "no class", the label -1, as classifier-free guidance asks.
    denoises: whether it gives posterior means; a student of few steps knows where a step ends.
    values: (black, white) of its samples; None where they are latents.
    told: names of conditions beside the label that it needs.
  """

  network: Any
  process: Any
  parameterization: Any
  shape: tuple[int, int, int]
  classes: int = 0
  unconditional: bool = False
  denoises: bool = True
  values: tuple[float, float] | None = PIXELS
  told: tuple[str, ...] = ()


class Family(NamedTuple):
  """Models that are read alike.

  Attributes:
    parts: (description, **changes of the network, such as its dtype) -> `Parts`.
    convert: (arrays by name, description) -> the network's parameters, as NumPy arrays.
  """

  parts: Callable[..., Parts]
  convert: Callable[[Mapping[str, Any], Description], Any]


def parts(description: Description, **changes: Any) -> Parts:
  """What a description says.

  Args:
    description: see the head of this file.
    **changes: attributes of the network, such as dtype.

  Raises:
    UserError: a model that is not known, or options of it that are not.

  >>> found = parts({"model": "SiT", "config": {"depth": 2, "hidden_size": 12, "num_heads": 2}})
  >>> found.shape, found.classes, found.unconditional, found.values, found.process.name
  ((32, 32, 4), 1000, True, None, 'rectified_flow')
  """
  return family_of(description).parts(plain(description), **changes)


def convert(arrays: Mapping[str, Any], description: Description) -> Any:
  """The parameters of `parts(description).network` from the arrays of a file, by name.

  Raises:
    UserError: names missing or left over, or arrays of another shape.
  """
  return family_of(description).convert(arrays, plain(description))


def family_of(description: Description) -> Family:
  """The family of a description. Raises UserError for a model that is not known."""
  name = description.get("model")
  if name not in FAMILIES:
    raise UserError(f"a model of the class {name!r} is not known here: known are {', '.join(FAMILIES)}")
  return FAMILIES[name]


def network(of: Description, **changes: Any) -> Any:
  """The network of a description, as a factory of a config's section `network`.

  >>> network({"model": "SiT", "config": {"depth": 2, "hidden_size": 12, "num_heads": 2}}).shape.depth
  2
  """
  return parts(of, **changes).network


def process(of: Description) -> Any:
  """The process of a description, as a factory of a config's section `process`."""
  return parts(of).process


def parameterization(of: Description) -> Any:
  """What the network of a description returns, as a factory of a config's section `denoiser`."""
  return parts(of).parameterization


def sections(description: Description) -> dict[str, dict[str, Any]]:
  """The sections of a config that make a description's model.

  >>> sorted(sections({"model": "SiT", "config": {"depth": 2, "hidden_size": 12, "num_heads": 2}}))
  ['denoiser', 'network', 'process']
  """
  parts(description)  # says what is not known before anything is saved
  names = {"network": "network", "process": "process", "denoiser": "parameterization"}
  return {
    section: {"factory": f"weights.families.{name}", "of": plain(description)}
    for section, name in names.items()
  }


def _edm(description: Description, **changes: Any) -> Parts:
  notes = _notes(description)
  outer, _ = edm.options(notes)
  side, channels = outer.img_resolution, outer.img_channels
  return Parts(
    *edm.parts(notes, **changes),
    (side, side, channels),
    outer.label_dim,
    float((notes["init_kwargs"] or {}).get("label_dropout", 0.0)) > 0,
    True,
    PIXELS if channels in (1, 3) else None,  # EDM2's for images of 512 are latents of four channels
  )


def _notes(description):
  """A description as `edm` takes it."""
  config = description["config"]
  return {name: config.get(name) for name in ("init_args", "init_kwargs")} | {
    "class_name": description["model"]
  }


def _unet2d(description: Description, **changes: Any) -> Parts:
  config, scheduler = description["config"], description.get("scheduler")
  found = unet2d.parts(config, scheduler, **changes)
  options = found[0].options
  # The data of Score SDE, whose networks are told noise levels, lie in [0, 1]: it doubles them itself.
  unit = options.center_input_sample or options.time_embedding_type == "fourier"
  values = UNIT if unit else PIXELS
  return Parts(
    *found,
    _size(options),
    options.num_class_embeds or 0,
    False,
    True,
    None if description.get("latents") else values,
  )


def _size(options):
  """Of one sample, by a config of diffusers."""
  size = options.sample_size
  height, width = size if isinstance(size, tuple) else (size, size)
  if height is None or width is None:
    raise UserError("the config.json has no sample_size, the side of the model's images: add it")
  return height, width, options.in_channels


def _condition(description: Description, **changes: Any) -> Parts:
  found = unet2d_condition.parts(description["config"], description.get("scheduler"), **changes)
  return Parts(*found, _size(found[0].options), 0, found[0].no_text is not None, True, None)


def _dit(description: Description, **changes: Any) -> Parts:
  config = description["config"] | {"_class_name": description["model"]}
  shape = shape_of(config)
  found = dit_files.parts(config, description.get("scheduler"), description.get("copies", 1), **changes)
  size = (shape.side, shape.side, shape.channels)
  return Parts(*found, size, shape.classes - shape.null, bool(shape.null), True, None)


def _dit_params(arrays, description):
  return dit_files.convert(arrays, description["config"] | {"_class_name": description["model"]})


EDM = Family(_edm, lambda arrays, description: edm.convert(arrays, _notes(description)))
UNET2D = Family(_unet2d, lambda arrays, description: unet2d.convert(arrays, description["config"]))
CONDITION = Family(
  _condition, lambda arrays, description: unet2d_condition.convert(arrays, description["config"])
)


def _authors(description: Description, **changes: Any) -> Parts:
  kind = authors.KINDS[description["model"]]
  options, file = kind.options(description["config"]), kind.file
  return Parts(
    file.build(options, **changes), file.process(options), file.meaning(options), *kind.size(options)
  )


def _authors_params(arrays, description):
  kind = authors.KINDS[description["model"]]
  options = kind.options(description["config"])
  return kind.file.convert(kind.own(arrays, options), options)


DIT = Family(_dit, _dit_params)

FAMILIES: dict[str, Family] = {
  **dict.fromkeys(edm.PRECONDITIONERS, EDM),
  "UNet2DModel": UNET2D,
  unet2d_condition.NAME: CONDITION,
  **dict.fromkeys(("DiTTransformer2DModel", "Transformer2DModel", "DiT", "SiT"), DIT),
  **dict.fromkeys(authors.KINDS, Family(_authors, _authors_params)),
}
"""Class of a model, as its authors name it -> its family."""
