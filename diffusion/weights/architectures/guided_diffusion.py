"""The U-Net of guided-diffusion (arXiv:2105.05233), which is `adm.ADM`: its files and its process.

    options = guided_diffusion_options.unet(arrays, UNetModel)   what the arrays tell, and the published sizes
    denoiser(options, arrays)                                    the library's denoiser

Step k of the authors' N steps is t = (k + 1)/N on `processes.vp_ladder`, and the network is told k. It
predicts noise, and with six channels the variance of its steps too (`denoisers.with_variance`). A step that
float32 puts within 0.001 of a whole one is told as that (`adm.Trunk.time_rounding`). There is no class for
"none" in these files: the label -1 adds nothing to the embedding, for which the network was not trained.

Their samplers clip what is predicted to [-1, 1] at each step: `sampler` does it, and for other solvers
`guidance.static_threshold(1.0)`.

Names and shapes: openai/guided-diffusion 22e0df8, guided_diffusion/unet.py. Those of
openai/consistency_models e32b69e are the same, but for two axes more of the attention's matrices.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, processes, solvers
from diffusion.config.errors import UserError
from diffusion.weights.architectures.adm import ADM
from diffusion.weights.architectures.entries import Entries

GROUPS = 32
"""Groups of every norm."""


@dataclasses.dataclass(frozen=True)
class UNetModel:
  """The options of a UNetModel and of its training, named as its authors name them.

  Attributes:
    image_size, in_channels, out_channels, model_channels, num_res_blocks, channel_mult: the sizes.
    attention_resolutions: rates of downsampling at which there is attention.
    num_classes: None without classes.
    num_heads, num_head_channels: heads of every attention, or channels of one where that is not -1.
    use_scale_shift_norm, resblock_updown: see `adm.ADM`.
    use_new_attention_order: whether rows of queries, keys and values lie in three blocks, or head by head.
    dropout: of training.
    diffusion_steps, noise_schedule: the ladder, 'linear' or 'cosine'.
    rescale_timesteps: whether the network is told its step on a scale of 1,000.
    predict_xstart: whether it gives the data in place of the noise.

  >>> UNetModel(64, 192, (1, 2, 3, 4), 3, (2, 4, 8), num_head_channels=64).levels
  (False, True, True, True)
  """

  image_size: int
  model_channels: int
  channel_mult: tuple[float, ...]
  num_res_blocks: int
  attention_resolutions: tuple[int, ...]
  in_channels: int = 3
  out_channels: int = 3
  num_classes: int | None = None
  num_heads: int = 1
  num_head_channels: int = -1
  use_scale_shift_norm: bool = True
  resblock_updown: bool = True
  use_new_attention_order: bool = False
  dropout: float = 0.0
  diffusion_steps: int = 1000
  noise_schedule: str = "linear"
  rescale_timesteps: bool = False
  predict_xstart: bool = False

  images: ClassVar[int] = 1
  """Images that enter the network beside each other."""

  @property
  def entering(self) -> int:
    """Channels that the network takes."""
    return self.images * self.in_channels

  @property
  def levels(self) -> tuple[bool, ...]:
    """Whether a level has attention."""
    return tuple(2**level in self.attention_resolutions for level in range(len(self.channel_mult)))

  @property
  def learned_variance(self) -> bool:
    """Whether half of the output is a variance."""
    return self.out_channels == 2 * self.in_channels

  def heads(self, channels: int) -> int:
    """Heads of an attention of so many channels."""
    return self.num_heads if self.num_head_channels == -1 else channels // self.num_head_channels


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a block lies in a file.

  Attributes:
    ours: its name in `adm.ADM`.
    block, attention: its names in the file; no attention where that is None.
    inputs, outputs: channels.
    resample: 'up' or 'down' of one that changes the size.
  """

  ours: str
  block: str
  inputs: int
  outputs: int
  attention: str | None = None
  resample: str | None = None


def trunk_options(options: Any) -> dict[str, Any]:
  """What the U-Net and the classifier take from their options: arguments of `adm.Trunk`."""
  check(options)
  by_channels = options.num_head_channels != -1
  return dict(
    width=options.model_channels,
    channel_multipliers=options.channel_mult,
    num_res_blocks=options.num_res_blocks,
    attention_levels=options.levels,
    head_channels=options.num_head_channels if by_channels else 1,
    num_heads=0 if by_channels else options.num_heads,
    groups=GROUPS,
    scale_shift=options.use_scale_shift_norm,
    resample_blocks=options.resblock_updown,
    time_rounding="none" if options.rescale_timesteps else "snap",
    dropout=options.dropout,
  )


def build(options: UNetModel, **changes: Any) -> ADM:
  """The network, which gives all channels that the file has; changes are attributes of `adm.ADM`.

  Raises UserError as `check`.
  """
  given: dict[str, Any] = trunk_options(options) | {"num_classes": options.num_classes or 0} | changes
  return ADM(**given, out_channels=options.out_channels)


