"""Arrays of a record by name, from NPZ files, folders and any source, in every batch with the record they
belong to: conditions and pairs."""

import grain
import numpy as np
import pytest
from PIL import Image

from diffusion.config.errors import UserError
from diffusion.data import (
  Arrays,
  conditions_of_records,
  describe,
  images,
  load,
  npz,
  order,
  stored_conditions,
  stream,
)

COUNT = 40


def arrays(**more):
  """Each array tells which record it belongs to, in a way of its own."""
  number = np.arange(COUNT)
  return (
    dict(
      x=np.broadcast_to(number[:, None, None, None], (COUNT, 4, 6, 3)).astype(np.uint8),
      low_resolution=np.broadcast_to(number[:, None, None, None] + 100, (COUNT, 2, 3, 1)).astype(np.uint8),
      tokens=np.stack([number, number + 70_000], 1),
      vector=number[:, None] + np.array([0.25, 0.75]),
      target=np.broadcast_to(200 - number[:, None, None, None], (COUNT, 4, 6, 3)).astype(np.uint8),
      label=number % 4,
    )
    | more
  )


def check_batch(batch, dataset):
  """Every array of the batch belongs to the same record, in the scaling that is stated."""
  number = np.rint((batch["x"][:, 0, 0, 0] + 1) * 255 / 2).astype(int)
  cond, told = batch["cond"], {one.name: one for one in dataset.conditions}
  np.testing.assert_allclose(
    cond["low_resolution"],
    np.broadcast_to(((number + 100) * 2 / 255 - 1)[:, None, None, None], (len(number), 2, 3, 1)),
    atol=1e-6,
  )
  np.testing.assert_array_equal(cond["tokens"], np.stack([number, number + 70_000], 1))
  vector = told["vector"].scaling
  np.testing.assert_allclose(cond["vector"][:, 0] * vector.std + vector.mean, number + 0.25, atol=1e-4)
  np.testing.assert_allclose(batch["x1"][:, 0, 0, 0], (200 - number) * 2 / 255 - 1, atol=1e-6)
  np.testing.assert_array_equal(cond["label"], number % 4)


CONDITION = ("label", "low_resolution", "tokens", "vector")


def of_npz(tmp_path):
  np.savez(tmp_path / "a.npz", **arrays())
  return npz(str(tmp_path / "a.npz"), condition=CONDITION, pair="target")


def of_grain(tmp_path):
  del tmp_path
  made = arrays()
  records = [{name: array[i] for name, array in made.items()} for i in range(COUNT)]
  source = grain.MapDataset.source(records).map(lambda record: record | {"label": int(record["label"])})
  return describe(
    "grain", source, source[:4], split="four", class_names="abcd", condition=CONDITION, pair="target"
  )


def of_memory(tmp_path):
  del tmp_path
  source = Arrays(**arrays())
  return describe(
    "memory", source, source, split="all", class_names="abcd", condition=CONDITION, pair="target"
  )


@pytest.mark.parametrize("make", [of_npz, of_grain, of_memory])
def test_named_arrays_stay_with_their_record(make, tmp_path):
  dataset = make(tmp_path)
  found = stream(dataset, 16, seed=3, num_threads=0)
  for _ in range(4):
    batch = next(found)
    check_batch(batch, dataset)
  shapes = dataset.batch_shapes
  assert shapes["cond"].keys() == batch["cond"].keys() and shapes.keys() == batch.keys()
  for spec, array in (
    *((shapes["cond"][name], array) for name, array in batch["cond"].items()),
    (shapes["x"], batch["x"]),
    (shapes["x1"], batch["x1"]),
  ):
    assert spec.shape == array.shape[1:] and spec.dtype == array.dtype
  held = load(dataset.held_out)
  check_batch(dataset.encode(held), dataset)


def test_samples_are_told_what_held_out_records_say(tmp_path):
  dataset = of_npz(tmp_path)
  index = np.arange(9)
  held = load(dataset.held_out)
  told, stored = conditions_of_records(dataset)(index), stored_conditions(dataset, index)
  places = index % len(held["x"])
  np.testing.assert_array_equal(told["label"], held["label"][places])
  np.testing.assert_array_equal(stored["tokens"], held["tokens"][places])
  assert sorted(stored) == ["low_resolution", "tokens", "vector"]


