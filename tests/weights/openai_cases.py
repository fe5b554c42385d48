"""Small random networks of OpenAI, the same in the script that records the originals and in the tests.

Weights are drawn from their names, so that no file need hold them. Every one is away from zero.
"""

import math
import pathlib
import zlib

import numpy as np

RECORDED = pathlib.Path(__file__).parent / "recorded_openai.npz"
STEPS = (999, 500, 0)
SIGMAS = (0.002, 1.5, 60.0)
CLASSES = 5
STRIDED = 4  # DDIM's steps of the authors' sampler

SMALL = dict(image_size=4, model_channels=32, channel_mult=(1, 2), num_res_blocks=1) | dict(
  attention_resolutions=(2,), in_channels=3, out_channels=3, dropout=0.0
)  # fmt: skip
BY_CHANNELS = dict(num_heads=4, num_head_channels=16)
CLASSED = dict(num_classes=CLASSES, use_scale_shift_norm=True, resblock_updown=True)

# name -> (kind, arguments of the original's class, and of what is around it)
CASES = {
  "imagenet64": (  # new order, cosine ladder
    "unet", SMALL | BY_CHANNELS | CLASSED | dict(out_channels=6, use_new_attention_order=True),
    dict(noise_schedule="cosine"),
  ),
  "imagenet128": (  # heads by number
    "unet", SMALL | CLASSED | dict(out_channels=6, num_heads=4, num_res_blocks=2),
    dict(noise_schedule="linear"),
  ),
  "imagenet512": (  # half the width at first, heads by channels in the old order, no classes
    "unet",
    SMALL | BY_CHANNELS | CLASSED
    | dict(out_channels=6, num_classes=None, model_channels=64, channel_mult=(0.5, 1)),
    dict(noise_schedule="linear"),
  ),
  "convolutions": (  # of the other ways of resampling and embedding, and with attention above
    "unet",
    SMALL | dict(num_heads=2, use_scale_shift_norm=False, attention_resolutions=(1, 2)),
    dict(noise_schedule="linear"),
  ),
  "upsampler": (  # of images a quarter and half as large, in another side than it was made for
    "super", SMALL | CLASSED | dict(out_channels=6, num_heads=4), dict(noise_schedule="linear"),
  ),
  "classifier": (
    "classifier",
    SMALL | dict(num_head_channels=16, use_scale_shift_norm=True, resblock_updown=True, out_channels=CLASSES),
    dict(noise_schedule="linear"),
  ),
  "teacher": ("karras", SMALL | BY_CHANNELS | CLASSED, dict(distillation=False)),
  "consistency": (
    "karras", SMALL | BY_CHANNELS | CLASSED | dict(num_classes=None, use_scale_shift_norm=False),
    dict(distillation=True),
  ),
}  # fmt: skip
BLOCKS = ("imagenet64", "classifier", "consistency")
SAMPLED = ("imagenet64", "teacher", "consistency")
RANDOM = ("imagenet64", "imagenet512", "upsampler")  # by random steps of the learned variance too, clipped


HEADS = dict(num_head_channels=64, num_res_blocks=2, num_channels=256) | dict(
  attention_resolutions="32,16,8", resblock_updown=True, use_scale_shift_norm=True, learn_sigma=True
)  # fmt: skip
UPSAMPLER = dict(num_channels=192, num_res_blocks=2, attention_resolutions="32,16,8", class_cond=True) | dict(
  resblock_updown=True, use_scale_shift_norm=True, learn_sigma=True
)  # fmt: skip
# name -> the flags of the authors' README and launch.sh for it; the classifiers' are their own
PUBLISHED = {
  "64x64_diffusion": HEADS
  | dict(image_size=64, class_cond=True, num_channels=192, num_res_blocks=3, use_new_attention_order=True),
  "128x128_diffusion": HEADS | dict(image_size=128, class_cond=True, num_heads=4, num_head_channels=-1),
  "256x256_diffusion": HEADS | dict(image_size=256, class_cond=True),
  "256x256_diffusion_uncond": HEADS | dict(image_size=256, class_cond=False),
  "512x512_diffusion": HEADS | dict(image_size=512, class_cond=True),
  "edm_imagenet64_ema": HEADS
  | dict(image_size=64, class_cond=True, num_channels=192, num_res_blocks=3, learn_sigma=False),
  "cd_bedroom256_lpips": HEADS
  | dict(image_size=256, class_cond=False, learn_sigma=False, use_scale_shift_norm=False),
  "64_256_upsampler": UPSAMPLER | dict(large_size=256, small_size=64, num_heads=4),
  "128_512_upsampler": UPSAMPLER
  | dict(large_size=512, small_size=128, num_head_channels=64, attention_resolutions="32,16"),
  "64x64_classifier": dict(image_size=64, classifier_depth=4),
  "128x128_classifier": dict(image_size=128, classifier_depth=2),
  "256x256_classifier": dict(image_size=256, classifier_depth=2),
  "512x512_classifier": dict(image_size=512, classifier_depth=2),
}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The array of a name: unit gain for weights, about one for norms."""
  draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
  norms = (".in_layers.0.", ".out_layers.0.", ".norm.")
  if any(one in name for one in norms) or name.startswith("out.0."):
    draw = (1.0 if name.endswith("weight") else 0.0) + 0.3 * draw
  elif name.endswith("bias"):
    draw = 0.3 * draw
  elif name == "label_emb.weight":
    draw = 2.0 * draw
  else:
    draw = draw / math.sqrt(max(math.prod(shape[1:]), 1))
  if any(one in name for one in ("in_layers.2.", "out_layers.3.", "proj_out.", "input_blocks.0.0.")):
    draw = 0.05 * draw  # what is normalised next is small, so that the epsilon of every norm is seen
  return np.asarray(draw, np.float32)


def noises(name: str) -> np.ndarray:
  """What each of the random steps is given to draw with: [STRIDED, B, H, W, 3]."""
  x = inputs(name)["x"]
  draw = np.random.RandomState(zlib.crc32(f"{name} noise".encode()) % 2**31)
  return draw.standard_normal((STRIDED, *x.shape)).astype(np.float32)


def inputs(name: str) -> dict[str, np.ndarray]:
  """Images [B, H, W, 3] of unit variance, steps or noise levels, and classes."""
  kind, given, _ = CASES[name]
  draw = np.random.RandomState(zlib.crc32(name.encode()) % 2**31)
  side, batch = given["image_size"], len(STEPS)
  found = {"x": draw.standard_normal((batch, side, side, 3)).astype(np.float32)}
  found |= {"sigma": np.float32(SIGMAS)} if kind == "karras" else {"step": np.asarray(STEPS, np.int64)}
  if kind == "super":
    found["low_res"] = draw.standard_normal((batch, 2, 2, 3)).astype(np.float32)
  if given.get("num_classes") or kind == "classifier":
    found["label"] = np.asarray([2, 0, 4], np.int64)
  return found
