"""A score and its Hessian out of one module.

Any network for the first, a dense network with few outputs a dimension for the second.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.symmetric import Diagonal, Full, LowRank, Symmetric, check_rank
from diffusion.networks.embeddings import NoiseEmbedding
from diffusion.networks.layers import check_inputs, layer_norm
from diffusion.networks.mlp import Block

FORMS = ("low_rank", "diagonal", "full")


class SecondOrder(nn.Module):
  """score(x, t) like x, and hessian(x, t) as one of the forms of `diffusion.math.symmetric`.

  Calling it returns the score, so it goes with `denoisers.score()`, and `losses.second_order` trains the
  other. Both are scaled by a learned power of the noise level, exp(a(t)) and exp(2 a(t)), since a score is of
  the order of 1/sigma and a Hessian of its square. A new network has score `network` and the Hessian zero,
  but for its factors, which start small.

  Attributes:
    network: a module `(x, t, cond, train) -> output like x`, such as `MLP` or `UNet`, without mutable
      collections.
    form: 'low_rank' (a diagonal plus signed factors), 'diagonal' or 'full' (for few dimensions).
    rank: how many factors; those of the first half, rounded up, are added, the others subtracted.
    width, depth: of the residual network that makes the Hessian from x, flattened.

  Raises ValueError for another form, or a rank above the dimension of an example.

  >>> from diffusion.networks.mlp import MLP
  >>> net = SecondOrder(MLP(width=8, depth=1), rank=2, width=8, depth=1)
  >>> x, t = jnp.ones((4, 3)), jnp.zeros(4)
  >>> variables = jax.jit(net.init)(jax.random.key(0), x, t)
  >>> hessian = net.apply(variables, x, t, method="hessian")
  >>> hessian.diagonal.shape, hessian.factors.shape, hessian.signs
  ((4, 3), (4, 3, 2), (1, -1))
  """

  network: nn.Module
  form: str = "low_rank"
  rank: int = 4
  width: int = 128
  depth: int = 2

  views: ClassVar[tuple[str, ...]] = ("score", "hessian")

  def setup(self) -> None:
    if self.form not in FORMS:
      raise ValueError(f"SecondOrder has no form {self.form!r}: choose one of {', '.join(FORMS)}")
    self.level = NoiseEmbedding(16, 4, "fourier", 1.0, 0, 0)
    self.log_scale = nn.Dense(1, kernel_init=nn.initializers.zeros)
    self.curvature = Curvature(self.form, self.rank, self.width, self.depth, self.num_classes)

  @property
  def num_classes(self) -> int:
    """Classes that the inner network takes."""
    return getattr(self.network, "num_classes", 0)

  def score(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """Like x: the gradient of log p_t."""
    scale = self._scale(t)
    return scale.reshape(-1, *[1] * (x.ndim - 1)) * self.network(x, t, cond, train)

  def hessian(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> Symmetric:
    """The Hessian of log p_t in the form asked for, over the D numbers of a flattened example."""
    del train
    return self.curvature(x, t, cond).rescaled(self._scale(t))

  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    if self.is_initializing():
      self.hessian(x, t, cond)
    return self.score(x, t, cond, train)

  def _scale(self, t):
    return jnp.exp(self.log_scale(nn.swish(self.level(t, None)))).reshape(-1)


class Curvature(nn.Module):
  """x [B, ...], t [B] -> a symmetric matrix a row, by a residual network like `MLP` with more outputs."""

  form: str
  rank: int
  width: int
  depth: int
  num_classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None) -> Symmetric:
    check_inputs(x, t, (2, 3, 4, 5), "SecondOrder")
    size = math.prod(x.shape[1:])
    if self.form == "low_rank":
      check_rank(self.rank, size, "SecondOrder")
    embedding = nn.swish(
      NoiseEmbedding(self.width, max(self.width // 4, 4), "fourier", 1.0, self.num_classes, 0, name="noise")(
        t, cond
      )
    )
    h = nn.Dense(self.width, name="first")(x.reshape(x.shape[0], -1).astype(self.dtype))
    for i in range(self.depth):
      h = Block(0.0, True, self.dtype, self.dtype, name=f"block_{i}")(h, embedding)
    h = nn.swish(layer_norm(h, self.dtype))
    if self.form == "full":
      matrix = nn.Dense(size * size, kernel_init=nn.initializers.zeros, name="matrix")(h).reshape(
        -1, size, size
      )
      return Full(0.5 * (matrix + jnp.swapaxes(matrix, 1, 2)))
    diagonal = nn.Dense(size, kernel_init=nn.initializers.zeros, name="diagonal")(h)
    if self.form == "diagonal":
      return Diagonal(diagonal)
    # From zero a factor f would stay there: the gradient of f f^T is proportional to f.
    factors = nn.Dense(
      size * self.rank, kernel_init=nn.initializers.normal(0.1 / math.sqrt(self.width)), name="factors"
    )(h)
    return LowRank(diagonal, factors.reshape(-1, size, self.rank), halves(self.rank))


def halves(rank: int) -> tuple[int, ...]:
  """The signs of the factors: the first half, rounded up, positive.

  >>> halves(3)
  (1, 1, -1)
  """
  return (1,) * ((rank + 1) // 2) + (-1,) * (rank // 2)
