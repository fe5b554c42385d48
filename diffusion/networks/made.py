"""MADE (arXiv:1502.03509).

A dense network whose masks let the context of a coordinate see only what comes before it.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion.networks.embeddings import NoiseEmbedding
from diffusion.networks.layers import check_inputs
from diffusion.networks.scalar_head import ScalarHead, waves


def degrees(size: int, width: int) -> np.ndarray:
  """The degrees of hidden units, [width]: how many coordinates each may see.

  They are 1 to size - 1 in turn, 0 where there is but one coordinate.

  >>> degrees(4, 7).tolist(), degrees(1, 2).tolist()
  ([1, 2, 3, 1, 2, 3, 1], [0, 0])
  """
  return np.arange(width) % max(size - 1, 1) + min(1, size - 1)


class MaskedDense(nn.Module):
  """A masked dense layer, whose units see only the coordinates they may.

  It leads from units that see `before[i]` coordinates to units that may see `after[j]`, with weights where
  before <= after. The weights start with the variance of a dense layer of as many inputs as each unit has
  left. x [..., I] -> [..., J].
  """

  before: tuple[int, ...]
  after: tuple[int, ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    mask = np.asarray(self.before)[:, None] <= np.asarray(self.after)[None, :]
    spread = mask / np.sqrt(np.maximum(mask.sum(axis=0, keepdims=True), 1))
    kernel = self.param(
      "kernel",
      lambda key, shape: (
        jax.random.truncated_normal(key, -2.0, 2.0, shape) * jnp.asarray(spread, jnp.float32)
      ),
      mask.shape,
    )
    bias = self.param("bias", nn.initializers.zeros, (len(self.after),))
    return x @ (kernel * jnp.asarray(mask, kernel.dtype)) + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class MADE(nn.Module):
  """The scores of all conditionals p(x_d | x_<d), by masked dense layers.

  x [B, D] or [B, H, W, C] (flattened) and t [B] -> [B, ...], like x.

  Methods `context` (x, t, cond) -> [B, ..., features] and `head` (context, x, t, cond) -> [B, ...]; calling
  it is one after the other. It is not the score of the joint density, whose d-th entry also sees what comes
  after d. A new network is the score of N(0, std^2 I). Smooth in x, as score matching needs it.

  Attributes:
    width, depth: of the masked layers: one, then residual blocks.
    features: of the context of a coordinate.
    head_width, head_depth, frequencies, std: see `ScalarHead`; the masked layers take the same sines and
      cosines.
    num_classes, vector_size: sizes of the conditions 'label' and 'vector'; 0 for none.
    masked: False lets every coordinate see all others, itself included: an ordinary score network of the same
      size, for comparisons.

  Raises ValueError for a t that is not [B] or a condition that the network was not built for.

  >>> net, x, t = MADE(width=8, depth=1, features=4), jnp.ones((2, 3)), jnp.zeros(2)
  >>> jax.jit(lambda key: net.apply(net.init(key, x, t), x, t))(jax.random.key(0))[0].tolist()
  [-1.0, -1.0, -1.0]
  """

  width: int = 128
  depth: int = 2
  features: int = 16
  head_width: int = 64
  head_depth: int = 2
  frequencies: tuple[float, ...] = ()
  std: float = 1.0
  num_classes: int = 0
  vector_size: int = 0
  masked: bool = True

  views: ClassVar[tuple[str, ...]] = ("context", "head")

  def setup(self) -> None:
    self.scalar_head = ScalarHead(self.head_width, self.head_depth, tuple(self.frequencies), self.std)

  @nn.compact
  def context(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """[B, ..., features], for each coordinate a function of those before it, of t and of the condition."""
    del train
    check_inputs(x, t, (2, 3, 4, 5), "MADE")
    size = math.prod(x.shape[1:])
    embedding = nn.swish(
      NoiseEmbedding(64, 16, "fourier", 1.0, self.num_classes, self.vector_size, name="noise")(t, cond)
    ).astype(x.dtype)
    entries = waves(x.reshape(x.shape[0], size), self.frequencies)
    seen = np.repeat(np.arange(1, size + 1), entries.shape[-1])
    hidden, may_see = degrees(size, self.width), np.repeat(np.arange(size), self.features)
    if not self.masked:
      seen, hidden = np.zeros_like(seen), np.zeros_like(hidden)
    seen, hidden, may_see = (tuple(int(d) for d in units) for units in (seen, hidden, may_see))
    h = MaskedDense(seen, hidden, name="first")(entries.reshape(x.shape[0], -1))
    for i in range(self.depth):
      inner = MaskedDense(hidden, hidden, name=f"dense_{i}_0")(
        nn.swish(h + nn.Dense(self.width, name=f"time_{i}")(embedding))
      )
      h = h + MaskedDense(hidden, hidden, name=f"dense_{i}_1")(nn.swish(inner))
    own = nn.Dense(size * self.features, name="time_last")(embedding)
    return (MaskedDense(hidden, may_see, name="last")(nn.swish(h)) + own).reshape(*x.shape, self.features)

  def head(self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None) -> jax.Array:
    """The conditional scores, like x, given cond['context'], in which t and other conditions are."""
    del t
    return self.scalar_head((cond or {})["context"], x)

  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    return self.head(x, t, {"context": self.context(x, t, cond, train)})
