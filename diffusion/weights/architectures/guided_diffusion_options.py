"""The options of guided-diffusion and of consistency models from the arrays of a file: the files carry none.

Sizes, levels, classes and ways of resampling show in names and shapes. The side of the images, the heads, the
order of their rows and the noise schedule do not: of the published sizes they are known, of others they have
to be told. A file of guided-diffusion and one of consistency models differ by two axes of length one.
"""

from collections.abc import Mapping
from typing import Any

from diffusion.config.errors import UserError
from diffusion.weights.architectures.entries import options_of as read

PUBLISHED: dict[tuple[int, tuple[float, ...]], dict[str, Any]] = {
  (192, (1, 2, 3, 4)): {"image_size": 64, "use_new_attention_order": True, "noise_schedule": "cosine"},
  (256, (1, 1, 2, 3, 4)): {"image_size": 128, "num_heads": 4, "num_head_channels": -1},
  (256, (1, 1, 2, 2, 4, 4)): {"image_size": 256},
  (256, (0.5, 1, 1, 2, 2, 4, 4)): {"image_size": 512},
}
"""(model_channels, channel_mult) of the U-Nets on the authors' pages -> what no array tells of them.

No array tells image_size, num_heads, num_head_channels, use_new_attention_order and noise_schedule.
"""

CLASSIFIERS: dict[tuple[int, tuple[float, ...]], dict[str, Any]] = {
  (128, (1, 2, 3, 4)): {"noise_schedule": "cosine"},
  (128, (1, 1, 2, 3, 4)): {},
  (128, (1, 1, 2, 2, 4, 4)): {},
  (128, (0.5, 1, 1, 2, 2, 4, 4)): {},
}
"""The same of their classifiers."""

UPSAMPLERS: dict[tuple[int, ...], dict[str, Any]] = {
  (8, 16, 32): {"image_size": 256, "num_heads": 4, "num_head_channels": -1},
  (16, 32): {"image_size": 512},
}
"""attention_resolutions of their networks of super-resolution, which have the same sizes else -> the same."""

UPSAMPLER = (192, (1, 1, 2, 2, 4, 4))
"""model_channels and channel_mult of those."""

DEFAULTS = {"num_heads": 1, "num_head_channels": 64, "use_new_attention_order": False} | {
  "noise_schedule": "linear"
}


def is_unet(arrays: Mapping[str, Any]) -> bool:
  """Whether these are arrays of a UNetModel, by their names alone."""
  return all(
    name in arrays for name in ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight")
  ) and ("output_blocks.0.0.in_layers.0.weight" in arrays)


def is_super_resolution(arrays: Mapping[str, Any]) -> bool:
  """Whether these are arrays of a UNetModel that takes two images of three channels."""
  return is_unet(arrays) and _shape(arrays, "input_blocks.0.0.weight", 4)[1] == 6


def is_classifier(arrays: Mapping[str, Any]) -> bool:
  """Whether these are arrays of a noisy classifier, an EncoderUNetModel with the pooling of attention."""
  return "time_embed.0.weight" in arrays and "out.2.positional_embedding" in arrays


def in_two_dimensions(arrays: Mapping[str, Any]) -> bool:
  """Whether the matrices of attention are 1x1 convolutions of images, as in consistency models."""
  name = "middle_block.1.qkv.weight"
  return name in arrays and len(arrays[name].shape) == 4


def unet(arrays: Mapping[str, Any], options: type[Any], told: Mapping[str, Any] | None = None) -> Any:
  """The options of a U-Net.

  Args:
    arrays: by dotted name; shapes alone are looked at.
    options: the dataclass that is wanted.
    told: what no array tells (see `PUBLISHED`) of a size that is not published, and whatever else differs.

  Raises:
    UserError: where these are no arrays of such a network, where a size is not published and is not told, and
      for an option that does not exist.

  >>> from diffusion.weights.architectures.guided_diffusion import UNetModel
  >>> unet({"time_embed.0.weight": None}, UNetModel)
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: these arrays are not those of a UNetModel: they lack \
input_blocks.0.0.weight, out.2.weight and others; give one file of weights as its authors have it
  """
  if not is_unet(arrays):
    wanted = ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight")
    lacking = [name for name in wanted if name not in arrays]
    raise UserError(
      f"these arrays are not those of a UNetModel: they lack {', '.join([*lacking, 'output_blocks'][:2])} "
      "and others; give one file of weights as its authors have it"
    )
  blocks = {name.split(".")[1] for name in arrays if name.startswith("output_blocks.")}
  ups = [name for name in arrays if _is_up(name)]
  found = _sizes(arrays, len(blocks), len(ups))
  entering, outputs = found["in_channels"], _shape(arrays, "out.2.weight", 4)[0]
  channels, rest = divmod(entering, options.images)
  if outputs not in (channels, 2 * channels) or rest:
    raise UserError(
      f"this UNetModel of {entering} channels in and {outputs} out is no denoiser that is known here: those "
      "known give as many as an image has, or twice as many with a learned variance"
    )
  found |= {"out_channels": outputs, "resblock_updown": all(not name.endswith("conv.weight") for name in ups)}
  found["in_channels"] = channels
  if "label_emb.weight" in arrays:
    found["num_classes"] = _shape(arrays, "label_emb.weight", 2)[0]
  published = PUBLISHED
  if options.images > 1:
    published = {UPSAMPLER: UPSAMPLERS[found["rates"]]} if found["rates"] in UPSAMPLERS else {}
  return _made(options, found, published, told or {}, "UNetModel")


