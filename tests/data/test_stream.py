"""The stream is a pure function of (seed, position), however it is cut, shared or prepared."""

import itertools

import numpy as np
import pytest

from diffusion.data import Arrays, Scaling, Stream, order, random_streams, sources

SIZE = 37  # prime, so that batches span epochs


def pictures():
  """Every record tells its own index in its first pixel, and flips show."""
  x = np.random.default_rng(0).integers(0, 256, (SIZE, 4, 3, 2), dtype=np.uint8)
  x[:, 0, 1, 0] = np.arange(SIZE)
  return Arrays(x, np.arange(SIZE) % 5)


def jitter(record, rng):
  return {"x": record["x"] + rng.integers(0, 3, record["x"].shape, dtype=np.uint8), "label": record["label"]}


OPTIONS = {
  "plain": {},
  "everything": dict(
    random_flip=True, augment=jitter, scaling=Scaling(256, dequantization="uniform"), num_classes=5
  ),
}


def take(count, batch_size, **options):
  """The first `count` examples from `start` on, as one dict of arrays."""
  stream = Stream(
    options.pop("source", None) or pictures(),
    batch_size,
    options.pop("seed", 3),
    num_threads=options.pop("num_threads", 0),
    **options,
  )
  batches = list(itertools.islice(stream, count // batch_size))
  stream.close()
  labels = [batch["cond"]["label"] for batch in batches] if "cond" in batches[0] else None
  return np.concatenate([batch["x"] for batch in batches]), labels and np.concatenate(labels)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("start", [0, 8, 37, 50, 111])
def test_a_stream_from_position_p_is_the_tail_of_the_whole(kind, start):
  whole, labels = take(160, 8, **OPTIONS[kind])
  tail, tail_labels = take(40, 8, start=start, **OPTIONS[kind])
  np.testing.assert_array_equal(tail, whole[start : start + 40])
  if labels is not None:
    np.testing.assert_array_equal(tail_labels, labels[start : start + 40])


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_every_global_batch_without_overlap(kind, processes):
  whole, _ = take(160, 8, **OPTIONS[kind])
  shares = []
  for index in range(processes):
    stream = Stream(
      pictures(), 8, 3, process_index=index, process_count=processes, num_threads=0, **OPTIONS[kind]
    )
    shares.append([next(stream)["x"] for _ in range(20)])
    assert stream.position == 160
  together = np.concatenate([np.concatenate(rows) for rows in zip(*shares)])
  np.testing.assert_array_equal(together, whole)


def test_a_run_taken_up_by_another_number_of_processes_goes_on_the_same():
  whole, _ = take(160, 8, **OPTIONS["everything"])
  halves = [
    Stream(
      pictures(), 8, 3, start=56, process_index=i, process_count=2, num_threads=0, **OPTIONS["everything"]
    )
    for i in (0, 1)
  ]
  np.testing.assert_array_equal(np.concatenate([next(half)["x"] for half in halves]), whole[56:64])


@pytest.mark.parametrize("ahead", [dict(num_threads=1), dict(num_threads=3, prefetch=2)])
def test_threads_do_not_change_the_stream(ahead):
  np.testing.assert_array_equal(
    take(160, 8, **OPTIONS["everything"])[0], take(160, 8, **ahead, **OPTIONS["everything"])[0]
  )


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_batch_size_does_not_change_the_examples(kind):
  np.testing.assert_array_equal(take(160, 8, **OPTIONS[kind])[0], take(160, 20, **OPTIONS[kind])[0])


def test_every_record_comes_once_in_every_epoch_and_orders_differ():
  identity = take(SIZE * 4, SIZE)[0][:, 0, 1, 0].reshape(4, SIZE)
  for epoch in identity:
    assert sorted(epoch.tolist()) == list(range(SIZE))
  assert len({tuple(epoch) for epoch in identity.tolist()}) == 4


def test_labels_stay_with_their_records():
  x, labels = take(80, 8, num_classes=5)
  np.testing.assert_array_equal(labels, x[:, 0, 1, 0] % 5)


def test_another_seed_gives_another_order_not_the_next_epoch_of_this_one():
  seeds = {
    (seed, epoch): tuple(order.permutation(SIZE, seed, epoch)) for seed in range(6) for epoch in range(6)
  }
  assert len(set(seeds.values())) == len(seeds)


def test_each_place_of_an_epoch_is_uniform_over_the_records():
  epochs, size = 4000, 12
  places = np.stack([order.permutation(size, 1, epoch) for epoch in range(epochs)])
  counts = np.stack([np.bincount(column, minlength=size) for column in places.T])
  # Chi-square with (size-1)^2 = 121 degrees of freedom: below 185 with probability 0.9998.
  assert ((counts - epochs / size) ** 2 / (epochs / size)).sum() < 185


def test_half_of_the_images_are_mirrored_and_each_is_exactly_itself_or_its_mirror():
  source = pictures()
  plain = take(SIZE * 40, SIZE)[0]
  flipped = take(SIZE * 40, SIZE, random_flip=True, source=source)[0]
  same = (flipped == plain).all((1, 2, 3))
  mirrored = (flipped == plain[:, :, ::-1]).all((1, 2, 3))
  assert (same ^ mirrored).all()
  count = SIZE * 40
  assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(count)  # four standard errors


def test_an_example_meets_new_noise_in_every_epoch():
  x = take(
    SIZE * 2,
    SIZE,
    scaling=Scaling(256, dequantization="uniform"),
    source=Arrays(np.zeros((SIZE, 6), np.uint8)),
  )[0]
  assert len(np.unique(x)) > 0.99 * x.size


@pytest.mark.parametrize("shape", [(), (3,), (8,), (5, 5)])
def test_random_numbers_belong_to_the_example(shape):
  together = random_streams.uniform(7, "flip", 100, 20, shape)
  parts = [
    random_streams.uniform(7, "flip", first, count, shape) for first, count in ((100, 1), (101, 12), (113, 7))
  ]
  np.testing.assert_array_equal(together, np.concatenate(parts))
  assert not np.array_equal(together, random_streams.uniform(7, "dequantization", 100, 20, shape))
  assert not np.array_equal(together, random_streams.uniform(8, "flip", 100, 20, shape))


def test_a_memory_changes_nothing_but_is_asked_once():
  asked = []

  class Slow:
    def __len__(self):
      return SIZE

    def __getitem__(self, index):
      asked.append(index)
      return pictures()[index]

  cached = sources.cached(Slow())
  np.testing.assert_array_equal(take(160, 8, source=cached)[0], take(160, 8)[0])
  assert len(asked) <= SIZE + 1 + 1  # once each, and the first record for its shape and its size


@pytest.mark.parametrize(
  "wrong, sentence",
  [
    (dict(batch_size=9, process_count=2), "multiple of 2"),
    (dict(process_index=2, process_count=2), "process_index=2"),
    (dict(start=-1), "cannot be negative"),
    (dict(source=Arrays(np.zeros((0, 2)))), "no records"),
  ],
)
def test_wrong_arguments_are_explained(wrong, sentence):
  arguments = dict(source=pictures(), batch_size=8, seed=0) | wrong
  with pytest.raises(ValueError, match=sentence):
    Stream(**arguments)


def test_an_augmentation_that_changes_the_shape_is_explained():
  stream = Stream(
    pictures(), 4, 0, augment=lambda record, rng: record | {"x": record["x"][:2]}, num_threads=0
  )
  with pytest.raises(ValueError, match="must keep"):
    next(stream)
