"""What a file asks for beside weights is refused by name and never called; what is no weights is said."""

import builtins
import collections
import io
import json
import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest

from diffusion import weights
from diffusion.config.errors import UserError
from diffusion.weights.formats import allowed, pickle_machine, torch_stream
from diffusion.weights.formats.mapped import Damaged, Source


class Asks:
  """An object whose pickle calls a function."""

  def __init__(self, function, *args):
    self.function, self.args = function, args

  def __reduce__(self):
    return self.function, self.args


def noted(*words):
  """A harmless stand-in for what a file should not call."""
  CALLED.append(words)


CALLED = []


def in_zip(path, data):
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("archive/data.pkl", data)
    file.writestr("archive/version", "3\n")


def in_stream(path, data, protocol=2):
  head = b"".join(pickle.dumps(one, protocol) for one in (torch_stream.MAGIC, 1001, {"little_endian": True}))
  path.write_bytes(head + data + pickle.dumps([], 2))


def alone(path, data):
  path.write_bytes(data)


WRITERS = {"zip": in_zip, "stream": in_stream, "alone": alone}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
  "asked, name",
  [
    (Asks(os.getcwd), "posix.getcwd"),
    (Asks(print, "called"), "(builtins|__builtin__).print"),
    (Asks(noted, "called"), "[a-z_.]*test_refusals.noted"),
    (Asks(getattr, {}, "keys"), "(builtins|__builtin__).getattr"),
    (Asks(eval, "1"), "(builtins|__builtin__).eval"),
  ],
  ids=["getcwd", "print", "noted", "getattr", "eval"],
)
def test_a_function_in_a_pickle_is_named_and_not_called(asked, name, writer, protocol, tmp_path, capsys):
  path = tmp_path / "a.pt"
  WRITERS[writer](path, pickle.dumps({"w": 1, "b": asked}, protocol))
  with pytest.raises(UserError, match=f"asks for {name}, which is not read: known are tensors") as error:
    weights.read(str(path))
  assert "\n" not in str(error.value)
  assert not CALLED and capsys.readouterr().out == ""


HAND_WRITTEN = {
  "global": b"\x80\x02cos\ngetcwd\n)R.",
  "instance": b"\x80\x02(ios\ngetcwd\n.",
  "object": b"\x80\x02(cos\ngetcwd\no.",
  "new": b"\x80\x02cos\ngetcwd\n)\x81.",
  "stack": b"\x80\x04\x8c\x02os\x8c\x06getcwd\x93)R.",
  "only named": b"\x80\x02cos\ngetcwd\n.",
  "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x0aos.getcwd0\x93)R.".replace(
    b"\x0aos.getcwd0", b"\x09os.getcwd"
  ),
  "class of a module": b"\x80\x04\x8c\x10torch.nn.modules\x8c\x06getcwd\x93)R.",
}


@pytest.mark.parametrize("case", HAND_WRITTEN)
def test_every_way_to_name_a_function_is_refused(case, tmp_path):
  path = tmp_path / "a.pkl"
  path.write_bytes(HAND_WRITTEN[case])
  with pytest.raises(UserError, match="asks for .*getcwd, which is not read"):
    weights.read(str(path))


@pytest.mark.parametrize(
  "data, words",
  [
    (b"\x80\x02cbuiltins\nobject\n)R.", "calls builtins.object, which can only be mentioned"),
    (b"\x80\x02K\x01)R.", "calls a int"),
    (b"\x80\x02\x82\x01.", "no opcode"),
    (b"\x80\x02P0\n.", "outside of itself"),
    (b"\x80\x05\x97.", "no opcode"),
    (b"\x80\x02}(K\x01K\x02K\x01K\x03u.", "the key 1 stands twice"),
    (b"\x80\x02h\x05.", "recalls object 5"),
    (b"\x80\x02R.", "takes more than it has"),
    (b"\x80\x02u.", "no mark"),
    (b"\x80\x02\x8b\xff\xff\xff\x7f.", "wants 2147483647 bytes"),
    (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "wants 18446744073709551615 bytes"),
    (b"\x80\x02]q\x00h\x00a.", "contain each other without end"),
    (b"\x80\x02]" + b"2\x86" * 60 + b".", "contain each other without end"),
    (b"\x80\x02K\x01.K\x02.", "3 bytes follow the pickle"),
    (b"\x80\x02r\xff\xff\xff\xff.", "takes more than it has"),
  ],
)
def test_a_pickle_that_is_none_is_one_sentence(data, words, tmp_path):
  path = tmp_path / "a.pkl"
  path.write_bytes(data)
  with pytest.raises(UserError, match=words) as error:
    weights.read(str(path))
  assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_lists_that_are_copied_again_and_again_are_refused():
  data = b"\x80\x02cbuiltins\nlist\nq\x00(" + b"K\x01" * 2000 + b"lq\x01" + b"0h\x00h\x01\x85R" * 2000 + b"."
  with pytest.raises(Damaged, match="copies the same lists"):
    pickle_machine.run(Source("a", data), 0, len(data), allowed.find)


