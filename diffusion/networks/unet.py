"""The U-Net of DDPM, DDPM++ and NCSN++ (arXiv 2011.13456, section 4.3 and appendix H)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.attention import SpatialAttention
from diffusion.networks.embeddings import NoiseEmbedding
from diffusion.networks.layers import check_inputs
from diffusion.networks.levels import Decoder, Encoder
from diffusion.networks.resblocks import ResidualBlock
from diffusion.networks.sizes import check_divisible
from diffusion.networks.style import Style


class UNet(nn.Module):
  """U-Net for [B, L, C] and [B, H, W, C] of any size that 2^(levels - 1) divides and any number of channels.

  The defaults are a small DDPM++. The published networks are in `configs/cifar10`: DDPM is
  block='ddpm', skip_rescale=False; DDPM++ is block='biggan', skip_rescale=True; NCSN++ is DDPM++ with
  fir=True and progressive_input='residual', and, for continuous times, embedding='fourier'.

  Attributes:
    width: channels of the first convolution; level i has width * channel_multipliers[i].
    num_res_blocks: residual blocks on each level going down, one more going up.
    attention_resolutions: levels with attention, named by the length of their longest side. The middle
      of the network always has one.
    block: 'biggan' (resampling inside residual blocks) or 'ddpm' (between them).
    fir, fir_kernel: filter when resampling, or repeat and average.
    resample_with_conv: a convolution in the resampling layers of block='ddpm'.
    progressive: 'none', 'output_skip' or 'residual', how the output is built up over the levels.
    progressive_input: 'none', 'input_skip' or 'residual', how the image enters each level.
    combine: 'sum' or 'cat', for 'input_skip'.
    embedding: 'positional', for times of 0 to about 1000, or 'fourier', for log sigma.
    fourier_scale: standard deviation of the Fourier frequencies.
    skip_rescale: divide every residual sum by sqrt 2.
    init_scale: scale of the last layer of each block and of the network; 0 stands for almost zero.
    num_heads: attention heads; 1 in all the papers named above.
    dropout: rate, drawn from the rng 'dropout' when train=True.
    num_classes, vector_size: sizes of the conditions 'label' and 'vector'; 0 for none.
    guidance_size: features of the condition 'guidance', the weight of a distilled guidance; 0 for none.
    centered: False for data in [0, 1], which the network then maps to [-1, 1] at its input.
    dtype, param_dtype: of the computation and of the parameters; embeddings, softmax, normalisation
      statistics and the output stay in float32.
    remat: recompute the blocks in the backward pass instead of storing them.

  Raises ValueError for a size that does not fit, an option that does not exist, a resolution that no level
  has.

  >>> net = UNet(width=8, channel_multipliers=(1, 2), num_res_blocks=1)
  >>> x, t = jnp.zeros((2, 6, 10, 1)), jnp.zeros(2)
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)[0].shape
  (2, 6, 10, 1)
  """

  width: int = 64
  channel_multipliers: Sequence[int] = (1, 2, 2)
  num_res_blocks: int = 2
  attention_resolutions: Sequence[int] = ()
  block: str = "biggan"
  fir: bool = False
  fir_kernel: Sequence[float] = (1, 3, 3, 1)
  resample_with_conv: bool = True
  progressive: str = "none"
  progressive_input: str = "none"
  combine: str = "sum"
  embedding: str = "positional"
  fourier_scale: float = 16.0
  skip_rescale: bool = True
  init_scale: float = 0.0
  num_heads: int = 1
  dropout: float = 0.0
  num_classes: int = 0
  vector_size: int = 0
  guidance_size: int = 0
  centered: bool = True
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    check_inputs(x, t, (3, 4), "UNet")
    self._check_options()
    attention = self._attention_levels(x.shape[1:-1])
    precision: dict[str, Any] = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
    style = Style(
      rank=x.ndim - 2,
      block=self.block,
      fir_kernel=tuple(self.fir_kernel) if self.fir else None,
      resample_with_conv=self.resample_with_conv,
      skip_rescale=self.skip_rescale,
      init_scale=self.init_scale,
      num_heads=self.num_heads,
      dropout=self.dropout,
      deterministic=not train,
      remat=self.remat,
      **precision,
    )
    embedding = NoiseEmbedding(
      4 * self.width,
      self.width,
      self.embedding,
      self.fourier_scale,
      self.num_classes,
      self.vector_size,
      self.guidance_size,
      name="noise",
      **precision,
    )(t, cond)
    embedding = nn.swish(embedding).astype(style.dtype)
    h = (x if self.centered else 2.0 * x - 1.0).astype(style.dtype)

    widths = tuple(self.width * m for m in self.channel_multipliers)
    skips = Encoder(
      self.width,
      widths,
      self.num_res_blocks,
      attention,
      self.progressive_input,
      self.combine,
      style,
      name="encoder",
    )(h, embedding)
    block = style.stored(ResidualBlock)
    h = block(widths[-1], style, name="middle_0")(skips[-1], embedding)
    h = style.stored(SpatialAttention)(style, name="middle_attention")(h)
    h = block(widths[-1], style, name="middle_1")(h, embedding)
    h = Decoder(x.shape[-1], widths, self.num_res_blocks, attention, self.progressive, style, name="decoder")(
      h, skips, embedding
    )
    return h.astype(at_least_single(style.dtype))

  def _check_options(self):
    allowed = {
      "block": ("ddpm", "biggan"),
      "progressive": ("none", "output_skip", "residual"),
      "progressive_input": ("none", "input_skip", "residual"),
      "combine": ("sum", "cat"),
      "embedding": ("positional", "fourier"),
    }
    for name, values in allowed.items():
      if getattr(self, name) not in values:
        raise ValueError(f"UNet {name} must be one of {', '.join(values)}; got {getattr(self, name)!r}.")
    if self.num_res_blocks < 1:
      raise ValueError(
        f"UNet needs at least one residual block on a level, got num_res_blocks={self.num_res_blocks}."
      )

  def _attention_levels(self, sizes: tuple[int, ...]) -> tuple[bool, ...]:
    levels = len(self.channel_multipliers)
    check_divisible(sizes, 2 ** (levels - 1), f"a U-Net of {levels} levels")
    longest = [max(sizes) // 2**level for level in range(levels)]
    missing = [r for r in self.attention_resolutions if r not in longest]
    if missing:
      raise ValueError(
        f"UNet has no level of resolution {missing} for an input of {sizes}: its levels have "
        f"longest sides {longest}. Choose attention_resolutions among these."
      )
    return tuple(size in self.attention_resolutions for size in longest)
