"""Files of statistics of real data, in the layouts of the tools that write and read them.

| file | arrays | who |
|---|---|---|
| .npz | mu [2048], sigma [2048, 2048] | EDM, clean-fid, pytorch-fid; also ref_mu, ref_sigma or mean, cov |
| .npz | these, mu_s [2023], sigma_s [2023, 2023], arr_0 [N, H, W, 3] uint8 | ADM's reference batches |
| .npz | feats [N, 2048] | clean-fid, for KID |
| .npz | pool_3 [N, 2048] | score_sde |
| .pkl | num_images, fid and fd_dinov2: {mu, sigma} | EDM2 |

In an .npz further extractors are fd_KIND.mu and fd_KIND.sigma. Pickles are read as data and never run. What
is written here also says how it came about, in arrays that the tools pass over: `protocol`, `count`, and
`extractor_KIND`, the sha256 of the weights.
"""

import dataclasses
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from diffusion import weights
from diffusion.config.errors import UserError
from diffusion.metrics.conventional import Reference
from diffusion.metrics.extractors.extractor import Extractor
from diffusion.metrics.extractors.files import digest
from diffusion.metrics.protocols import Protocol
from diffusion.metrics.streaming import Images
from diffusion.metrics.sums import Features

NAMES = {"fid": (("mu", "sigma"), ("ref_mu", "ref_sigma"), ("mean", "cov")), "sfid": (("mu_s", "sigma_s"),)}
"""Names of a mean and a covariance in an .npz, by metric."""

ROWS = ("feats", "pool_3")
"""Names of features of single images."""

IMAGES = "arr_0"
"""ADM's images."""


@dataclasses.dataclass(frozen=True)
class Found:
  """What a file of statistics holds.

  Attributes:
    path: of the file.
    sha256: of the file.
    reference: its numbers.
    images: whether it holds images too (ADM's arr_0).
    notes: how it came about, where it says so: 'protocol', 'extractor_inception', 'extractor_dinov2'.
  """

  path: str
  sha256: str
  reference: Reference
  images: bool
  notes: Mapping[str, str]


def read(path: str) -> Found:
  """A file of statistics.

  Raises UserError for one that cannot be read or has a layout that is not known.
  """
  path = os.path.expanduser(os.fspath(path))
  try:
    with open(path, "rb") as file:
      start = file.read(4)
  except OSError as error:
    raise UserError(f"{path} cannot be read ({error.strerror}): give a file of statistics") from None
  arrays, count = _npz(path) if start == b"PK\x03\x04" else _pickle(path)
  images = arrays.pop(IMAGES, None) is not None
  notes = {name: str(arrays[name]) for name in arrays if name == "protocol" or name.startswith("extractor_")}
  gaussians = {}
  for metric, names in NAMES.items():
    for mean, covariance in names:
      if mean in arrays and covariance in arrays:
        gaussians[metric] = (arrays[mean], arrays[covariance])
  for metric in (name.removesuffix(".mu") for name in arrays if name.endswith(".mu")):
    if f"{metric}.sigma" in arrays:
      gaussians[metric] = (arrays[f"{metric}.mu"], arrays[f"{metric}.sigma"])
  rows = next((np.asarray(arrays[name]) for name in ROWS if name in arrays), None)
  if not gaussians and rows is None and not images:
    some = ", ".join(list(arrays)[:5]) or "no array"
    raise UserError(
      f"{path} has {some}, which is no layout of statistics that is known: .npz with mu and sigma, with "
      "arr_0, feats or "
      "pool_3, or EDM2's .pkl"
    )
  for metric, (mean, covariance) in gaussians.items():
    mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
      raise UserError(
        f"{path} has a mean {list(mean.shape)} and a covariance {list(covariance.shape)} for {metric}: they "
        "must be "
        "[D] and [D, D]"
      )
    gaussians[metric] = (mean, covariance)
  index = None
  if rows is not None:
    rows = rows.reshape(len(rows), -1).astype(np.float32)
    index, count = np.arange(len(rows)), len(rows)
    gaussians.setdefault(
      "fid", (rows.mean(axis=0, dtype=np.float64), np.cov(rows, rowvar=False, dtype=np.float64))
    )
  return Found(path, digest(path), Reference(gaussians, index, rows, count), images, notes)


def _npz(path):
  """(arrays by name, images that they are of or None); ADM's images are not read, but noted."""
  try:
    with zipfile.ZipFile(path) as file:
      names = [name.removesuffix(".npy") for name in file.namelist()]
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in names if name != IMAGES}
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    if zipfile.is_zipfile(path) and any(
      name.endswith("data.pkl") for name in zipfile.ZipFile(path).namelist()
    ):
      return _pickle(path)
    raise UserError(
      f"{path} is no whole .npz file ({' '.join(str(error).split())}): fetch it again"
    ) from None
  if any(name.endswith("data.pkl") for name in names):  # PyTorch's zip, torch-fidelity's cache
    return _pickle(path)
  if IMAGES in names:
    arrays[IMAGES] = np.zeros(0)
  count = int(arrays["count"]) if "count" in arrays else None
  return arrays, count


