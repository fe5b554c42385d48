"""Sinks of a run.

What every one keeps, what a run writes to those of its config, and what a failing one does to it.
"""

import json
import os
import pathlib
import struct
import sys
import types

import jax
import ml_collections
import numpy as np
import pytest

from diffusion.commands import evaluation
from diffusion.config.errors import UserError
from diffusion.pictures import loss_curve
from diffusion.run import logging, loop, sinks
from diffusion.run.saved import checkpoints

HERE = pathlib.Path(__file__).parent
pytestmark = pytest.mark.standard_promotion


class Recorder:
  """A sink of one's own: keeps every call in a file, and raises at one step if it is asked to."""

  def __init__(self, name, fail_at, error):
    self.name, self.fail_at, self.error = name, fail_at, error

  def open(self, workdir, step):
    self.path = os.path.join(workdir, self.name)
    self._write("open", step)

  def log(self, step, scalars):
    if step == self.fail_at:
      raise self.error
    self._write("log", step, scalars["loss"])

  def metrics(self, step, found):
    self._write("metrics", step, sorted(found))

  def picture(self, step, name, path):
    self._write("picture", step, name, pathlib.Path(path).read_bytes()[:4].decode("latin-1"))

  def close(self):
    self._write("close")

  def _write(self, *call):
    with open(self.path, "a") as file:
      file.write(json.dumps(call) + "\n")


def recorder(name="calls", fail_at=None, full=False):
  if name == "refused":
    raise ValueError("a name that this sink refuses")
  error = OSError(28, "No space left on device") if full else RuntimeError("the line\nis dead")
  return Recorder(name, fail_at, error)


def shut(name="calls"):
  class Shut(Recorder):
    def open(self, workdir, step):
      raise ConnectionError("nobody there")

  return Shut(name, None, None)


def no_sink():
  return print


class FakeRun:
  """What `wandb.init` returns."""

  def __init__(self):
    self.lines, self.finished, self.defined = [], False, []

  def log(self, values, step=None):
    self.lines.append((step, values))

  def define_metric(self, name, step_metric):
    self.defined.append((name, step_metric))

  def finish(self):
    self.finished = True


@pytest.fixture
def wandb(monkeypatch):
  """A stand-in for the package: every run that was begun, with its options."""
  module = types.ModuleType("wandb")
  module.runs = []

  def init(**options):
    module.runs.append((options, FakeRun()))
    return module.runs[-1][1]

  module.init, module.Image = init, lambda path: ("image", os.path.basename(path))
  monkeypatch.setitem(sys.modules, "wandb", module)
  return module


def calls(workdir, name="calls"):
  return [json.loads(line) for line in (pathlib.Path(workdir) / name).read_text().splitlines()]


def events(folder):
  """All events of a folder of TensorBoard files, file after file."""
  from tensorboardX.proto import event_pb2

  for file in sorted(pathlib.Path(folder).iterdir(), key=lambda path: path.stat().st_mtime_ns):
    content, place = file.read_bytes(), 0
    while place < len(content):
      (length,) = struct.unpack_from("<Q", content, place)
      yield event_pb2.Event.FromString(content[place + 12 : place + 12 + length])
      place += length + 16