def check(options: Any) -> None:
  """Raises UserError for heads that do not divide the channels of an attention."""
  widths = [int(options.model_channels * one) for one in options.channel_mult]
  attended = [width for width, has in zip(widths, options.levels) if has] + widths[-1:]
  for width in attended:
    heads = options.heads(width)
    if heads < 1 or width % heads or (options.num_head_channels != -1 and width % options.num_head_channels):
      raise UserError(
        f"{width} channels of an attention are not divided by num_heads={options.num_heads}, "
        f"num_head_channels={options.num_head_channels}: give those that the model was trained with"
      )


def convert(arrays: Mapping[str, Any], options: UNetModel) -> dict[str, Any]:
  """The parameters of `build(options)` from arrays named 'time_embed.0.weight', 'out.2.bias', ...

  Raises UserError, in one sentence, for arrays that are missing, unknown or of another shape.
  """
  entries = Entries(
    flattened(arrays), f"a UNetModel of width {options.model_channels} and side {options.image_size}"
  )
  params = trunk(entries, options)
  if options.num_classes:
    kernel = entries.take("label_emb.weight", options.num_classes, 4 * options.model_channels)
    params["class"] = {"label": {"kernel": kernel}}
  for place in way_up(options):
    params[place.ours] = block(entries, place, options)
  width = int(options.model_channels * options.channel_mult[0])
  params["last_norm"] = entries.norm("out.0", width)
  params["last"] = entries.conv("out.2", width, options.out_channels)
  entries.finish()
  return params


