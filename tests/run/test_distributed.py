"""Several processes on one machine are one program: the same losses, one set of checkpoints, one end."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.run import distributed, logging
from diffusion.run.saved import checkpoints

HERE = pathlib.Path(__file__).parent
TRAIN = HERE.parent.parent / "train.py"


def start(workdir, processes, devices, *flags, own=lambda i: []):
  """The processes of one run of the tiny model, together over processes * devices devices; `own` gives flags
  of process i alone."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  env = os.environ | dict(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES=str(devices), PYTHONPATH=str(TRAIN.parent))
  command = [
    sys.executable,
    str(TRAIN),
    f"--config={HERE / 'tiny.py'}:everything",
    f"--workdir={workdir}",
    "--no-evaluate",
    "--quiet",
    "--config.training.log_every=1",
    "--config.training.ema_snapshot_every=2",
    *flags,
  ]
  joining = lambda i: (
    ["--distributed", f"--coordinator=localhost:{port}", f"--processes={processes}", f"--process={i}"]
    if processes > 1
    else []
  )
  return [
    subprocess.Popen(
      command + joining(i) + own(i),
      cwd=HERE,
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(processes)
  ]


def train(workdir, processes, devices, steps, *flags):
  """Runs to the end; returns the log."""
  running = start(workdir, processes, devices, f"--config.training.steps={steps}", *flags)
  said = [process.communicate(timeout=250)[0] for process in running]
  assert [process.returncode for process in running] == [0] * processes, said
  return logging.read(str(workdir / "log.jsonl"))


def agree(log, other):
  """Losses and gradient norms within 1e-5, rates and positions equal."""
  assert [line["step"] for line in log] == [line["step"] for line in other]
  for one, two in zip(log, other):
    for name in one.keys() - set(logging.TIMED):
      np.testing.assert_allclose(
        one[name], two[name], rtol=1e-5, atol=1e-6, err_msg=f"{name} of step {one['step']}"
      )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """One process with four devices: the run that all others are compared with."""
  workdir = tmp_path_factory.mktemp("alone")
  return workdir, train(workdir, 1, 4, 6)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_and_each_takes_up_the_others_run(alone, tmp_path):
  workdir, log = alone
  agree(log, train(tmp_path, 2, 2, 4) + log[4:])
  # The other way of placing the state, and the same checkpoint, on one process.
  agree(log, train(tmp_path, 1, 2, 6, "--config.training.layout=fsdp"))
  for step in (2, 4, 6):  # those of steps 2 and 4 are written by two processes
    ours, theirs = (
      checkpoints.read_arrays(checkpoints.choose(str(place / "snapshots"), step))
      for place in (tmp_path, workdir)
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["replicated", "fsdp"])
def test_four_processes_take_up_a_run_of_one(alone, layout, tmp_path):
  _, log = alone
  train(tmp_path, 1, 4, 3)
  agree(log, train(tmp_path, 4, 1, 6, f"--config.training.layout={layout}"))


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_one_step_which_is_saved(tmp_path):
  running = start(tmp_path, 2, 1, "--config.training.steps=100000", "--config.data.delay=0.02")
  wait_for(tmp_path, 10)
  running[1].send_signal(signal.SIGTERM)
  said = [process.communicate(timeout=100)[0] for process in running]
  assert [process.returncode for process in running] == [143, 143], said
  step = checkpoints.steps(str(tmp_path / "checkpoints"))[-1]
  assert all(f"SIGTERM: saved step {step} of" in text for text in said)
  assert logging.read(str(tmp_path / "log.jsonl"))[-1]["step"] == step


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_stops_the_others_and_the_run_goes_on_from_its_checkpoint(victim, tmp_path):
  """Within the heartbeat and some seconds for the runtime to end; the last line is a sentence, whichever way
  it ended."""
  running = start(tmp_path, 2, 1, "--config.training.steps=100000", "--config.data.delay=0.02")
  wait_for(tmp_path, 15)
  running[victim].kill()
  begun = time.time()
  said, _ = running[1 - victim].communicate(timeout=2 * distributed.HEARTBEAT + 60)
  print(
    f"stopped {time.time() - begun:.1f} s after process {victim} was killed, with status "
    f"{running[1 - victim].returncode}"
  )
  assert time.time() - begun < 2 * distributed.HEARTBEAT
  assert running[1 - victim].returncode in (distributed.LOST, -signal.SIGABRT)
  last = said.strip().splitlines()[-1]
  assert (
    f"process {1 - victim} of 2 ended before its work was done" in last and "start all of them again" in last
  )
  saved = checkpoints.steps(str(tmp_path / "checkpoints"))[-1]
  log = train(tmp_path, 2, 1, saved + 3, "--config.data.delay=0.02")
  assert log[-1]["step"] == saved + 3
  assert json.loads((tmp_path / "checkpoints" / f"{saved + 3:08d}" / "meta.json").read_text())[
    "examples"
  ] == 32 * (saved + 3)


@pytest.mark.slow
def test_a_mistake_that_one_process_finds_stops_the_others(tmp_path):
  """It says its own sentence at once; they do not wait for it longer than the heartbeat."""
  begun = time.time()
  running = start(
    tmp_path, 2, 1, own=lambda i: [f"--config.data.factory=tiny.{'ring' if i == 0 else 'rung'}"]
  )
  said = [process.communicate(timeout=150)[0].strip().splitlines()[-1] for process in running]
  assert time.time() - begun < 2 * distributed.HEARTBEAT + 30
  assert running[1].returncode == 2 and said[1].startswith("error: ") and "rung" in said[1]
  assert (
    running[0].returncode in (distributed.LOST, -signal.SIGABRT)
    and "process 0 of 2 ended before its work was done" in said[0]
  )


def wait_for(workdir, count):
  limit = time.time() + 200
  while len(logging.read(str(workdir / "log.jsonl"))) < count:
    assert time.time() < limit
    time.sleep(0.2)


class Flags:
  """A command line's flags."""

  def __init__(self, **given):
    self.__dict__ = dict(distributed=True, coordinator=None, processes=None, process=None) | given


@pytest.mark.parametrize(
  "flags, words",
  [
    (Flags(distributed=False, process=1), "together with --distributed"),
    (Flags(processes=2), "needs --coordinator and --process as well"),
    (Flags(coordinator="localhost:1", processes=2, process=2), "counted from 0"),
  ],
)
def test_flags_that_do_not_go_together(flags, words, monkeypatch):
  for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
    monkeypatch.delenv(name, raising=False)
  with pytest.raises(UserError, match=words):
    distributed.start(flags)
