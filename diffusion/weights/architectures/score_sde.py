"""Score SDE's NCSN++ and DDPM++ (arXiv:2011.13456), which are `networks.UNet`, and their processes.

    averaged = score_sde_files.averaged(arrays)    the average of the parameters
    options = score_sde_files.options_of(averaged, {"sde": "vpsde"})
    denoiser(options, score_sde_files.own(averaged, places(options)))

| sde | data | process here | the network gives | is told |
|---|---|---|---|---|
| vesde | [0, 1] | `ve` | sigma times the score | log(sigma) |
| vpsde, subvpsde | [-1, 1] | `vp_linear`, `subvp` | the noise | 999 t |
| vpsde, not continuous | [-1, 1] | `ddpm_ladder` | the noise | the step, 0 to 999 |
| vesde, not continuous | [0, 1] | `ncsn_ladder` | sigma times the score | 0 for the largest level, to 999 |

Where data lie in [0, 1] the network maps them to [-1, 1] itself, and samples are in [0, 1] too. The score of
vesde is the output over sigma, with no other sign; that of the others is minus the output over the deviation.

Names and shapes: yang-song/score_sde 0acb9e0, models/ncsnpp.py; yang-song/score_sde_pytorch cb1f359.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffusion import denoisers, processes, solvers
from diffusion.config.errors import UserError
from diffusion.networks import UNet
from diffusion.weights.architectures.entries import Entries


@dataclasses.dataclass(frozen=True)
class NCSNpp:
  """The options of the model 'ncsnpp' and of its SDE, named as in the authors' configs.

  Attributes:
    image_size, num_channels, nf, ch_mult, num_res_blocks, attn_resolutions: the sizes.
    fir, progressive, progressive_input, embedding_type, skip_rescale: see `networks.UNet`.
    sde, continuous: which process, see the head of this file.
    centered: whether data lie in [-1, 1]; None for what the authors have for the SDE.
    beta_min, beta_max, sigma_min, sigma_max, num_scales: of the process.

  >>> build(NCSNpp(32, 128, (1, 2, 2, 2), 4)).progressive_input
  'none'
  """

  image_size: int
  nf: int
  ch_mult: tuple[int, ...]
  num_res_blocks: int
  attn_resolutions: tuple[int, ...] = (16,)
  num_channels: int = 3
  fir: bool = False
  progressive: str = "none"
  progressive_input: str = "none"
  embedding_type: str = "positional"
  skip_rescale: bool = True
  dropout: float = 0.1
  sde: str = "vpsde"
  continuous: bool = True
  centered: bool | None = None
  beta_min: float = 0.1
  beta_max: float = 20.0
  sigma_min: float = 0.01
  sigma_max: float = 50.0
  num_scales: int = 1000

  @property
  def levels(self) -> tuple[bool, ...]:
    """Whether a level has attention."""
    sides = [self.image_size >> level for level in range(len(self.ch_mult))]
    return tuple(side in self.attn_resolutions for side in sides)

  @property
  def in_symmetric_range(self) -> bool:
    """Whether data lie in [-1, 1]."""
    return self.sde != "vesde" if self.centered is None else self.centered


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a module lies in a file: `all_modules.0`, `all_modules.1`, ... in the order of these.

  Attributes:
    ours: its path in `networks.UNet`.
    kind: class of the module in the JAX code.
    inputs, outputs: channels.
    shortcut: whether a residual block has a convolution beside it.
  """

  ours: tuple[str, ...]
  kind: str
  inputs: int
  outputs: int
  shortcut: bool = False


BLOCK, ATTENTION = "ResnetBlockBigGANpp", "AttnBlockpp"


def build(options: NCSNpp, **changes: Any) -> UNet:
  """The network; changes are attributes of `networks.UNet`.

  Raises UserError for options that no published model has.
  """
  for name, allowed in (
    ("progressive", ("none", "output_skip")),
    ("progressive_input", ("none", "input_skip", "residual")),
    ("embedding_type", ("positional", "fourier")),
  ):
    if getattr(options, name) not in allowed:
      raise UserError(
        f"an NCSNpp with {name}={getattr(options, name)!r} is unknown here: give one of {', '.join(allowed)}"
      )
  if options.progressive_input == "residual" and not options.fir:
    raise UserError("an NCSNpp with progressive_input='residual' is known with fir=True alone: give that")
  return UNet(
    width=options.nf,
    channel_multipliers=options.ch_mult,
    num_res_blocks=options.num_res_blocks,
    attention_resolutions=tuple(
      options.image_size >> level for level, has in enumerate(options.levels) if has
    ),
    block="biggan",
    fir=options.fir,
    progressive=options.progressive,
    progressive_input=options.progressive_input,
    combine="sum",
    embedding=options.embedding_type,
    skip_rescale=options.skip_rescale,
    dropout=options.dropout,
    centered=options.in_symmetric_range,
  ).clone(**changes)


