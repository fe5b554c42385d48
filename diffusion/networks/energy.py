"""An energy out of any network, whose output is the score that it implies."""

from collections.abc import Mapping
from typing import ClassVar, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.networks.embeddings import NoiseEmbedding


class Energy(nn.Module):
  """energy(x, t) = exp(a(t)) |x - network(x, t)|^2 / 2 and its score, minus the gradient in x.

  Calling it returns the score, so it goes with `denoisers.score()`; the method `energy` returns [B]. a(t)
  starts at zero and lets the scale follow the noise level. A new network is the energy of a standard normal
  where `network` starts at zero. The network has to be smooth in x for score matching (no ReLU), and may hold
  no mutable collections.

  Attributes:
    network: a module `(x, t, cond, train) -> output like x`, such as `MLP`.
    width: of the embedding of the time that scales the energy.

  >>> from diffusion.networks.mlp import MLP
  >>> net = Energy(MLP(width=8, depth=1))
  >>> x, t = jnp.ones((4, 2)), jnp.zeros(4)
  >>> variables = net.init(jax.random.key(0), x, t)
  >>> net.apply(variables, x, t, method="energy").tolist(), net.apply(variables, x, t)[0].tolist()
  ([1.0, 1.0, 1.0, 1.0], [-1.0, -1.0])
  """

  network: nn.Module
  width: int = 16

  views: ClassVar[tuple[str, ...]] = ("energy",)

  def setup(self) -> None:
    self.embedding = NoiseEmbedding(self.width, max(self.width // 4, 4), "fourier", 1.0, 0, 0)
    self.log_scale = nn.Dense(1, kernel_init=nn.initializers.zeros)

  @property
  def num_classes(self) -> int:
    """Classes that the inner network takes."""
    return getattr(self.network, "num_classes", 0)

  def energy(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """[B], with p(x | t) proportional to exp(-energy)."""
    error = (x - self.network(x, t, cond, train)).astype(jnp.float32)
    scale = jnp.exp(self.log_scale(nn.swish(self.embedding(t, None)))).reshape(-1)
    return 0.5 * scale * jnp.sum(jnp.square(error).reshape(x.shape[0], -1), axis=1)

  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    if self.is_initializing():
      self.energy(x, t, cond, train)
      return -x
    # Flax has no lifted gradient for a module within a module: the unbound copy is a plain function of x.
    module, variables = self.unbind()
    rngs = {"dropout": self.make_rng("dropout")} if self.has_rng("dropout") else None

    def total(x: jax.Array) -> jax.Array:
      energy = module.apply(variables, x, t, cond, train, rngs=rngs, method="energy")
      return jnp.sum(cast(jax.Array, energy))  # a pair only where collections are mutable

    return -jax.grad(total)(x)
