"""A small PixelCNN (arXiv:1606.05328, 1701.05517).

Convolutions over the rows above and the pixels to the left, as a context.
"""

import functools
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.networks.embeddings import NoiseEmbedding
from diffusion.networks.layers import check_inputs
from diffusion.networks.made import MaskedDense
from diffusion.networks.scalar_head import ScalarHead


def moved(x: jax.Array, rows: int, columns: int) -> jax.Array:
  """x [B, H, W, F] moved down by `rows` and right by `columns` (left where negative), with zeros behind it.

  >>> moved(jnp.arange(1.0, 4.0).reshape(1, 1, 3, 1), 0, 1).reshape(-1).tolist()
  [0.0, 1.0, 2.0]
  """
  height, width = x.shape[1:3]
  x = jnp.pad(x, ((0, 0), (rows, 0), (max(columns, 0), max(-columns, 0)), (0, 0)))
  return x[:, :height, max(-columns, 0) : max(-columns, 0) + width]


# Which pixels a convolution sees, as moves: of the rows above with this one, and of the pixels to the left
# and above with this one.
ABOVE = tuple((rows, columns) for rows in (0, 1) for columns in (-1, 0, 1))
LEFT = tuple((rows, columns) for rows in (0, 1) for columns in (0, 1))


class Convolution(nn.Module):
  """A dense layer of the pixels at some moves: x [B, H, W, F] -> [B, H, W, features]."""

  features: int
  moves: tuple[tuple[int, int], ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return nn.Dense(self.features, name="dense")(
      jnp.concatenate([moved(x, *move) for move in self.moves], axis=-1)
    )


class PixelCNN(nn.Module):
  """The scores of all conditionals of an image, by two streams of residual blocks.

  x [B, H, W, C] and t [B] -> like x. The order is row by row, pixel by pixel, channel by channel.

  Methods `context` (x, t, cond) -> [B, H, W, C, features] and `head` (context, x, t, cond) -> [B, H, W, C];
  calling it is one after the other. Two streams of residual blocks: one sees the rows above, one also the
  pixels to the left, so that nothing before a pixel is hidden from it (a single masked convolution is blind
  to the upper right). Both are moved by one pixel on entry; no layer normalises over space, which would let a
  pixel see all others. A new network is the score of N(0, std^2 I), and smooth in x.

  Attributes:
    width, depth: channels and number of residual blocks of each stream; each block reaches one pixel further.
    features: of the context of a coordinate.
    head_width, head_depth, frequencies, std: see `ScalarHead`.
    num_classes, vector_size: sizes of the conditions 'label' and 'vector'; 0 for none.

  Raises ValueError for an x that is no batch of images, a t that is not [B] or a condition that the network
  was not built for.

  >>> net, x, t = PixelCNN(width=8, depth=1, features=4), jnp.ones((2, 3, 3, 1)), jnp.zeros(2)
  >>> jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, t, method="context")[0]).shape
  (2, 3, 3, 1, 4)
  """

  width: int = 32
  depth: int = 3
  features: int = 16
  head_width: int = 64
  head_depth: int = 2
  frequencies: tuple[float, ...] = ()
  std: float = 1.0
  num_classes: int = 0
  vector_size: int = 0

  views: ClassVar[tuple[str, ...]] = ("context", "head")

  def setup(self) -> None:
    self.scalar_head = ScalarHead(self.head_width, self.head_depth, tuple(self.frequencies), self.std)

  @nn.compact
  def context(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """[B, H, W, C, features], for each entry a function of those before it, of t and of the condition."""
    del train
    check_inputs(x, t, (4,), "PixelCNN")
    embedding = nn.swish(
      NoiseEmbedding(64, 16, "fourier", 1.0, self.num_classes, self.vector_size, name="noise")(t, cond)
    ).astype(x.dtype)
    edge = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)  # where the image ends
    above = moved(Convolution(self.width, ABOVE, name="above")(edge), 1, 0)
    left = above + moved(Convolution(self.width, LEFT, name="left")(edge), 0, 1)
    for i in range(self.depth):
      above = above + self._block(above, embedding, ABOVE, f"above_{i}")
      left = left + self._block(jnp.concatenate([left, above], axis=-1), embedding, LEFT, f"left_{i}")
    # Within a pixel, channel c sees the channels before it.
    channels, hidden = x.shape[-1], self.head_width
    groups = tuple(c for c in range(channels) for _ in range(hidden))
    h = nn.Dense(channels * hidden, name="pixel")(nn.swish(left))
    if channels > 1:
      h = h + MaskedDense(tuple(range(1, channels + 1)), groups, name="channels")(x)
    return nn.Dense(self.features, name="last")(nn.swish(h.reshape(*x.shape, hidden)))

  def _block(self, h, embedding, moves, name):
    conv = functools.partial(Convolution, self.width, moves)
    inner = conv(name=f"{name}_conv_0")(nn.swish(h))
    inner = inner + nn.Dense(self.width, name=f"{name}_time")(embedding)[:, None, None, :]
    return conv(name=f"{name}_conv_1")(nn.swish(inner))

  def head(self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None) -> jax.Array:
    """The conditional scores, like x, given cond['context'], in which t and other conditions are."""
    del t
    return self.scalar_head((cond or {})["context"], x)

  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    return self.head(x, t, {"context": self.context(x, t, cond, train)})
