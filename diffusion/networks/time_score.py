"""A time score, one number per example, out of any network whose output is like its input."""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn


class TimeScore(nn.Module):
  """A time score from a network: time_score(x, t) = <(x, 1), network((x, 1), t)>.

  It is quadratic in x where the network is linear, as the ratio of two Gaussians is.

  Calling it is the same. For vectors x [B, D]; the network has to be smooth in t and may hold no mutable
  collections.

  Attributes:
    network: a module `(x, t, cond, train) -> output like x`, such as `MLP`.

  >>> from diffusion.networks.mlp import MLP
  >>> net, x, t = TimeScore(MLP(width=8, depth=1)), jnp.ones((4, 2)), jnp.zeros(4)
  >>> net.apply(net.init(jax.random.key(0), x, t), x, t, method="time_score").tolist()  # a new MLP is zero
  [0.0, 0.0, 0.0, 0.0]
  """

  network: nn.Module

  views: ClassVar[tuple[str, ...]] = ("time_score",)

  @property
  def num_classes(self) -> int:
    """Classes that the inner network takes."""
    return getattr(self.network, "num_classes", 0)

  def time_score(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """[B]: an estimate of d/dt log p_t(x)."""
    if x.ndim != 2:
      raise ValueError(
        f"TimeScore takes vectors [B, D] and x has shape {x.shape}: flatten it, or write a module with this "
        "method"
      )
    x = jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)
    return jnp.sum((x * self.network(x, t, cond, train)).astype(jnp.float32), axis=1)

  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    return self.time_score(x, t, cond, train)
