"""Two data sets as one of pairs."""

import numpy as np
import pytest

from diffusion import data
from diffusion.config.errors import UserError


def numbered(name, count, held, start=0.0, classes=0):
  make = lambda n: data.Arrays(
    start + np.arange(n, dtype=np.float32)[:, None], np.arange(n) % max(classes, 1)
  )
  return data.describe(
    name, make(count), make(held), split=f"{held} held out", class_names=tuple(map(str, range(classes)))
  )


def test_all_of_both_are_seen_and_partners_are_fixed():
  pairs = data.two_sets(numbered("few", 4, 2, classes=2), numbered("many", 10, 3, start=100.0), seed=1)
  found = data.load(pairs.train)
  np.testing.assert_array_equal(found["x"][:, 0], np.arange(10) % 4)
  np.testing.assert_array_equal(np.sort(found["x1"][:, 0]), 100.0 + np.arange(10))
  assert (found["x1"][:, 0] != 100.0 + np.arange(10)).any()  # drawn, not in their order
  np.testing.assert_array_equal(found["label"], np.arange(10) % 4 % 2)
  one = pairs.train[7]
  assert (one["x"], one["x1"], one["label"]) == (found["x"][7], found["x1"][7], found["label"][7])
  again = data.load(data.two_sets(numbered("few", 4, 2), numbered("many", 10, 3, 100.0), seed=1).train)
  np.testing.assert_array_equal(again["x1"], found["x1"])
  # Both are scaled by the numbers of the first.
  batch = pairs.encode(found)
  np.testing.assert_allclose(
    batch["x1"] - batch["x"], (found["x1"] - found["x"]) / np.std(np.arange(4)), 1e-5
  )
  assert pairs.num_classes == 2 and len(pairs.held_out) == 3 and pairs.name == "few from many"
  with pytest.raises(IndexError):
    pairs.train[10]
  assert len(data.two_sets(numbered("few", 4, 2), numbered("many", 10, 0)).held_out) == 0


def test_sets_that_do_not_fit_are_named():
  plane = data.toy2d("moons", 10, held_out_size=2)
  with pytest.raises(UserError, match=r"shapes \[1\] and \[2\]"):
    data.two_sets(numbered("line", 4, 2), plane)
  bits = data.describe("bits", data.Arrays(np.ones((3, 2), np.uint8)), [], split="none", levels=2)
  with pytest.raises(UserError, match="scaled differently"):
    data.two_sets(plane, bits)
