"""Small random networks of EDM and EDM2, the same in the script that records the original and in the tests.

Weights are drawn from their names, so that no file need hold them. Every one is away from zero.
"""

import math
import pathlib
import zlib

import numpy as np

RECORDED = pathlib.Path(__file__).parent / "recorded_edm.npz"
SIGMAS = (0.4, 1.5, 9.0)

SONG = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
DDPMPP = {"embedding_type": "positional", "encoder_type": "standard", "decoder_type": "standard"} | {
  "channel_mult_noise": 1, "resample_filter": [1, 1], "model_type": "SongUNet", **SONG
}  # fmt: skip
NCSNPP = {"embedding_type": "fourier", "encoder_type": "residual", "decoder_type": "standard"} | {
  "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1], "model_type": "SongUNet", **SONG
}  # fmt: skip
SKIP = DDPMPP | {"encoder_type": "skip", "decoder_type": "skip", "resample_filter": [1, 3, 3, 1]}
ADM = {"model_channels": 32, "channel_mult": [1, 4], "num_blocks": 1, "attn_resolutions": [4]} | {
  "model_type": "DhariwalUNet"
}
MP = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]} | {
  "label_dim": 3, "channels_per_head": 4, "logvar_channels": 8
}  # fmt: skip

# name -> (class of the preconditioner, side of the image, its other arguments)
CASES = {
  "ddpmpp-edm": ("EDMPrecond", 8, DDPMPP | {"label_dim": 3, "augment_dim": 9}),
  "ddpmpp-edm-uncond": ("EDMPrecond", 16, DDPMPP | {"channel_mult": [1, 2, 2], "num_blocks": 2}),
  "ddpmpp-vp": ("VPPrecond", 8, DDPMPP | {"label_dim": 3}),
  "ncsnpp-edm": ("EDMPrecond", 8, NCSNPP | {"augment_dim": 9}),
  "ncsnpp-ve": ("VEPrecond", 8, NCSNPP | {"label_dim": 3}),
  "skip-edm": ("EDMPrecond", 8, SKIP),
  "residual-mean-edm": ("EDMPrecond", 8, NCSNPP | {"resample_filter": [1, 1]}),
  "adm-edm": ("EDMPrecond", 4, ADM | {"label_dim": 3, "augment_dim": 9, "attn_resolutions": [2, 4]}),
  "adm-iddpm": ("iDDPMPrecond", 8, ADM | {"label_dim": 3}),
  "edm2": ("Precond", 8, MP),
  "edm2-uncond": (
    "Precond",
    8,
    MP | {"label_dim": 0, "channel_mult_noise": 2, "channel_mult_emb": 3, "clip_act": 1.5},
  ),
}
BLOCKS = ("ddpmpp-edm", "ncsnpp-edm", "skip-edm", "adm-edm", "edm2")  # cases of which each block is recorded
SAMPLED = ("ddpmpp-edm", "adm-iddpm")  # cases with which EDM's sampler is run
STEPS = 4
CHANNELS = 3


def notes(name: str) -> dict:
  """What a file would say of the network of a case."""
  kind, side, given = CASES[name]
  return {"class_name": kind, "init_args": [side, CHANNELS], "init_kwargs": given}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The array of a name: unit gain for weights, about one for norms, sixteen for frequencies."""
  draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
  if name.endswith("freqs"):
    draw = (2 * math.pi if "_fourier" in name else 16.0) * draw
  elif name.endswith(("phases", "gain")):
    draw = 2 * draw  # not small, so that what they act on is seen
  elif ".norm" in name or "_norm" in name:
    draw = (1.0 if name.endswith("weight") else 0.0) + 0.3 * draw
  elif name.endswith("bias"):
    draw = 0.3 * draw
  else:
    draw = draw / math.sqrt(math.prod(shape[1:]))
  small = any(f".{part}." in name for part in ("conv0", "conv1", "proj")) or ".skip.bias" in name
  if small or (".enc." in name and "_conv." in name) or name.endswith("_aux_residual.bias"):
    draw = 0.01 * draw  # what is normalised next is small, so that the epsilon of every norm is seen
  return np.asarray(draw, np.float32)


def inputs(name: str) -> dict[str, np.ndarray]:
  """Images [B, H, W, 3] of unit variance, noise levels, classes (the last one none) and augmentations."""
  _, side, given = CASES[name]
  draw = np.random.RandomState(zlib.crc32(name.encode()) % 2**31)
  batch = len(SIGMAS)
  found = {
    "x": draw.standard_normal((batch, side, side, CHANNELS)).astype(np.float32),
    "sigma": np.asarray(SIGMAS, np.float32),
  }
  if given.get("label_dim"):
    found["label"] = np.asarray([2, 0, -1], np.int32)
  if given.get("augment_dim"):
    found["vector"] = draw.standard_normal((batch, given["augment_dim"])).astype(np.float32)
  return found
