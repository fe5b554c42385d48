"""What the recorded pairs of Stable Diffusion share: small configs, a small vocabulary, awkward prompts."""

import json
import pathlib

import numpy as np
from diffusers_networks import draw, numbers, thinned  # noqa: F401  the same rule for weights

FILE = pathlib.Path(__file__).with_name("recorded_stable_diffusion.npz")

ALPHABET = [*range(33, 127), *range(161, 173), *range(174, 256)]
MERGES = [
  *("c a", "ca t</w>", "s </w>", "p h", "o t", "ph ot", "phot o</w>", "r e", "re d</w>", "o f</w>", "! !"),
  *("!! !</w>", "! !</w>", "t h", "th e</w>", "c af", "a f", "Ã ©</w>", "1 2", "a n", "an d</w>"),
]
"""Pairs that are joined, as merges.txt has them; not all can be reached."""


def signs() -> list[str]:
  """A sign for each byte, in the order of CLIP's vocabulary: printable ones for themselves."""
  others = [byte for byte in range(256) if byte not in ALPHABET]
  return [chr(byte) for byte in ALPHABET] + [chr(256 + i) for i in range(len(others))]


def vocabulary() -> tuple[dict[str, int], list[str]]:
  """({token: number}, merges): signs, signs that end a word, merged ones, and the two special tokens."""
  reachable = set(signs()) | {sign + "</w>" for sign in signs()}
  merges, tokens = [], [*signs(), *(sign + "</w>" for sign in signs())]
  for pair in MERGES:
    left, right = pair.split(" ")
    if left in reachable and right in reachable:
      merges.append(pair)
      tokens.append(left + right)
      reachable.add(left + right)
  tokens += ["<|startoftext|>", "<|endoftext|>"]
  return {token: i for i, token in enumerate(tokens)}, merges


def entry(content: str, normalized: bool = True) -> dict:
  """A special token as tokenizer configs write it."""
  flags = dict(lstrip=False, normalized=normalized, rstrip=False, single_word=False)
  return dict(content=content, **flags)


BEGIN, END = "<|startoftext|>", "<|endoftext|>"
KINDS = {
  "sd1": dict(bos_token=entry(BEGIN), eos_token=entry(END), pad_token=END, unk_token=entry(END)),
  "sd2": dict(bos_token=entry(BEGIN), eos_token=entry(END), pad_token="!", unk_token=entry(END)),
}
"""special_tokens_map.json of Stable Diffusion 1 and 2."""
WAYS = ("sd1", "sd2", "sd2_listed", "sd1_whole", "bare")
"""Folders: as published; with tokens listed in the config, as saved today; one tokenizer.json; no config."""


def write_tokenizer(folder: pathlib.Path, way: str) -> pathlib.Path:
  """The folder of a tokenizer, in one of `WAYS`."""
  folder.mkdir(parents=True)
  write = lambda name, contents: (folder / name).write_text(json.dumps(contents), encoding="utf-8")
  names, merges = vocabulary()
  special = KINDS[way.split("_")[0]] if way != "bare" else {}
  if way.endswith("whole"):
    model = dict(type="BPE", vocab=names, merges=[pair.split(" ") for pair in merges], unk_token=END)
    listed = [entry(one, False) | {"id": names[one], "special": True} for one in (BEGIN, END)]
    post = dict(type="RobertaProcessing", sep=[END, names[END]], cls=[BEGIN, names[BEGIN]])
    post |= dict(trim_offsets=False, add_prefix_space=False)
    rest = dict(truncation=None, padding=None, normalizer=None, pre_tokenizer=None, post_processor=post)
    write("tokenizer.json", dict(version="1.0", added_tokens=listed, **rest, decoder=None, model=model))
  else:
    write("vocab.json", names)
    text = "\n".join(["#version: 0.2", *merges, ""])
    (folder / "merges.txt").write_text(text, encoding="utf-8")
  if way == "bare":
    return folder
  plain = {name: one if isinstance(one, str) else one["content"] for name, one in special.items()}
  config = dict(add_prefix_space=False, do_lower_case=True, errors="replace", model_max_length=77)
  config |= dict(tokenizer_class="CLIPTokenizer")
  if way.endswith("listed"):
    listed = {names["!"]: entry("!", False), names[BEGIN]: entry(BEGIN), names[END]: entry(END)}
    config["added_tokens_decoder"] = {str(i): one | {"special": True} for i, one in listed.items()}
    write("tokenizer_config.json", config | plain)
  else:
    typed = lambda one: one if isinstance(one, str) else {"__type": "AddedToken", **one}
    write("tokenizer_config.json", config | {name: typed(one) for name, one in special.items()})
    write("special_tokens_map.json", special)
  return folder


