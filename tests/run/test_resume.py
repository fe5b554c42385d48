"""A run that is killed, stopped and started again ends as one that was left alone.

The same bits, the same log.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from diffusion.run import logging
from diffusion.run.saved import checkpoints

HERE = pathlib.Path(__file__).parent
TRAIN = HERE.parent.parent / "train.py"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  """Starts train.py on the tiny model; the first process compiles for all of them."""
  cache = tmp_path_factory.mktemp("compiled")
  env = os.environ | dict(
    JAX_PLATFORMS="cpu",
    JAX_COMPILATION_CACHE_DIR=str(cache),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    PYTHONPATH=str(TRAIN.parent),
  )

  def begin(workdir):
    command = [
      sys.executable,
      str(TRAIN),
      f"--config={HERE / 'tiny.py'}:everything",
      f"--workdir={workdir}",
      "--no-evaluate",
      "--quiet",
      "--config.data.delay=0.01",
    ]
    return subprocess.Popen(
      command, cwd=HERE, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

  return begin


def finish(process, status=0):
  out, err = process.communicate(timeout=250)
  assert process.returncode == status, out + err
  return out, err


@pytest.fixture(scope="module")
def reference(start, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("reference")
  finish(start(workdir))
  return workdir


def lines(workdir):
  return [
    {key: value for key, value in line.items() if key not in logging.TIMED}
    for line in logging.read(str(workdir / "log.jsonl"))
  ]


def arrays(workdir, step=200):
  return checkpoints.read_arrays(checkpoints.choose(str(workdir / "checkpoints"), step))


def snapshot(workdir, step):
  return checkpoints.read_arrays(checkpoints.choose(str(workdir / "snapshots"), step))


def assert_same_bits(ours, theirs):
  for (key, a), (_, b) in zip(
    jax.tree_util.tree_leaves_with_path(ours), jax.tree_util.tree_leaves_with_path(theirs), strict=True
  ):
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), jax.tree_util.keystr(key)


def wait_for(process, workdir, count):
  """Until the log has more than `count` lines."""
  limit = time.time() + 250
  while len(logging.read(str(workdir / "log.jsonl"))) <= count:
    assert process.poll() is None and time.time() < limit, process.communicate()
    time.sleep(0.003)


def assert_same_run(workdir, reference):
  ours, theirs = arrays(workdir), arrays(reference)
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  assert (
    len(jax.tree.leaves(ours)) > 40
  )  # parameters, moments, four averages, batch statistics, the loss's own
  assert_same_bits(ours, theirs)
  taken = [checkpoints.steps(str(place / "snapshots")) for place in (workdir, reference)]
  assert taken == [list(range(20, 201, 20))] * 2
  for step in taken[0]:
    assert_same_bits(*(snapshot(place, step) for place in (workdir, reference)))
  assert lines(workdir) == lines(reference) and [line["step"] for line in lines(workdir)] == [
    *range(7, 200, 7),
    200,
  ]


@pytest.mark.slow
def test_killed_stopped_and_resumed_bit_for_bit(start, reference, tmp_path):
  chance = random.Random(0)
  process = start(tmp_path)
  wait_for(process, tmp_path, 5)  # past the third checkpoint
  time.sleep(chance.random() * 0.1)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  reached = len(lines(tmp_path))

  process = start(tmp_path)
  wait_for(process, tmp_path, reached + 2)
  process.send_signal(signal.SIGTERM)
  out, err = finish(process, 128 + signal.SIGTERM)
  assert "going on from" in out
  assert err.count("\n") == 1 and "SIGTERM: saved step" in err and "run the same command to go on" in err
  stopped = checkpoints.steps(str(tmp_path / "checkpoints"))[-1]
  assert f"saved step {stopped} of 200" in err

  out, _ = finish(start(tmp_path))
  assert f"{stopped:08d}" in out
  assert_same_run(tmp_path, reference)
  config = json.loads((tmp_path / "config.json").read_text())
  assert config == json.loads(
    pathlib.Path(checkpoints.path_of(str(tmp_path / "checkpoints"), 200), "config.json").read_text()
  )


@pytest.mark.slow
def test_killed_at_many_moments(start, reference, tmp_path):
  """Also while it starts, restores and saves."""
  chance = random.Random(1)
  for _ in range(12):
    process = start(tmp_path)
    time.sleep(chance.random() * 8)
    process.send_signal(signal.SIGKILL)
    process.communicate()
  finish(start(tmp_path))
  assert_same_run(tmp_path, reference)


@pytest.mark.slow
def test_averages_and_parameters_are_different_things(reference):
  """The comparison above would be empty if nothing had been trained."""
  state = arrays(reference)
  for name in ("500", "2000", "0.05", "0.1"):
    kernel = state["emas"][name]["Dense_0"]["kernel"]
    assert np.isfinite(kernel).all() and not np.array_equal(
      kernel, state["params"]["model"]["Dense_0"]["kernel"]
    )
  first, last = lines(reference)[0], lines(reference)[-1]
  assert last["eps_mse"] < 0.8 * first["eps_mse"]
