"""Held-out splits are fixed, disjoint, complete and stratified."""

import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.data import order


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_split_takes_each_record_once_and_each_class_in_proportion(fraction, labelled):
  labels = np.random.default_rng(0).integers(0, 7, 1000) if labelled else None
  train, held_out = order.split(1000, fraction, labels)
  np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(1000))
  for members in [labels == k for k in range(7)] if labelled else [np.ones(1000, bool)]:
    assert abs(members[held_out].sum() - fraction * members.sum()) <= 0.5


def test_a_split_is_not_a_stretch_of_the_file():
  _, held_out = order.split(1000, 0.1)
  places = held_out / 1000
  assert abs(places.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 100) and np.diff(held_out).max() > 15


def test_records_beyond_one_epoch_do_not_depend_on_where_the_question_begins():
  whole = order.records(np.arange(100), 13, seed=2)
  np.testing.assert_array_equal(order.records(np.arange(40, 70), 13, seed=2), whole[40:70])
  np.testing.assert_array_equal(order.records([99, 3], 13, seed=2), whole[[99, 3]])


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_an_impossible_share_is_refused(fraction):
  with pytest.raises(UserError, match="share held out"):
    order.split(10, fraction)