def test_what_is_not_named_is_not_in_a_batch(tmp_path):
  np.savez(tmp_path / "a.npz", **arrays())
  assert next(stream(npz(str(tmp_path / "a.npz")), 8, 0, num_threads=0))["cond"].keys() == {"label"}
  only = npz(str(tmp_path / "a.npz"), condition="tokens")
  assert next(stream(only, 8, 0, num_threads=0))["cond"].keys() == {"tokens"} and only.num_classes == 0


def test_flips_and_augmentations_take_all_arrays_of_a_record(tmp_path):
  """A ramp from left to right: mirrored in x, in the small image and in the pair, or in none."""
  ramp = np.arange(6, dtype=np.uint8)[None, None, :, None]
  made = arrays(
    x=np.broadcast_to(ramp, (COUNT, 4, 6, 3)),
    low_resolution=np.broadcast_to(ramp[:, :, ::2], (COUNT, 2, 3, 1)),
    target=np.broadcast_to(ramp + 9, (COUNT, 4, 6, 3)),
  )
  np.savez(tmp_path / "a.npz", **made)

  def brighter(record, rng):
    return record | {"tokens": record["tokens"] + int(rng.integers(1, 3))}

  dataset = npz(
    str(tmp_path / "a.npz"),
    condition=("low_resolution", "tokens"),
    pair="target",
    random_flip=True,
    augment=brighter,
  )
  batch = next(stream(dataset, 32, 1, num_threads=0))
  mirrored = batch["x"][:, 0, 0, 0] > batch["x"][:, 0, -1, 0]
  assert 4 < mirrored.sum() < 28
  for other in (batch["cond"]["low_resolution"], batch["x1"]):
    np.testing.assert_array_equal(other[:, 0, 0, 0] > other[:, 0, -1, 0], mirrored)
  assert (batch["cond"]["tokens"][:, 1] - batch["cond"]["tokens"][:, 0] == 70_000).all()


def test_folders_beside_folders(tmp_path):
  """The same names under other endings, and a train and test split inside."""
  for number in range(12):
    part = "train" if number < 9 else "test"
    for folder, size, ending in (("large", 8, "png"), ("small", 4, "jpg")):
      place = tmp_path / folder / part / "abc"[number % 3]
      place.mkdir(parents=True, exist_ok=True)
      Image.new("L", (size, size), 20 * number).save(place / f"{number:02d}.{ending}", quality=100)
  beside = {"small": str(tmp_path / "small"), "large": str(tmp_path / "large")}
  dataset = images(beside["large"], beside=beside, condition=("label", "small"), pair="large")
  assert dataset.batch_shapes["cond"]["small"].shape == (4, 4, 1) and len(dataset.held_out) == 3
  batch = next(stream(dataset, 9, 0, num_threads=0))
  np.testing.assert_allclose(batch["cond"]["small"][:, 0, 0, 0], batch["x"][:, 0, 0, 0], atol=2 / 255)
  np.testing.assert_array_equal(batch["x1"], batch["x"])
  (tmp_path / "small" / "test" / "a" / "09.jpg").unlink()
  with pytest.raises(UserError, match=r"no image called test/a/09 \(1 of 3 are missing\)"):
    images(beside["large"], beside=beside, condition=("small",))
  with pytest.raises(UserError, match="no folder holds it"):
    images(beside["large"], condition=("small",))


def test_npz_may_bring_its_own_held_out_arrays(tmp_path):
  made = arrays()
  np.savez(tmp_path / "a.npz", x=made["x"], tokens=made["tokens"], x_held_out=made["x"][:5])
  with pytest.raises(UserError, match="x_held_out but no tokens_held_out"):
    npz(str(tmp_path / "a.npz"), condition=("tokens",))
  np.savez(
    tmp_path / "a.npz",
    x=made["x"],
    tokens=made["tokens"],
    x_held_out=made["x"][:5],
    tokens_held_out=made["tokens"][:5],
  )
  dataset = npz(str(tmp_path / "a.npz"), condition=("tokens",))
  np.testing.assert_array_equal(load(dataset.held_out)["tokens"], made["tokens"][:5])


