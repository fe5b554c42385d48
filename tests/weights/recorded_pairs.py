"""Files that the libraries of each format wrote (make_recorded.py), and what these read from them."""

import json
import pathlib

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by name from here on
import numpy as np

FOLDER = pathlib.Path(__file__).parent / "recorded"

FORMATS = {
  "zip.pt": "torch zip",
  "module.pt": "torch zip",
  "stream.pt": "torch stream",
  "one.safetensors": "safetensors",
  "sharded": "safetensors",
  "flax.msgpack": "flax msgpack",
  "numpy2.pkl": "pickle",
  "numpy4.pkl": "pickle",
  "numpy5.pkl": "pickle",
  "edm.pkl": "pickle",
  "edm2.pkl": "pickle",
}


def expected(name: str) -> dict[str, np.ndarray]:
  """{key: array} as the library that wrote a file reads it."""
  found, at = {}, 0
  with np.load(FOLDER / f"{name}.npz") as file:
    numbers = file["bytes"]
    for key, shape, dtype in json.loads(file["index"].tobytes()):
      dtype = np.dtype(dtype)
      stop = at + int(np.prod(shape, dtype=int)) * dtype.itemsize
      found[key] = numbers[at:stop].view(dtype).reshape(shape)
      at = stop
  assert at == len(numbers)
  return found


def same(one: np.ndarray, other: np.ndarray) -> bool:
  """True if two arrays have the same shape, dtype and bits."""
  return (one.shape, one.dtype) == (other.shape, other.dtype) and one.tobytes() == other.tobytes()
