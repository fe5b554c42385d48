"""guided-diffusion's classifier of noisy images, for `guidance.classifier` (arXiv:2105.05233, section 4).

    options = guided_diffusion_options.classifier(arrays, noisy_classifier.EncoderUNetModel)
    log_prob, params = noisy_classifier.log_prob(options, arrays)
    guided = guidance.classifier(log_prob, params, scale=1.0)(denoiser)

It is told the steps of the ladder that its U-Net is told, so the two have to be of one noise schedule: that
of 64 pixels has the cosine ladder, the others the linear one. A U-Net without classes is made with
passed_over=("label",), and the label then is the classifier's alone.

Names and shapes: openai/guided-diffusion 22e0df8, guided_diffusion/unet.py, with classifier_pool=attention,
which all published ones have.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion.config.errors import UserError
from diffusion.math.precision import at_least_single
from diffusion.networks.attention import attend
from diffusion.weights.architectures import guided_diffusion
from diffusion.weights.architectures.adm import INIT, Trunk, norm
from diffusion.weights.architectures.entries import Entries


@dataclasses.dataclass(frozen=True)
class EncoderUNetModel(guided_diffusion.UNetModel):
  """The options of a classifier, named as its authors name them.

  Attributes: those of `guided_diffusion.UNetModel`, of which those of the output say nothing here, and
    out_channels: the classes.
  """

  out_channels: int = 1000
  num_head_channels: int = 64

  @property
  def pooled_side(self) -> int:
    """The side of what is pooled."""
    return self.image_size >> (len(self.channel_mult) - 1)


class NoisyClassifier(Trunk):
  """Half of ADM's U-Net with a pooling by attention: (x [B, H, W, C], t [B]) -> logits [B, K].

  Attributes: those of `Trunk`, and
    outputs: number of classes.
    side: of what is pooled; images of another size are refused.

  >>> net = NoisyClassifier(width=8, channel_multipliers=(1, 2), num_res_blocks=1, head_channels=8,
  ...   attention_levels=(False, True), outputs=5, side=2)
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((2, 4, 4, 3)), jnp.zeros(2))[0].shape
  (2, 5)
  """

  outputs: int = 1000
  side: int = 8

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """The logits [B, K] in at least float32. Raises ValueError for images of another size."""
    wide: dict[str, Any] = self.precision | dict(dtype=at_least_single(self.dtype))
    _, h, _ = self.way_down(x, t, cond, train)
    batch, height, width, channels = h.shape
    if (height, width) != (self.side, self.side):
      scale = 2 ** (len(self.widths) - 1)
      raise ValueError(
        f"this classifier is of images of {self.side * scale} by {self.side * scale}, got {x.shape[1]} by "
        f"{x.shape[2]}: resize them"
      )
    h = nn.swish(norm(channels, self.groups, wide, "last_norm")(h)).reshape(batch, -1, channels)
    h = jnp.concatenate([h.mean(axis=1, keepdims=True), h], axis=1)
    shape = (self.side**2 + 1, channels)
    positions = self.param("positions", nn.initializers.normal(channels**-0.5), shape, wide["param_dtype"])
    h = h + positions.astype(h.dtype)[None]
    h = nn.Dense(3 * channels, kernel_init=INIT, name="pool_qkv", **wide)(h)
    heads = self.num_heads or channels // self.head_channels
    query, key, value = jnp.moveaxis(h.reshape(batch, -1, 3, heads, channels // heads), 2, 0)
    pooled = attend(query[:, :1], key, value).reshape(batch, channels)
    return nn.Dense(self.outputs, kernel_init=INIT, name="pool_out", **wide)(pooled)


@dataclasses.dataclass(frozen=True)
class LogProb:
  """log p(label | x_t) of a classifier: (params, x [B, H, W, C], t [B], cond) -> [B], in nats.

  Equal ones compare equal, so making it anew compiles nothing.

  Attributes:
    module: the classifier.
    time_scale, time_shift: it is told time_scale t + time_shift.
  """

  module: NoisyClassifier
  time_scale: float
  time_shift: float

  def __call__(self, params: Any, x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
    """Raises ValueError for a condition without 'label'."""
    if "label" not in (cond or {}):
      raise ValueError(f"a classifier needs the condition 'label' [B], got {sorted(cond or {})}")
    logits: Any = self.module.apply({"params": params}, x, self.time_scale * t + self.time_shift)
    found = nn.log_softmax(logits, axis=-1)
    return jnp.take_along_axis(found, jnp.asarray(cond["label"])[:, None], axis=1)[:, 0]


def build(options: EncoderUNetModel, **changes: Any) -> NoisyClassifier:
  """The module; changes are attributes of it. Raises UserError for sizes that cannot be."""
  if options.image_size % 2 ** (len(options.channel_mult) - 1):
    raise UserError(
      f"images of side {options.image_size} cannot be halved {len(options.channel_mult) - 1} times: give the "
      "image_size of the model"
    )
  given = guided_diffusion.trunk_options(options) | changes
  return NoisyClassifier(**given, outputs=options.out_channels, side=options.pooled_side)


def convert(arrays: Mapping[str, Any], options: EncoderUNetModel) -> dict[str, Any]:
  """The parameters of `build(options)` from arrays named 'input_blocks.0.0.weight', ..., 'out.2.c_proj.bias'.

  Raises UserError, in one sentence, for arrays that are missing, unknown or of another shape.
  """
  entries = Entries(
    guided_diffusion.flattened(arrays),
    f"an EncoderUNetModel of width {options.model_channels} and side {options.image_size}",
  )
  params = guided_diffusion.trunk(entries, options)
  channels = int(options.model_channels * options.channel_mult[-1])
  params["last_norm"] = entries.norm("out.0", channels)
  positions = entries.take("out.2.positional_embedding", channels, options.pooled_side**2 + 1)
  params["positions"] = np.ascontiguousarray(positions.T)
  params["pool_qkv"] = entries.dense("out.2.qkv_proj", channels, 3 * channels)
  params["pool_out"] = entries.dense("out.2.c_proj", channels, options.out_channels)
  entries.finish()
  return params


def log_prob(
  options: EncoderUNetModel, arrays: Mapping[str, Any], **changes: Any
) -> tuple[LogProb, dict[str, Any]]:
  """(the function for `guidance.classifier`, its parameters) of a file.

  Args:
    options: see `guided_diffusion_options.classifier`.
    arrays: of the file, by dotted name.
    **changes: attributes of `NoisyClassifier`, such as its dtype.
  Raises:
    UserError: as `build` and `convert`.
  """
  module = build(options, **changes)
  params = jax.tree.map(jnp.asarray, convert(arrays, options))
  return LogProb(module, **guided_diffusion.told(options)), params
