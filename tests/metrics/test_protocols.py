"""Conventions to the letter, and numbers beside torch-fidelity's and closed forms."""

import math

import numpy as np
import pytest

from diffusion.metrics import conventional, kid, protocols
from diffusion.metrics.frechet import gaussian_frechet, statistics
from diffusion.metrics.inception_score import ClassSums, inception_score
from diffusion.metrics.kernel import Polynomial, mmd_squared
from diffusion.metrics.precision_recall import precision_recall
from diffusion.metrics.protocols import FLOOR, NEAREST, Splits, Subsets
from diffusion.metrics.sums import Features
from tests.metrics.recorded_evaluation import records

RECORDS = {name.partition("/")[2]: float(array[0]) for name, array in records().items() if array.size == 1}


def features():
  """The same features and logits as `make_recorded_evaluation.py` draws."""
  rng = np.random.RandomState(3)
  one = np.abs(rng.standard_normal((400, 24))).astype(np.float32)
  two = np.abs(0.9 * rng.standard_normal((300, 24)) + 0.1).astype(np.float32)
  return one, two, (3 * rng.standard_normal((403, 30))).astype(np.float32)


def score(logits, splits, chunk=64):
  groups = splits.groups(len(logits))
  sums = ClassSums.zero(groups.max() + 1, logits.shape[1])
  for first in range(0, len(logits), chunk):
    sums.add(logits[first : first + chunk], groups[first : first + chunk])
  return inception_score(sums)


def test_numbers_of_torch_fidelity():
  one, two, logits = features()
  mean, deviation = score(logits, protocols.TORCH_FIDELITY.splits)
  assert mean == pytest.approx(RECORDS["inception_score_mean"], rel=1e-10)
  assert deviation == pytest.approx(RECORDS["inception_score_std"], rel=1e-8)
  mean, deviation = score(logits, Splits(count=7))
  assert mean == pytest.approx(RECORDS["straight_mean"], rel=1e-10)
  assert deviation == pytest.approx(RECORDS["straight_std"], rel=1e-8)
  found = kid.kid(one, two, kid.pairs(Subsets(count=20, size=100, seed=2020), 400, 300))
  # The original works in float32: its cubes of about 3 lose 1e-6, and the difference is a hundredth of them.
  assert found.mean == pytest.approx(RECORDS["kernel_inception_distance_mean"], rel=2e-4)
  assert found.deviation == pytest.approx(RECORDS["kernel_inception_distance_std"], rel=2e-4)
  near = precision_recall(one, two, chunk=128)
  assert near.precision == pytest.approx(RECORDS["precision"], abs=1e-6)
  assert near.recall == pytest.approx(RECORDS["recall"], abs=1e-6)
  a, b = statistics(one), statistics(two)
  fid = gaussian_frechet(a.mean, a.covariance, b.mean, b.covariance)
  # The original takes means in float32.
  assert fid == pytest.approx(RECORDS["frechet_inception_distance"], rel=1e-5)
  assert fid == pytest.approx(RECORDS["clean_fid"], rel=1e-5)


def test_rounding_is_each_tools_own():
  """At every grey level: levels k lie where their convention puts them, half a level apart."""
  k = np.arange(256)
  assert (NEAREST((k - 127.5) / 127.5) == k).all()
  below = np.nextafter(np.float32(0), np.float32(-1))
  for rounding, start in ((FLOOR, k - 127.5), (NEAREST, k - 128.0)):
    edges = (start / 127.5).astype(np.float64)
    inside, before = edges + 1e-5, edges - 1e-5
    assert (rounding(inside) == k).all()
    assert (rounding(before)[1:] == k[:-1]).all()
  assert FLOOR(np.array([-9.0, 9.0, below])).tolist() == [0, 255, 127]
  # floor(127.5 (x + 1)) of a sample is darker by half a level on average, whatever it is.
  x = np.random.RandomState(0).uniform(-1, 1, 100_000).astype(np.float32)
  gap = NEAREST(x).astype(float) - FLOOR(x)
  assert abs(gap.mean() - 0.5) < 4 * gap.std() / math.sqrt(x.size)