def flattened(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """The arrays, the matrices of attention without the axes of length one that convolutions have.

  >>> flattened({"middle_block.1.qkv.weight": np.zeros((6, 2, 1))})["middle_block.1.qkv.weight"].shape
  (6, 2)
  """
  ends = ("qkv.weight", "proj_out.weight", "qkv_proj.weight", "c_proj.weight")
  flat = lambda name, one: name.endswith(ends) and one.ndim > 2 and set(one.shape[2:]) == {1}
  return {
    name: np.asarray(one).reshape(one.shape[:2]) if flat(name, one) else one for name, one in arrays.items()
  }


def trunk(entries: Entries, options: Any) -> dict[str, Any]:
  """The parameters of the embedding, the way down and the middle."""
  width = options.model_channels
  first = int(width * options.channel_mult[0])
  return {
    "dense_0": entries.dense("time_embed.0", width, 4 * width),
    "dense_1": entries.dense("time_embed.2", 4 * width, 4 * width),
    "first": entries.conv("input_blocks.0.0", options.entering, first),
    **{place.ours: block(entries, place, options) for place in way_down(options)},
  }


def way_down(options: Any) -> Iterator[Place]:
  """The blocks on the way down and in the middle."""
  widths = [int(options.model_channels * one) for one in options.channel_mult]
  channels, k = widths[0], 0
  for level, width in enumerate(widths):
    for i in range(options.num_res_blocks):
      k += 1
      attention = f"input_blocks.{k}.1" if options.levels[level] else None
      yield Place(f"encoder_{level}_{i}", f"input_blocks.{k}.0", channels, width, attention)
      channels = width
    if level < len(widths) - 1:
      k += 1
      name = f"input_blocks.{k}.0" if options.resblock_updown else f"input_blocks.{k}.0.op"
      yield Place(f"down_{level + 1}", name, channels, channels, None, "down")
  yield Place("middle_0", "middle_block.0", channels, channels, "middle_block.1")
  yield Place("middle_1", "middle_block.2", channels, channels)


def way_up(options: UNetModel) -> Iterator[Place]:
  """The blocks on the way up."""
  places = list(way_down(options))
  skips = [int(options.model_channels * options.channel_mult[0])]
  skips += [place.outputs for place in places if not place.ours.startswith("middle")]
  channels, k = places[-1].outputs, 0
  for level, multiplier in reversed(list(enumerate(options.channel_mult))):
    width = int(options.model_channels * multiplier)
    for i in range(options.num_res_blocks + 1):
      attention = f"output_blocks.{k}.1" if options.levels[level] else None
      name = f"output_blocks.{k}.0"
      yield Place(f"decoder_{level}_{i}", name, channels + skips.pop(), width, attention)
      channels = width
      if level and i == options.num_res_blocks:
        name = f"output_blocks.{k}.{1 if attention is None else 2}"
        name = name if options.resblock_updown else f"{name}.conv"
        yield Place(f"up_{level - 1}", name, channels, channels, None, "up")
      k += 1


def block(entries: Entries, place: Place, options: Any) -> dict[str, Any]:
  """The parameters of one block."""
  name, inputs, outputs = place.block, place.inputs, place.outputs
  if place.resample and not options.resblock_updown:
    return entries.conv(name, inputs, outputs)
  wide = outputs * (2 if options.use_scale_shift_norm else 1)
  found = {
    "norm_0": entries.norm(f"{name}.in_layers.0", inputs),
    "conv_0": entries.conv(f"{name}.in_layers.2", inputs, outputs),
    "embedding": entries.dense(f"{name}.emb_layers.1", 4 * options.model_channels, wide),
    "norm_1": entries.norm(f"{name}.out_layers.0", outputs),
    "conv_1": entries.conv(f"{name}.out_layers.3", outputs, outputs),
  }
  if inputs != outputs:
    found["shortcut"] = entries.conv(f"{name}.skip_connection", inputs, outputs, size=1)
  if place.attention is not None:
    found["norm_2"] = entries.norm(f"{place.attention}.norm", outputs)
    rows = entries.dense(f"{place.attention}.qkv", outputs, 3 * outputs)
    heads = 1 if options.use_new_attention_order else options.heads(outputs)
    found["qkv"] = {key: by_kind(value, heads) for key, value in rows.items()}
    found["out"] = entries.dense(f"{place.attention}.proj_out", outputs, outputs)
  return found


def by_kind(columns: np.ndarray, heads: int) -> np.ndarray:
  """Columns (head, of three, channel) as (of three, head, channel), along the last axis.

  >>> by_kind(np.arange(6), 2).tolist()
  [0, 3, 1, 4, 2, 5]
  """
  apart = columns.reshape(*columns.shape[:-1], heads, 3, -1)
  return np.ascontiguousarray(np.moveaxis(apart, -2, -3).reshape(columns.shape))


def process(options: UNetModel) -> processes.GaussianProcess:
  """The ladder of the authors' betas. Raises UserError for a schedule that is not known."""
  ladders = {"linear": processes.ddpm_betas, "cosine": processes.cosine_betas}
  if options.noise_schedule not in ladders:
    raise UserError(
      f"noise_schedule={options.noise_schedule!r} is not known here: give one of {', '.join(ladders)}"
    )
  return processes.vp_ladder(ladders[options.noise_schedule](options.diffusion_steps))


def told(options: Any) -> dict[str, Any]:
  """The factor of t and what is added to it in what the network, or the classifier, is told."""
  scale = 1000 if options.rescale_timesteps else options.diffusion_steps
  return {"time_scale": float(scale), "time_shift": -scale / options.diffusion_steps}


def meaning(options: UNetModel) -> denoisers.Parameterization:
  """What the output is, and what the network is told."""
  mean = (denoisers.x0 if options.predict_xstart else denoisers.eps)(**told(options))
  return denoisers.with_variance(mean) if options.learned_variance else mean


def sampler(options: UNetModel, steps: int | None = None) -> Any:
  """What the authors take: random steps of the learned variance, 250 of their --timestep_respacing, clipped.

  Without a learned variance it is `ddim`.

  >>> options = UNetModel(64, 192, (1, 2, 3, 4), 3, (2, 4, 8), out_channels=6, num_head_channels=64)
  >>> sampler(options).cost, sampler(options, 4).name, float(sampler(options).bound)
  (250, 'learned_ancestral', 1.0)
  """
  if not options.learned_variance:
    return ddim(options, *([] if steps is None else [steps]))
  own = process(options)
  return solvers.learned_ancestral(own, solvers.learned_ancestral_grid(own, steps or 250), bound=1.0)


def ddim(options: UNetModel, steps: int = 25) -> Any:
  """DDIM on every so many of the steps: the authors' --timestep_respacing ddim25 --use_ddim True.

  Raises UserError where no stride gives so many steps.

  >>> options = UNetModel(64, 192, (1, 2, 3, 4), 3, (2, 4, 8), num_head_channels=64)
  >>> ddim(options).cost, [round(1000 * float(t)) for t in ddim(options).t[:2]]
  (25, [961, 921])
  """
  total = options.diffusion_steps
  for stride in range(1, total + 1):
    chosen = range(0, total, stride)
    if len(chosen) == steps:
      grid = np.asarray([*((k + 1) / total for k in reversed(chosen)), 0.0])
      return solvers.ddim(process(options), grid)
  raise UserError(f"no stride takes {steps} of {total} steps: give another number, such as 25 of 1,000")


def denoiser(options: UNetModel, arrays: Mapping[str, Any], **changes: Any) -> denoisers.NetworkDenoiser:
  """The library's denoiser of a file of guided-diffusion.

  Args:
    options: see `guided_diffusion_options.options_of`.
    arrays: of the file, by dotted name.
    **changes: attributes of `adm.ADM`: the dtype; passed_over=("label",) for a network without classes that
      a classifier guides.
  Raises:
    UserError: as `build`, `convert` and `process`.
  """
  params = jax.tree.map(jnp.asarray, convert(arrays, options))
  return denoisers.from_flax(build(options, **changes), process(options), meaning(options), params)
