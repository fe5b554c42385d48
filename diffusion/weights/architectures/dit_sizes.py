"""The arguments of a DiT or SiT from its arrays: the authors' files carry none."""

from collections.abc import Mapping
from typing import Any

from diffusion.config.errors import UserError

HEADS = {1152: 16, 1024: 16, 768: 12, 384: 6}
"""Attention heads of the published sizes XL, L, B and S, which no array tells, by hidden_size."""


def config_of(arrays: Mapping[str, Any], name: str, num_heads: int | None = None) -> dict[str, Any]:
  """The config, as `dit_files` takes it, of an authors' file; shapes alone are looked at.

  Args:
    arrays: by dotted name.
    name: 'DiT' or 'SiT'; the files of both have the same names and shapes, and are other models.
    num_heads: attention heads; None for those of the published sizes.

  Raises:
    UserError: where these are no arrays of a DiT, or of a size whose heads are not known.

  >>> import numpy as np
  >>> arrays = {"blocks.0.mlp.fc1.bias": np.zeros(32), "pos_embed": np.zeros((1, 16, 8))}
  >>> arrays |= {"x_embedder.proj.weight": np.zeros((8, 4, 2, 2)), "final_layer.linear.bias": np.zeros(32)}
  >>> arrays |= {"y_embedder.embedding_table.weight": np.zeros((11, 8))}
  >>> config = config_of(arrays, "DiT", num_heads=2)
  >>> config["input_size"], config["depth"], config["num_classes"], config["learn_sigma"]
  (8, 1, 10, True)
  """
  wanted = (
    "pos_embed",
    "x_embedder.proj.weight",
    "y_embedder.embedding_table.weight",
    "final_layer.linear.bias",
  )
  missing = [one for one in (*wanted, "blocks.0.mlp.fc1.bias") if one not in arrays]
  if missing:
    raise UserError(
      f"these arrays are not those of a {name}: they lack {', '.join(missing)}; give the weights alone, "
      "such as those under 'ema'"
    )
  width, channels, patch, _ = arrays["x_embedder.proj.weight"].shape
  if num_heads is None and width not in HEADS:
    raise UserError(
      f"a {name} of hidden_size {width} is none of the published sizes ({', '.join(map(str, HEADS))}), and "
      "its arrays do not tell its heads: give num_heads"
    )
  return dict(
    _class_name=name,
    input_size=patch * round(arrays["pos_embed"].shape[1] ** 0.5),
    patch_size=patch,
    in_channels=channels,
    hidden_size=width,
    depth=len({one.split(".")[1] for one in arrays if one.startswith("blocks.")}),
    num_heads=num_heads or HEADS[width],
    mlp_ratio=arrays["blocks.0.mlp.fc1.bias"].shape[0] / width,
    num_classes=arrays["y_embedder.embedding_table.weight"].shape[0] - 1,
    learn_sigma=arrays["final_layer.linear.bias"].shape[0] == 2 * patch**2 * channels,
  )
