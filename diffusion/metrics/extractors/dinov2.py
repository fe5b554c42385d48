"""DINOv2's vision transformers (arXiv:2304.07193), the extractor of FD-DINOv2 (arXiv:2306.04675).

Files of facebookresearch/dinov2 and timm's of the same weights fit: both name the arrays alike. They differ
in how positions learned on 37 x 37 patches become those of 16 x 16. The original, which EDM2 runs, takes
sharp cubic interpolation with a scale of 16.1 / 37; timm takes antialiased cubic interpolation.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion.metrics import resizing
from diffusion.networks.attention import attend

SIDE = 224
"""Pixels of a side of what the network sees, 16 patches of 14."""

PATCH = 14
OFFSET = 0.1
"""What the original adds to the number of patches when it scales positions."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
HEAD = 64
"""Channels of a head of attention in every published model."""

ORIGINAL = "dinov2_vitl14_pretrain.pth of facebookresearch/dinov2 or timm's vit_large_patch14_dinov2"


class Options(NamedTuple):
  """Sizes of a transformer: channels, blocks, heads, register tokens between class and patches."""

  width: int = 1024
  depth: int = 24
  heads: int = 16
  registers: int = 0


class Block(nn.Module):
  """Attention and an MLP with exact GELU, each scaled by channel before it is added, x [B, tokens, C]."""

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    scaled = lambda h, name: h * self.param(name, nn.initializers.ones, (width,)).reshape(1, 1, -1)
    norm = functools.partial(nn.LayerNorm, epsilon=1e-6)
    h = nn.Dense(3 * width, name="qkv")(norm(name="norm1")(x))
    query, key, value = jnp.split(h.reshape(*h.shape[:2], 3 * self.heads, -1), 3, axis=2)
    h = nn.Dense(width, name="proj")(attend(query, key, value).reshape(x.shape))
    x = x + scaled(h, "ls1")
    h = nn.gelu(nn.Dense(4 * width, name="fc1")(norm(name="norm2")(x)), approximate=False)
    return x + scaled(nn.Dense(width, name="fc2")(h), "ls2")


class Transformer(nn.Module):
  """Normalised images [B, 224, 224, 3] -> {'pool': the class token [B, width]}.

  Its `positions` are those of the 16 x 16 patches, see `parameters`.
  """

  options: Options = Options()

  @nn.compact
  def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
    width, depth, heads, registers = self.options
    x = nn.Conv(width, (PATCH, PATCH), (PATCH, PATCH), "VALID", name="patch_embed")(x)
    count = x.shape[1] * x.shape[2]
    x = x.reshape(len(x), count, width)
    new = lambda name, tokens: self.param(name, nn.initializers.normal(0.02), (1, tokens, width))
    extra = lambda name, tokens: jnp.broadcast_to(new(name, tokens), (len(x), tokens, width))
    x = jnp.concatenate([extra("cls_token", 1), x], axis=1) + new("positions", count + 1)
    if registers:
      x = jnp.concatenate([x[:, :1], extra("register_tokens", registers), x[:, 1:]], axis=1)
    for i in range(depth):
      x = Block(heads, name=f"blocks_{i}")(x)
      self.sow("intermediates", f"blocks_{i}_out", x)
    return {"pool": nn.LayerNorm(epsilon=1e-6, name="norm")(x[:, 0])}


def normalised(x: jax.Array) -> jax.Array:
  """Grey levels [B, H, W, 3] in 0 to 255 as the network wants them."""
  x = x / 255 - jnp.asarray(MEAN, x.dtype).reshape(1, 1, 1, -1)
  return x / jnp.asarray(STD, x.dtype).reshape(1, 1, 1, -1)


