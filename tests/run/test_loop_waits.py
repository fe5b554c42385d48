"""What the loop waits for.

The device at log lines and checkpoints alone, the data hardly, and a trace by one flag.
"""

import pathlib
import sys
import threading

import jax
import pytest

from diffusion.config import loading
from diffusion.run import interruption, logging, loop

HERE = pathlib.Path(__file__).parent
pytestmark = [pytest.mark.standard_promotion, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """(workdir, steps during which the loop read an array): 40 steps of the tiny model, logged every 10, saved
  at 24, recorded from 10 to 15."""
  workdir, patch, done, read = tmp_path_factory.mktemp("run"), pytest.MonkeyPatch(), [0], []
  array = type(jax.numpy.zeros(()))
  value, ask = array._value, interruption.Watch.ask

  def noted(self):
    if threading.current_thread() is threading.main_thread():
      read.append(done[0])
    return value.fget(self)

  def asked(self, step):
    done[0] = step + 1
    return ask(self, step)

  patch.syspath_prepend(str(HERE))
  patch.setattr(array, "_value", property(noted))
  patch.setattr(interruption.Watch, "ask", asked)
  flags = {"training.steps": "40", "training.log_every": "10", "training.checkpoint_every": "24"}
  try:
    loop.train(
      loading.load(f"{HERE / 'tiny.py'}:plain", list(flags.items())),
      str(workdir),
      quiet=True,
      profile=True,
    )
  finally:
    patch.undo()
    sys.modules.pop("tiny", None)
  return workdir, read


@pytest.mark.slow
def test_the_loop_reads_arrays_at_log_lines_and_checkpoints_alone(run):
  """On a CPU no transfer guard acts, so every reading of an array in the loop's thread is noted."""
  assert set(run[1]) - {0} == {10, 20, 24, 30, 40}


def test_the_log_says_what_share_went_into_waiting_for_data(run):
  lines = logging.read(str(run[0] / "log.jsonl"))
  assert len(lines) == 4 and all(0 <= line["data_wait"] < 1 for line in lines)


def test_a_few_steps_are_recorded(run):
  (trace,) = (run[0] / "profile").rglob("*.xplane.pb")
  assert b"jit_step" in trace.read_bytes()
