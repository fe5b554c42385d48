"""Score SDE's DDPM (arXiv:2006.11239 in the code of arXiv:2011.13456), which is `networks.UNet` too.

    averaged = score_sde_files.averaged(arrays)
    options = options_of(averaged, {"sde": "vpsde", "continuous": False})
    denoiser(options, score_sde_files.own(averaged, places(options)))

Processes, ranges of data and what the network gives and is told are those of `score_sde`, but that vesde is
known with continuous=False alone. A network that is told no times (conditional=False) is the same one with an
embedding of zeros. A file does not tell it from an 'ncsnpp' with resblock_type='ddpm', which nobody
published. Every norm has 32 groups, which `networks.UNet` has from 128 channels on: an nf of less is refused.

Names and shapes: yang-song/score_sde 0acb9e0, models/ddpm.py; yang-song/score_sde_pytorch cb1f359.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers
from diffusion.config.errors import UserError
from diffusion.networks import UNet
from diffusion.weights.architectures import entries, score_sde, score_sde_files
from diffusion.weights.architectures.score_sde import Place

BLOCK, ATTENTION = "ResnetBlockDDPM", "AttnBlock"

SIDES = {(1, 2, 2, 2): 32, (1, 1, 2, 2, 4, 4): 256}
"""ch_mult of the authors' configs -> the side of their images, which no array tells."""


@dataclasses.dataclass(frozen=True)
class DDPM(score_sde.NCSNpp):
  """The options of the model 'ddpm' and of its SDE, named as in the authors' configs.

  Attributes: those of `score_sde.NCSNpp` that its networks have, and
    resamp_with_conv: whether there is a convolution where the size changes.
    conditional: whether the network is told the time.
    nonlinearity: 'swish', the only one that is known.

  >>> build(DDPM(32, 128, (1, 2, 2, 2), 2)).block
  'ddpm'
  """

  skip_rescale: bool = False
  resamp_with_conv: bool = True
  conditional: bool = True
  nonlinearity: str = "swish"


def build(options: DDPM, **changes: Any) -> UNet:
  """The network; changes are attributes of `networks.UNet`.

  Raises UserError for options that no published model has.
  """
  if options.nf < 128 or options.nonlinearity != "swish":
    raise UserError(
      f"a DDPM of Score SDE with nf={options.nf} and nonlinearity={options.nonlinearity!r} is unknown here: "
      "known are an nf of 128 or more, whose norms have 32 groups, and 'swish'"
    )
  sides = [options.image_size >> level for level, has in enumerate(options.levels) if has]
  return UNet(
    width=options.nf,
    channel_multipliers=options.ch_mult,
    num_res_blocks=options.num_res_blocks,
    attention_resolutions=tuple(sides),
    block="ddpm",
    resample_with_conv=options.resamp_with_conv,
    skip_rescale=False,
    dropout=options.dropout,
    centered=options.in_symmetric_range,
  ).clone(**changes)


