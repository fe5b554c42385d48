"""The endless, deterministic stream of training batches.

Example k of a run (k = 0, 1, ... counted over all epochs and all processes) is a pure function of (seed, k):
its record, its flip, its augmentation and its dequantisation noise. A stream's position is therefore one
number, and a run that is resumed, or resumed by another number of processes, sees exactly the examples that
an uninterrupted one would.

Grain runs the stages ahead of the training loop, in threads or worker processes. Its elements here are whole
batches: its per-record bookkeeping (shuffle, repeat, map) costs several times more than fetching a small
image from memory.
"""

import os
from typing import Any

import numpy as np

from diffusion.data import order, random_streams, sources
from diffusion.data.dataset import Dataset
from diffusion.data.scaling import AnyScaling
from diffusion.data.sources import Augment, Source

_ENDLESS = 2**60  # elements; Grain wants a length


class Stream:
  """Iterator of batches dict(x=float32 [B, ...] in model units, cond=dict(label=int32 [B])), `cond` only if
  there are classes.

  Args:
    source: source of training records (see `diffusion.data.sources`).
    batch_size: global batch size, a multiple of process_count.
    seed: integer; fixes order and noise.
    start: position to begin at: the number of examples, over all processes, that were already used.
    scaling: `Scaling` or `Standardize`; None leaves x as stored, as float32.
    num_classes: 0 leaves the labels out.
    random_flip: mirror images left to right with probability 1/2.
    augment: None or (record dict(x, label), numpy Generator) -> record, on stored values, after the flip;
      keeps shape and type.
    process_index, process_count: this process gets rows [i B/P, (i+1) B/P) of every global batch, so the
      global rows in order are the same for every P.
    num_threads: threads that prepare batches ahead; default one a core, up to `prefetch`. 0: in the calling
      thread.
    num_workers: worker processes instead (each with a copy of the source); for slow augmentations written in
      Python.
    prefetch: batches kept ready.
  Raises:
    ValueError: for a batch size that the processes cannot share, an empty source, a negative start.

  >>> stream = Stream(sources.Arrays(np.arange(5.0)), batch_size=3, seed=0, num_threads=0)
  >>> whole = np.concatenate([next(stream)["x"] for _ in range(5)])  # three epochs of five
  >>> sorted(whole[:5].tolist()), stream.position
  ([0.0, 1.0, 2.0, 3.0, 4.0], 15)
  >>> resumed = Stream(sources.Arrays(np.arange(5.0)), batch_size=5, seed=0, start=10, num_threads=0)
  >>> next(resumed)["x"].tolist() == whole[10:].tolist()
  True
  """

  def __init__(
    self,
    source: Source,
    batch_size: int,
    seed: int,
    *,
    start: int = 0,
    scaling: AnyScaling | None = None,
    num_classes: int = 0,
    random_flip: bool = False,
    augment: Augment | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int | None = None,
    num_workers: int = 0,
    prefetch: int = 8,
  ) -> None:
    if batch_size < 1 or batch_size % process_count:
      raise ValueError(
        f"a global batch of {batch_size} cannot be shared by {process_count} process(es): choose a multiple "
        f"of {process_count}"
      )
    if not 0 <= process_index < process_count:
      raise ValueError(f"process_index={process_index} is not one of the {process_count} process(es)")
    if start < 0:
      raise ValueError(f"start={start}: a position is a count of examples and cannot be negative")
    if not len(source):
      raise ValueError("the source has no records: a stream needs at least one")
    self.position = int(start)
    self.batch_size = int(batch_size)
    batches = Batches(
      source,
      int(batch_size),
      int(seed),
      int(start),
      scaling,
      num_classes,
      random_flip,
      augment,
      process_index,
      process_count,
    )
    self._iterator = _ahead(batches, num_threads, num_workers, prefetch)

  def __iter__(self) -> "Stream":
    return self

  def __next__(self) -> dict[str, Any]:
    batch = next(self._iterator)
    self.position += self.batch_size
    return batch

  def close(self) -> None:
    """Stop the threads or worker processes."""
    if hasattr(self._iterator, "close"):
      self._iterator.close()


