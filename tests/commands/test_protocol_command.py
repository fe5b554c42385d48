"""`sample.py --evaluate --protocol` and `--explain`, on images in files and on a run."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from diffusion import weights
from diffusion.commands import protocol_flags
from diffusion.commands.evaluation import sources
from diffusion.config import loading
from diffusion.config.errors import UserError
from diffusion.metrics import protocols
from diffusion.metrics.extractors import files
from diffusion.run import loop
from tests.commands import small_extractors
from tests.metrics.test_extractors import dinov2_arrays, inception_arrays
from tests.scripts import sample

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.standard_promotion


def record(path, name):
  return json.loads(pathlib.Path(path).read_text())["protocols"][name]


def patches(num, seed, scale=0.6):
  rng = np.random.RandomState(seed)
  x = rng.standard_normal((num, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
  return np.clip(scale * x + 0.05 * rng.standard_normal(x.shape), -1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """Extractors with a sixteenth of the channels, model values x, and real images."""
  folder = tmp_path_factory.mktemp("evaluator")
  weights.write_safetensors(str(folder / "inception.safetensors"), inception_arrays(16))
  weights.write_safetensors(str(folder / "dinov2.safetensors"), dinov2_arrays(64, 1))
  x = patches(40, 0)
  np.savez(folder / "x.npz", x=x, stored=np.clip(np.round(127.5 * (x + 1)), 0, 255).astype(np.uint8))
  np.savez(folder / "real.npz", arr_0=protocols.NEAREST(patches(48, 1, 0.5)))
  return folder


SMALL = "tests.commands.small_extractors"


def flags(place, protocol, *more, samples="x.npz", statistics="real.npz", features=(f"{SMALL}.inception",)):
  return (
    "--evaluate",
    f"--protocol={protocol}",
    "--features",
    *map(str, features),
    f"--samples={place / samples}",
    *((f"--statistics={place / statistics}",) if statistics else ()),
    *more,
  )


@pytest.mark.slow
def test_files_of_weights(place):
  """The networks themselves, with a sixteenth of the channels and with one block, by both at once."""
  both = (place / "inception.safetensors", place / "dinov2.safetensors")
  status, said, err = sample(*flags(place, "torch_fidelity", features=both))
  assert (status, err) == (0, "")
  found = record(place / "x.npz.metrics.json", "torch_fidelity")
  for kind, path in zip(("inception", "dinov2"), both):
    sha256 = files.digest(str(path))
    assert found["extractors"][kind]["sha256"] == sha256 and sha256[:12] in said
  assert found["fid"] > 0 and found["fd_dinov2"] > 0 and 0 <= found["precision"] <= 1


def test_numbers_and_what_they_rest_on(place):
  status, said, err = sample(*flags(place, "torch_fidelity"))
  assert (status, err) == (0, "")
  found = record(place / "x.npz.metrics.json", "torch_fidelity")
  sha256 = small_extractors.inception().sha256
  assert found["extractors"]["inception"]["sha256"] == sha256 and sha256[:12] in said
  assert found["samples"] == 40 and found["conventions"]["splits"] == "10 groups, shuffled by seed 2020"
  assert found["fid"] > 0 and 0 <= found["precision"] <= 1 and found["inception_score"] >= 1
  assert "100 subsets of 1000, seed 2020 needs 1000 samples" in found["left_out"]["kid"]
  assert "papers take 50,000" in said and f"FID {found['fid']:.4f}" in said
  assert not [path for path in place.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_every_protocol(name, place, tmp_path):
  """Each measures all that it has, but for KID in subsets of 1000; distances of a set to itself vanish."""
  out = tmp_path / "m.json"
  assert sample(*flags(place, name, f"--out={out}"))[0] == 0
  found, protocol = record(out, name), protocols.named(name)
  missing = {"kid"} if name == "torch_fidelity" else {"fd_dinov2"} if name == "edm2" else set()
  assert set(found["left_out"]) == missing and set(protocol.measured) - missing <= set(found)
  assert sample(*flags(place, name, f"--out={out}", samples="real.npz"))[0] == 0
  itself = record(out, name)
  assert all(
    abs(itself[metric]) < 1e-6 * found[metric] for metric in protocol.metrics if metric in ("fid", "sfid")
  )
  assert "precision" not in protocol.metrics or (itself["precision"], itself["recall"]) == (1, 1)


def test_the_same_images_from_pictures_and_statistics(place, tmp_path):
  """A folder of PNG, the statistics written from it, and the .npz come to one number; itself to none."""
  with np.load(place / "x.npz") as file:
    grey = protocols.NEAREST(file["x"])
  (tmp_path / "pictures").mkdir()
  for i, picture in enumerate(grey):
    Image.fromarray(picture).save(tmp_path / "pictures" / f"{i:03d}.png")
  written, out = tmp_path / "real_statistics.npz", tmp_path / "one.json"
  more = (f"--out={out}", f"--write-statistics={written}")
  assert sample(*flags(place, "edm", *more, samples="real.npz", statistics=None))[0] == 0
  numbers = []
  for samples in (place / "x.npz", tmp_path / "pictures"):
    for statistics in (place / "real.npz", written):
      more = (f"--samples={samples}", f"--statistics={statistics}", f"--out={out}")
      status, _, err = sample(*flags(place, "edm", statistics=None)[:4], *more)
      assert (status, err) == (0, "")
      numbers.append(record(out, "edm")["fid"])
  np.testing.assert_allclose(numbers, numbers[0], rtol=1e-6)
  assert sample(*flags(place, "edm", f"--out={out}", samples="real.npz"))[0] == 0
  assert abs(record(out, "edm")["fid"]) < 1e-6 * numbers[0] + 1e-9


def test_extractors_of_ones_own_beside_it(place, tmp_path):
  """Any extractor gives a Frechet distance beside those of the protocol; statistics hold both."""
  both = (f"{SMALL}.inception", f"{SMALL}.mine")
  for name, ending in (("edm2", "pkl"), ("edm", "npz")):
    out, written = tmp_path / "m.json", tmp_path / f"ref.{ending}"
    more = (f"--out={out}", f"--write-statistics={written}")
    status, said, err = sample(*flags(place, name, *more, features=both))
    assert (status, err) == (0, "")
    forth = record(out, name)
    assert forth["fid"] > 0 and forth["fd_mine"] > 0 and f"fd_mine {forth['fd_mine']:.4f}" in said
    there = flags(
      tmp_path, name, f"--out={out}", statistics=written.name, features=both, samples=place / "real.npz"
    )
    assert sample(*there)[0] == 0
    back = record(out, name)
    assert back["fid"] == pytest.approx(forth["fid"], rel=1e-6)
    assert back["fd_mine"] == pytest.approx(forth["fd_mine"], rel=1e-6)
  there = flags(
    tmp_path, "edm", statistics=written.name, features=(f"{SMALL}.other",), samples=place / "x.npz"
  )
  status, _, err = sample(*there)
  assert status == 2 and "is of another extractor: its features are of the inception weights" in err


def test_explain_adds_up(place, tmp_path):
  """Rounding, resize and range are changed one after another, and their shares are the whole difference."""
  a, b = tmp_path / "a.json", tmp_path / "b.json"
  assert sample(*flags(place, "score_sde", f"--out={a}"))[0] == 0
  assert sample(*flags(place, "clean", f"--out={b}", "--num=36"))[0] == 0
  status, said, err = sample("--explain", a, b)
  assert (status, err) == (0, "")
  fid = [line for line in said.split("KID")[0].splitlines() if line.startswith("  ")]
  names = [line.split(":")[0].strip() for line in fid]
  assert names == ["samples", "rounding", "resize", "centre", "not explained"]
  shares = [float(line.rsplit(":", 1)[1]) for line in fid]
  difference = record(b, "clean")["fid"] - record(a, "score_sde")["fid"]
  assert sum(shares[:-1]) == pytest.approx(difference, abs=2e-3 * abs(difference))
  assert abs(shares[-1]) < 1e-5 and all(shares[:-1])
  assert "40 -> 36" in said and "floor(127.5 (x + 1)) -> floor(127.5 x + 128)" in said
  # Whole grey levels know no rounding any more.
  with np.load(place / "x.npz") as file:
    np.savez(place / "grey.npz", arr_0=protocols.NEAREST(file["x"]))
  for name, out in (("score_sde", a), ("edm", b)):
    assert sample(*flags(place, name, f"--out={out}", samples="grey.npz"))[0] == 0
  said = sample("--explain", f"{a}:score_sde", f"{b}:edm")[1]
  assert (
    "+0 (the images are whole grey levels already)" in said and "centre: 128.0" not in said.split("->")[0]
  )


def test_arrays_stay_in_their_file(tmp_path):
  """What is not compressed is mapped, so that a set of any size is read piece by piece."""
  images = protocols.NEAREST(patches(20, 3))
  np.savez(tmp_path / "a.npz", labels=np.arange(20), arr_0=images)
  np.savez_compressed(tmp_path / "b.npz", labels=np.arange(20), arr_0=images)
  np.save(tmp_path / "c.npy", images)
  for name in ("a.npz", "b.npz", "c.npy"):
    found = sources.of_path(str(tmp_path / name), protocols.NEAREST)
    assert (found.read(3, 9) == images[3:12]).all() and found.count == 20
  mapped = sources._arrays(str(tmp_path / "a.npz"))["arr_0"]
  assert isinstance(mapped, np.memmap) and (mapped == images).all()
  whole = (tmp_path / "a.npz").read_bytes()
  (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
  with pytest.raises(UserError, match="cut.npz cannot be read as arrays"):
    sources.of_path(str(tmp_path / "cut.npz"), protocols.NEAREST)


def test_explain_without_the_images(place, tmp_path):
  a, b = tmp_path / "a.json", tmp_path / "b.json"
  for name, out in (("score_sde", a), ("edm", b)):
    assert sample(*flags(place, name, f"--out={out}"))[0] == 0
  content = json.loads(b.read_text())
  content["protocols"]["edm"]["source"] = {"samples_of": "runs/a", "seed": 1}
  b.write_text(json.dumps(content))
  said = sample("--explain", a, b)[1]
  assert "rounding: floor(127.5 (x + 1)) -> floor(127.5 x + 128): not measured" in said
  assert "images: " in said and "samples of a run are not kept: give images by --samples" in said


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run of the digits with a tiny network."""
  folder = tmp_path_factory.mktemp("run")
  overrides = {
    "network.width": "16",
    "network.depth": "1",
    "training.steps": "2",
    "training.batch_size": "32",
    "sampler.steps": "2",
    "evaluation.num_samples": "30",
    "evaluation.batch": "16",
  }
  loop.train(
    loading.load(str(ROOT / "configs" / "digits.py"), list(overrides.items())), str(folder), quiet=True
  )
  return folder


