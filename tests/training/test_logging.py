"""A log cut back to a step is what an uninterrupted run had written by then."""

import json

from diffusion.training import logging


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
      log = logging.RunLog(str(tmp_path / name), start, 8, quiet=True)
      for step in range(start + 1, stop + 1):
        log.write(record(step))
      log.close()
  assert (tmp_path / "whole" / "log.jsonl").read_bytes() == (tmp_path / "resumed" / "log.jsonl").read_bytes()
  assert list((tmp_path / "resumed" / "tensorboard").iterdir())