class Batches:
  """Random access to one process's share of every batch from `start` on: a pure function of its index."""

  def __init__(
    self,
    source: Source,
    batch_size: int,
    seed: int,
    start: int,
    scaling: AnyScaling | None,
    num_classes: int,
    random_flip: bool,
    augment: Augment | None,
    process_index: int,
    process_count: int,
  ) -> None:
    self.source, self.batch_size, self.seed, self.start = source, batch_size, seed, start
    self.scaling, self.num_classes, self.random_flip, self.augment = (
      scaling,
      num_classes,
      random_flip,
      augment,
    )
    self.rows = batch_size // process_count
    self.offset = self.rows * process_index

  def __len__(self) -> int:
    return _ENDLESS

  def __getitem__(self, index: int) -> dict[str, Any]:
    first = self.start + int(index) * self.batch_size + self.offset
    return self.examples(first, self.rows)

  def examples(self, first: int, count: int) -> dict[str, Any]:
    """Examples first .. first+count-1 of the run as one batch."""
    batch = sources.gather(self.source, order.records(first + np.arange(count), len(self.source), self.seed))
    x, label = batch["x"], batch["label"]
    if self.random_flip:
      mirrored = random_streams.uniform(self.seed, "flip", first, count) < 0.5
      x = np.where(mirrored.reshape(-1, 1, 1, 1), x[:, :, ::-1], x)
    if self.augment is not None:
      x, label = self._augmented(self.augment, x, label, first)
    if self.scaling is None:
      x = x.astype(np.float32)
    else:
      noise = None
      if self.scaling.uses_noise:
        noise = random_streams.uniform(self.seed, "dequantization", first, count, x.shape[1:])
      x = self.scaling.to_model(x, noise)
    if not self.num_classes:
      return {"x": x}
    return {"x": x, "cond": {"label": label.astype(np.int32)}}

  def _augmented(self, augment: Augment, x, label, first):
    made = []
    for row in range(len(x)):
      record = {"x": x[row], "label": int(label[row])}
      record = augment(record, random_streams.generator(self.seed, "augment", first + row))
      if np.shape(record["x"]) != x.shape[1:] or np.asarray(record["x"]).dtype != x.dtype:
        raise ValueError(
          f"augment returned x of shape {np.shape(record['x'])} and type {np.asarray(record['x']).dtype},"
          f" but must keep {x.shape[1:]} and {x.dtype}"
        )
      made.append(record)
    made = sources.stack(made)
    return made["x"], made["label"]


def stream(dataset: Dataset, batch_size: int, seed: int, **options: Any) -> Stream:
  """The training stream of a `Dataset`, with its scaling, labels, flips and augmentation; options are those
  of `Stream`.

  Args:
    dataset: `Dataset`.
    batch_size: global batch size.
    seed: integer.
  Returns:
    `Stream`.
  """
  return Stream(
    dataset.train,
    batch_size,
    seed,
    scaling=dataset.scaling,
    num_classes=dataset.num_classes,
    random_flip=dataset.random_flip,
    augment=dataset.augment,
    **options,
  )


def _ahead(batches, num_threads, num_workers, prefetch):
  """An iterator over the batches in order, prepared ahead by Grain."""
  import grain

  if num_threads is None:
    num_threads = min(prefetch, os.cpu_count() or 1)
  options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch if num_threads else 0)
  dataset = grain.MapDataset.source(batches).to_iter_dataset(options)
  if num_workers:
    from absl import flags

    if (
      not flags.FLAGS.is_parsed()
    ):  # Grain's workers read flags, which nobody has parsed in a notebook or a test
      flags.FLAGS(["stream"])
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=prefetch)
    )
  return iter(dataset)
