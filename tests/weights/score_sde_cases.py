"""Small random networks of Score SDE, the same in the script that records the originals and in the tests.

Weights are drawn from their names, of PyTorch or of Flax, so that no file need hold them. Every one is away
from zero.
"""

import math
import pathlib
import zlib
from typing import NamedTuple

import numpy as np

HERE = pathlib.Path(__file__).parent
RECORDED = {kind: HERE / f"recorded_score_sde_{kind}.npz" for kind in ("torch", "flax")}
TIMES = (0.125, 0.5, 0.875)  # a thousand times them less one is exact in float32

SMALL = dict(nf=16, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(2,), image_size=4, num_channels=3)
DDPMPP = SMALL | dict(embedding_type="positional", fir=False, progressive="none", progressive_input="none")
NCSNPP = SMALL | dict(embedding_type="fourier", fir=True, progressive="none", progressive_input="residual")
SKIP = NCSNPP | dict(progressive="output_skip", progressive_input="input_skip")

# name -> (options of the network, of the process)
CASES = {
  "ddpmpp-vp": (DDPMPP, dict(sde="vpsde")),
  "ddpmpp-subvp": (DDPMPP | dict(num_res_blocks=2), dict(sde="subvpsde")),
  "ncsnpp-vp": (NCSNPP | dict(embedding_type="positional"), dict(sde="vpsde")),
  "ncsnpp-ve": (NCSNPP, dict(sde="vesde", sigma_max=50.0)),
  "skip-ve": (SKIP, dict(sde="vesde", sigma_max=348.0)),
  "ddpmpp-ladder": (DDPMPP, dict(sde="vpsde", continuous=False)),
  "ncsnpp-ladder": (NCSNPP | dict(embedding_type="positional"), dict(sde="vesde", continuous=False)),
}  # fmt: skip
BLOCKS = ("ddpmpp-vp", "ncsnpp-ve", "skip-ve")
FLAX = ("ddpmpp-vp", "ncsnpp-ve", "skip-ve")  # cases of which there is a checkpoint of Flax

# The model 'ddpm', whose norms of 32 groups ask for 128 channels.
DDPM = SMALL | dict(nf=128, ch_mult=(1, 1), resamp_with_conv=True, conditional=True)
OF_DDPM = {
  "ddpm-vp": (DDPM, dict(sde="vpsde")),
  "ddpm-ladder": (DDPM, dict(sde="vpsde", continuous=False)),
  "ddpm-ve": (DDPM | dict(ch_mult=(1, 2)), dict(sde="vesde", continuous=False)),
  "ddpm-pooled": (DDPM | dict(resamp_with_conv=False), dict(sde="vpsde", continuous=False)),
  "ddpm-untold": (DDPM | dict(conditional=False), dict(sde="vpsde", continuous=False)),
}
NOT_IN_TORCH = ("ddpm-untold",)  # whose code there does not run
EVERY = CASES | OF_DDPM
RECORDED_DDPM = {kind: HERE / f"recorded_score_sde_ddpm_{kind}.npz" for kind in ("torch", "flax")}


DEEP = dict(nf=128, ch_mult=(1, 2, 2, 2), num_res_blocks=4, attn_resolutions=(16,)) | dict(
  image_size=32, num_channels=3
)  # fmt: skip
FACES = dict(ch_mult=(1, 1, 2, 2, 2, 2, 2), num_res_blocks=2, image_size=256)
LARGE = dict(nf=16, ch_mult=(1, 2, 4, 8, 16, 32, 32, 32), num_res_blocks=1, image_size=1024)
# name of the authors' config -> options of its network, of its process
PUBLISHED = {
  "vp/cifar10_ddpmpp_continuous": (DDPMPP | DEEP, dict(sde="vpsde")),
  "subvp/cifar10_ddpmpp_deep_continuous": (DDPMPP | DEEP | dict(num_res_blocks=8), dict(sde="subvpsde")),
  "vp/cifar10_ncsnpp_continuous": (NCSNPP | DEEP | dict(embedding_type="positional"), dict(sde="vpsde")),
  "ve/cifar10_ncsnpp_continuous": (NCSNPP | DEEP, dict(sde="vesde", sigma_max=50.0)),
  "ve/cifar10_ncsnpp_deep_continuous": (
    NCSNPP | DEEP | dict(num_res_blocks=8), dict(sde="vesde", sigma_max=50.0),
  ),
  "ve/church_ncsnpp_continuous": (SKIP | DEEP | FACES, dict(sde="vesde", sigma_max=380.0)),
  "ve/celebahq_256_ncsnpp_continuous": (SKIP | DEEP | FACES, dict(sde="vesde", sigma_max=348.0)),
  "ve/ffhq_ncsnpp_continuous": (SKIP | DEEP | LARGE, dict(sde="vesde", sigma_max=1348.0)),
}  # fmt: skip


PUBLISHED_DDPM = {
  "vp/ddpm/cifar10": (DDPM | DEEP | dict(num_res_blocks=2), dict(sde="vpsde", continuous=False)),
  "vp/ddpm/celebahq": (
    DDPM | DEEP | dict(num_res_blocks=2, ch_mult=(1, 1, 2, 2, 4, 4), image_size=256),
    dict(sde="vpsde", continuous=False),
  ),
  "ve/cifar10_ddpm": (DDPM | DEEP | dict(num_res_blocks=2), dict(sde="vesde", continuous=False)),
}  # fmt: skip


class Model(NamedTuple):
  """What is recorded of one of the authors' models: of `blocks`, every so many channels."""

  cases: dict
  blocks: tuple
  flax: tuple
  published: dict
  files: dict
  channels: int


MODELS = {
  "ncsnpp": Model(CASES, BLOCKS, FLAX, PUBLISHED, RECORDED, 1),
  "ddpm": Model(OF_DDPM, ("ddpm-vp",), ("ddpm-vp", "ddpm-untold"), PUBLISHED_DDPM, RECORDED_DDPM, 4),
}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The array of a name: unit gain for weights, about one for norms, sixteen for frequencies."""
  draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
  in_torch, leaf = name.startswith("all_modules"), name.rpartition(".")[2]
  if leaf == "W" and len(shape) == 1:
    draw = 16.0 * draw
  elif leaf in ("bias", "b"):
    draw = 0.3 * draw
  elif len(shape) == 1:
    draw = 1.0 + 0.3 * draw
  else:  # inputs come first but in PyTorch's own layers
    draw = draw / math.sqrt(math.prod(shape[1:] if in_torch and leaf == "weight" else shape[:-1]))
  if any(f".{part}." in name for part in ("Conv_0", "Conv_1", "Conv_2", "Conv2d_0", "NIN_3")):
    draw = 0.05 * draw  # what is normalised next is small, so that the epsilon of every norm is seen
  return np.asarray(draw, np.float32)


def inputs(name: str) -> dict[str, np.ndarray]:
  """Images [B, H, W, 3] of unit variance and times in (0, 1); those of a ladder on its rungs."""
  side = EVERY[name][0]["image_size"]
  draw = np.random.RandomState(zlib.crc32(name.encode()) % 2**31)
  x = draw.standard_normal((len(TIMES), side, side, 3)).astype(np.float32)
  return {"x": x, "t": np.float32(TIMES)}
