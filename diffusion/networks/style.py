"""The options that all parts of one U-Net share, and the layers they imply."""

import dataclasses
from typing import Any

import jax
from flax import linen as nn

from diffusion.networks.layers import GroupNorm, fan_average


@dataclasses.dataclass(frozen=True)
class Style:
  """What the blocks of a U-Net have in common; see `UNet` for the meaning of each."""

  rank: int
  block: str
  fir_kernel: tuple[float, ...] | None
  resample_with_conv: bool
  skip_rescale: bool
  init_scale: float
  num_heads: int
  dropout: float
  deterministic: bool
  dtype: Any
  param_dtype: Any
  remat: bool

  def conv(
    self, features: int, name: str, size: int = 3, stride: int = 1, padding: str = "SAME", scale: float = 1.0
  ) -> nn.Conv:
    return nn.Conv(
      features,
      (size,) * self.rank,
      (stride,) * self.rank,
      padding,
      kernel_init=fan_average(scale),
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=name,
    )

  def dense(self, features: int, name: str, scale: float = 1.0) -> nn.Dense:
    return nn.Dense(
      features, kernel_init=fan_average(scale), dtype=self.dtype, param_dtype=self.param_dtype, name=name
    )

  def norm(self, name: str) -> GroupNorm:
    return GroupNorm(self.dtype, self.param_dtype, name=name)

  def merge(self, x: jax.Array, h: jax.Array) -> jax.Array:
    """x + h, over sqrt 2 where skips are rescaled to keep the variance."""
    return (x + h) * 0.5**0.5 if self.skip_rescale else x + h

  def stored(self, block: type[nn.Module]) -> type[nn.Module]:
    """The block class, recomputed in the backward pass where the network asks for it."""
    return nn.remat(block) if self.remat else block
