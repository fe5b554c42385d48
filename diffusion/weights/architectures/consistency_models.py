"""OpenAI's consistency models (arXiv:2303.01469) and the EDM teachers beside them: the U-Net of `adm.ADM`.

    options = consistency_models.options_of(arrays, distillation=True)
    denoiser(options, arrays)

A file does not say which of the two it is: `distillation` is False for the files named edm_*, True for those
named cd_* and ct_*. The network is told 250 log(sigma), 1,000 times what EDM tells its own. A teacher is
EDM's preconditioned network. A consistency model answers x0 = f(x, sigma),

    f = c_skip x + c_out F,  c_skip = s_d^2 / ((sigma - s_min)^2 + s_d^2),
    c_out = (sigma - s_min) s_d / sqrt(sigma^2 + s_d^2),  s_d = 0.5, s_min = 0.002,

which is x itself at sigma = s_min. Its authors sample in one step from sigma = 80, and clip to [-1, 1].

Names, shapes and numbers: openai/consistency_models e32b69e, cm/unet.py and cm/karras_diffusion.py. The
published files were trained in float16 with an attention that splits rows in three blocks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion import denoisers, processes, solvers
from diffusion.config.errors import UserError
from diffusion.processes.base import expand
from diffusion.weights.architectures import guided_diffusion, guided_diffusion_options

TOLD = 250.0
"""The network is told this times log(sigma)."""


@dataclasses.dataclass(frozen=True)
class KarrasUNetModel(guided_diffusion.UNetModel):
  """The options of a U-Net and of what is around it, named as the authors name them.

  Attributes: those of `guided_diffusion.UNetModel`, of which the ladder's say nothing here, and
    distillation: whether it is a consistency model, distilled or trained alone, or a teacher.
    sigma_min, sigma_max, sigma_data: of the preconditioning.
  """

  use_new_attention_order: bool = True
  distillation: bool = True
  sigma_min: float = 0.002
  sigma_max: float = 80.0
  sigma_data: float = 0.5


class ConsistencyFunction(nn.Module):
  """f(x, sigma) of a network F(x, told): x [B, H, W, C], sigma [B] -> [B, H, W, C].

  Attributes:
    network: F.
    data_std, sigma_min: as at the head of this file.
  """

  network: nn.Module
  data_std: float = 0.5
  sigma_min: float = 0.002

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """f at x and sigma = t, in at least float32; errors as of the network."""
    above, total = t - self.sigma_min, jnp.square(t) + self.data_std**2
    output = self.network(expand(total**-0.5, x) * x, TOLD * jnp.log(t), cond, train)
    c_skip = self.data_std**2 / (jnp.square(above) + self.data_std**2)
    c_out = (above * self.data_std * total**-0.5).astype(output.dtype)
    return expand(c_skip, x).astype(output.dtype) * x.astype(output.dtype) + expand(c_out, x) * output


def options_of(
  arrays: Mapping[str, Any], told: Mapping[str, Any] | None = None, **more: Any
) -> KarrasUNetModel:
  """The options of a file: see `guided_diffusion_options.unet`.

  Args:
    arrays: by dotted name; shapes alone are looked at.
    told, **more: options that no array tells, `distillation` always.

  Raises:
    UserError: as `guided_diffusion_options.unet`, without `distillation`, and for the files of
      guided-diffusion, which have the same names.
  """
  given = dict(told or {}) | more
  if "distillation" not in given:
    raise UserError(
      "a file of consistency models does not say whether it is a teacher (edm_*) or a consistency model "
      "(cd_*, ct_*): give distillation=False or True"
    )
  given.setdefault("num_head_channels", guided_diffusion_options.DEFAULTS["num_head_channels"])
  given.setdefault("use_new_attention_order", True)
  given.setdefault("noise_schedule", "linear")  # of a ladder, which there is none of here
  found = guided_diffusion_options.unet(arrays, KarrasUNetModel, given)
  if not guided_diffusion_options.in_two_dimensions(arrays):
    raise UserError(
      "these arrays are those of guided-diffusion, whose attention has matrices of three axes, and not of a "
      "consistency model: load them as a UNetModel"
    )
  if found.learned_variance:
    raise UserError(
      f"these arrays give {found.out_channels} channels, of which half would be a learned variance, and no "
      "consistency model and no teacher of one has that: give one of those files"
    )
  return found


def build(options: KarrasUNetModel, **changes: Any) -> nn.Module:
  """The network of a teacher, or the function of a consistency model; changes are attributes of `adm.ADM`."""
  network = guided_diffusion.build(options, **{"time_rounding": "none"} | changes)
  if not options.distillation:
    return network
  return ConsistencyFunction(network, options.sigma_data, options.sigma_min)


def convert(arrays: Mapping[str, Any], options: KarrasUNetModel) -> dict[str, Any]:
  """The parameters of `build(options)`; errors as of `guided_diffusion.convert`."""
  params = guided_diffusion.convert(arrays, options)
  return {"network": params} if options.distillation else params


def process(options: KarrasUNetModel) -> processes.GaussianProcess:
  """EDM's between the two ends."""
  return processes.edm(options.sigma_min, options.sigma_max)


def meaning(options: KarrasUNetModel) -> denoisers.Parameterization:
  """What the module of `build` gives, and what it is told."""
  if options.distillation:
    return denoisers.x0()
  return denoisers.edm(options.sigma_data, time_scale=TOLD)


def sampler(options: KarrasUNetModel, steps: int | None = None) -> Any:
  """One step of a consistency model; Heun's method in 40 steps for a teacher.

  >>> options = KarrasUNetModel(64, 192, (1, 2, 3, 4), 3, (2, 4, 8), num_head_channels=64)
  >>> print(sampler(options))
  ddim: order 1, 1 evaluation, asks for x0, 1 slot, no noise (process edm)
  row 0  t=80   S0 <- E
  output t=0    S0
  """
  if options.distillation:
    return solvers.ddim(process(options), [options.sigma_max, 0.0])
  return solvers.build("heun", process(options), steps or 40)


def denoiser(
  options: KarrasUNetModel, arrays: Mapping[str, Any], **changes: Any
) -> denoisers.NetworkDenoiser:
  """The library's denoiser of a file.

  Args:
    options: see `options_of`.
    arrays: of the file, by dotted name.
    **changes: attributes of `adm.ADM`, such as its dtype; its parameters are float32.
  Raises:
    UserError: as `guided_diffusion.build` and `guided_diffusion.convert`.
  """
  params = jax.tree.map(jnp.asarray, convert(arrays, options))
  return denoisers.from_flax(build(options, **changes), process(options), meaning(options), params)
