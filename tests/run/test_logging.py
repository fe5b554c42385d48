"""A log cut back to a step is what an uninterrupted run had written by then."""

import json
import struct
import time

from diffusion.run import logging, sinks


def record(step):
  return {"step": step, "loss": 1.0 / step, "seconds": 0.1, "images_per_second": 3.0}


def test_cut_keeps_whole_lines_up_to_the_step(tmp_path):
  path = tmp_path / "log.jsonl"
  path.write_text("".join(json.dumps(record(step)) + "\n" for step in (1, 2, 3)) + '{"step": 4, "lo')
  logging.cut(str(path), 2)
  assert [line["step"] for line in logging.read(str(path))] == [1, 2]
  assert path.read_text().endswith("}\n")


def test_resumed_log_equals_an_uninterrupted_one(tmp_path):
  for name, parts in (("whole", [(0, 8)]), ("resumed", [(0, 6), (4, 8)])):
    (tmp_path / name).mkdir()
    for start, stop in parts:
      log = logging.RunLog(str(tmp_path / name), start, 8, sinks.build(None), quiet=True)
      for step in range(start + 1, stop + 1):
        log.write(record(step))
      log.close()
  assert (tmp_path / "whole" / "log.jsonl").read_bytes() == (tmp_path / "resumed" / "log.jsonl").read_bytes()
  assert list((tmp_path / "resumed" / "tensorboard").iterdir())


def events(file):
  """The events of a TensorBoard file: records of a length, its checksum, the content and its checksum."""
  from tensorboardX.proto import event_pb2

  content, place = file.read_bytes(), 0
  while place < len(content):
    (length,) = struct.unpack_from("<Q", content, place)
    yield event_pb2.Event.FromString(content[place + 12 : place + 12 + length])
    place += length + 16


def test_tensorboard_has_every_number_at_once_though_the_clock_is_set_back(tmp_path, monkeypatch):
  log = logging.RunLog(str(tmp_path), 3, 40, sinks.build(None), quiet=True)
  true = time.time
  for step in range(4, 34):
    monkeypatch.setattr(time, "time", lambda step=step: true() + (-1) ** step * 4e8)  # by a dozen years
    log.write(record(step))
    (file,) = (tmp_path / "tensorboard").iterdir()
    found = [event for event in events(file) if event.HasField("summary")]
    assert found[-1].step == step  # nothing waits in a queue
  log.close()
  loss = {
    event.step: event.summary.value[0].simple_value
    for event in found
    if event.summary.value[0].tag.endswith("loss")
  }
  assert {step: round(value, 6) for step, value in loss.items()} == {
    step: round(1.0 / step, 6) for step in range(4, 34)
  }
  (start,) = [event for event in events(file) if event.HasField("session_log")]
  assert start.step == 4  # what an earlier part of the run wrote from here on is hidden
