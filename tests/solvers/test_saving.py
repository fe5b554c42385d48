"""A table in a file comes back bit for bit, and whatever is wrong with the file is one sentence."""

import json

import jax
import numpy as np
import pytest

from diffusion import processes, solvers

CASES = {
  "two slots": lambda process: solvers.build("dpmpp_2m", process, 5),
  "corrector": lambda process: solvers.build("unipc", process, 6),
  "two noises in float64": lambda process: solvers.build("sa_solver", process, 4, dtype=np.float64),
  "a grid a sample": lambda process: solvers.ddim(process, np.array([[0.9, 0.4, 0.0], [0.8, 0.2, 0.0]])),
  "eps": lambda process: solvers.build("deis", process, 4, view="eps"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_table_comes_back_bit_for_bit(tmp_path, case):
  process = processes.vp_linear()
  table = CASES[case](process)
  path = tmp_path / "table.npz"
  solvers.save(path, table, process, notes={"guidance": 1.5})
  back = solvers.load(path, process)
  assert jax.tree.structure(back) == jax.tree.structure(table)
  for name in ("t", "g", "h", "A", "B", "C", "w", "start", "hook"):
    was, now = np.asarray(getattr(table, name)), getattr(back, name)
    assert now.dtype == was.dtype and now.shape == was.shape and now.tobytes() == was.tobytes()
  assert (back.name, back.order, back.about.process_name, back.view) == (
    table.name,
    table.order,
    "vp_linear",
    table.view,
  )
  assert str(back) == str(table)
  assert solvers.read_notes(path) == {"guidance": 1.5}
  assert [file.name for file in tmp_path.iterdir()] == ["table.npz"]


def test_the_process_must_fit(tmp_path):
  process = processes.vp_linear()
  path = str(tmp_path / "table.npz")
  solvers.save(path, solvers.build("ddim", process, 3), process)
  with pytest.raises(ValueError, match="for the process 'vp_linear', not for 'edm'"):
    solvers.load(path, processes.edm())
  with pytest.raises(ValueError, match=r"beta_max = 20.0, and here it is 10.0"):
    solvers.load(path, processes.vp_linear(beta_max=10.0))
  # Where sampling starts and stops is the table's own affair, and float32 leaves are the same process.
  solvers.load(path, processes.vp_linear(t_min=1e-5))
  solvers.load(path, jax.tree.map(np.float32, process))
  with pytest.raises(ValueError, match="belongs to the process 'vp_linear'"):
    solvers.save(path, solvers.build("ddim", process, 3), processes.edm())


def _without(leaf):
  def change(path):
    arrays = dict(np.load(path))
    del arrays[leaf]
    np.savez(path, **arrays)

  return change


def _with(**leaves):
  def change(path):
    np.savez(path, **{**dict(np.load(path)), **leaves})

  return change


def _described(**changes):
  def change(path):
    arrays = dict(np.load(path))
    about = json.dumps({**json.loads(arrays["about"].tobytes()), **changes}).encode()
    np.savez(path, **{**arrays, "about": np.frombuffer(about, np.uint8)})

  return change


def _flipped(path):
  """One bit in the middle of an array: the archive's checksum sees it."""
  content = bytearray(path.read_bytes())
  content[content.index(b"NUMPY", len(content) // 2) + 130] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize(
  "change, says",
  {
    "missing": (lambda path: path.unlink(), "there is no saved solver at"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "a bit": (_flipped, "damaged"),
    "text": (lambda path: path.write_text("no archive"), "damaged"),
    "foreign": (lambda path: np.savez(path, x=np.zeros(3)), "no description"),
    "an array": (lambda path: np.save(path.open("wb"), np.zeros(3)), "damaged"),
    "other format": (_described(format="a picture"), "of something else"),
    "later version": (_described(version=99), "version 99"),
    "no weights": (_without("A"), "damaged"),
    "odd shape": (_with(B=np.zeros((7, 2), np.float32)), "not finite numbers"),
    "nan": (_with(g=np.full(5, np.nan, np.float32)), "not finite numbers"),
    "strings": (_with(g=np.array(["a"] * 5)), "not finite numbers"),
  }.values(),
)
def test_each_bad_file_is_one_clear_error(tmp_path, change, says):
  path = tmp_path / "table.npz"
  solvers.save(path, solvers.build("dpmpp_2m", processes.vp_linear(), 5))
  change(path)
  with pytest.raises(ValueError, match=says) as raised:
    solvers.load(path)
  assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_not_a_table_is_not_saved(tmp_path):
  process = processes.vp_linear()
  with pytest.raises(TypeError, match="only tables"):
    solvers.save(tmp_path / "x.npz", solvers.build("predictor_corrector", process, 3))
  with pytest.raises(ValueError, match=".npz"):
    solvers.save(tmp_path / "x.txt", solvers.build("ddim", process, 3))
  # A folder that does not exist leaves nothing behind.
  with pytest.raises(OSError):
    solvers.save(tmp_path / "no" / "x.npz", solvers.build("ddim", process, 3))