def places(options: DDPM) -> Iterator[Place]:
  """The modules of a network in the order in which the authors make them."""
  nf, width, image = options.nf, 4 * options.nf, options.num_channels
  if options.conditional:
    yield Place(("noise", "dense_0"), "Dense", nf, width)
    yield Place(("noise", "dense_1"), "Dense", width, width)
  yield Place(("encoder", "first"), "Conv", image, nf)
  skips, channels = [nf], nf
  for level, multiplier in enumerate(options.ch_mult):
    for i in range(options.num_res_blocks):
      outputs = nf * multiplier
      yield Place(("encoder", f"block_{level}_{i}"), BLOCK, channels, outputs, channels != outputs)
      channels = outputs
      if options.levels[level]:
        yield Place(("encoder", f"attention_{level}_{i}"), ATTENTION, channels, channels)
      skips.append(channels)
    if level < len(options.ch_mult) - 1:
      yield Place(("encoder", f"down_{level}"), "Downsample", channels, channels)
      skips.append(channels)
  yield Place(("middle_0",), BLOCK, channels, channels)
  yield Place(("middle_attention",), ATTENTION, channels, channels)
  yield Place(("middle_1",), BLOCK, channels, channels)
  for level, multiplier in reversed(list(enumerate(options.ch_mult))):
    for i in range(options.num_res_blocks + 1):
      inputs, outputs = channels + skips.pop(), nf * multiplier
      yield Place(("decoder", f"block_{level}_{i}"), BLOCK, inputs, outputs, inputs != outputs)
      channels = outputs
    if options.levels[level]:
      yield Place(("decoder", f"attention_{level}"), ATTENTION, channels, channels)
    if level:
      yield Place(("decoder", f"up_{level}"), "Upsample", channels, channels)
  yield Place(("decoder", "last_norm"), "GroupNorm", channels, channels)
  yield Place(("decoder", "last"), "Conv", channels, image)


def convert(arrays: Mapping[str, Any], options: DDPM) -> dict[str, Any]:
  """The parameters of `build(options)` from arrays named 'all_modules.0.weight', ...

  Raises UserError, in one sentence, for arrays that are missing, unknown or of another shape.
  """
  build(options)
  params = score_sde.read(arrays, options, places(options), READERS, "a DDPM of Score SDE")
  if not options.conditional:
    nf, width = options.nf, 4 * options.nf
    zeros = lambda *shape: {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(shape[1], np.float32)}
    params["noise"] = {"dense_0": zeros(nf, width), "dense_1": zeros(width, width)}
  return params


def _block(entries, name, place, options):
  inputs, outputs = place.inputs, place.outputs
  zeros = np.zeros((4 * options.nf, outputs), np.float32)
  found = {
    "norm_0": entries.norm(f"{name}.GroupNorm_0", inputs),
    "conv_0": entries.conv(f"{name}.Conv_0", inputs, outputs),
    "embedding": entries.dense(f"{name}.Dense_0", 4 * options.nf, outputs)
    if options.conditional
    else {"kernel": zeros, "bias": zeros[0]},
    "norm_1": entries.norm(f"{name}.GroupNorm_1", outputs),
    "conv_1": entries.conv(f"{name}.Conv_1", outputs, outputs),
  }
  if place.shortcut:
    kernel = entries.take(f"{name}.NIN_0.W", inputs, outputs)  # inputs first, in PyTorch too
    found["shortcut"] = {"kernel": kernel, "bias": entries.take(f"{name}.NIN_0.b", outputs)}
  return found


def _resampling(entries, name, place, options):
  has = options.resamp_with_conv
  return {"conv": entries.conv(f"{name}.Conv_0", place.inputs, place.outputs)} if has else None


READERS: dict[str, Any] = {
  **{kind: score_sde.READERS[kind] for kind in ("Dense", "Conv", "GroupNorm")},
  ATTENTION: score_sde.READERS[score_sde.ATTENTION],
  BLOCK: _block,
  "Downsample": _resampling,
  "Upsample": _resampling,
}
"""Kind of a module -> (entries, its name, its place, options) -> its parameters, None for none."""


def process(options: DDPM) -> Any:
  """That of the SDE. Raises UserError for one that is not known."""
  if options.sde == "vesde" and options.continuous:
    raise UserError(
      "a DDPM of Score SDE on vesde is told the number of its noise level, and is known with "
      "continuous=False alone: give that"
    )
  return score_sde.process(options)


def meaning(options: DDPM) -> denoisers.Parameterization:
  """What the network gives and is told."""
  return score_sde.meaning(options)


def sampler(options: DDPM, steps: int = 1000) -> Any:
  """The authors': DDPM's steps, Euler and Maruyama's with continuous=True, predictor and corrector for vesde.

  >>> sampler(DDPM(32, 128, (1, 2, 2, 2), 2, continuous=False)).name
  'ancestral'
  """
  return score_sde.sampler(options, steps)


