"""What the recorded pairs of published networks share: the seeded rule for weights, and the cases.

Weights need no storing: each array is drawn from its name. No parameter stays at zero or one, so that no last
layer that starts at zero hides an error before it.
"""

import pathlib
import zlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("recorded_diffusers_networks.npz")


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The array of this dotted name and shape: float32."""
  rng = np.random.default_rng([zlib.crc32(name.encode()), 14])
  z = rng.standard_normal(shape)
  if name.endswith("bias"):
    z = 0.2 * z
  elif name == "time_proj.weight":
    z = 16.0 * z
  elif "embedding_table" in name or name == "class_embedding.weight":
    z = 1.0 * z
  elif len(shape) == 1:
    z = 1.0 + 0.2 * z
  else:
    z = z / np.sqrt(np.prod(shape[1:]))
  return z.astype(np.float32)


def numbers(seed: int, *shape: int) -> np.ndarray:
  """A standard normal input: float32."""
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def thinned(h: np.ndarray) -> np.ndarray:
  """At most 256 of a block's numbers, in equal steps through all of its axes: what is kept of it."""
  return np.asarray(h).ravel()[:: -(-h.size // 256) | 1]


DDPM = dict(
  _class_name="UNet2DModel",
  sample_size=8,
  block_out_channels=[8, 16],
  down_block_types=["AttnDownBlock2D", "DownBlock2D"],
  up_block_types=["UpBlock2D", "AttnUpBlock2D"],
  layers_per_block=2,
  norm_num_groups=4,
  norm_eps=1e-6,
  downsample_padding=0,
  flip_sin_to_cos=False,
  freq_shift=1,
  attention_head_dim=None,
)
"""google/ddpm-cifar10-32 and google/ddpm-*-256, narrow."""

DEFAULT = dict(
  sample_size=8,
  block_out_channels=[8, 16],
  down_block_types=["DownBlock2D", "AttnDownBlock2D"],
  up_block_types=["AttnUpBlock2D", "UpBlock2D"],
  layers_per_block=1,
  norm_num_groups=4,
  attention_head_dim=4,
)
"""The defaults of the class, narrow: padding 1, cosines first, epsilon 1e-5, heads of their own."""

NCSNPP = dict(
  sample_size=8,
  block_out_channels=[32, 64, 64],
  down_block_types=["SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"],
  up_block_types=["SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"],
  layers_per_block=1,
  time_embedding_type="fourier",
  norm_eps=1e-6,
  norm_num_groups=None,
  mid_block_scale_factor=2**0.5,
  attention_head_dim=None,
)
"""google/ncsnpp-*, narrow."""

UNETS = {
  "ddpm": DDPM,
  "default": DEFAULT,
  "ncsnpp": NCSNPP,
  "scale_shift": DEFAULT
  | dict(
    resnet_time_scale_shift="scale_shift",
    center_input_sample=True,
    num_class_embeds=5,
    downsample_type="resnet",
    upsample_type="resnet",
    out_channels=6,
  ),
  "options": DEFAULT
  | dict(
    down_block_types=["ResnetDownsampleBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "ResnetUpsampleBlock2D"],
    class_embed_type="timestep",
    attn_norm_num_groups=2,
    time_embedding_dim=24,
    freq_shift=0.5,
  ),
  "identity": DEFAULT
  | dict(
    class_embed_type="identity",
    mid_block_type=None,
    in_channels=1,
    out_channels=1,
  ),
}

KL = dict(
  _class_name="AutoencoderKL",
  block_out_channels=[8, 16],
  down_block_types=["DownEncoderBlock2D"] * 2,
  up_block_types=["UpDecoderBlock2D"] * 2,
  layers_per_block=2,
  norm_num_groups=4,
  latent_channels=4,
)
AUTOENCODERS = {
  "kl": KL,
  "kl_shifted": KL
  | dict(
    use_quant_conv=False,
    use_post_quant_conv=False,
    scaling_factor=1.5305,
    shift_factor=0.0609,
    latent_channels=3,
    layers_per_block=1,
    block_out_channels=[8, 8],
  ),
  "kl_no_attention": KL | dict(mid_block_add_attention=False, layers_per_block=1),
}
"""Stable Diffusion 1, 2, XL and DiT; Stable Diffusion 3 (other factors); without attention."""

DIT = dict(
  _class_name="DiTTransformer2DModel",
  num_attention_heads=2,
  attention_head_dim=8,
  num_layers=2,
  sample_size=8,
  in_channels=4,
  out_channels=8,
  num_embeds_ada_norm=6,
)
DIT_DIFFUSERS = {"dit_diffusers": DIT, "dit_wide": DIT | dict(out_channels=4, patch_size=4, norm_eps=1e-6)}
DIT_ORIGINAL = {
  "dit": dict(input_size=8, patch_size=2, hidden_size=16, depth=2, num_heads=2, num_classes=6),
  "sit": dict(input_size=8, patch_size=4, in_channels=2, hidden_size=16, depth=2, num_heads=4, num_classes=3),
  "sit_512": dict(input_size=4, hidden_size=16, depth=1, num_heads=2, num_classes=3, learn_sigma=False),
}
"""The authors' own modules: DiT, SiT with the variance it trained with and drops, SiT without."""

WITH_BLOCKS = ("ddpm", "ncsnpp", "kl", "dit_diffusers", "dit")
"""Cases whose every block is recorded."""


def unet_inputs(name: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
  """(x NHWC, t, cond) of a case."""
  config = UNETS[name]
  channels = config.get("in_channels", 3)
  t = [0.3, 40.0] if name == "ncsnpp" else [7.0, 951.0]
  cond = {}
  if "num_class_embeds" in config or config.get("class_embed_type") == "timestep":
    cond = {"label": np.array([4, 1], np.int32)}
  elif config.get("class_embed_type") == "identity":
    cond = {"vector": numbers(5, 2, 32)}
  return numbers(3, 2, 8, 12, channels), np.array(t, np.float32), cond


def kl_inputs(name: str) -> tuple[np.ndarray, np.ndarray]:
  """(x, z) of a case: pictures for the encoder, latents for the decoder, NHWC."""
  return numbers(3, 1, 8, 12, 3), numbers(4, 1, 4, 6, AUTOENCODERS[name]["latent_channels"])


def dit_inputs(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(x NHWC, t, label) of a case; the last label is the class of none."""
  config = {**DIT_DIFFUSERS, **DIT_ORIGINAL}[name]
  side, channels = config.get("sample_size", config.get("input_size")), config.get("in_channels", 4)
  none = config.get("num_classes", config.get("num_embeds_ada_norm"))
  t = [0.2, 0.9, 0.5] if name.startswith("sit") else [10.0, 500.0, 999.0]
  return numbers(3, 3, side, side, channels), np.array(t, np.float32), np.array([1, 2, none], np.int32)