@pytest.mark.slow
def test_samples_of_a_run(place, workdir, tmp_path):
  (workdir / "metrics.json").write_text(json.dumps({"held_out_loss": 0.5}))
  common = ("--evaluate", "--protocol=edm", f"--workdir={workdir}", "--statistics=held_out")
  common += (f"--features={SMALL}.inception",)
  status, _, err = sample(*common)
  assert (status, err) == (0, "")
  found = record(workdir / "metrics.json", "edm")
  assert found["samples"] == 30 and found["step"] == 2 and found["fid"] > 0
  assert json.loads((workdir / "metrics.json").read_text())["held_out_loss"] == 0.5  # the rest stays
  # By two extractors at once they are drawn once, and nothing is left of them.
  more = ("--features", f"{SMALL}.inception", f"{SMALL}.mine", f"--out={tmp_path / 'm.json'}")
  assert sample(*common[:-1], *more)[0] == 0
  assert record(tmp_path / "m.json", "edm")["fid"] == pytest.approx(found["fid"], rel=1e-6)
  assert [path.name for path in tmp_path.iterdir()] == ["m.json"]
  # The same samples as files: sample i depends on (seed, i) alone.
  out = tmp_path / "drawn"
  assert sample(f"--workdir={workdir}", "--num=30", "--batch=16", f"--out={out}")[0] == 0
  with np.load(f"{out}.npz") as file:
    np.save(tmp_path / "grey.npy", np.floor(file["stored"] * (255 / 16) + 0.5).astype(np.uint8))
  assert sample(*common, f"--samples={tmp_path / 'grey.npy'}", f"--out={tmp_path / 'm.json'}")[0] == 0
  assert record(tmp_path / "m.json", "edm")["fid"] == pytest.approx(found["fid"], rel=1e-6)
  shards = tmp_path / "shards"
  drawn = (f"--workdir={workdir}", "--num=30", "--batch=16", "--shard-size=16", f"--shards={shards}")
  assert sample(*drawn)[0] == 0
  assert sample(*common, f"--samples={shards}", f"--out={tmp_path / 'm.json'}")[0] == 0
  assert record(tmp_path / "m.json", "edm")["fid"] == pytest.approx(found["fid"], rel=1e-6)
  (shards / "000000016-000000029.npz").rename(shards / "000000020-000000033.npz")
  status, _, err = sample(*common, f"--samples={shards}", f"--out={tmp_path / 'm.json'}")
  assert status == 2 and "lacks samples 16 to 19" in err


