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
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusion.data import named, order, random_streams, sources
from diffusion.data.dataset import Dataset
from diffusion.data.named import NamedArray
from diffusion.data.sources import Augment, Source

_ENDLESS = 2**60  # elements; Grain wants a length


class Stream:
  """Iterator of batches dict(x=float32 [B, ...] of model values, cond=dict(label=int32 [B], ...), x1).

  `cond` is there only if there are classes or other conditions, `x1` only if there are pairs.

  Args:
    source: source of training records (see `diffusion.data.sources`).
    batch_size: global batch size, a multiple of process_count.
    seed: integer; fixes order and noise.
    start: position to begin at: the number of examples, over all processes, that were already used.
    scaling: `Scaling` or `Standardize`; None leaves x as stored, as float32.
    num_classes: 0 leaves the labels out.
    conditions, pair: further arrays of the records that a batch holds (see `diffusion.data.named`).
    random_flip: mirror images left to right with probability 1/2, all arrays [H, W, C] of a record alike.
    augment: None or (record dict(x, label, ...), numpy Generator) -> record, on stored values, after the
      flip; keeps shape and type.
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
    scaling: Any = None,
    num_classes: int = 0,
    conditions: Sequence[NamedArray] = (),
    pair: NamedArray | None = None,
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
      tuple(conditions),
      pair,
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
    scaling: Any,
    num_classes: int,
    conditions: Sequence[NamedArray],
    pair: NamedArray | None,
    random_flip: bool,
    augment: Augment | None,
    process_index: int,
    process_count: int,
  ) -> None:
    self.source, self.batch_size, self.seed, self.start = source, batch_size, seed, start
    self.scaling, self.num_classes = scaling, num_classes
    self.conditions, self.pair = conditions, pair
    self.random_flip, self.augment = random_flip, augment
    self.names = ("x", "label", *(one.name for one in (*conditions, *([pair] if pair else []))))
    self.rows = batch_size // process_count
    self.offset = self.rows * process_index

  def __len__(self) -> int:
    return _ENDLESS

  def __getitem__(self, index: int) -> dict[str, Any]:
    first = self.start + int(index) * self.batch_size + self.offset
    return self.examples(first, self.rows)

  def examples(self, first: int, count: int) -> dict[str, Any]:
    """Examples first .. first+count-1 of the run as one batch."""
    found = sources.gather(self.source, order.records(first + np.arange(count), len(self.source), self.seed))
    records = {name: found[name] for name in self.names}
    if self.random_flip:
      mirrored = (random_streams.uniform(self.seed, "flip", first, count) < 0.5).reshape(-1, 1, 1, 1)
      records |= {
        name: np.where(mirrored, array[:, :, ::-1], array)
        for name, array in records.items()
        if array.ndim == 4
      }
    if self.augment is not None:
      records = self._augmented(self.augment, records, first)
    noise = None
    if self.scaling is not None and self.scaling.uses_noise:
      shape = records["x"].shape[1:]
      noise = random_streams.uniform(self.seed, "dequantization", first, count, shape)
    return named.encode(
      records,
      self.scaling,
      num_classes=self.num_classes,
      conditions=self.conditions,
      pair=self.pair,
      noise=noise,
    )

  def _augmented(self, augment, records, first):
    made = []
    for row in range(len(records["x"])):
      record = {name: array[row] for name, array in records.items()} | {"label": int(records["label"][row])}
      record = augment(record, random_streams.generator(self.seed, "augment", first + row))
      for name in self.names:
        given, kept = np.asarray(record[name]), records[name]
        if name != "label" and (given.shape != kept.shape[1:] or given.dtype != kept.dtype):
          raise ValueError(
            f"augment returned {name} of shape {given.shape} and type {given.dtype}, but must keep "
            f"{kept.shape[1:]} and {kept.dtype}"
          )
      made.append({name: record[name] for name in self.names})
    return sources.stack(made)


def stream(dataset: Dataset, batch_size: int, seed: int, **options: Any) -> Stream:
  """The training stream of a `Dataset`.

  It has the data set's scaling, labels, flips and augmentation. The options are those of `Stream`.

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
    conditions=dataset.conditions,
    pair=dataset.pair,
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