@pytest.mark.parametrize(
  "changes, options, sentence",
  [
    ({}, dict(condition=("token",)), "none called 'token'"),
    ({}, dict(pair="partner"), "none called 'partner'"),
    (dict(tokens=np.zeros(7, int)), dict(condition=("tokens",)), "40 records but 'tokens'"),
    (dict(tokens=np.array(["a"] * COUNT)), dict(condition=("tokens",)), "whole numbers or real numbers"),
    (dict(vector=np.full((COUNT, 2), np.nan)), dict(condition=("vector",)), "not finite"),
    (dict(target=np.zeros((COUNT, 4, 6, 3))), dict(pair="target"), "both as whole or both as real"),
    (dict(label=None), dict(condition=("label",)), "has no classes"),
    ({}, dict(condition=("low_resolution",), levels=101), "low_resolution.* up to 139, but levels=101"),
  ],
)
def test_mistakes_are_one_sentence(tmp_path, changes, options, sentence):
  np.savez(tmp_path / "a.npz", **{name: a for name, a in arrays(**changes).items() if a is not None})
  with pytest.raises(UserError, match=sentence):
    npz(str(tmp_path / "a.npz"), **options)


def test_records_of_different_arrays_are_explained():
  records = [dict(x=np.zeros(2), tokens=np.zeros(3, int)), dict(x=np.zeros(2))]
  with pytest.raises(UserError, match="give every record the same arrays"):
    load(records)
  with pytest.raises(UserError, match="'tokens' have different shapes, 3, 4"):
    load([dict(x=np.zeros(2), tokens=np.zeros(n, int)) for n in (3, 4)])


@pytest.mark.parametrize(
  "x, words",
  [
    (np.ones((9, 4, 4), bool), "booleans, taken as two levels"),
    (np.arange(144).reshape(9, 4, 4) % 2, "set levels=2"),
    (np.zeros((9, 3, 8, 8), np.uint8), "channels come last"),
    (np.random.default_rng(0).normal(size=(9, 2)) * [1.0, 1e4], "one scale is used for all"),
  ],
)
def test_what_may_not_be_meant_is_said(tmp_path, x, words):
  np.savez(tmp_path / "a.npz", x=x)
  dataset = npz(str(tmp_path / "a.npz"))
  assert words in dataset.said and dataset.split in dataset.said


def test_labels_with_gaps_are_said_and_known(tmp_path):
  np.savez(tmp_path / "a.npz", x=np.zeros((9, 2)), label=np.array([3, 700, 3] * 3))
  dataset = npz(str(tmp_path / "a.npz"))
  assert dataset.num_classes == 701 and dataset.classes == (3, 700) and "(3, 700)" in dataset.said


def test_numbers_are_vectors_of_one(tmp_path):
  np.savez(tmp_path / "a.npz", x=np.arange(9.0))
  assert npz(str(tmp_path / "a.npz")).shape == (1,)
  np.save(tmp_path / "a.npy", np.arange(9.0))
  with pytest.raises(UserError, match="single array: save it with np.savez"):
    npz(str(tmp_path / "a.npy"))


def test_booleans_have_two_levels(tmp_path):
  x = np.random.default_rng(0).random((50, 4, 4)) > 0.5
  np.savez(tmp_path / "a.npz", x=x)
  batch = next(stream(npz(str(tmp_path / "a.npz")), 16, 0, num_threads=0))["x"]
  assert set(np.unique(batch)) == {-1.0, 1.0}


@pytest.mark.parametrize("offset, stored", [(0.0, np.float32), (1e3, np.float64), (1e9, np.float64)])
def test_an_offset_is_taken_off_before_anything_is_rounded(tmp_path, offset, stored):
  z = np.random.default_rng(0).normal(size=(500, 4))
  np.savez(tmp_path / "a.npz", x=offset + z)
  dataset = npz(str(tmp_path / "a.npz"), held_out=0)
  assert load(dataset.train)["x"].dtype == stored
  model = dataset.scaling.to_model(load(dataset.train)["x"])
  np.testing.assert_allclose(model, (z - z.mean()) / z.std(), atol=1e-6 + 1e-15 * offset)
  np.testing.assert_allclose(dataset.scaling.to_data(model) - offset, z, atol=1e-6 + 1e-15 * offset)


def test_a_subset_is_a_draw_without_order_or_seed_of_its_own():
  chosen = order.subset(10_000, 1000, seed=4)
  assert len(set(chosen.tolist())) == 1000 and (np.diff(chosen) > 0).all()
  # Uniform: the mean of 1,000 of 10,000 places has a deviation of 87.
  assert abs(chosen.mean() - 4999.5) < 4 * 87
  assert not np.array_equal(chosen, order.subset(10_000, 1000, seed=5))
  np.testing.assert_array_equal(order.subset(7, 9, seed=1), np.arange(7))
