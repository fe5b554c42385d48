"""Features that stream: equal to all at once, bit for bit after a stop, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion.metrics import streaming
from diffusion.metrics.extractors import Extractor
from diffusion.metrics.frechet import statistics
from diffusion.metrics.streaming import ArrayImages, extract
from diffusion.metrics.sums import Wanted

DIMENSION = 5


def apply(params, x, centre):
  flat = ((x - centre) / centre).reshape(len(x), -1)
  pool = jnp.matmul(flat, params, precision="highest")
  return {"pool": pool, "spatial": flat[:, :7], "logits": 3 * pool}


EXTRACTOR = Extractor(
  "inception",
  "small",
  4,
  {"pool": DIMENSION, "spatial": 7, "logits": DIMENSION},
  np.random.RandomState(0).standard_normal((48, DIMENSION)).astype(np.float32),
  apply,
  "0" * 64,
)
IMAGES = np.random.RandomState(1).randint(0, 256, (700, 6, 8, 3)).astype(np.uint8)
WANTED = Wanted(("pool", "spatial"), np.arange(700) % 3 == 0, np.arange(700) // 200)


def take(images=None, **options):
  options = dict(resize="torch_bilinear", batch=48) | options
  return extract(images or ArrayImages(IMAGES), EXTRACTOR, WANTED, **options)


def same(one, other):
  for name in WANTED.sums:
    assert (one.statistics[name].mean == other.statistics[name].mean).all()
    assert (one.statistics[name].scatter == other.statistics[name].scatter).all()
  assert (one.rows == other.rows).all() and (one.index == other.index).all()
  for part in ("count", "p", "entropy"):
    assert (getattr(one.classes, part) == getattr(other.classes, part)).all()


def test_equals_all_at_once():
  found = take()
  args = dict(apply=apply, side=4, resize="torch_bilinear", clip=False, centre=128.0)
  whole = streaming.features_of(EXTRACTOR.params, jnp.asarray(IMAGES), outputs=("pool", "spatial"), **args)
  assert found.count == 700
  for name in WANTED.sums:
    expected = statistics(np.asarray(whole[name]))
    np.testing.assert_allclose(found.statistics[name].mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.statistics[name].covariance, expected.covariance, rtol=1e-5, atol=1e-5)
  assert found.index.tolist() == list(range(0, 700, 3))
  np.testing.assert_allclose(found.rows, np.asarray(whole["pool"])[::3], rtol=1e-5, atol=1e-5)
  assert found.classes.count.tolist() == [200, 200, 200, 100]


class Stops:
  """Images that end in an error at one index, once."""

  def __init__(self, at):
    self.at, self.count, self.said, self.asked = at, 700, {"images": "stops"}, []

  def read(self, first, count):
    self.asked.append(first)
    if self.at is not None and first <= self.at < first + count:
      raise KeyboardInterrupt
    return IMAGES[first : first + count]


@pytest.mark.parametrize("at", [300, 600])
def test_goes_on_bit_for_bit(at, tmp_path, monkeypatch):
  monkeypatch.setattr(streaming, "SAVED_EVERY", -1.0)
  folder = tmp_path / "part"
  whole = take(Stops(None))
  stopping = Stops(at)
  with pytest.raises(KeyboardInterrupt):
    take(stopping, folder=str(folder))
  stopping.at, seen = None, []
  stopping.asked.clear()
  found = take(stopping, folder=str(folder), progress=seen.append)
  same(whole, found)
  assert sum(seen) == 700
  assert stopping.asked[0] == (0 if at == 300 else 256)  # a chunk is added up when the next one is asked for
  assert not folder.exists()


def test_another_evaluation_starts_anew(tmp_path, monkeypatch):
  monkeypatch.setattr(streaming, "SAVED_EVERY", -1.0)
  folder = str(tmp_path / "part")
  with pytest.raises(KeyboardInterrupt):
    take(Stops(600), folder=folder)
  other = Stops(None)
  same(take(other, folder=folder, centre=127.5), take(Stops(None), centre=127.5))
  assert other.asked[0] == 0
  with pytest.raises(KeyboardInterrupt):
    take(Stops(600), folder=folder)
  (tmp_path / "part" / "state.npz").write_bytes(b"PK\x03\x04 cut off")
  same(take(Stops(None), folder=folder), take(Stops(None)))


def test_on_eight_devices():
  mesh = Mesh(np.array(jax.devices()), ("data",))
  split = lambda array: jax.device_put(array, NamedSharding(mesh, PartitionSpec("data")))
  whole = lambda tree: jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
  one, eight = take(), take(place=split, whole=whole)
  np.testing.assert_allclose(one.rows, eight.rows, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    one.statistics["pool"].covariance, eight.statistics["pool"].covariance, rtol=1e-5, atol=1e-5
  )


def test_refusals():
  with pytest.raises(
    ValueError, match=r"came as float32 \[256, 6, 8, 3\]: they must be uint8 \[256, H, W, 3\]"
  ):
    take(ArrayImages(IMAGES.astype(np.float32)))
  with pytest.raises(ValueError, match="no images"):
    take(ArrayImages(IMAGES[:0]))