def positions(learned: np.ndarray, side: int = SIDE // PATCH, how: str = "original") -> np.ndarray:
  """Positions [1, 1 + side * side, C] from those learned, [1, 1 + n * n, C].

  Args:
    learned: of the class token, then of n x n patches.
    side: patches of a side.
    how: 'original' or 'timm'.
  """
  n = math.isqrt(learned.shape[1] - 1)
  if n * n != learned.shape[1] - 1:
    raise ValueError(f"pos_embed has {learned.shape[1]} positions, and not one more than a square")
  if n == side:
    return learned
  if how == "original":
    scale = n / (side + OFFSET)
    matrix = resizing.torch_bicubic_sharp(n, side, scale)
  else:
    matrix = resizing.torch_bicubic(n, side)
  grid = np.asarray(learned[0, 1:], np.float64).reshape(n, n, -1)
  grid = np.einsum("ih,hwc,jw->ijc", matrix, grid, matrix, optimize=True).reshape(1, side * side, -1)
  return np.concatenate([learned[:, :1], grid.astype(np.float32)], axis=1)


def options_of(arrays: Mapping[str, Any], heads: int | None = None) -> Options:
  """The sizes of the transformer of a file; heads of 64 channels unless told otherwise."""
  width = int(np.shape(arrays["cls_token"])[-1])
  depth = len({name.split(".")[1] for name in arrays if name.startswith("blocks.")})
  named = [name for name in ("register_tokens", "reg_token") if name in arrays]
  registers = int(np.shape(arrays[named[0]])[1]) if named else 0
  return Options(width, depth, heads or max(width // HEAD, 1), registers)


def parameters(arrays: Mapping[str, Any], options: Options, how: str = "original") -> dict[str, Any]:
  """The parameters of `Transformer` from the arrays of a file.

  Args:
    arrays: by their names in facebookresearch/dinov2 or timm.
    options: of `options_of`.
    how: whose `positions`.

  Raises ValueError where an array is missing or has another shape.
  """
  width, depth, _, registers = options
  missing: list[str] = []

  def take(name: str, *shape: int) -> np.ndarray:
    array = np.asarray(arrays[name], np.float32) if name in arrays else np.zeros(0, np.float32)
    if array.shape != shape:
      missing.append(f"{name} {list(shape)}")
      return np.zeros(shape, np.float32)
    return array

  dense = lambda name, into, out: {
    "kernel": np.ascontiguousarray(take(f"{name}.weight", out, into).T),
    "bias": take(f"{name}.bias", out),
  }
  norm = lambda name: {"scale": take(f"{name}.weight", width), "bias": take(f"{name}.bias", width)}
  patches = take("patch_embed.proj.weight", width, 3, PATCH, PATCH).transpose(2, 3, 1, 0)
  found: dict[str, Any] = {
    "patch_embed": {"kernel": np.ascontiguousarray(patches), "bias": take("patch_embed.proj.bias", width)},
    "cls_token": take("cls_token", 1, 1, width),
    "positions": positions(take("pos_embed", *np.shape(arrays["pos_embed"])[:2], width), how=how),
    "norm": norm("norm"),
  }
  if registers:
    name = "register_tokens" if "register_tokens" in arrays else "reg_token"
    found["register_tokens"] = take(name, 1, registers, width)
  for i in range(depth):
    at = f"blocks.{i}"
    found[f"blocks_{i}"] = {
      "norm1": norm(f"{at}.norm1"),
      "qkv": dense(f"{at}.attn.qkv", width, 3 * width),
      "proj": dense(f"{at}.attn.proj", width, width),
      "ls1": take(f"{at}.ls1.gamma", width),
      "norm2": norm(f"{at}.norm2"),
      "fc1": dense(f"{at}.mlp.fc1", width, 4 * width),
      "fc2": dense(f"{at}.mlp.fc2", 4 * width, width),
      "ls2": take(f"{at}.ls2.gamma", width),
    }
  if missing:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    raise ValueError(
      f"these are not the weights of a transformer of DINOv2 with {width} channels and {depth} blocks, for "
      "they "
      f"lack {', '.join(missing[:3])}{more}: give {ORIGINAL}"
    )
  return found