def classifier(arrays: Mapping[str, Any], options: type[Any], told: Mapping[str, Any] | None = None) -> Any:
  """The options of a noisy classifier; arguments and errors as of `unet`.

  The side of its images shows in the positions of its pooling. The authors make all of theirs with heads of
  64 channels.
  """
  if not is_classifier(arrays):
    raise UserError(
      "these arrays are not those of an EncoderUNetModel: they lack out.2.positional_embedding, the pooling "
      "that the published classifiers have; give one of those files"
    )
  blocks = {name.split(".")[1] for name in arrays if name.startswith("input_blocks.")}
  downs = _halvings(arrays, len(blocks))
  found = _sizes(arrays, len(blocks), downs)
  side = round((_shape(arrays, "out.2.positional_embedding", 2)[1] - 1) ** 0.5)
  found |= {
    "image_size": side * 2 ** (len(found["channel_mult"]) - 1),
    "out_channels": _shape(arrays, "out.2.c_proj.weight", 3)[0],
    "resblock_updown": not any(name.endswith(".op.weight") for name in arrays),
  }
  return _made(options, found, CLASSIFIERS, told or {}, "EncoderUNetModel")


def _made(options, found, published, told, who):
  known = published.get((found["model_channels"], tuple(found["channel_mult"])))
  untold = [name for name in ("image_size", "noise_schedule") if name not in told and name not in found]
  untold += [] if {"num_heads", "num_head_channels"} & set(told) else ["num_heads or num_head_channels"]
  if known is None and untold:
    raise UserError(
      f"a {who} of width {found['model_channels']} and channel_mult {found['channel_mult']} is none of the "
      f"published sizes, and its arrays do not tell {', '.join(untold)}: give them, and "
      "use_new_attention_order where it is True"
    )
  rates = found.pop("rates")
  heads = {"num_head_channels": -1} if "num_heads" in told and "num_head_channels" not in told else {}
  given = DEFAULTS | (known or {}) | found | heads | {"attention_resolutions": rates} | dict(told)
  return read(options, given, ignored=("_class_name",))


def _sizes(arrays, blocks, resampled):
  """What both kinds show; `blocks` is their number with the first convolution, `resampled` of halvings."""
  levels = resampled + 1
  if blocks % levels:
    raise UserError(
      f"these arrays have {blocks} blocks on {levels} levels, which no UNetModel has: give one file of "
      "weights as its authors have it"
    )
  each = blocks // levels - 1
  width = _shape(arrays, "time_embed.0.weight", 2)[1]
  multipliers, rates = [], []
  for level in range(levels):
    name = f"input_blocks.{1 + level * (each + 1)}"
    channels = _shape(arrays, f"{name}.0.out_layers.3.weight", 4)[0]
    multipliers.append(channels // width if channels % width == 0 else channels / width)
    rates += [2**level] if f"{name}.1.qkv.weight" in arrays else []
  first = "input_blocks.1.0"
  shift = _shape(arrays, f"{first}.emb_layers.1.weight", 2)[0]
  return {
    "in_channels": _shape(arrays, "input_blocks.0.0.weight", 4)[1],
    "model_channels": width,
    "channel_mult": tuple(multipliers),
    "num_res_blocks": each,
    "use_scale_shift_norm": shift == 2 * _shape(arrays, f"{first}.out_layers.3.weight", 4)[0],
    "rates": tuple(rates),
  }


def _shape(arrays, name, axes):
  found = arrays[name].shape if name in arrays else None
  if found is None or len(found) != axes:
    what = f"they lack {name}" if found is None else f"{name} has the shape {tuple(found)}"
    raise UserError(
      f"these arrays are not those of guided-diffusion or a consistency model: {what}; give one file of "
      "weights as its authors have it"
    )
  return found


def _is_up(name):
  """Whether an array is the first one of a block of the way up that doubles."""
  parts = name.split(".")
  return parts[0] == "output_blocks" and (
    (parts[2:] in (["1", "in_layers", "0", "weight"], ["2", "in_layers", "0", "weight"]))
    or (parts[3:] == ["conv", "weight"])
  )


def _halvings(arrays, blocks):
  """Levels of an encoder less one.

  The side of the pooling is at most that of the images over 2^halvings, and the published sides are powers of
  two; blocks that halve keep their channels and have no attention, and where names do not show them, they
  are those at equal distances that fit.
  """
  convolutions = [name for name in arrays if name.endswith(".op.weight")]
  if convolutions:
    return len(convolutions)
  fits = []
  for levels in range(1, blocks + 1):
    each, rest = divmod(blocks, levels)
    halving = [f"input_blocks.{k * each}" for k in range(1, levels)]
    keeps = lambda name: (
      f"{name}.0.skip_connection.weight" not in arrays and f"{name}.1.norm.weight" not in arrays
    )
    if rest == 0 and each > 1 and all(keeps(name) for name in halving):
      fits.append(levels - 1)
  return fits[-1] if fits else 0
