"""A scalar energy of a vector at every noise level, with waves of its coordinates for sharp edges."""

from collections.abc import Mapping
from typing import ClassVar, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.networks.embeddings import NoiseEmbedding


class Potential(nn.Module):
  """An energy as a network, and its score by calling it.

  energy(x, t) = |x|^2 / (2 std^2) + exp(a(t)) f(x, t). Since calling it gives the score, it goes with
  `denoisers.score()`.

  f is a dense network whose layers are scaled and shifted by the time, of x and of sin and cos of each
  coordinate at fixed
  frequencies: without them it learns the smooth part of a density alone. A new network is the energy of N(0,
  std^2 I). Smooth in x, so that it can be matched by its derivatives.

  Attributes:
    width, depth: of the hidden layers.
    frequencies: in radians per unit of x; () for x alone. The largest should be about 1 / (5 noise) of the
      smallest noise level.
    std: of the data; a process that preserves variance keeps it at all times.
    num_classes: classes of the condition 'label'.

  >>> net = Potential(width=8, depth=1)
  >>> x, t = jnp.ones((4, 2)), jnp.zeros(4)
  >>> variables = net.init(jax.random.key(0), x, t)
  >>> net.apply(variables, x, t, method="energy").tolist(), net.apply(variables, x, t)[0].tolist()
  ([1.0, 1.0, 1.0, 1.0], [-1.0, -1.0])
  """

  width: int = 128
  depth: int = 2
  frequencies: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
  std: float = 1.0
  num_classes: int = 0

  views: ClassVar[tuple[str, ...]] = ("energy",)

  @nn.compact
  def energy(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """[B], with p(x | t) proportional to exp(-energy)."""
    del train
    x = x.reshape(x.shape[0], -1)
    h = x.astype(jnp.float32)
    if self.frequencies:
      waves = (h[:, :, None] * jnp.asarray(self.frequencies, h.dtype)[None, None, :]).reshape(h.shape[0], -1)
      h = jnp.concatenate([h, jnp.sin(waves), jnp.cos(waves)], axis=1)
    time = nn.swish(NoiseEmbedding(32, 16, "fourier", 1.0, self.num_classes, 0, name="noise")(t, cond))
    for i in range(self.depth):
      scale, shift = jnp.split(nn.Dense(2 * self.width, name=f"modulation_{i}")(time), 2, axis=1)
      h = nn.swish(nn.Dense(self.width, use_bias=False, name=f"dense_{i}")(h) * (1.0 + scale) + shift)
    value = nn.Dense(1, kernel_init=nn.initializers.zeros, name="last")(h)
    log_scale = nn.Dense(1, kernel_init=nn.initializers.zeros, name="log_scale")(time)
    return 0.5 / self.std**2 * jnp.sum(jnp.square(x), axis=1) + (jnp.exp(log_scale) * value).reshape(-1)

  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    if self.is_initializing():
      self.energy(x, t, cond, train)
      return -x / self.std**2
    # Flax has no lifted gradient for a module within a module: the unbound copy is a plain function of x.
    module, variables = self.unbind()

    def total(x: jax.Array) -> jax.Array:
      energy = module.apply(variables, x, t, cond, train, method="energy")
      return jnp.sum(cast(jax.Array, energy))  # a pair only where collections are mutable

    return -jax.grad(total)(x)
