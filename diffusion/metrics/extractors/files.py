"""A file of weights as the extractor that it is; nothing in it is run."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax

from diffusion import weights
from diffusion.config.errors import UserError
from diffusion.metrics.extractors import dinov2, inception
from diffusion.metrics.extractors.extractor import Extractor

FIRST = "Conv2d_1a_3x3.conv.weight"
"""An array that every file of the Inception network has; of 32 channels but in tests."""

RESIZE = "torch_bicubic"
"""How images come to DINOv2's 224 pixels (EDM2)."""

SIZES = {384: "vits14", 768: "vitb14", 1024: "vitl14"}
"""Published transformers by their channels; that with 1536 has another MLP and is not read."""


def load(path: str, positions: str = "original") -> Extractor:
  """The extractor of a file of weights, told by the names of its arrays.

  Args:
    path: torch-fidelity's or pytorch-fid's `pt_inception-2015-12-05-6726825d.pth`;
      `dinov2_vitl14_pretrain.pth`, or timm's file of the same weights.
    positions: 'original' or 'timm', see `dinov2.positions`.

  Raises:
    UserError: a file that cannot be read, or that is no extractor known here.
  """
  path = os.path.expanduser(os.fspath(path))
  contents = weights.read(path)
  names = contents.arrays
  with_head = {name.removeprefix("model."): name for name in names}
  try:
    if FIRST in names:
      narrow = max(32 // max(names[FIRST].shape[0], 1), 1)
      return of_inception(contents.load(), digest(contents.path), contents.path, narrow)
    if {"cls_token", "pos_embed", "blocks.0.attn.qkv.weight"} <= set(with_head):
      arrays = dict(zip(with_head, contents.load(with_head.values()).values()))
      return of_dinov2(arrays, digest(contents.path), contents.path, positions)
  except ValueError as error:
    raise UserError(f"{path}: {error}") from None
  some = ", ".join(list(names)[:3])
  raise UserError(
    f"{path} is no extractor of features that is known here: it has {len(names)} arrays, {some}; give "
    f"{inception.ORIGINAL}, or {dinov2.ORIGINAL}"
  )


def of_inception(arrays: Mapping[str, Any], sha256: str = "", path: str = "", narrow: int = 1) -> Extractor:
  """The Inception network of arrays by name; ValueError where they do not fit."""
  network = inception.Inception(narrow)

  def apply(params: Any, x: jax.Array, centre: float) -> dict[str, jax.Array]:
    return network.apply({"params": params}, (x - centre) / centre)  # pyright: ignore[reportReturnType]

  params = inception.parameters(arrays, narrow)
  outputs = {"pool": 2048 // narrow, "spatial": 17 * 17 * inception.SPATIAL, "logits": inception.CLASSES}
  name = "inception-2015-12-05" + (f"/{narrow}" if narrow > 1 else "")
  return Extractor("inception", name, inception.SIDE, outputs, params, apply, sha256, path)


def of_dinov2(
  arrays: Mapping[str, Any],
  sha256: str = "",
  path: str = "",
  positions: str = "original",
  heads: int | None = None,
) -> Extractor:
  """The transformer of arrays by name; ValueError where they do not fit."""
  options = dinov2.options_of(arrays, heads)
  network = dinov2.Transformer(options)

  def apply(params: Any, x: jax.Array, centre: float) -> dict[str, jax.Array]:
    del centre
    return network.apply({"params": params}, dinov2.normalised(x))  # pyright: ignore[reportReturnType]

  params = dinov2.parameters(arrays, options, positions)
  name = f"dinov2_{SIZES.get(options.width, options.width)}" + ("_reg" if options.registers else "")
  return Extractor("dinov2", name, dinov2.SIDE, {"pool": options.width}, params, apply, sha256, path, RESIZE)


def digest(path: str) -> str:
  """The sha256 of a file, in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