def test_groups():
  assert Splits(size=5000).groups(50_000).tolist() == (np.arange(50_000) // 5000).tolist()
  n, splits = 403, 10
  straight = Splits(count=splits).groups(n)
  bounds = [(i * n // splits, (i + 1) * n // splits) for i in range(splits)]
  assert all((straight[a:b] == i).all() for i, (a, b) in enumerate(bounds))
  order = np.random.RandomState(2020).permutation(n)
  shuffled = protocols.TORCH_FIDELITY.splits.groups(n)
  assert all((shuffled[order[a:b]] == i).all() for i, (a, b) in enumerate(bounds))


def test_inception_score_in_closed_form():
  """k classes, each surely and equally often: k. The same distribution for every image: 1."""
  assert score(100 * np.eye(30)[np.arange(300) % 30], Splits(count=1))[0] == pytest.approx(30)
  assert score(np.tile(np.arange(5.0), (40, 1)), Splits(count=4)) == pytest.approx((1, 0), abs=1e-12)
  # Two kinds of images, odds e^a for one of two classes: the score's logarithm is the mutual information.
  a = 1.3
  logits = np.where(np.arange(100)[:, None] % 2 == np.arange(2), a, 0.0)
  p = math.exp(a) / (1 + math.exp(a))
  information = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
  assert score(logits, Splits(size=50))[0] == pytest.approx(math.exp(information), rel=1e-12)


def test_kid_is_unbiased_and_its_blocks_cover_all():
  chosen = kid.pairs(protocols.SCORE_SDE.subsets, 5000, 3000)
  assert np.concatenate([a for a, _ in chosen]).tolist() == list(range(5000))
  assert np.concatenate([b for _, b in chosen]).tolist() == list(range(3000))
  assert [len(a) for a, _ in chosen] == [1000] * 5 and [len(b) for _, b in chosen] == [600] * 5
  one, two, _ = features()
  whole = kid.kid(one, two, [(np.arange(400), np.arange(300))])
  assert whole.mean == pytest.approx(mmd_squared(one, two, Polynomial()).value, rel=1e-9)
  # In closed form: x = a, y = b constant in D dimensions.
  k = lambda p, q: (p * q + 1) ** 3
  constant = kid.kid(np.full((5, 4), 2.0), np.full((7, 4), 0.5), [(np.arange(5), np.arange(7))])
  assert constant.mean == pytest.approx(k(2, 2) + k(0.5, 0.5) - 2 * k(2, 0.5), rel=1e-12)
  with pytest.raises(ValueError, match="100 subsets of 1000, seed 2020 needs 1000 samples .* 400 and 300"):
    kid.pairs(protocols.TORCH_FIDELITY.subsets, 400, 300)
  assert len(kid.pairs(protocols.CLEAN.subsets, 400, 300)[0][0]) == 300


def test_precision_and_recall_in_closed_form():
  """On a line with unit gaps each radius is that of the third neighbour: 2 inside, 3 at the ends."""
  line = np.arange(10.0)[:, None]
  assert precision_recall(line, line + 0.5) == (1.0, 1.0)
  far = np.concatenate([line, line + 1000])
  assert precision_recall(far, line) == (0.5, 1.0)
  assert precision_recall(line[:5], far)[1] == pytest.approx(8 / 20)  # 0 to 7: the ball of 4 has radius 3
  with pytest.raises(ValueError, match="more than 3 samples, and there are 3"):
    precision_recall(line[:3], line)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_every_protocol_measures_gaussians(name):
  """Of N(0, I) and N(m, s^2 I) the distance is D (m^2 + (1 - s)^2), within what samples allow."""
  protocol, rng = protocols.named(name), np.random.RandomState(0)
  dimension, m, s, num = 6, 0.7, 1.5, 40_000
  made = {}
  for kind in protocol.extractors:
    stats = {output: statistics(rng.standard_normal((num, dimension))) for output in ("pool", "spatial")}
    made[kind] = Features(num, stats, np.zeros(0, int), np.zeros((0, dimension)))
  real = {metric: (np.full(dimension, m), s**2 * np.eye(dimension)) for metric in protocol.gaussians}
  metrics, left_out = conventional.measure(protocol, made, conventional.Reference(real))
  expected = dimension * (m**2 + (1 - s) ** 2)
  # The mean term has deviation 2 m sqrt(D / N), the rest is smaller: five of them.
  bound = 5 * 2 * (m + abs(1 - s)) * math.sqrt(dimension / num)
  for metric in protocol.gaussians:
    assert abs(metrics[metric] - expected) < bound
  assert set(left_out) >= set(protocol.measured) - set(metrics) - {"recall"}
  kept = conventional.wanted(protocol, "inception", 5000, None)
  assert kept.rows is None and (kept.groups is None) == ("inception_score" not in protocol.metrics)


def test_unknown_protocol():
  with pytest.raises(
    ValueError, match="'dit' is not known: choose one of adm, edm, edm2, score_sde, clean, torch_f"
  ):
    protocols.named("dit")
