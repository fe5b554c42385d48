"""DiT (arXiv:2212.09748) and SiT (arXiv:2401.08740) as they were published, and diffusers' copy of DiT.

One network, three kinds of file. The authors' files have one embedding of time and class; diffusers'
`DiTTransformer2DModel` has a copy in every block, and none of the positions. diffusers also computes another
function of the same weights: its frequencies of time end at 1/10000 rather than before, and its second norm
has epsilon 1e-5. The weights of facebook/DiT-XL-2-* were trained with the authors' function, which is what
`dit_files.build` takes for every file unless it is told that the weights were trained in diffusers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion.config.errors import UserError
from diffusion.math.precision import at_least_single
from diffusion.networks.attention import attend
from diffusion.networks.dit import from_patches
from diffusion.networks.layers import check_inputs, layer_norm, placed
from diffusion.networks.sizes import check_divisible
from diffusion.weights.architectures.layers import snapped, time_features

FEATURES = 256
"""Of time, in every size."""


@dataclasses.dataclass(frozen=True)
class Shape:
  """What fixes the network.

  Attributes:
    side: of the latents that it was trained on, which fixes the positions.
    patch, width, depth, num_heads: as in `networks.DiT`.
    hidden: features inside the MLP.
    channels, channels_out: that go in and come out.
    classes: rows of the table of classes, the last of which is that of no class if `null` says so.
    null: whether the last row is that of no class.
    copies: embeddings of time and class: 1, or one a block.
    shift: of the frequencies: 0 in the authors' function, 1 in diffusers'.
    epsilon: of the norm before the MLP.
  """

  side: int = 32
  patch: int = 2
  width: int = 1152
  depth: int = 28
  num_heads: int = 16
  hidden: int = 4608
  channels: int = 4
  channels_out: int = 8
  classes: int = 1001
  null: bool = True
  copies: int = 1
  shift: int = 0
  epsilon: float = 1e-6


class DiT(nn.Module):
  """The published network: x [B, H, W, C] -> [B, H, W, kept], of the side it was trained on or another.

  Positions of another side are stretched to those of the trained one, as diffusers does.

  Attributes:
    shape: see `Shape`.
    kept: channels of the output that are returned, the first ones; None for all. The second half of them is
      the learned variance.
    time_rounding: see `layers.snapped`; SiT's times lie in [0, 1] and take 'none'.
    sign: of the output; -1 makes SiT's velocity, which goes from noise to data, the library's.
    dtype, param_dtype, remat: as in `networks.DiT`.

  t is the network's own time: 0 to 999 in DiT; in SiT from 0 for noise to 1 for data. cond is None or a dict
  with 'label' int [B], where -1 and no label are no class.

  Raises ValueError for sizes that the patch does not divide and conditions that it has not.

  >>> net = DiT(Shape(side=4, width=8, depth=1, num_heads=2, hidden=16, classes=3))
  >>> x, t = jnp.zeros((2, 4, 4, 4)), jnp.zeros(2)
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)[0].shape
  (2, 4, 4, 8)
  """

  shape: Shape
  kept: int | None = None
  time_rounding: str = "snap"
  sign: int = 1
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  @property
  def diffusers_config(self) -> dict[str, Any]:
    """The contents of a config.json of DiTTransformer2DModel, which computes the same.

    Raises UserError for a network of which diffusers computes another function, or that it does not have.
    """
    s = self.shape
    if s.shift != 1 or not s.null or s.hidden != 4 * s.width or self.sign < 0 or s.width % s.num_heads:
      raise UserError(
        "diffusers' DiTTransformer2DModel computes another function of these weights: train "
        "weights.architectures.dit_files.build with trained_in_diffusers=True and a config of that class"
      )
    return {
      "_class_name": "DiTTransformer2DModel",
      "num_attention_heads": s.num_heads,
      "attention_head_dim": s.width // s.num_heads,
      "in_channels": s.channels,
      "out_channels": s.channels_out,
      "num_layers": s.depth,
      "sample_size": s.side,
      "patch_size": s.patch,
      "num_embeds_ada_norm": s.classes - 1,
      "norm_type": "ada_norm_zero",
      "norm_elementwise_affine": False,
      "norm_eps": s.epsilon,
      "attention_bias": True,
      "activation_fn": "gelu-approximate",
    }

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    s = self.shape
    check_inputs(x, t, (4,), "DiT")
    check_divisible(x.shape[1:-1], s.patch, f"a DiT of patch {s.patch}")
    if x.shape[-1] != s.channels:
      raise ValueError(f"this DiT takes {s.channels} channels, got x of shape {x.shape}")
    precision: dict[str, Any] = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
    t = t.astype(at_least_single(self.dtype))
    label = self._label(cond, t)

    grid = tuple(size // s.patch for size in x.shape[1:-1])
    patches = nn.Conv(s.width, (s.patch,) * 2, (s.patch,) * 2, "VALID", name="patches", **precision)
    tokens = patches(x.astype(precision["dtype"])).reshape(x.shape[0], -1, s.width)
    h = placed(tokens + jnp.asarray(positions(grid, s.width, s.side // s.patch), tokens.dtype)[None])
    block = nn.remat(Block) if self.remat else Block
    conditions = [nn.silu(one).astype(precision["dtype"]) for one in self.conditions(t, label)]
    for i in range(s.depth):
      h = block(s, name=f"blocks_{i}", **precision)(h, conditions[i if s.copies > 1 else 0])
    shift, scale = _chunks(nn.Dense(2 * s.width, name="last_modulation", **precision)(conditions[0]), 2)
    h = layer_norm(h, precision["dtype"]) * (1 + scale) + shift
    h = nn.Dense(s.patch**2 * s.channels_out, name="last", **precision)(h)
    out = from_patches(h, grid, s.patch).astype(at_least_single(self.dtype))[..., : self.kept]
    return -out if self.sign < 0 else out

  @nn.nowrap
  def conditions(self, t: jax.Array, label: jax.Array) -> list[jax.Array]:
    """Time [B] and class [B] as vectors [B, width], one or one a block; within the network's `__call__`."""
    s, param_dtype = self.shape, jnp.dtype(self.param_dtype)
    features = time_features(snapped(t, self.time_rounding), FEATURES, s.shift, True)
    return [Embedding(s, param_dtype, name=f"embedding_{i}")(features, label) for i in range(s.copies)]

  def _label(self, cond, t):
    given = dict(cond or {})
    strange = sorted(set(given) - {"label"})
    if strange:
      raise ValueError(f"this DiT takes the condition 'label', got also {strange}")
    label = given.get("label", jnp.full(t.shape, -1, jnp.int32))
    if label.shape != t.shape or not jnp.issubdtype(label.dtype, jnp.integer):
      raise ValueError(
        f"'label' must be integers of shape {t.shape}, got {label.dtype} of shape {label.shape}"
      )
    return label


