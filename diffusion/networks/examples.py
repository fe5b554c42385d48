"""Small instances of every network, for tests that must hold for all of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from diffusion.networks.auto_encoder import AutoEncoder
from diffusion.networks.dit import DiT
from diffusion.networks.embedded_values import EmbeddedValues
from diffusion.networks.mlp import MLP
from diffusion.networks.sequence_transformer import SequenceTransformer
from diffusion.networks.token_mlp import TokenMLP
from diffusion.networks.unet import UNet


@dataclasses.dataclass(frozen=True)
class Example:
  """One small network: `build(**changes)` makes it, `shape` is one example's shape (without the batch axis).

  `num_values` is 0 where x is of floats and the output like x; else x is of whole numbers up to it, itself
  the mask, and the output has as many values more in a last axis.

  Every one takes dropout, if the caller asks for it; and where it is `told` anything but x, a time, 10
  classes, vectors of size 3 and a guidance weight.
  """

  build: Callable[..., nn.Module]
  shape: tuple[int, ...]
  num_values: int = 0
  told: bool = True


def _small(module: type[nn.Module], shape: tuple[int, ...], **defaults: Any) -> Example:
  return Example(
    lambda **changes: module(
      **{"num_classes": 10, "vector_size": 3, "guidance_size": 4, **defaults, **changes}
    ),
    shape,
    defaults.get("num_values", 0),
  )


NETWORKS: dict[str, Example] = {
  "mlp": _small(MLP, (5,), width=16, depth=2),
  "mlp_image": _small(MLP, (4, 6, 2), width=16, depth=1, embedding="positional"),
  "ddpm": _small(
    UNet,
    (4, 8, 3),
    width=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(8,),
    block="ddpm",
    skip_rescale=False,
    embedding="fourier",
    fourier_scale=0.2,
  ),
  "ddpmpp": _small(UNet, (4, 4, 1), width=12, channel_multipliers=(1, 2), num_res_blocks=1, num_heads=2),
  "ncsnpp": _small(
    UNet,
    (6, 4, 2),
    width=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    fir=True,
    progressive_input="residual",
    embedding="fourier",
    fourier_scale=0.2,
    centered=False,
  ),
  "unet_1d": _small(
    UNet,
    (12, 5),
    width=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    block="ddpm",
    fir=True,
    progressive="residual",
    progressive_input="input_skip",
    combine="cat",
  ),
  "unet_output_skip": _small(
    UNet,
    (6, 10, 1),
    width=8,
    channel_multipliers=(2, 1),
    num_res_blocks=1,
    fir=True,
    progressive="output_skip",
    progressive_input="input_skip",
  ),
  "dit": _small(DiT, (4, 6, 3), patch=2, width=16, depth=2, num_heads=2),
  "dit_1d": _small(
    DiT, (9, 2), patch=3, width=12, depth=1, num_heads=3, embedding="fourier", fourier_scale=0.2
  ),
  "token_mlp": _small(TokenMLP, (3, 2), num_values=4, embedding_size=4, width=16, depth=1),
  "sequence_transformer": _small(SequenceTransformer, (6,), num_values=4, width=16, depth=2, num_heads=2),
  "sequence_transformer_untied": _small(
    SequenceTransformer, (6,), num_values=4, width=16, depth=1, num_heads=2, tied=False
  ),
  "embedded_values": Example(
    lambda **changes: EmbeddedValues(
      DiT(
        **{
          **dict(patch=2, width=16, depth=1, num_heads=2, num_classes=10, vector_size=3, guidance_size=4),
          **changes,
        }
      ),
      num_values=4,
      features=3,
    ),
    (4, 2, 2),
    num_values=4,
  ),
  "auto_encoder": Example(
    lambda **changes: AutoEncoder(
      **{"shape": (4, 2, 1), "latent_shape": (3,), "width": 16, "depth": 1, **changes}
    ),
    (4, 2, 1),
    told=False,
  ),
}