OBJECTS = [
  {"a": [1, -5, 2**70, -(2**70), 1.5, None, True, False, "text", b"bytes", b"x" * 5000, "é\u20ac"]},
  [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {1: {2: 3}}, {1, 2}, frozenset({3}), 1 + 2j],
  collections.OrderedDict([("b", 1), ("a", collections.OrderedDict(c=2))]),
  {"shared": [[0]] * 3, "large": list(range(1000)), "keys": {k: str(k) for k in range(300)}},
  bytearray(b"abc"),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", range(len(OBJECTS)))
def test_the_machine_agrees_with_pythons_own_on_plain_data(place, protocol):
  data = pickle.dumps(OBJECTS[place], protocol)
  found, end = pickle_machine.run(Source("a", data), 0, len(data), allowed.find)

  def plain(one):
    if type(one) is pickle_machine.Span:
      return one.bytes()
    if type(one) is dict:
      return {key: plain(value) for key, value in one.items()}
    return [plain(value) for value in one] if type(one) is list else one

  assert end == len(data) and plain(found) == OBJECTS[place]


def test_texts_of_python_2_are_read():
  data = b"(dp0\nS'a'\np1\nI01\nsS'\\xe9'\np2\nL5L\nsU\x02hi(lp3\nF1.5\nas."
  found, _ = pickle_machine.run(Source("a", data), 0, len(data), allowed.find)
  assert found == {"a": True, "é": 5, "hi": [1.5]} == pickle.loads(data, encoding="latin-1")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_stream_format_is_known_in_every_protocol(protocol, tmp_path):
  in_stream(tmp_path / "a.pt", pickle.dumps({"epoch": 3}, protocol), protocol)
  found = weights.read(str(tmp_path / "a.pt"))
  assert found.format == "torch stream" and found.notes == {"tree": {"epoch": 3}}


def zipped(**members):
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w") as file:
    for name, data in members.items():
      file.writestr(name.replace("__", "/"), data)
  return out.getvalue()


def packed(method, more):
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w", method) as file:
    file.writestr("archive/data.pkl", pickle.dumps({}, 2) + more)
  return out.getvalue()


def npz():
  out = io.BytesIO()
  np.savez(out, a=np.ones(2))
  return out.getvalue()


NOT_WEIGHTS = {
  "empty": (b"", "is empty"),
  "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
  "page": (b"<!DOCTYPE html><html>", "page of text"),
  "gzip": (b"\x1f\x8b\x08" + bytes(20), "packed by gzip"),
  "npy": (b"\x93NUMPY\x01\x00", "one array of NumPy"),
  "npz": (npz(), "is NumPy's .npz"),
  "zip": (zipped(a__b=b"1"), "is some other zip"),
  "no pickle": (zipped(m__data_pkl=b"").replace(b"data_pkl", b"data.pkl"), "cannot be read as PyTorch's zip"),
  "packed": (packed(zipfile.ZIP_DEFLATED, 100 * b"x"), "packed or encrypted"),
  "unknown": (b"\x7fELF\x02\x01\x01", "begins with 7f 45 4c 46 02 01 01, which is no format"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_what_is_no_file_of_weights_is_said(case, tmp_path):
  data, words = NOT_WEIGHTS[case]
  path = tmp_path / "a.pt"
  path.write_bytes(data)
  with pytest.raises(UserError, match=words):
    weights.read(str(path))


def test_a_program_of_torchscript_is_said(tmp_path):
  """Its sources are packed, as no other member of PyTorch's files is."""
  with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
    file.writestr("archive/data.pkl", b"\x80\x02N.")
    file.writestr("archive/constants.pkl", b"")
    file.writestr("archive/code/a.py", bytes(100), zipfile.ZIP_DEFLATED)
  with pytest.raises(UserError, match="program of TorchScript"):
    weights.read(str(tmp_path / "a.pt"))


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x02tQK\x00"


@pytest.mark.parametrize(
  "rest, words",
  [
    (b"K\x02\x85K\x01\x85\x89}}U\x04conj\x88stR", "flags conj, whose numbers are not its values: save"),
    (b"K\x03\x85K\x01\x85\x89}tR", "wants bytes"),
    (b"K\x02\x85K\x02\x85\x89}tR", "wants bytes"),
    (b"K\x02\x85J\xff\xff\xff\xff\x85\x89}tR", "-1 stands where a size should"),
    (b"K\x02\x85)\x89}tR", "1 axes and 0 strides"),
    (b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86K\x00K\x00\x86\x89}tR", "repeats the 1 elements that it has"),
  ],
  ids=["conjugate", "long", "far", "backwards", "strides", "repeated"],
)
def test_tensors_that_are_not_within_their_storage_are_refused(rest, words, tmp_path):
  with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
    file.writestr("archive/data.pkl", b"\x80\x02" + TENSOR + rest + b".")
    file.writestr("archive/data/0", bytes(8))
  with pytest.raises(UserError, match=words):
    weights.read(str(tmp_path / "a.pt"))


def test_tensors_within_their_storage_are_read(tmp_path):
  """The same bytes as are refused above, with sizes that fit; a view of nothing may begin at the end."""
  for rest, want in (
    (b"K\x02\x85K\x01\x85\x89}tR", [1, 2]),
    (b"K\x03\x85K\x00\x85\x89}tR", [1, 1, 1]),
    (b"K\x00\x85K\x09\x85\x89}tR", []),
  ):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
      file.writestr("archive/data.pkl", b"\x80\x02" + TENSOR + rest + b".")
      file.writestr("archive/data/0", np.array([1, 2], np.float32).tobytes())
    found = weights.read(str(tmp_path / "a.pt")).load()
    assert found["array"].tolist() == want


@pytest.mark.parametrize("twice", [False, True])
def test_members_of_a_zip_that_lie_over_each_other_are_refused(twice, tmp_path):
  path = tmp_path / "a.pt"
  with zipfile.ZipFile(path, "w") as file, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    file.writestr("archive/data.pkl", b"\x80\x02N.")
    file.writestr("archive/data/0", bytes(8))
    file.writestr("archive/data/0" if twice else "archive/data/1", bytes(8))
    if not twice:
      file.filelist[2].header_offset = file.filelist[1].header_offset
  with pytest.raises(UserError, match="is in it twice" if twice else "lies over another member"):
    weights.read(str(path))


def test_text_of_numpy_is_refused_by_its_dtype(tmp_path):
  path = tmp_path / "a.pkl"
  path.write_bytes(pickle.dumps({"w": np.array(["x"])}))
  with pytest.raises(UserError, match="NumPy's dtype U1, and only numbers are read"):
    weights.read(str(path))


def test_folders_without_weights_are_said(tmp_path):
  with pytest.raises(UserError, match="cannot be opened"):
    weights.read(str(tmp_path / "nothing"))
  (tmp_path / "other.safetensors").write_bytes(b"")
  with pytest.raises(UserError, match="there is other.safetensors: give the path of the file itself"):
    weights.read(str(tmp_path))
  (tmp_path / "unet").mkdir()
  (tmp_path / "model_index.json").write_text(json.dumps({}))
  with pytest.raises(UserError, match="whole pipeline of diffusers: give one of its folders, unet"):
    weights.read(str(tmp_path))


def test_nothing_is_imported_or_called_by_name(monkeypatch):
  """Reading the recorded pickles imports nothing but modules of this library."""
  from tests.weights.recorded_pairs import FOLDER

  names = ("zip.pt", "stream.pt", "edm.pkl", "edm2.pkl", "numpy2.pkl")
  for name in names:
    weights.read(str(FOLDER / name))  # what this library itself loads late is there from now on

  asked, real = set(), builtins.__import__

  def noting(name, *args, **kwargs):
    asked.add(name)
    return real(name, *args, **kwargs)

  with monkeypatch.context() as patched:
    patched.setattr(builtins, "__import__", noting)
    for name in names:
      weights.read(str(FOLDER / name))
  assert all(name.startswith(("diffusion.", "numpy._core.")) for name in asked), asked
