"""EDM's SongUNet, which is `networks.UNet`: DDPM++ and NCSN++ as in arXiv:2206.00364, appendix F.

The two are one function. EDM adds the class and the augmentation to the features of the noise level, before
the first dense layer; `networks.UNet` adds them after it, which is the same with that layer multiplied into
theirs. This is done once, here, in float64. Rows of queries, keys and values lie interleaved in the file.

Condition 'label' is the class, -1 for none; 'vector' is the augmentation, zeros for none.

Names and shapes: NVlabs/edm 008a4e5, training/networks.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion.config.errors import UserError
from diffusion.networks import UNet
from diffusion.weights.architectures.entries import Entries


@dataclasses.dataclass(frozen=True)
class SongUNet:
  """The options of a SongUNet, named as its authors name them.

  >>> options = SongUNet(32, 3, 3, label_dim=10, augment_dim=9, channel_mult=(2, 2, 2))
  >>> build(options).channel_multipliers, build(options).num_classes
  ((2, 2, 2), 10)
  """

  img_resolution: int
  in_channels: int
  out_channels: int
  label_dim: int = 0
  augment_dim: int = 0
  model_channels: int = 128
  channel_mult: tuple[int, ...] = (1, 2, 2, 2)
  channel_mult_emb: int = 4
  num_blocks: int = 4
  attn_resolutions: tuple[int, ...] = (16,)
  dropout: float = 0.10
  label_dropout: float = 0.0
  embedding_type: str = "positional"
  channel_mult_noise: int = 1
  encoder_type: str = "standard"
  decoder_type: str = "standard"
  resample_filter: tuple[float, ...] = (1, 1)

  @property
  def sides(self) -> tuple[int, ...]:
    """The side of the image at each level."""
    return tuple(self.img_resolution >> level for level in range(len(self.channel_mult)))


def build(options: SongUNet) -> UNet:
  """The network. `label_dropout` is of training alone, and not of a network here.

  Raises UserError for options that no published model has and that `networks.UNet` cannot have either.
  """
  noise = {"positional": 1, "fourier": 2}
  for name, allowed in (
    ("embedding_type", tuple(noise)),
    ("encoder_type", ("standard", "skip", "residual")),
    ("decoder_type", ("standard", "skip")),
    ("channel_mult_emb", (4,)),
    ("channel_mult_noise", (noise.get(options.embedding_type),)),
    ("out_channels", (options.in_channels,)),
    ("resample_filter", (options.resample_filter[::-1],)),
  ):
    value = getattr(options, name)
    if value not in allowed:
      raise UserError(
        f"a SongUNet with embedding_type={options.embedding_type!r} and {name}={value!r} is not known here: "
        f"those with {name}={' or '.join(map(repr, allowed))} are"
      )
  fused = options.encoder_type == "residual"  # a convolution next to a mean of pairs is one filter too
  return UNet(
    width=options.model_channels,
    channel_multipliers=options.channel_mult,
    num_res_blocks=options.num_blocks,
    attention_resolutions=tuple(side for side in options.sides if side in options.attn_resolutions),
    block="biggan",
    fir=fused or options.resample_filter != (1, 1),
    fir_kernel=options.resample_filter,
    progressive={"standard": "none", "skip": "output_skip"}[options.decoder_type],
    progressive_input={"standard": "none", "skip": "input_skip"}.get(options.encoder_type, "residual"),
    combine="sum",
    embedding=options.embedding_type,
    skip_rescale=True,
    dropout=options.dropout,
    num_classes=options.label_dim,
    vector_size=options.augment_dim,
  )


def convert(arrays: Mapping[str, Any], options: SongUNet) -> dict[str, Any]:
  """The parameters of `build(options)` from arrays named 'map_layer0.weight', 'enc.32x32_conv.weight', ...

  Raises UserError, in one sentence, for arrays that are missing, unknown or of another shape.
  """
  build(options)
  entries = Entries(arrays, f"a SongUNet of width {options.model_channels} and side {options.img_resolution}")
  params = {"noise": _noise(entries, options), **_Levels(entries, options).params()}
  entries.finish()
  return params


def _noise(entries, options):
  """The embedding, the first dense layer multiplied into the conditions'."""
  features, width = options.model_channels * options.channel_mult_noise, 4 * options.model_channels
  first = entries.dense("map_layer0", features, width)
  through, bias = first["kernel"].astype(np.float64), first["bias"].astype(np.float64)
  condition = {}
  if options.label_dim:
    label = entries.dense("map_label", options.label_dim, features)
    condition["label"] = {"kernel": _single(options.label_dim**0.5 * label["kernel"] @ through)}
    bias = bias + label["bias"] @ through
  if options.augment_dim:
    vector = entries.dense("map_augment", options.augment_dim, features, bias=False)
    condition["vector"] = {"kernel": _single(vector["kernel"] @ through)}
  found = {
    "dense_0": {"kernel": first["kernel"], "bias": _single(bias)},
    "dense_1": entries.dense("map_layer1", width, width),
  }
  if options.embedding_type == "fourier":
    found["fourier"] = {"frequencies": entries.take("map_noise.freqs", features // 2)}
  return found | ({"condition": condition} if condition else {})


def _single(value):
  return value.astype(np.float32)


class _Levels:
  """The blocks of all levels in the order of the file's, with the channels that each one is given."""

  def __init__(self, entries, options):
    self.entries, self.options = entries, options
    taps = np.asarray(options.resample_filter, np.float64)
    self.filter = (np.outer(taps, taps) / taps.sum() ** 2)[None, None]
    self.found = {"encoder": {}, "decoder": {}}

  def params(self):
    skips, channels = self.encoder()
    self.decoder(skips, channels)
    return self.found

  def encoder(self):
    options, entries, found = self.options, self.entries, self.found["encoder"]
    channels = options.model_channels
    side, image = options.img_resolution, options.in_channels
    found["first"] = entries.conv(f"enc.{side}x{side}_conv", image, channels)
    skips = [channels]
    for level, side in enumerate(options.sides):
      here, above = f"enc.{side}x{side}", level - 1
      if level:
        found[f"down_{above}"] = self.block(f"{here}_down", channels, channels, resampled=True)
        if options.encoder_type == "skip":
          entries.constant(f"{here}_aux_down.resample_filter", self.filter)
          found[f"combine_{above}"] = entries.conv(f"{here}_aux_skip", image, channels, size=1)
        elif options.encoder_type == "residual":
          entries.constant(f"{here}_aux_residual.resample_filter", self.filter)
          found[f"image_{above}"] = {"conv": entries.conv(f"{here}_aux_residual", image, channels)}
          image = channels
        skips.append(channels)
      for i in range(options.num_blocks):
        width = options.model_channels * options.channel_mult[level]
        found[f"block_{level}_{i}"] = self.block(f"{here}_block{i}", channels, width)
        if side in options.attn_resolutions:
          found[f"attention_{level}_{i}"] = self.attention(f"{here}_block{i}", width)
        channels = width
        skips.append(channels)
    return skips, channels

  def decoder(self, skips, channels):
    options, entries, found = self.options, self.entries, self.found["decoder"]
    for level, side in reversed(list(enumerate(options.sides))):
      here, width = f"dec.{side}x{side}", options.model_channels * options.channel_mult[level]
      if level == len(options.sides) - 1:
        self.found["middle_0"] = self.block(f"{here}_in0", channels, channels)
        self.found["middle_attention"] = self.attention(f"{here}_in0", channels)
        self.found["middle_1"] = self.block(f"{here}_in1", channels, channels)
      else:
        found[f"up_{level + 1}"] = self.block(f"{here}_up", channels, channels, resampled=True)
      for i in range(options.num_blocks + 1):
        found[f"block_{level}_{i}"] = self.block(f"{here}_block{i}", channels + skips.pop(), width)
        channels = width
      if side in options.attn_resolutions:
        found[f"attention_{level}"] = self.attention(f"{here}_block{options.num_blocks}", channels)
      if options.decoder_type == "skip" or level == 0:
        if options.decoder_type == "skip" and level < len(options.sides) - 1:
          entries.constant(f"{here}_aux_up.resample_filter", self.filter)
        image = f"image_{level}" if options.decoder_type == "skip" else "last"
        found[f"{image}_norm"] = entries.norm(f"{here}_aux_norm", channels)
        found[image] = entries.conv(f"{here}_aux_conv", channels, options.out_channels)

  def block(self, name, inputs, outputs, resampled=False):
    entries, options = self.entries, self.options
    found = {
      "norm_0": entries.norm(f"{name}.norm0", inputs),
      "conv_0": entries.conv(f"{name}.conv0", inputs, outputs),
      "embedding": entries.dense(f"{name}.affine", 4 * options.model_channels, outputs),
      "norm_1": entries.norm(f"{name}.norm1", outputs),
      "conv_1": entries.conv(f"{name}.conv1", outputs, outputs),
    }
    if resampled:
      entries.constant(f"{name}.conv0.resample_filter", self.filter)
      entries.constant(f"{name}.skip.resample_filter", self.filter)
    if resampled or inputs != outputs:
      found["shortcut"] = entries.conv(f"{name}.skip", inputs, outputs, size=1)
    return found

  def attention(self, name, channels):
    rows = self.entries.pointwise(f"{name}.qkv", channels, 3 * channels)  # columns (channel, of three)
    return {
      "norm": self.entries.norm(f"{name}.norm2", channels),
      "out": self.entries.pointwise(f"{name}.proj", channels, channels),
      **{
        part: {key: np.ascontiguousarray(value[..., i::3]) for key, value in rows.items()}
        for i, part in enumerate(("query", "key", "value"))
      },
    }
