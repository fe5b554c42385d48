"""A network of pictures made one of whole numbers: a vector of each value in, logits over the values out."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.layers import check_inputs


class EmbeddedValues(nn.Module):
  """x [B, ..., C] int and t [B] -> logits [B, ..., C, K] of a `UNet` or a `DiT`, in float32.

  Each value of each channel enters as a learned vector of `features` numbers, the mask among them; the
  network sees [B, ..., C * features], and its output of the same shape is taken to K logits a channel by one
  dense layer. A new network says that all values are equally likely where `network` starts at zero, as those
  do.

  Attributes:
    network: a module `(x, t, cond, train) -> output like x`, such as `UNet` and `DiT`.
    num_values: K, of the output.
    features: of the vector of a value.
    num_inputs: values that a coordinate of x may take; 0 for K + 1, the values and the mask.

  Raises ValueError for a t that is not [B] or an x that is not whole numbers, and what `network` raises.

  >>> from diffusion.networks.dit import DiT
  >>> net = EmbeddedValues(DiT(patch=2, width=16, depth=1, num_heads=2), num_values=3, features=4)
  >>> x, t = jnp.full((2, 4, 4, 1), 3), jnp.zeros(2)
  >>> logits, _ = jax.jit(net.init_with_output)(jax.random.key(0), x, t)
  >>> logits.shape, float(abs(logits).max())
  ((2, 4, 4, 1, 3), 0.0)
  """

  network: nn.Module
  num_values: int
  features: int = 16
  num_inputs: int = 0

  @property
  def num_classes(self) -> int:
    """Classes that the inner network takes."""
    return getattr(self.network, "num_classes", 0)

  @property
  def guidance_size(self) -> int:
    """Features of the condition 'guidance' that the inner network takes."""
    return getattr(self.network, "guidance_size", 0)

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """Logits [B, ..., C, K] at x [B, ..., C] int, t [B]."""
    check_inputs(x, t, (3, 4), "EmbeddedValues")
    if not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError(f"EmbeddedValues takes whole numbers x [B, ..., C], got {x.dtype}")
    channels, inputs = x.shape[-1], self.num_inputs or self.num_values + 1
    table = self.param("values", nn.initializers.normal(1.0), (channels, inputs, self.features))
    place = jnp.arange(channels, dtype=x.dtype).reshape((1,) * (x.ndim - 1) + (channels,))
    h = table[place, x].reshape(*x.shape[:-1], channels * self.features)
    h = self.network(h, t, cond, train)
    h = nn.Dense(channels * self.num_values, dtype=h.dtype, name="last")(h)
    return h.reshape(*x.shape, self.num_values).astype(at_least_single(h.dtype))