class Embedding(nn.Module):
  """Time and class as one vector: features [B, F], label [B] -> [B, width], in float32 or wider.

  A negative label is the last row of the table where that is the row of no class, and adds nothing elsewhere.
  """

  shape: Shape
  param_dtype: Any

  @nn.compact
  def __call__(self, features: jax.Array, label: jax.Array) -> jax.Array:
    s = self.shape
    precision: dict[str, Any] = dict(dtype=features.dtype, param_dtype=self.param_dtype)
    h = nn.silu(nn.Dense(s.width, name="time_0", **precision)(features))
    h = nn.Dense(s.width, name="time_1", **precision)(h)
    row = jnp.where(label < 0, s.classes - 1, label)
    of_class = nn.Embed(s.classes, s.width, name="classes", **precision)(row)
    return h + (of_class if s.null else jnp.where(label[:, None] < 0, jnp.zeros((), h.dtype), of_class))


class Block(nn.Module):
  """Attention and MLP, each shifted, scaled and gated by silu of the embedding [B, E]; h [B, tokens, width].

  The library's own block in the order of the published files: shift before scale.
  """

  shape: Shape
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array, embedding: jax.Array) -> jax.Array:
    s = self.shape
    dense = lambda features, name: nn.Dense(
      features, dtype=self.dtype, param_dtype=self.param_dtype, name=name
    )
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = _chunks(
      dense(6 * s.width, "modulation")(embedding), 6
    )
    inner = layer_norm(h, self.dtype) * (1 + scale_a) + shift_a
    inner = dense(3 * s.width, "query_key_value")(inner)
    inner = inner.reshape(*h.shape[:2], 3, s.num_heads, s.width // s.num_heads)
    inner = attend(inner[:, :, 0], inner[:, :, 1], inner[:, :, 2]).reshape(h.shape)
    h = placed(h + gate_a * dense(s.width, "out")(inner))
    inner = layer_norm(h, self.dtype, s.epsilon) * (1 + scale_m) + shift_m
    inner = nn.gelu(dense(s.hidden, "dense_0")(inner), approximate=True)
    return placed(h + gate_m * dense(s.width, "dense_1")(inner))


def positions(grid: tuple[int, ...], width: int, base: int) -> np.ndarray:
  """The published positions: [rows * columns, width] float32, of which the first half tells the column.

  Args:
    grid: rows and columns.
    width: features of a token, a multiple of 4.
    base: rows and columns of the grid that was trained on, to which others are stretched.

  >>> positions((1, 2), 4, 2).astype(float).round(3).tolist()
  [[0.0, 1.0, 0.0, 1.0], [0.841, 0.54, 0.0, 1.0]]
  """
  omega = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4.0))
  row, column = (np.arange(n, dtype=np.float32) / np.float32(n / base) for n in grid)
  column, row = (one.ravel() for one in np.meshgrid(column, row))
  angles = [np.outer(one, omega) for one in (column, row)]
  return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def _chunks(h: jax.Array, count: int) -> list[jax.Array]:
  """[B, count * width] -> `count` arrays [B, 1, width]."""
  return jnp.split(h[:, None], count, axis=-1)
