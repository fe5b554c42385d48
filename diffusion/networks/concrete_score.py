"""Networks of concrete scores.

For states of whole numbers: the output is p(neighbour) / p(x) - 1 for each neighbour (arXiv:2211.00802).
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.embeddings import NoiseEmbedding
from diffusion.networks.layers import check_inputs


class ConcreteMLP(nn.Module):
  """The concrete score of discrete states by an MLP over embedded coordinates.

  x [B, ...] int and t [B] -> concrete score [B, num_neighbours], in float32.

  Each coordinate enters as a learned vector for each of its values beside sines and cosines of the value,
  which tell neighbours from the start; time and condition enter as one more vector. The output is exp(u) - 1
  with u = exp(a(t)) times the MLP's: ratios are positive, a new network says that all states are equally
  likely, and a(t) follows how the ratios shrink as noise grows. The method `concrete_score` is the same.

  Attributes:
    num_values: K; coordinates with fewer take the first of them.
    num_neighbours: N of the neighbourhood.
    width, depth: features of each hidden layer, and how many there are; all but the first are residual.
    embedding_size: of the learned vector of a value, and of time and condition.
    frequencies: sines and cosines of 1 to this many turns.
    wrap: whether the values lie around a circle; on a line the turns are half ones, even at both ends.
    resampled: whether t is the probability that a coordinate was drawn anew among K values; ratios then keep
      within m/s and s/m.
    fourier_scale: of the embedding of t, in cycles per unit of t; num_classes: of the condition 'label'.
    dtype, param_dtype: of the computation and of the parameters; the output stays in float32.

  >>> net = ConcreteMLP(num_values=16, num_neighbours=1, width=8, depth=1)
  >>> x, t = jnp.zeros((4, 1), jnp.int32), jnp.zeros(4)
  >>> net.apply(net.init(jax.random.key(0), x, t), x, t, method="concrete_score").tolist()
  [[0.0], [0.0], [0.0], [0.0]]
  """

  num_values: int
  num_neighbours: int
  width: int = 128
  depth: int = 2
  embedding_size: int = 32
  frequencies: int = 8
  wrap: bool = True
  resampled: bool = False
  fourier_scale: float = 1.0
  num_classes: int = 0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  views: ClassVar[tuple[str, ...]] = ("concrete_score",)

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    del train
    check_inputs(x, t, (2, 3, 4, 5), "ConcreteMLP")
    precision: dict[str, Any] = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
    embedding = nn.swish(
      NoiseEmbedding(
        self.embedding_size, 16, "fourier", self.fourier_scale, self.num_classes, name="noise", **precision
      )(t, cond)
    )
    flat = x.reshape(x.shape[0], -1)
    first = np.arange(flat.shape[1]) * self.num_values
    table = self.param(
      "values",
      nn.initializers.normal(1.0 / math.sqrt(self.embedding_size)),
      (flat.shape[1] * self.num_values, self.embedding_size),
      self.param_dtype,
    )
    learned = table.astype(precision["dtype"])[flat + jnp.asarray(first, flat.dtype)[None]]
    features = jnp.concatenate([learned, self._waves(precision["dtype"])[flat]], axis=2).reshape(
      x.shape[0], -1
    )
    h = jnp.concatenate([features, embedding.astype(precision["dtype"])], axis=1)
    for i in range(self.depth):
      new = nn.swish(nn.Dense(self.width, name=f"dense_{i}", **precision)(h))
      h = h + new if i else new
    u = nn.Dense(self.num_neighbours, kernel_init=nn.initializers.zeros, name="last", **precision)(h).astype(
      at_least_single(self.dtype)
    )
    scale = nn.Dense(
      1,
      kernel_init=nn.initializers.zeros,
      name="log_scale",
      dtype=u.dtype,
      param_dtype=precision["param_dtype"],
    )(embedding)
    return ratio_less_one(jnp.exp(scale) * u, t, self.num_values if self.resampled else 0)

  def concrete_score(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """[B, num_neighbours]: an estimate of p_t(neighbour) / p_t(x) - 1."""
    return self(x, t, cond, train)

  def _waves(self, dtype):
    """[K, features] of every value."""
    turns, value = np.arange(1, self.frequencies + 1)[None, :], np.arange(self.num_values)[:, None]
    angle = (
      2.0 * np.pi * turns * value / self.num_values
      if self.wrap
      else np.pi * turns * (value + 0.5) / self.num_values
    )
    return jnp.asarray(
      np.concatenate([np.sin(angle), np.cos(angle)], axis=1) if self.wrap else np.cos(angle), dtype
    )


class ConcreteFlips(nn.Module):
  """The concrete score of bits, one neighbour a bit, out of another network.

  x [B, ...] in {0, 1} -> [B, D]. The network is any whose output is like its input.

  The network sees -1 and 1, and its output is for each bit the log-odds g of a one, whatever the bit is now,
  which no product with the bit has to be learned for; the log ratio is then g for a bit that is zero and -g
  for one that is one. See `ConcreteMLP` for the rest. The method `concrete_score` is the same.

  Attributes:
    network: a module `(x, t, cond, train) -> output like x`, such as `MLP` or `UNet`, without mutable
      collections.
    resampled: whether t is the probability that a bit was drawn anew; ratios then keep within m/s and s/m.

  >>> from diffusion.networks.mlp import MLP
  >>> net, x, t = ConcreteFlips(MLP(width=8, depth=1)), jnp.zeros((2, 2, 3, 1), jnp.int32), jnp.full(2, 0.5)
  >>> net.apply(net.init(jax.random.key(0), x, t), x, t, method="concrete_score").shape
  (2, 6)
  """

  network: nn.Module
  resampled: bool = True

  views: ClassVar[tuple[str, ...]] = ("concrete_score",)

  @property
  def num_classes(self) -> int:
    """Classes that the inner network takes."""
    return getattr(self.network, "num_classes", 0)

  def concrete_score(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """[B, D]: an estimate of p_t(x with one bit turned over) / p_t(x) - 1."""
    sign = 2.0 * x.astype(jnp.float32) - 1.0
    u = (-sign * self.network(sign, t, cond, train)).reshape(x.shape[0], -1)
    return ratio_less_one(u, t, 2 if self.resampled else 0)

  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    return self.concrete_score(x, t, cond, train)


def ratio_less_one(u: jax.Array, t: jax.Array, resampled: int) -> jax.Array:
  """exp(u) - 1, or the same within bounds: u [B, N], t [B] -> [B, N].

  With K = resampled values drawn anew with probability t, a ratio of p_t is a mean of m/s, 1 and s/m, and

      (rho + e^u) / (1 + rho e^u),   rho = m/s = (t/K) / (1 - t + t/K)

  keeps to that: for bits e^u is then the odds, given the other noised coordinates, that the clean bit is
  another one.

  >>> u, t = jnp.array([[-99.0, 0.0, 99.0]]), jnp.array([0.5])
  >>> ratio_less_one(u, t, 2)[0].round(4).tolist()  # 1/3 - 1, 0, 3 - 1
  [-0.666700005531311, 0.0, 2.0]
  """
  if not resampled:
    return jnp.expm1(u)
  b = t.astype(u.dtype)[:, None] / resampled
  rho = b / (1.0 - t.astype(u.dtype)[:, None] + b)
  up, down = jnp.where(u > 0.0, u, 0.0), jnp.where(u > 0.0, 0.0, u)  # each branch where it does not overflow
  above = -jnp.expm1(-up) / (jnp.exp(-up) + rho)
  below = jnp.expm1(down) / (1.0 + rho * jnp.exp(down))
  return (1.0 - rho) * jnp.where(u > 0.0, above, below)
