"""Files of statistics: what each tool writes is read, and what is written is what each tool reads."""

import pickle

import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.metrics import protocols, reference_files
from diffusion.metrics.extractors import Extractor
from diffusion.metrics.frechet import statistics
from diffusion.metrics.streaming import ArrayImages
from diffusion.metrics.sums import Features

RNG = np.random.RandomState(0)
IMAGES = RNG.randint(0, 256, (300, 8, 8, 3)).astype(np.uint8)
ROWS = RNG.standard_normal((300, 6)).astype(np.float32)
SPATIAL = RNG.standard_normal((300, 4)).astype(np.float32)


def extractor(kind, length=6, sha256="a" * 64):
  outputs = {"pool": length, "spatial": 4}
  return Extractor(kind, kind, 8, outputs, {}, lambda params, x, centre: {}, sha256, f"{kind}.pth")


def features(kind):
  sums = {"pool": statistics(ROWS if kind == "inception" else 2 * ROWS), "spatial": statistics(SPATIAL)}
  return Features(300, sums, np.arange(300), ROWS)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_written_and_read(name, tmp_path):
  protocol = protocols.named(name)
  kinds = protocol.extractors
  path = str(tmp_path / ("ref.pkl" if name == "edm2" else "ref.npz"))
  used = [extractor(kind) for kind in kinds]
  reference_files.write(path, protocol, {kind: features(kind) for kind in kinds}, used, ArrayImages(IMAGES))
  found = reference_files.read(path)
  mean, covariance = found.reference.gaussians["fid"]
  np.testing.assert_allclose(mean, ROWS.mean(axis=0), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(covariance, np.cov(ROWS, rowvar=False), rtol=1e-5, atol=1e-6)
  assert found.notes["protocol"] == name and found.reference.count == 300
  reference_files.check_extractors(found, protocol, used)
  assert found.images == (name == "adm")
  if name == "adm":
    np.testing.assert_allclose(found.reference.gaussians["sfid"][0], SPATIAL.mean(axis=0), rtol=1e-5)
    with np.load(path) as file:  # as the evaluator reads it
      assert (file["arr_0"] == IMAGES).all() and {"mu", "sigma", "mu_s", "sigma_s"} <= set(file.files)
  if name == "edm2":
    with open(path, "rb") as file:
      tree = pickle.load(file)
    assert tree["num_images"] == 300 and tree["fd_dinov2"]["sigma"].shape == (6, 6)
    np.testing.assert_allclose(found.reference.gaussians["fd_dinov2"][0], 2 * ROWS.mean(axis=0), rtol=1e-5)
  rows = {"score_sde": "pool_3", "clean": "feats"}.get(name)
  assert (found.reference.rows is None) == (rows is None)
  if rows:
    with np.load(path) as file:
      assert (file[rows] == ROWS).all()
  other = [extractor(kinds[0], sha256="b" * 64)]
  with pytest.raises(
    UserError, match="ref.* is of another extractor: its features are of the inception weights aaaa"
  ):
    reference_files.check_extractors(found, protocol, other)


def test_layouts_of_others(tmp_path):
  mean, covariance = ROWS.mean(axis=0), np.cov(ROWS, rowvar=False)
  for names in (("mu", "sigma"), ("ref_mu", "ref_sigma"), ("mean", "cov")):
    path = str(tmp_path / f"{names[0]}.npz")
    np.savez_compressed(path, **dict(zip(names, (mean, covariance))))
    found = reference_files.read(path)
    assert (found.reference.gaussians["fid"][1] == covariance).all() and found.reference.rows is None
    with pytest.raises(
      UserError, match="another extractor: it has 6 features for fid, and inception gives 9"
    ):
      reference_files.check_extractors(found, protocols.EDM, [extractor("inception", 9)])
  np.savez(tmp_path / "kid.npz", feats=ROWS)
  found = reference_files.read(str(tmp_path / "kid.npz"))
  assert (found.reference.rows == ROWS).all()
  np.testing.assert_allclose(found.reference.gaussians["fid"][1], covariance, rtol=1e-6, atol=1e-7)
  with pytest.raises(UserError, match="another extractor: it has features of length 6|6 features for fid"):
    reference_files.check_extractors(found, protocols.EDM, [extractor("inception", 9)])


def test_refusals(tmp_path):
  np.savez(tmp_path / "other.npz", weights=ROWS)
  with pytest.raises(
    UserError, match="other.npz has weights, which is no layout of statistics that is known"
  ):
    reference_files.read(str(tmp_path / "other.npz"))
  np.savez(tmp_path / "shapes.npz", mu=np.zeros(3), sigma=np.eye(4))
  with pytest.raises(UserError, match=r"mean \[3\] and a covariance \[4, 4\] for fid"):
    reference_files.read(str(tmp_path / "shapes.npz"))
  with pytest.raises(UserError, match="nowhere.npz cannot be read"):
    reference_files.read(str(tmp_path / "nowhere.npz"))
  whole = (tmp_path / "shapes.npz").read_bytes()
  (tmp_path / "cut.npz").write_bytes(whole[:100])
  with pytest.raises(UserError, match="cut.npz is no whole .npz file"):
    reference_files.read(str(tmp_path / "cut.npz"))