def _pickle(path):
  contents = weights.read(path)
  tree = contents.notes.get("tree")
  count = tree.get("num_images") if isinstance(tree, Mapping) else None
  notes = (
    {name: text for name, text in tree.items() if isinstance(text, str)} if isinstance(tree, Mapping) else {}
  )
  return contents.load() | notes, count


def check_extractors(found: Found, protocol: Protocol, extractors: Iterable[Extractor]) -> None:
  """UserError where a file says that it is of another extractor, or its numbers are of another length."""
  for one in extractors:
    said = found.notes.get(f"extractor_{one.kind}")
    if said and one.sha256 and said != one.sha256:
      raise UserError(
        f"{found.path} is of another extractor: its features are of the {one.kind} weights {said[:12]}..., "
        "and "
        f"{one.path} is {one.sha256[:12]}...; give the file that it was made with, or make it anew"
      )
    for metric, (kind, output) in protocol.gaussians.items():
      have = found.reference.gaussians.get(metric)
      if kind == one.kind and have is not None and len(have[0]) != one.outputs.get(output):
        raise UserError(
          f"{found.path} is of another extractor: it has {len(have[0])} features for {metric}, and "
          f"{one.name} gives "
          f"{one.outputs.get(output)}; give statistics of the same extractor"
        )
    rows = found.reference.rows
    if one.kind == "inception" and rows is not None and rows.shape[1] != one.outputs["pool"]:
      raise UserError(
        f"{found.path} is of another extractor: it has features of length {rows.shape[1]}, and {one.name} "
        "gives "
        f"{one.outputs['pool']}; give statistics of the same extractor"
      )


def write(
  path: str,
  protocol: Protocol,
  features: Mapping[str, Features],
  extractors: Iterable[Extractor],
  images: Images | None = None,
) -> None:
  """Writes statistics in the layout that the protocol's own tool reads; the file appears when it is whole.

  EDM2's is a .pkl, all others are .npz: mu and sigma; ADM's with mu_s, sigma_s and the images; score_sde's
  with pool_3, clean-fid's with feats, of all images.

  Args:
    path: of the file.
    protocol: whose layout.
    features: by kind of extractor; with the rows of all images where the layout has them.
    extractors: that they are of.
    images: the images themselves, for ADM's.
  """
  notes = {f"extractor_{one.kind}": one.sha256 for one in extractors if one.sha256} | {
    "protocol": protocol.name
  }
  gaussians = {
    metric: (features[kind].statistics[output].mean, features[kind].statistics[output].covariance)
    for metric, (kind, output) in protocol.gaussians.items()
    if kind in features and output in features[kind].statistics
  }
  count = next(iter(features.values())).count
  beside = path + ".tmp"
  if protocol.name == "edm2":
    tree: dict[str, Any] = {"num_images": count, **notes}
    tree |= {metric: dict(mu=mean, sigma=covariance) for metric, (mean, covariance) in gaussians.items()}
    with open(beside, "wb") as file:
      pickle.dump(tree, file)
  else:
    arrays: dict[str, np.ndarray] = {name: np.array(text) for name, text in notes.items()}
    arrays["count"] = np.array(count)
    for metric, pair in gaussians.items():
      names = NAMES[metric][0] if metric in NAMES else (f"{metric}.mu", f"{metric}.sigma")
      arrays |= dict(zip(names, pair))
    of = features.get("inception")
    if of is not None and len(of.rows) == of.count and protocol.name in KEEP_ROWS:
      arrays[KEEP_ROWS[protocol.name]] = of.rows
    with zipfile.ZipFile(beside, "w", allowZip64=True) as file:
      for name, array in arrays.items():
        with file.open(f"{name}.npy", "w", force_zip64=True) as part:
          np.lib.format.write_array(part, np.asarray(array), allow_pickle=False)
      if protocol.name == "adm" and images is not None:
        _write_images(file, images)
  os.replace(beside, path)


KEEP_ROWS = {"score_sde": "pool_3", "clean": "feats"}
"""Layouts that hold the features of every image, and what they call them."""


def _write_images(file, images, chunk=256):
  """ADM's arr_0, image by image, so that any number of them fits."""
  side = images.read(0, 1).shape[1:]
  header = {"descr": "|u1", "fortran_order": False, "shape": (images.count, *side)}
  with file.open(f"{IMAGES}.npy", "w", force_zip64=True) as part:
    np.lib.format.write_array_header_1_0(part, header)
    for first in range(0, images.count, chunk):
      part.write(np.ascontiguousarray(images.read(first, min(chunk, images.count - first))).tobytes())
