"""guided-diffusion's super-resolution (arXiv:2105.05233): the U-Net of `guided_diffusion` and a small image.

    options = guided_diffusion_options.unet(arrays, SuperResModel)
    denoiser(options, arrays)

The condition 'low_res' [B, h, w, C] in [-1, 1] is made as large as x, bilinearly and by the centres of
pixels, and stands beside it in the channels. Process, times, learned variance and sampler are those of
`guided_diffusion`.

Names and shapes: openai/guided-diffusion 22e0df8, guided_diffusion/unet.py and scripts/super_res_sample.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion import denoisers
from diffusion.weights.architectures import guided_diffusion
from diffusion.weights.architectures.adm import ADM

LOW_RES = "low_res"
"""The condition, by the authors' name for it."""


@dataclasses.dataclass(frozen=True)
class SuperResModel(guided_diffusion.UNetModel):
  """The options of a SuperResModel: those of `guided_diffusion.UNetModel`, in_channels those of x alone.

  >>> SuperResModel(256, 192, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), num_heads=4).entering
  6
  """

  images: ClassVar[int] = 2


class SuperRes(nn.Module):
  """A network of images and small images: x [B, H, W, C], t [B] and cond with 'low_res' [B, h, w, C].

  Raises ValueError without that condition, and for one of another number of images or channels.

  >>> sizes = dict(width=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_levels=(False, True))
  >>> net = SuperRes(ADM(**sizes, out_channels=3))
  >>> x, small = jnp.zeros((2, 4, 4, 3)), {"low_res": jnp.zeros((2, 2, 2, 3))}
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x, jnp.zeros(2), small)[0].shape
  (2, 4, 4, 3)
  """

  network: ADM

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """The output [B, H, W, C], or 2 C with a learned variance, in at least float32."""
    rest = dict(cond or {})
    low_res = rest.pop(LOW_RES, None)
    if low_res is None or low_res.ndim != 4 or (low_res.shape[0], low_res.shape[-1]) != (len(x), x.shape[-1]):
      got = f"the shape {low_res.shape}" if low_res is not None else f"the conditions {sorted(rest)}"
      raise ValueError(
        f"a network of super-resolution needs the condition 'low_res', [{len(x)}, h, w, {x.shape[-1]}] in "
        f"[-1, 1], got {got}"
      )
    large = jax.image.resize(low_res.astype(x.dtype), x.shape, "linear", antialias=False)
    return self.network(jnp.concatenate([x, large], axis=-1), t, rest or None, train)


def build(options: SuperResModel, **changes: Any) -> SuperRes:
  """The network; changes are attributes of `adm.ADM`. Raises UserError as `guided_diffusion.build`."""
  return SuperRes(guided_diffusion.build(options, **changes))


def convert(arrays: Mapping[str, Any], options: SuperResModel) -> dict[str, Any]:
  """The parameters of `build(options)`; arguments and errors as of `guided_diffusion.convert`."""
  return {"network": guided_diffusion.convert(arrays, options)}


process, meaning, sampler = guided_diffusion.process, guided_diffusion.meaning, guided_diffusion.sampler
"""As of `guided_diffusion`."""


def denoiser(options: SuperResModel, arrays: Mapping[str, Any], **changes: Any) -> denoisers.NetworkDenoiser:
  """The library's denoiser of a file; arguments and errors as of `guided_diffusion.denoiser`."""
  params = jax.tree.map(jnp.asarray, convert(arrays, options))
  return denoisers.from_flax(build(options, **changes), process(options), meaning(options), params)
