"""Weights from files that others wrote: read as data, never executed, by NumPy alone; and published models.

  weights.load(path)                   a published model: its denoiser, shape, classes, its authors' sampler,
                                       and what embeds its prompts
  weights.sections(path)               the sections of a config of a run that goes on from it
  weights.autoencoder_kl(path)         the autoencoder of a model of latents, in a config: a codec
  weights.read(path)                   what a file or a folder holds: names, shapes, dtypes, notes
  contents.arrays["conv_in.weight"]    one array: its shape and dtype; `read()` gives the numbers
  contents.load(place=...)             all of them, one by one, straight to where they should lie
  weights.write_safetensors(path, ..)  arrays by name into one file that other libraries open

| format | files | layout |
|---|---|---|
| safetensors | one file, an index of shards, a folder of diffusers | `formats.safetensors` |
| torch zip | .pt, .pth, .bin, .ckpt since PyTorch 1.6 | `formats.torch_zip` |
| torch stream | the same before 1.6 | `formats.torch_stream` |
| pickle | EDM, EDM2 and others with `torch_utils.persistence`; dicts of NumPy arrays | `formats.pickled` |
| flax msgpack | `flax.serialization`, Score SDE's checkpoints | `formats.msgpack` |
| orbax | Orbax's folders, one checkpoint of a run of this library | `formats.orbax` |

>>> import numpy as np, os, tempfile
>>> path = os.path.join(tempfile.mkdtemp(), "two.safetensors")
>>> write_safetensors(path, {"bias": np.zeros(3, np.float32), "scale": np.float16(2)}, {"made_by": "me"})
>>> found = read(path)
>>> found.format, found.notes, {name: (one.shape, str(one.dtype)) for name, one in found.arrays.items()}
('safetensors', {'metadata': {'made_by': 'me'}}, {'bias': ((3,), 'float32'), 'scale': ((), 'float16')})
>>> found.load(["scale"])
{'scale': array(2., dtype=float16)}
"""

from typing import Any

from diffusion import lazy
from diffusion.weights.contents import Contents, StoredArray
from diffusion.weights.formats.opening import read
from diffusion.weights.formats.safetensors import write_safetensors

MODELS = {"Model": "loading", "load": "loading", "sections": "loading", "autoencoder_kl": "autoencoders"}
"""Name for users -> its module."""


def __getattr__(name: str) -> Any:
  # A run reads its own weights by the formats alone: the published networks load when a model is asked for.
  if name in MODELS:
    return getattr(lazy.load(__name__, MODELS[name]), name)
  return lazy.load(__name__, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *MODELS, *lazy.names(__name__)})