PROMPTS = [
  "",
  " ",
  "a photo of the red cat",
  "A PHOTO of the RED cAt",
  "  white\t\tspace \n and\r\nlines  ",
  "it's the cat's, they've said we'll 'd",
  "wow!",
  "wow!! and !!! and !!!!",
  "!cat !",
  "café",
  "cafe\u0301 CAFÉ",
  "naïve Ünïcödé ß ẞ İ ſ",
  "12 cats, 1234 and 3.14 ½ ² ٣",
  "日本の猫 кот γάτα قطة",
  "🐈‍⬛ a cat 🎉!",
  "a,b;c:d (e) [f] {g} <h> \"i\" '' `` -- — … #5 50% $1 a_b",
  "<|endoftext|>",
  "a<|endoftext|>b <|startoftext|> c",
  "A<|ENDOFTEXT|>B",
  "x&amp;y &lt;3",
  "\x00\u200b\ufeff\u00a0cat\u3000cat",
  "e\u0301\u0327 \ufb01 \u2460 \uff21",
  "a" * 200,
  "red cat " * 60,
  ("red cat " * 37)[:-1],
  ("red cat " * 38)[:-1] + "!",
]
"""Case, white space, endings, signs, accents composed and not, digits, scripts, special tokens, too long."""

SD1 = dict(
  _class_name="UNet2DConditionModel",
  _diffusers_version="0.6.0",
  act_fn="silu",
  attention_head_dim=2,
  block_out_channels=[8, 16],
  center_input_sample=False,
  cross_attention_dim=8,
  down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
  downsample_padding=1,
  flip_sin_to_cos=True,
  freq_shift=0,
  in_channels=4,
  layers_per_block=2,
  mid_block_scale_factor=1,
  norm_eps=1e-5,
  norm_num_groups=4,
  out_channels=4,
  sample_size=8,
  up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
)
"""Stable Diffusion 1, narrow."""

SD2 = SD1 | dict(
  attention_head_dim=[1, 4],
  cross_attention_dim=12,
  dual_cross_attention=False,
  layers_per_block=1,
  num_class_embeds=None,
  only_cross_attention=False,
  upcast_attention=True,
  use_linear_projection=True,
)
"""Stable Diffusion 2 and 2.1, narrow."""

UNETS = {
  "sd1": SD1,
  "sd2": SD2,
  "options": SD1
  | dict(
    center_input_sample=True,
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
    layers_per_block=1,
    mid_block_scale_factor=2**0.5,
    mid_block_type="UNetMidBlock2DCrossAttn",
    norm_eps=1e-6,
    time_embedding_dim=24,
    transformer_layers_per_block=2,
  ),
  "no_middle": SD2
  | dict(
    mid_block_type=None,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
  ),
}

CLIP1 = dict(
  _name_or_path="openai/clip-vit-large-patch14",
  architectures=["CLIPTextModel"],
  attention_dropout=0.0,
  bos_token_id=0,
  dropout=0.0,
  eos_token_id=2,
  hidden_act="quick_gelu",
  hidden_size=8,
  initializer_factor=1.0,
  initializer_range=0.02,
  intermediate_size=32,
  layer_norm_eps=1e-5,
  max_position_embeddings=77,
  model_type="clip_text_model",
  num_attention_heads=2,
  num_hidden_layers=2,
  pad_token_id=1,
  projection_dim=8,
  torch_dtype="float32",
  transformers_version="4.22.0.dev0",
  vocab_size=len(vocabulary()[0]),
)
"""The text encoder of Stable Diffusion 1, narrow."""

CLIPS = {
  "clip1": CLIP1,
  "clip2": CLIP1
  | dict(hidden_act="gelu", hidden_size=12, intermediate_size=24, num_attention_heads=3, num_hidden_layers=3),
}

PNDM = dict(
  _class_name="PNDMScheduler",
  beta_end=0.012,
  beta_schedule="scaled_linear",
  beta_start=0.00085,
  num_train_timesteps=1000,
  set_alpha_to_one=False,
  skip_prk_steps=True,
  steps_offset=1,
)
DDIM = PNDM | dict(_class_name="DDIMScheduler", clip_sample=False, prediction_type="v_prediction")
PIPELINES = {"sd1": ("clip1", PNDM), "sd2": ("clip2", DDIM)}
"""{U-Net and tokenizer: (text encoder, scheduler)}, as Stable Diffusion 1 and 2 have them."""

STEPS, SCALE = 4, 7.5
"""Of the recorded runs of the pipelines."""

WITH_BLOCKS = ("sd1", "sd2", "clip1", "clip2")
"""Cases whose every block is recorded."""


def unet_inputs(name: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
  """(x NHWC, t, cond) of a case."""
  width = UNETS[name]["cross_attention_dim"]
  text = numbers(6, 2, 7, width)
  return numbers(3, 2, 8, 12, 4), np.array([7.0, 951.0], np.float32), {"text": text}


def clip_inputs() -> np.ndarray:
  """Tokens [B, N]."""
  return np.random.default_rng(9).integers(0, len(vocabulary()[0]), (2, 77)).astype(np.int32)


def latents(name: str) -> np.ndarray:
  """The start of a recorded run, NHWC."""
  return numbers(11 + len(name), 2, 8, 8, 4)