def is_flax(arrays: Mapping[str, Any]) -> bool:
  """Whether these are arrays of a Flax checkpoint of 'ddpm'."""
  return f"{score_sde_files.FLAX}{BLOCK}_0.Conv_0.kernel" in arrays


def is_torch(arrays: Mapping[str, Any]) -> bool:
  """Whether these are arrays of a PyTorch checkpoint of 'ddpm': its blocks change channels by a matrix."""
  blocks = [one.removesuffix(".NIN_0.W") for one in arrays if one.endswith(".NIN_0.W")]
  return score_sde_files.is_torch(arrays) and any(f"{one}.Conv_1.weight" in arrays for one in blocks)


def options_of(arrays: Mapping[str, Any], told: Mapping[str, Any] | None = None) -> DDPM:
  """The options of a checkpoint.

  Args:
    arrays: averaged parameters, see `score_sde_files.averaged`; shapes alone are looked at.
    told: what no array tells: 'sde' and 'continuous' always, since the same network is trained on several;
      'image_size' and 'attn_resolutions' for a ch_mult that is not published.

  Raises:
    UserError: where these are no arrays of such a network, and where something has to be told.
  """
  told = dict(told or {})
  untold = [name for name in ("sde", "continuous") if name not in told]
  if untold:
    raise UserError(
      f"a checkpoint of Score SDE's 'ddpm' does not say how it was trained: give {' and '.join(untold)}; its "
      "authors have sde='vpsde' with continuous=False, or True for cifar10_continuous, and 'vesde' with False"
    )
  blocks, resampled, nf, image = [], 0, 0, 0
  for module, shapes in score_sde_files.modules(arrays):
    torch = module.startswith("all_modules")
    kernel = "weight" if torch else "kernel"
    if f"Conv_1.{kernel}" in shapes:
      ends = score_sde_files.ends(shapes[f"Conv_0.{kernel}"], torch)
      blocks.append((*ends, f"Dense_0.{kernel}" in shapes))
    elif f"Conv_0.{kernel}" in shapes:
      resampled += 1
    elif len(shapes.get(kernel, ())) == 4 and not nf:
      image, nf = score_sde_files.ends(shapes[kernel], torch)
  if not resampled and "ch_mult" not in told:
    raise UserError(
      "a 'ddpm' of Score SDE without convolutions between sizes does not say its levels: give ch_mult"
    )
  levels = resampled // 2 + 1 if resampled else len(told["ch_mult"])
  each, rest = divmod(len(blocks) - 2 - levels, 2 * levels)
  if rest or each < 1 or not nf:
    raise UserError(
      f"{len(blocks)} residual blocks do not make a 'ddpm' of {levels} levels: give its whole checkpoint"
    )
  ch_mult = tuple(blocks[level * each][1] // nf for level in range(levels))
  found = {"nf": nf, "num_channels": image, "ch_mult": ch_mult, "num_res_blocks": each}
  found |= {"resamp_with_conv": resampled > 0, "conditional": blocks[0][2]}
  if ch_mult in SIDES:
    found["image_size"] = SIDES[ch_mult]
  elif "image_size" not in told:
    raise UserError(
      f"a 'ddpm' of ch_mult {ch_mult} is none of the published sizes, and its arrays do not tell the side of "
      "its images: give image_size, and attn_resolutions where it is not (16,)"
    )
  return entries.options_of(DDPM, found | told, ignored=("_class_name",))


def denoiser(options: DDPM, arrays: Mapping[str, Any], **changes: Any) -> denoisers.NetworkDenoiser:
  """The library's denoiser of a file; arguments and errors as of `score_sde.denoiser`."""
  params = jax.tree.map(jnp.asarray, convert(arrays, options))
  return denoisers.from_flax(build(options, **changes), process(options), meaning(options), params)