REFUSED = [
  (("--protocol=edm",), "--protocol only means something together with --evaluate"),
  (("--evaluate", "--protocol=dit"), "--protocol=dit is not known: choose one of adm, edm, edm2"),
  (("--evaluate", "--protocol=edm"), "add --features=FILE"),
  (("--evaluate", "--features=a"), "--features only means something together with --protocol"),
  (("--evaluate", "--protocol=edm", "--features=a"), "give --workdir, or images by --samples"),
  (
    ("--evaluate", "--protocol=edm", "--features=a", "--samples=b", "--steps=3"),
    "--samples names images that are there, so --steps has no place beside it",
  ),
  (("--explain", "nowhere.json", "b.json"), "there is no nowhere.json"),
  (("--explain", "a", "b", "--evaluate"), "--explain compares two files that are there"),
]


@pytest.mark.parametrize("given, why", REFUSED, ids=[why[:30] for _, why in REFUSED])
def test_flags_that_do_not_go_together(given, why):
  assert tuple(protocols.PROTOCOLS) == protocol_flags.PROTOCOLS
  status, out, err = sample(*given)
  assert status == 2 and out == "" and why in err and err.count("\n") == 1


def test_files_that_do_not_go_together(place, tmp_path):
  def refused(why, *more, protocol="edm", **options):
    before = sorted(tmp_path.iterdir())
    status, out, err = sample(*flags(place, protocol, f"--out={tmp_path / 'm.json'}", *more, **options))
    assert status == 2 and out == "" and why in err and err.count("\n") == 1, err
    assert sorted(tmp_path.iterdir()) == before

  np.savez(place / "other.npz", mu=np.zeros(9), sigma=np.eye(9))
  refused("another extractor: it has 9 features for fid, and small inception gives 6", statistics="other.npz")
  np.savez(place / "signal.npz", x=np.zeros((5, 7)))
  refused("images are uint8, or model values in -1 to 1", samples="signal.npz")
  np.savez(place / "one.npz", arr_0=np.zeros((1, 8, 8, 3), np.uint8))
  refused("a distance needs at least 2 images, and there is 1", samples="one.npz")
  refused("--num=41, and", "--num=41")
  twice = (f"{SMALL}.inception", f"{SMALL}.other")
  refused("--features names two extractors of the kind inception", features=twice)
  weights.write_safetensors(str(place / "unknown.safetensors"), {"a.weight": np.zeros(3, np.float32)})
  refused("is no extractor of features that is known here", features=(place / "unknown.safetensors",))
  refused("there is no", samples="nowhere.npz")
  big = protocols.NEAREST(patches(3, 2))
  (place / "mixed").mkdir()
  Image.fromarray(big[0]).save(place / "mixed" / "a.png")
  Image.fromarray(big[1, :8]).save(place / "mixed" / "b.png")
  refused("images of an evaluation have one size", samples="mixed")


@pytest.mark.slow
@pytest.mark.slow
def test_data_that_are_no_images(tmp_path):
  config = loading.load(
    str(ROOT / "configs" / "toy2d.py"), [("training.steps", "1"), ("training.batch_size", "16")]
  )
  loop.train(config, str(tmp_path / "run"), quiet=True)
  before = sorted((tmp_path / "run").iterdir())
  status, out, err = sample("--evaluate", "--protocol=edm", "--features=a", f"--workdir={tmp_path / 'run'}")
  assert (
    status == 2 and out == "" and "a protocol measures pictures, and this run has data of shape [2]" in err
  )
  assert sorted((tmp_path / "run").iterdir()) == before