def places(options: NCSNpp) -> Iterator[Place]:
  """The modules of a network in the order in which the authors make them."""
  features, width, image = options.nf, 4 * options.nf, options.num_channels
  if options.embedding_type == "fourier":
    yield Place(("noise", "fourier"), "GaussianFourierProjection", features, features)
    features *= 2
  yield Place(("noise", "dense_0"), "Dense", features, width)
  yield Place(("noise", "dense_1"), "Dense", width, width)
  yield Place(("encoder", "first"), "Conv", image, options.nf)
  skips, channels, entering = [options.nf], options.nf, image
  last = len(options.ch_mult) - 1
  for level, multiplier in enumerate(options.ch_mult):
    for i in range(options.num_res_blocks):
      outputs = options.nf * multiplier
      yield Place(("encoder", f"block_{level}_{i}"), BLOCK, channels, outputs, channels != outputs)
      channels = outputs
      if options.levels[level]:
        yield Place(("encoder", f"attention_{level}_{i}"), ATTENTION, channels, channels)
      skips.append(channels)
    if level < last:
      yield Place(("encoder", f"down_{level}"), BLOCK, channels, channels, True)
      if options.progressive_input == "input_skip":
        yield Place(("encoder", f"combine_{level}"), "Combine", entering, channels)
      elif options.progressive_input == "residual":
        yield Place(("encoder", f"image_{level}"), "Downsample", entering, channels)
        entering = channels
      skips.append(channels)
  yield Place(("middle_0",), BLOCK, channels, channels)
  yield Place(("middle_attention",), ATTENTION, channels, channels)
  yield Place(("middle_1",), BLOCK, channels, channels)
  for level, multiplier in reversed(list(enumerate(options.ch_mult))):
    for i in range(options.num_res_blocks + 1):
      inputs, outputs = channels + skips.pop(), options.nf * multiplier
      yield Place(("decoder", f"block_{level}_{i}"), BLOCK, inputs, outputs, inputs != outputs)
      channels = outputs
    if options.levels[level]:
      yield Place(("decoder", f"attention_{level}"), ATTENTION, channels, channels)
    read = f"image_{level}" if options.progressive == "output_skip" else "last"
    if options.progressive == "output_skip":
      yield Place(("decoder", f"{read}_norm"), "GroupNorm", channels, channels)
      yield Place(("decoder", read), "Conv", channels, image)
    if level:
      yield Place(("decoder", f"up_{level}"), BLOCK, channels, channels, True)
  if options.progressive != "output_skip":
    yield Place(("decoder", "last_norm"), "GroupNorm", channels, channels)
    yield Place(("decoder", "last"), "Conv", channels, image)


def convert(arrays: Mapping[str, Any], options: NCSNpp) -> dict[str, Any]:
  """The parameters of `build(options)` from arrays named 'all_modules.0.W', 'all_modules.1.weight', ...

  Raises UserError, in one sentence, for arrays that are missing, unknown or of another shape.
  """
  build(options)
  return read(arrays, options, places(options), READERS, "an NCSNpp")


def read(
  arrays: Mapping[str, Any],
  options: Any,
  found: Iterable[Place],
  readers: Mapping[str, Any],
  who: str,
) -> dict[str, Any]:
  """The parameters of modules in the order of a file, 'all_modules.0', 'all_modules.1', ...

  Args:
    arrays, options: as of `convert`.
    found: where the modules lie in `networks.UNet`.
    readers: kind of a module -> (entries, its name, its place, options) -> its parameters, None for none.
    who: what messages call the network.

  Raises UserError for arrays that are missing, unknown or of another shape.
  """
  entries = Entries(arrays, f"{who} of nf {options.nf} and side {options.image_size}")
  params: dict[str, Any] = {}
  for i, place in enumerate(found):
    leaves = readers[place.kind](entries, f"all_modules.{i}", place, options)
    if leaves is None:
      continue
    inside = params
    for name in place.ours[:-1]:
      inside = inside.setdefault(name, {})
    inside[place.ours[-1]] = leaves
  entries.finish()
  return params


def _fourier(entries, name, place, options):
  return {"frequencies": entries.take(f"{name}.W", place.outputs)}


