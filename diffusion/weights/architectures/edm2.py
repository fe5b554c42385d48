"""EDM2's UNet, which is `magnitude_preserving.MPUNet` (arXiv:2312.02696, figure 21).

Names and shapes: NVlabs/edm2 4bf8162, training/networks_edm2.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion import codecs
from diffusion.config.errors import UserError
from diffusion.weights.architectures.entries import Entries
from diffusion.weights.architectures.magnitude_preserving import MPUNet


@dataclasses.dataclass(frozen=True)
class UNet:
  """The options of EDM2's UNet, those of its blocks among them, named as its authors name them.

  >>> options = UNet(64, 4, 1000, model_channels=128)
  >>> build(options).embedding_channels, build(options).attention_levels
  (512, (False, False, True, True))
  """

  img_resolution: int
  img_channels: int
  label_dim: int
  model_channels: int = 192
  channel_mult: tuple[int, ...] = (1, 2, 3, 4)
  channel_mult_noise: int | None = None
  channel_mult_emb: int | None = None
  num_blocks: int = 3
  attn_resolutions: tuple[int, ...] = (16, 8)
  label_balance: float = 0.5
  concat_balance: float = 0.5
  resample_filter: tuple[float, ...] = (1, 1)
  channels_per_head: int = 64
  dropout: float = 0.0
  res_balance: float = 0.3
  attn_balance: float = 0.3
  clip_act: float | None = 256.0

  @property
  def sides(self) -> tuple[int, ...]:
    """The side of the image at each level."""
    return tuple(self.img_resolution >> level for level in range(len(self.channel_mult)))

  @property
  def noise_channels(self) -> int:
    """Features of the noise level."""
    multiplier = self.channel_mult[0] if self.channel_mult_noise is None else self.channel_mult_noise
    return self.model_channels * multiplier

  @property
  def embedding_channels(self) -> int:
    """Features of the embedding."""
    multiplier = max(self.channel_mult) if self.channel_mult_emb is None else self.channel_mult_emb
    return self.model_channels * multiplier


def build(options: UNet) -> MPUNet:
  """The network."""
  return MPUNet(
    width=options.model_channels,
    channel_multipliers=options.channel_mult,
    num_res_blocks=options.num_blocks,
    noise_channels=options.noise_channels,
    embedding_channels=options.embedding_channels,
    attention_levels=tuple(side in options.attn_resolutions for side in options.sides),
    head_channels=options.channels_per_head,
    taps=None if options.resample_filter == (1, 1) else options.resample_filter,
    label_balance=options.label_balance,
    concat_balance=options.concat_balance,
    res_balance=options.res_balance,
    attn_balance=options.attn_balance,
    clip=options.clip_act,
    dropout=options.dropout,
    num_classes=options.label_dim,
  )


def convert(arrays: Mapping[str, Any], options: UNet) -> dict[str, Any]:
  """The parameters of `build(options)` from arrays named 'emb_noise.weight', 'enc.64x64_conv.weight', ...

  They are as in the file: they are normalised where they are used.

  Raises UserError, in one sentence, for arrays that are missing, unknown or of another shape.
  """
  entries = Entries(
    arrays, f"an EDM2 UNet of width {options.model_channels} and side {options.img_resolution}"
  )
  wide = options.embedding_channels
  params: dict[str, Any] = {
    "fourier": {
      "frequencies": entries.take("emb_fourier.freqs", options.noise_channels),
      "phases": entries.take("emb_fourier.phases", options.noise_channels),
    },
    "noise": entries.dense("emb_noise", options.noise_channels, wide, bias=False),
  }
  if options.label_dim:
    params["class"] = entries.dense("emb_label", options.label_dim, wide, bias=False)

  def block(ours, name, inputs, outputs, up, attention=False):
    heads = outputs // options.channels_per_head if attention else 0
    params[ours] = _block(entries, name, inputs, outputs, wide, up, heads)

  channels, side = options.model_channels * options.channel_mult[0], options.img_resolution
  params["first"] = _conv(entries, f"enc.{side}x{side}_conv", options.img_channels + 1, channels)
  skips = [channels]
  for level, side in enumerate(options.sides):
    if level:
      block(f"down_{level}", f"enc.{side}x{side}_down", channels, channels, up=False)
      skips.append(channels)
    for i in range(options.num_blocks):
      inputs, channels = channels, options.model_channels * options.channel_mult[level]
      attention = side in options.attn_resolutions
      block(f"encoder_{level}_{i}", f"enc.{side}x{side}_block{i}", inputs, channels, False, attention)
      skips.append(channels)
  block("middle_0", f"dec.{side}x{side}_in0", channels, channels, up=True, attention=True)
  block("middle_1", f"dec.{side}x{side}_in1", channels, channels, up=True)
  for level, side in reversed(list(enumerate(options.sides))):
    if level < len(options.sides) - 1:
      block(f"up_{level}", f"dec.{side}x{side}_up", channels, channels, up=True)
    for i in range(options.num_blocks + 1):
      inputs, channels = channels + skips.pop(), options.model_channels * options.channel_mult[level]
      attention = side in options.attn_resolutions
      block(f"decoder_{level}_{i}", f"dec.{side}x{side}_block{i}", inputs, channels, True, attention)
  params["last"] = _conv(entries, "out_conv", channels, options.img_channels)
  params["last_gain"] = entries.take("out_gain")
  entries.finish()
  return params


def latents(arrays: Mapping[str, Any]) -> codecs.Scale:
  """The codec after the autoencoder's, from the arrays 'scale' and 'bias' of a snapshot's 'encoder'.

  They make the raw latents of mean 0 and deviation 0.5; there is no other factor. EDM2 gives the autoencoder
  of Stable Diffusion images in [0, 1], not in [-1, 1], and takes such from it.

  Raises UserError where one of the two is missing, or others are there.

  >>> codec = latents({"scale": np.full((1, 2, 1, 1), 0.5 / 4), "bias": np.full((1, 2, 1, 1), -0.75)})
  >>> codec.mean.tolist(), codec.std.tolist()
  ([6.0, 6.0], [8.0, 8.0])
  """
  if set(arrays) != {"scale", "bias"}:
    raise UserError(
      "an encoder of EDM2's latents has the arrays scale and bias, and this one has "
      f"{', '.join(arrays) or 'none'}: models of pixels have none and need no codec of latents"
    )
  scale, bias = (np.asarray(arrays[name], np.float32).ravel() for name in ("scale", "bias"))
  return codecs.scale(-bias / scale, 1.0 / scale)


def _conv(entries, name, inputs, outputs, size=3):
  return entries.conv(name, inputs, outputs, size, bias=False)


def _block(entries, name, inputs, outputs, wide, up, heads):
  found = {
    "conv_0": _conv(entries, f"{name}.conv_res0", inputs if up else outputs, outputs),
    "embedding": entries.dense(f"{name}.emb_linear", wide, outputs, bias=False),
    "embedding_gain": entries.take(f"{name}.emb_gain"),
    "conv_1": _conv(entries, f"{name}.conv_res1", outputs, outputs),
  }
  if inputs != outputs:
    found["shortcut"] = _conv(entries, f"{name}.conv_skip", inputs, outputs, size=1)
  if heads:
    rows = _conv(entries, f"{name}.attn_qkv", outputs, 3 * outputs, size=1)["kernel"]  # (.., of three)
    found["qkv"] = {"kernel": np.concatenate([rows[..., part::3] for part in range(3)], axis=-1)}
    found["out"] = _conv(entries, f"{name}.attn_proj", outputs, outputs, size=1)
  return found
