"""Several processes filling one folder of shards.

They are killed and go on; together through the runtime or each by itself.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TINY = ROOT / "tests" / "run"
FLAGS = ("--num=150", "--shard-size=4", "--batch=4", "--solver=ancestral", "--steps=5", "--quiet")
pytestmark = pytest.mark.slow


def start(script, *flags):
  """A process of its own, with one device."""
  env = os.environ | dict(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1", PYTHONPATH=str(ROOT))
  return subprocess.Popen(
    [sys.executable, str(ROOT / script), *flags],
    cwd=TINY,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(*processes):
  said = [process.communicate(timeout=250)[0] for process in processes]
  assert [process.returncode for process in processes] == [0] * len(processes), said
  return said


def files(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npz"))}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  finish(
    start(
      "train.py",
      f"--config={TINY / 'tiny.py'}:plain",
      f"--workdir={folder}",
      "--config.training.steps=20",
      "--no-evaluate",
      "--quiet",
    )
  )
  return folder


@pytest.fixture(scope="module")
def alone(workdir, tmp_path_factory):
  folder = tmp_path_factory.mktemp("alone")
  (said,) = finish(start("sample.py", f"--workdir={workdir}", f"--shards={folder}", *FLAGS))
  assert "38 of the 38 shards" in said and len(files(folder)) == 38
  return folder


def test_killed_in_the_middle_and_finished_by_others(workdir, alone, tmp_path):
  first = start("sample.py", f"--workdir={workdir}", f"--shards={tmp_path}", *FLAGS)
  limit = time.time() + 200
  while len(files(tmp_path)) < 3:
    assert first.poll() is None and time.time() < limit
    time.sleep(0.002)
  first.send_signal(signal.SIGKILL)
  first.communicate()
  kept = files(tmp_path)
  assert 3 <= len(kept) < 38
  said = finish(
    *(
      start(
        "sample.py", f"--workdir={workdir}", f"--shards={tmp_path}", *FLAGS, "--processes=2", f"--process={i}"
      )
      for i in range(2)
    )
  )
  assert all("process" in text and "shards written" in text for text in said)
  assert files(tmp_path) == files(alone)


def test_processes_in_touch_with_each_other(workdir, alone, tmp_path):
  """One has far more to do than the other, which waits for it: all of the second process are there."""
  tmp_path.joinpath("manifest.json").write_bytes(alone.joinpath("manifest.json").read_bytes())
  for number, (name, content) in enumerate(files(alone).items()):
    if number % 2 == 1:
      tmp_path.joinpath(name).write_bytes(content)
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  said = finish(
    *(
      start(
        "sample.py",
        f"--workdir={workdir}",
        f"--shards={tmp_path}",
        *FLAGS,
        "--distributed",
        f"--coordinator=localhost:{port}",
        "--processes=2",
        f"--process={i}",
      )
      for i in range(2)
    )
  )
  assert "process 0 of 2: 19 shards written" in said[0] and "process 1 of 2: 0 shards written" in said[1]
  assert files(tmp_path) == files(alone)
