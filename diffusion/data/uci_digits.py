"""The real data that need no download: handwritten digits of 8x8 pixels and 17 grey levels."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

from diffusion.config.errors import UserError
from diffusion.data import sources
from diffusion.data.dataset import Dataset, describe
from diffusion.data.sources import Augment
from diffusion.data.tfds_sets import Records

NAME = "uci_digits"


def digits(
  data_dir: str = "",
  *,
  image_size: int | Sequence[int] | None = 8,
  channels: int | None = 1,
  num_classes: int | None = None,
  centered: bool = True,
  dequantization: str = "none",
  random_flip: bool = False,
  augment: Augment | str | None = None,
) -> Dataset:
  """The UCI handwritten digits: 1,797 images 8x8x1 with values 0..16 and their labels.

  They come with scikit-learn and are written once as a TFDS data set in ArrayRecord format, then read from
  there. The split is fixed and stratified by class: 1,438 training and 359 held-out images (a fifth of each
  class).

  Args:
    data_dir: where prepared data sets live; default $TFDS_DATA_DIR or ~/tensorflow_datasets.
    image_size, channels, num_classes, centered, dequantization, random_flip, augment: see `describe`.
  Returns:
    `Dataset`.
  Raises:
    UserError: where data_dir cannot be written or holds a damaged copy.
  """
  root = prepare(data_dir)
  builder = _builder(root)
  try:
    splits = [
      sources.Cached(Records(builder.as_data_source(split), "image", "label")) for split in ("train", "test")
    ]
  except Exception as error:  # TFDS raises many kinds for a damaged folder
    raise UserError(
      f"the digits in {os.path.join(root, NAME)} cannot be read ({error}): delete that folder and run again"
    ) from error
  return describe(
    NAME,
    *splits,
    split="stratified fixed split: a fifth of each class is held out (1,438 training, 359 held-out images)",
    class_names=tuple("0123456789"),
    levels=17,
    num_classes=num_classes,
    image_size=image_size,
    channels=channels,
    centered=centered,
    dequantization=dequantization,
    random_flip=random_flip,
    augment=augment,
  )


def prepare(data_dir: str = "") -> str:
  """Write the digits under data_dir unless they are there; the folder it returns holds `uci_digits/`.

  Written aside and moved into place by one rename, so that an interrupted run leaves nothing half done and of
  two processes that prepare at once one wins and the other uses its copy.
  """
  root = os.path.abspath(
    os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR", "") or "~/tensorflow_datasets")
  )
  final = os.path.join(root, NAME)
  if os.path.isdir(final):
    return root
  try:
    os.makedirs(root, exist_ok=True)
    aside = tempfile.mkdtemp(prefix=f".{NAME}-", dir=root)
  except OSError as error:
    raise UserError(
      f"cannot write the digits to {root} ({error.strerror}): name a folder you can write with data_dir=..."
    ) from error
  try:
    with (
      contextlib.redirect_stdout(io.StringIO()),
      contextlib.redirect_stderr(io.StringIO()),
    ):  # TFDS's own progress bars
      _builder(aside).download_and_prepare()
    os.rename(os.path.join(aside, NAME), final)
  except OSError as error:
    if not os.path.isdir(final):  # not just another process that was faster
      raise UserError(
        f"cannot write the digits to {root} ({error}): free some space or name another data_dir"
      ) from error
  finally:
    shutil.rmtree(aside, ignore_errors=True)
  return root


def _builder(root: str) -> Any:  # TFDS decorates its methods, and their signatures are lost
  try:
    from diffusion.data.uci_digits_builder import UciDigits
  except ImportError as error:
    raise UserError(
      f"the digits need TFDS and scikit-learn ({error}): pip install 'jax-diffusion[train]'"
    ) from error
  return UciDigits(data_dir=root, file_format="array_record")