RECORD = {"loss": 0.5, "images_per_second": 3.0}
FOUND = {"nfe": 8, "own": {"centre": 0.25}, "dequantized_in_training": True, "bits": None}
MEMBERS = {
  "jsonl": dict(factory="run.sinks.jsonl"),
  "tensorboard": dict(factory="run.sinks.tensorboard"),
  "wandb": dict(factory="run.sinks.wandb", project="p"),
  "own": dict(factory="test_sinks.recorder"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_every_sink_takes_a_run_its_resumption_and_its_evaluation(name, tmp_path, wandb):
  """The calls of a run of four steps that goes on from the second, and of an evaluation alone."""
  picture = str(tmp_path / "loss.png")
  loss_curve(picture, [1, 2], [1.0, 0.5])
  for start, stop in ((0, 4), (2, 4)):
    sink = sinks.build([MEMBERS[name]])
    sink.open(str(tmp_path), start)
    for step in range(start + 1, stop + 1):
      sink.log(step, RECORD)
    sink.close()
  sink = sinks.build([MEMBERS[name]])
  sink.open(str(tmp_path), None)
  sink.metrics(2, FOUND)
  sink.picture(2, "loss", picture)
  sink.close()
  if name == "jsonl":
    assert logging.read(str(tmp_path / "log.jsonl")) == [{"step": step, **RECORD} for step in (1, 2, 3, 4)]
    assert sorted(os.listdir(tmp_path)) == ["log.jsonl", "loss.png"]
  elif name == "tensorboard":
    _check_tensorboard(tmp_path, picture)
  elif name == "wandb":
    _check_wandb(tmp_path, wandb)
  else:
    assert [call[:2] for call in calls(tmp_path)][-4:] == [
      ["open", None],
      ["metrics", 2],
      ["picture", 2],
      ["close"],
    ]


def _check_tensorboard(tmp_path, picture):
  """The second file hides what the first said after step 2; nothing is hidden by the evaluation."""
  found = list(events(tmp_path / "tensorboard"))
  assert [event.step for event in found if event.HasField("session_log")] == [3]
  values = [(event.step, value) for event in found for value in event.summary.value]
  scalars = [
    (step, value.tag, value.simple_value) for step, value in values if value.HasField("simple_value")
  ]
  assert [step for step, tag, _ in scalars if tag == "loss"] == [1, 2, 3, 4, 3, 4]
  assert [row for row in scalars if row[1].startswith("evaluation")] == [
    (2, "evaluation/nfe", 8.0),
    (2, "evaluation/own/centre", 0.25),
  ]
  ((step, value),) = [(step, value) for step, value in values if value.HasField("image")]
  png = pathlib.Path(picture).read_bytes()
  assert (step, value.tag, value.image.encoded_image_string) == (2, "evaluation/loss", png)
  import matplotlib.image

  height, width = matplotlib.image.imread(picture).shape[:2]
  assert (value.image.height, value.image.width) == (height, width)


def _check_wandb(tmp_path, wandb):
  """One run of W&B for all three, log lines with their steps, and an evaluation that is never too late."""
  options, runs = zip(*wandb.runs)
  assert len(runs) == 3 and all(run.finished for run in runs)
  assert (
    len({option["id"] for option in options}) == 1
    and options[0]["id"] in (tmp_path / "wandb_run_id").read_text()
  )
  for option in options:
    assert option["resume"] == "allow" and option["project"] == "p" and option["name"] == tmp_path.name
  assert [step for step, _ in runs[0].lines] == [1, 2, 3, 4] and [step for step, _ in runs[1].lines] == [3, 4]
  assert runs[0].lines[0] == (1, RECORD)
  assert ("evaluation/*", "evaluation/step") in runs[2].defined
  assert runs[2].lines == [
    (None, {"evaluation/nfe": 8.0, "evaluation/own/centre": 0.25, "evaluation/step": 2}),
    (None, {"evaluation/loss": ("image", "loss.png"), "evaluation/step": 2}),
  ]


def test_wandb_gets_the_config_and_a_run_of_its_own(tmp_path, wandb):
  for name in ("a", "b"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text('{"seed": 3}')
    sink = sinks.build([dict(MEMBERS["wandb"], name="n", tags=("t",), mode="offline")])
    sink.open(str(tmp_path / name), 0)
    sink.close()
  (first, _), (second, _) = wandb.runs
  assert first["id"] != second["id"] and first["config"] == {"seed": 3}
  assert (first["name"], first["tags"], first["mode"]) == ("n", ["t"], "offline")


@pytest.mark.parametrize(
  "section, words",
  [
    (dict(factory="run.sinks.jsonl"), ["must be a list of sections"]),
    ("run.sinks.jsonl", ["must be a list of sections"]),
    ([dict(factory="run.sinks.jsnl")], ["config.training.sinks[0]", "'jsonl'"]),
    ([dict(factory="run.sinks.jsonl", path="x")], ["config.training.sinks[0]", "no argument 'path'"]),
    ([dict(factory="run.sinks.tensorboard", folder="/tmp")], ["inside the run's folder"]),
    (["jsonl"], ["config.training.sinks[0] must be a section with a factory"]),
    ([MEMBERS["jsonl"], dict(factory="run.sinks.wandb")], ["config.training.sinks[1]", "'project'"]),
    ([dict(MEMBERS["wandb"], mode="on")], ["'offline'"]),
    ([MEMBERS["wandb"]], ["needs the package wandb", "pip install wandb"]),
    (
      [dict(factory="test_sinks.recorder", name="refused")],
      ["config.training.sinks[0]", "this sink refuses"],
    ),
    ([dict(factory="test_sinks.no_sink")], ["is no sink", "it has no open, log, metrics, picture, close"]),
  ],
)
def test_a_wrong_section_is_one_sentence_before_anything_is_compiled(section, words, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
  monkeypatch.setattr(loop.steps, "make_step", lambda *_, **__: pytest.fail("the step was built"))
  with pytest.raises(UserError) as raised:
    loop.train(config(sinks=section), str(tmp_path / "run"))
  assert all(word in str(raised.value) for word in words), raised.value
  assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


def config(**training):
  import tiny

  made = tiny.get_config()
  made.training.update(steps=20, log_every=5)
  with made.unlocked():
    made.training.update(ml_collections.ConfigDict(training))
  return made


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  sys.path.insert(0, str(HERE))
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)
  sys.path.remove(str(HERE))


OWN = dict(factory="test_sinks.recorder")


def train(workdir, **training):
  return loop.train(config(**training), str(workdir), quiet=True)


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_writes_to_the_sinks_of_its_config_and_so_does_its_evaluation(tmp_path, capsys):
  """An own sink beside the JSON lines: the same losses in both, then metrics and pictures; no TensorBoard."""
  both = (dict(factory="run.sinks.jsonl"), dict(OWN))
  train(tmp_path, sinks=both, steps=10)
  train(tmp_path, sinks=both)  # goes on from step 10
  log = logging.read(str(tmp_path / "log.jsonl"))
  assert [line["step"] for line in log] == [5, 10, 15, 20]
  expected = [["open", 0], *[["log", line["step"], line["loss"]] for line in log[:2]], ["close"]]
  expected += [["open", 10], *[["log", line["step"], line["loss"]] for line in log[2:]], ["close"]]
  assert calls(tmp_path) == expected and not (tmp_path / "tensorboard").exists()

  evaluation.evaluate_run(str(tmp_path), quiet=True)
  open_, metrics, *pictures, close = calls(tmp_path)[len(expected) :]
  assert open_ == ["open", None] and close == ["close"]
  found = json.loads((tmp_path / "metrics.json").read_text())
  assert metrics == ["metrics", 20, sorted(found)]
  assert [call[:3] for call in pictures] == [["picture", 20, "loss"], ["picture", 20, "samples"]]
  assert all(call[3] == "\x89PNG" for call in pictures)
  assert logging.read(str(tmp_path / "log.jsonl")) == log  # an evaluation cuts nothing

  # The sinks are no part of what makes two runs the same: others may be named on the way, or none.
  train(tmp_path, sinks=(), steps=25)
  assert (
    logging.read(str(tmp_path / "log.jsonl")) == log
    and checkpoints.steps(str(tmp_path / "checkpoints"))[-1] == 25
  )
  assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_without_the_key_a_run_writes_json_lines_and_tensorboard(tmp_path):
  train(tmp_path / "default", steps=5)
  train(tmp_path / "named", steps=5, sinks=(dict(sinks.several.DEFAULT[0]), dict(sinks.several.DEFAULT[1])))
  logs = [logging.read(str(tmp_path / name / "log.jsonl")) for name in ("default", "named")]
  for log in logs:
    for line in log:
      [line.pop(name) for name in logging.TIMED]
  assert logs[0] == logs[1] and len(logs[0]) == 1
  assert all(list((tmp_path / name / "tensorboard").iterdir()) for name in ("default", "named"))


def test_a_failing_sink_is_said_once_and_the_run_is_the_same(tmp_path, capsys):
  """It fails at step 10: the other sinks and the weights are those of a run without it."""
  train(tmp_path / "plain", sinks=(dict(factory="run.sinks.jsonl"),))
  capsys.readouterr()
  train(tmp_path / "failing", sinks=(dict(OWN, fail_at=10), dict(factory="run.sinks.jsonl")))
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and said.count("failed") == 1
  assert "config.training.sinks[0] (test_sinks.recorder) failed (RuntimeError: the line is dead)" in said
  assert [call[:2] for call in calls(tmp_path / "failing")] == [["open", 0], ["log", 5], ["close"]]
  losses = [
    [(line["step"], line["loss"]) for line in logging.read(str(tmp_path / name / "log.jsonl"))]
    for name in ("plain", "failing")
  ]
  assert losses[0] == losses[1] and [step for step, _ in losses[0]] == [5, 10, 15, 20]
  states = [
    checkpoints.read_arrays(checkpoints.choose(str(tmp_path / name / "checkpoints")))
    for name in ("plain", "failing")
  ]
  jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_its_checkpoint(tmp_path):
  """Every sink still gets the line, and is closed."""
  section = (dict(OWN, fail_at=15, full=True), dict(OWN, name="other"))
  with pytest.raises(OSError, match="No space left"):
    train(tmp_path, sinks=section)
  assert checkpoints.steps(str(tmp_path / "checkpoints")) == [10]
  assert calls(tmp_path)[-1] == ["close"] and calls(tmp_path, "other")[-2:][0][:2] == ["log", 15]
  train(tmp_path, sinks=(dict(OWN, name="third"),))
  assert [call[:2] for call in calls(tmp_path, "third")] == [
    ["open", 10],
    ["log", 15],
    ["log", 20],
    ["close"],
  ]


def test_a_sink_that_cannot_be_opened_stops_a_run_and_not_an_evaluation(tmp_path, capsys):
  train(tmp_path, sinks=(), steps=5)
  broken = (dict(OWN), dict(factory="test_sinks.shut"))
  with pytest.raises(
    UserError, match=r"sinks\[1\] \(test_sinks.shut\) cannot be opened \(ConnectionError: nobody"
  ):
    train(tmp_path, sinks=broken)
  assert calls(tmp_path) == [["open", 5], ["close"]]
  tell = sinks.of_evaluation(config(sinks=broken), str(tmp_path))
  loss_curve(str(tmp_path / "new.png"), [1, 2], [1.0, 0.5])
  tell(5, FOUND)
  assert calls(tmp_path)[2:] == [
    ["open", None],
    ["metrics", 5, sorted(FOUND)],
    ["picture", 5, "new", "\x89PNG"],
    ["close"],
  ]
  assert "an evaluation without one of its sinks" in capsys.readouterr().err


def test_a_log_that_ends_is_not_hidden_by_an_error_on_its_way():
  """A disk that is full while sinks are closed does not take the place of what ended the run."""

  class Full:
    def close(self):
      raise OSError(28, "No space left on device")

  with pytest.raises(OSError, match="No space"):
    sinks.Several([("full", Full())]).close()
  with pytest.raises(KeyError, match="first"):
    try:
      raise KeyError("first")
    finally:
      sinks.Several([("full", Full())]).close()
