"""EDM's DhariwalUNet, which is `adm.ADM` under names of its own (arXiv:2206.00364, appendix F).

Condition 'label' is the class, -1 for none; 'vector' is the augmentation, zeros for none.

Names and shapes: NVlabs/edm 008a4e5, training/networks.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion.weights.architectures.adm import ADM
from diffusion.weights.architectures.entries import Entries

HEAD = 64
"""Channels of an attention head; a block of fewer channels has no attention."""


@dataclasses.dataclass(frozen=True)
class DhariwalUNet:
  """The options of a DhariwalUNet, named as its authors name them.

  >>> build(DhariwalUNet(64, 3, 3, label_dim=1000)).attention_levels
  (False, True, True, True)
  """

  img_resolution: int
  in_channels: int
  out_channels: int
  label_dim: int = 0
  augment_dim: int = 0
  model_channels: int = 192
  channel_mult: tuple[int, ...] = (1, 2, 3, 4)
  channel_mult_emb: int = 4
  num_blocks: int = 3
  attn_resolutions: tuple[int, ...] = (32, 16, 8)
  dropout: float = 0.10
  label_dropout: float = 0.0

  @property
  def sides(self) -> tuple[int, ...]:
    """The side of the image at each level."""
    return tuple(self.img_resolution >> level for level in range(len(self.channel_mult)))


def build(options: DhariwalUNet) -> ADM:
  """The network. `label_dropout` is of training alone, and not of a network here."""
  return ADM(
    width=options.model_channels,
    channel_multipliers=options.channel_mult,
    num_res_blocks=options.num_blocks,
    attention_levels=tuple(side in options.attn_resolutions for side in options.sides),
    head_channels=HEAD,
    embedding_multiplier=options.channel_mult_emb,
    out_channels=options.out_channels,
    dropout=options.dropout,
    num_classes=options.label_dim,
    vector_size=options.augment_dim,
  )


def convert(arrays: Mapping[str, Any], options: DhariwalUNet) -> dict[str, Any]:
  """The parameters of `build(options)` from arrays named 'map_layer0.weight', 'enc.64x64_conv.weight', ...

  Raises UserError, in one sentence, for arrays that are missing, unknown or of another shape.
  """
  entries = Entries(
    arrays, f"a DhariwalUNet of width {options.model_channels} and side {options.img_resolution}"
  )
  width, wide = options.model_channels, options.model_channels * options.channel_mult_emb
  params: dict[str, Any] = {
    "dense_0": entries.dense("map_layer0", width, wide),
    "dense_1": entries.dense("map_layer1", wide, wide),
  }
  if options.augment_dim:
    params["augment"] = {"vector": entries.dense("map_augment", options.augment_dim, width, bias=False)}
  if options.label_dim:
    params["class"] = {"label": entries.dense("map_label", options.label_dim, wide, bias=False)}

  def block(ours, name, inputs, outputs, attention=False, resampled=False):
    params[ours] = _block(entries, name, inputs, outputs, wide, attention, resampled)

  channels, side = width * options.channel_mult[0], options.img_resolution
  params["first"] = entries.conv(f"enc.{side}x{side}_conv", options.in_channels, channels)
  skips = [channels]
  for level, side in enumerate(options.sides):
    if level:
      block(f"down_{level}", f"enc.{side}x{side}_down", channels, channels, resampled=True)
      skips.append(channels)
    for i in range(options.num_blocks):
      inputs, channels = channels, width * options.channel_mult[level]
      attention = side in options.attn_resolutions
      block(f"encoder_{level}_{i}", f"enc.{side}x{side}_block{i}", inputs, channels, attention)
      skips.append(channels)
  block("middle_0", f"dec.{side}x{side}_in0", channels, channels, attention=True)
  block("middle_1", f"dec.{side}x{side}_in1", channels, channels)
  for level, side in reversed(list(enumerate(options.sides))):
    if level < len(options.sides) - 1:
      block(f"up_{level}", f"dec.{side}x{side}_up", channels, channels, resampled=True)
    for i in range(options.num_blocks + 1):
      inputs, channels = channels + skips.pop(), width * options.channel_mult[level]
      attention = side in options.attn_resolutions
      block(f"decoder_{level}_{i}", f"dec.{side}x{side}_block{i}", inputs, channels, attention)
  params["last_norm"] = entries.norm("out_norm", channels)
  params["last"] = entries.conv("out_conv", channels, options.out_channels)
  entries.finish()
  return params


def _block(entries, name, inputs, outputs, wide, attention, resampled):
  found = {
    "norm_0": entries.norm(f"{name}.norm0", inputs),
    "conv_0": entries.conv(f"{name}.conv0", inputs, outputs),
    "embedding": entries.dense(f"{name}.affine", wide, 2 * outputs),
    "norm_1": entries.norm(f"{name}.norm1", outputs),
    "conv_1": entries.conv(f"{name}.conv1", outputs, outputs),
  }
  if resampled:
    for part in ("conv0", "skip"):
      entries.constant(f"{name}.{part}.resample_filter", np.full((1, 1, 2, 2), 0.25))
  if inputs != outputs:
    found["shortcut"] = entries.conv(f"{name}.skip", inputs, outputs, size=1)
  if attention and outputs >= HEAD:
    found["norm_2"] = entries.norm(f"{name}.norm2", outputs)
    rows = entries.pointwise(f"{name}.qkv", outputs, 3 * outputs)  # columns (head, channel, of three)
    found["qkv"] = {
      key: np.ascontiguousarray(np.concatenate([value[..., part::3] for part in range(3)], axis=-1))
      for key, value in rows.items()
    }
    found["out"] = entries.pointwise(f"{name}.proj", outputs, outputs)
  return found