def _block(entries, name, place, options):
  inputs, outputs = place.inputs, place.outputs
  found = {
    "norm_0": entries.norm(f"{name}.GroupNorm_0", inputs),
    "conv_0": entries.conv(f"{name}.Conv_0", inputs, outputs),
    "embedding": entries.dense(f"{name}.Dense_0", 4 * options.nf, outputs),
    "norm_1": entries.norm(f"{name}.GroupNorm_1", outputs),
    "conv_1": entries.conv(f"{name}.Conv_1", outputs, outputs),
  }
  if place.shortcut:
    found["shortcut"] = entries.conv(f"{name}.Conv_2", inputs, outputs, size=1)
  return found


def _attention(entries, name, place, options):
  channels = place.outputs
  found = {"norm": entries.norm(f"{name}.GroupNorm_0", channels)}
  for i, part in enumerate(("query", "key", "value", "out")):
    kernel = entries.take(f"{name}.NIN_{i}.W", channels, channels)  # inputs first, in PyTorch too
    found[part] = {"kernel": kernel, "bias": entries.take(f"{name}.NIN_{i}.b", channels)}
  return found


READERS: dict[str, Any] = {
  "GaussianFourierProjection": _fourier,
  "Dense": lambda entries, name, place, _: entries.dense(name, place.inputs, place.outputs),
  "Conv": lambda entries, name, place, _: entries.conv(name, place.inputs, place.outputs),
  "GroupNorm": lambda entries, name, place, _: entries.norm(name, place.outputs),
  "Combine": lambda entries, name, place, _: entries.conv(f"{name}.Conv_0", place.inputs, place.outputs, 1),
  "Downsample": lambda entries, name, place, _: {
    "conv": entries.conv(f"{name}.Conv2d_0", place.inputs, place.outputs)
  },
  BLOCK: _block,
  ATTENTION: _attention,
}
"""Kind of a module -> (entries, its name, its place, options) -> its parameters."""


def process(options: NCSNpp) -> processes.GaussianProcess:
  """That of the SDE. Raises UserError for one that is not known."""
  betas, sigmas = (options.beta_min, options.beta_max), (options.sigma_min, options.sigma_max)
  known = {
    ("vesde", True): lambda: processes.ve(*sigmas),
    ("vpsde", True): lambda: processes.vp_linear(*betas),
    ("subvpsde", True): lambda: processes.subvp(*betas),
    ("vpsde", False): lambda: processes.ddpm_ladder(options.num_scales, *betas),
    ("vesde", False): lambda: processes.ncsn_ladder(options.num_scales, *sigmas),
  }
  if (options.sde, options.continuous) not in known:
    raise UserError(
      f"sde={options.sde!r} with continuous={options.continuous} is not known here: known are vesde and "
      "vpsde, and subvpsde with continuous=True"
    )
  return known[options.sde, options.continuous]()


def meaning(options: NCSNpp) -> denoisers.Parameterization:
  """What the network gives and is told."""
  n = float(options.num_scales)
  if options.sde == "vesde":
    return denoisers.scaled_score() if options.continuous else denoisers.scaled_score("t", -n, n)
  return denoisers.eps(time_scale=999.0) if options.continuous else denoisers.eps("t", n, -1.0)


def sampler(options: NCSNpp, steps: int = 1000) -> Any:
  """The authors': predictor and corrector for vesde, Euler and Maruyama's or DDPM's for the others.

  The corrector's step is that of their code, a mean over the batch.

  >>> sampler(NCSNpp(32, 128, (1, 2, 2, 2), 4, sde="vesde")).cost
  2000
  """
  found = process(options)
  if options.sde == "vesde":
    grid = solvers.grids.uniform(found, steps - 1)
    solver = solvers.predictor_corrector(found, grid, snr=0.16, norm="batch", denoise=False)
    return solvers.with_denoising(solver, found)
  grid = solvers.grids.uniform(found, steps, clean=True)
  return solvers.euler_maruyama(found, grid) if options.continuous else solvers.ancestral(found, grid)


def denoiser(options: NCSNpp, arrays: Mapping[str, Any], **changes: Any) -> denoisers.NetworkDenoiser:
  """The library's denoiser of a file.

  Args:
    options: see `score_sde_files.options_of`.
    arrays: as `convert` takes them, see `score_sde_files.own`.
    **changes: attributes of `networks.UNet`, such as its dtype; its parameters are float32.
  Raises:
    UserError: as `build`, `convert` and `process`.
  """
  params = jax.tree.map(jnp.asarray, convert(arrays, options))
  return denoisers.from_flax(build(options, **changes), process(options), meaning(options), params)
