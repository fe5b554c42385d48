"""The ledger and its command.

Claims are checked, measured, compared and merged; the command says what it does and mends nothing silently.
"""

import importlib.util
import json
import math
import pathlib
import sys

import pytest

from diffusion.commands import train as command
from diffusion.config import factories
from diffusion.config.errors import UserError
from experiments import ledger, parallel, reproduction

ROOT = pathlib.Path(__file__).parents[1]
MEASURE = """
CALLS = []

def noisy(config, seed):
  CALLS.append(seed)
  return {"value": config["value"] + (seed - 1), "other": 0.0}

def broken(config, seed):
  raise RuntimeError("out of luck")
"""
CONFIG = """
from ml_collections import ConfigDict

def get_config({signature}):
  return ConfigDict(dict(measure="{measure}", value={value}, claim={claim}))
"""


def config(folder, name, value=2.0, measure="ledger_measure.noisy", signature="", variants=(), **claim):
  """Writes a config that claims; the measured values are value - 1, value, value + 1."""
  claim = dict(source="arXiv:0000.00000", metric="value", true=2.0, tolerance=0.1) | claim
  path = folder / "experiments" / "paper" / f"{name}.py"
  path.parent.mkdir(parents=True, exist_ok=True)
  text = CONFIG.format(signature=signature, measure=measure, value=value, claim=claim)
  path.write_text((f"VARIANTS = {tuple(variants)!r}\n" if variants else "") + text)
  return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
  (tmp_path / "ledger_measure.py").write_text(MEASURE)
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.chdir(tmp_path)
  sys.modules.pop("ledger_measure", None)
  return tmp_path


def run(*patterns, **options):
  lines = []
  return reproduction.run(patterns, say=lines.append, **options), "\n".join(lines)


def test_a_claim_is_measured_with_three_seeds_and_written_for_people_and_programs(folder):
  config(folder, "right", unit="nats", reported=2.05, reported_sure=False, note="a remark")
  config(folder, "wrong", value=5.0)
  (folder / "experiments" / "silent.py").write_text("# makes no claim\ndef get_config(): return {}\n")
  new, said = run()
  assert (
    "skipped 1 without a claim: experiments/silent.py" in said
    and "wrong" in said
    and "NOT reproduced" in said
  )
  saved = json.loads((folder / "docs" / "ledger.json").read_text())
  assert saved == new and [one["reproduced"] for one in saved] == [True, False]
  right = saved[0]
  wanted = {
    "paper",
    "config",
    "metric",
    "reported",
    "true",
    "measured",
    "spread",
    "tolerance",
    "reproduced",
    "seconds",
    "seeds",
  }
  assert wanted <= set(right)
  assert (right["config"], right["measured"], right["spread"], right["seeds"]) == (
    "experiments/paper/right.py",
    2.0,
    1.0,
    3,
  )
  page = (folder / "docs" / "ledger.md").read_text()
  assert "| `experiments/paper/right.py` | value (nats) | 2.05? | 2 | 2 ± 1 | 0.1 | yes |" in page
  assert "**no**" in page and "- value: a remark" in page and "1 of 2 claims hold" in page


def test_only_what_ran_is_replaced_and_deleted_metrics_go(folder):
  config(folder, "first")
  config(folder, "second")
  run()
  config(folder, "second", metric="other", true=0.0)
  _, said = run("second")
  saved = ledger.read("docs")
  assert [(one["config"][-9:], one["metric"]) for one in saved] == [
    ("/first.py", "value"),
    ("second.py", "other"),
  ]
  assert "[1/1] experiments/paper/second.py" in said


def test_slow_measurements_run_once_and_numbers_of_seeds_are_obeyed(folder, monkeypatch):
  config(folder, "one")
  monkeypatch.setattr(reproduction, "SHORT", 0.0)
  assert run()[0][0]["seeds"] == 1 and run()[0][0]["spread"] is None
  assert run(seeds=2)[0][0]["seeds"] == 2
  config(folder, "one", seeds=4)
  assert run()[0][0]["seeds"] == 4


def test_the_fast_subset_writes_nothing_and_check_notices_what_was_lost(folder):
  config(folder, "quick", value=3.0, fast=True)  # seed 0 gives 2.0, three seeds give 3.0
  config(folder, "long", measure="ledger_measure.broken")
  new, _ = run(fast=True)
  assert [one["measured"] for one in new] == [2.0] and not (folder / "docs").exists()
  run("quick", out="kept", fast=True)
  assert ledger.read("kept")[0]["reproduced"]
  config(folder, "quick", value=4.0, fast=True)
  with pytest.raises(SystemExit) as caught:
    run("quick", out="kept", fast=True, check=True)
  assert caught.value.code == 1 and ledger.read("kept")[0]["measured"] == 2.0  # it only compared


@pytest.mark.skipif(len(parallel.available_cores()) < 2, reason="one core is one job")
def test_two_at_a_time_write_what_one_after_another_writes(folder):
  for name, value in (("right", 2.0), ("wrong", 5.0), ("third", 2.05)):
    config(folder, name, value=value)
  config(folder, "lost", measure="ledger_measure.broken")
  rows = {}
  for jobs in (1, 2):
    with pytest.raises(SystemExit):  # of the one that fails
      run(jobs=jobs, out=f"out{jobs}")
    kept = json.loads((folder / f"out{jobs}" / "ledger.json").read_text())
    rows[jobs] = [
      {key: value for key, value in row.items() if key not in ("seconds", "machine")} for row in kept
    ]
  assert rows[1] == rows[2] and [row["seeds"] for row in rows[1]] == [0, 3, 3, 3]


def test_cores_are_shared_out():
  assert parallel.shares(3, range(8)) == [(0, 1, 2), (3, 4, 5), (6, 7)]
  for jobs in (0, 9):
    with pytest.raises(UserError, match=f"--jobs={jobs}: from 1 to 8"):
      parallel.shares(jobs, range(8))


def test_a_measurement_that_fails_costs_its_own_row_alone(folder):
  config(folder, "a_broken", measure="ledger_measure.broken")
  config(folder, "b_right")
  with pytest.raises(SystemExit) as caught:
    run()
  assert caught.value.code == 1
  broken, right = ledger.read("docs")
  assert (
    broken["measured"] is None and not broken["reproduced"] and "RuntimeError: out of luck" in broken["note"]
  )
  assert right["reproduced"]


def test_variants_patterns_and_the_list(folder):
  config(folder, "many", signature="name='a'", variants=("a", "b"))
  config(folder, "single")
  names = lambda *patterns: [
    case.name.removeprefix("experiments/paper/")
    for case in reproduction.find(patterns, say=lambda text: None)
  ]
  assert names() == ["many.py:a", "many.py:b", "single.py"]
  assert names("many") == ["many.py:a", "many.py:b"] and names("*:b", "single") == ["many.py:b", "single.py"]
  assert names("./experiments/paper/single.py") == ["single.py"]
  own = folder / "mine.py"
  own.write_text((folder / "experiments" / "paper" / "single.py").read_text())
  assert [case.name for case in reproduction.find(["mine.py"])] == ["mine.py"]
  run("single")
  _, said = run(list_only=True)
  assert (
    "many.py:b  value  arXiv:0000.00000: not run yet" in said
    and "single.py  value  arXiv:0000.00000: reproduced" in said
  )


@pytest.mark.parametrize(
  "bound,measured,expected",
  [
    ("within", 2.1, True),
    ("within", 2.11, False),
    ("at_least", 1.9, True),
    ("at_least", 99.0, True),
    ("at_least", 1.8, False),
    ("at_most", 2.1, True),
    ("at_most", 2.2, False),
    ("within", math.nan, False),
    ("within", None, False),
    ("at_least", math.inf, False),
  ],
)
def test_bounds(bound, measured, expected):
  claim = ledger.check_claim(
    dict(source="s", metric="m", true=2.0, tolerance=0.1 + 1e-9, bound=bound), "x.py"
  )
  assert ledger.holds(claim, measured) == expected
  relative = ledger.check_claim(
    dict(source="s", metric="m", reported=2.0, tolerance=0.05 + 1e-9, bound=bound, relative=True), "x.py"
  )
  assert ledger.holds(relative, measured) == expected


@pytest.mark.parametrize(
  "claim,words",
  [
    (dict(metrics="m"), "no key 'metrics'"),
    (dict(source="s", metric="m", true=1.0), "lacks tolerance"),
    (dict(source="s", metric="m", tolerance=1.0), "neither a true value nor a reported one"),
    (dict(source="s", metric="m", true=1.0, tolerance=1.0, bound="above"), "choose one of within"),
    ("nll < 3", "is a dict with source"),
  ],
)
def test_claims_that_say_too_little_raise_a_sentence(claim, words):
  with pytest.raises(UserError, match=words):
    ledger.check_claim(claim, "experiments/x.py")


def load_command():
  spec = importlib.util.spec_from_file_location("reproduce", ROOT / "reproduce.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_mistakes_on_the_command_line_are_one_sentence(folder, capsys):
  reproduce = load_command()
  config(folder, "single", measure="ledger_measure.nosy")
  for argv, words in (
    (["singel"], "no config matches 'singel'"),
    (["--lst"], "--list"),
    (["--seeds=0"], "one seed is the least"),
    ([], "did you mean 'noisy'"),
    (["--configs=nowhere"], "there are no configs in nowhere"),
  ):
    assert command.run(reproduce.main, argv) == 2
    assert words in capsys.readouterr().err
  config(folder, "single", metric="values")
  assert command.run(reproduce.main, []) == 2
  assert "returned value, other, and the claim is about 'values'" in capsys.readouterr().err
  (folder / "docs").mkdir()
  (folder / "docs" / "ledger.json").write_text("{}")
  assert command.run(reproduce.main, []) == 2
  assert "is not a ledger" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    reproduce.main(["--help"])
  assert "--fast" in capsys.readouterr().out


def test_every_config_of_the_repository_that_claims_can_be_measured(monkeypatch):
  """Sources, tolerances and the measurement's name are there; nothing is run."""
  monkeypatch.chdir(ROOT)
  monkeypatch.syspath_prepend(str(ROOT))
  cases = reproduction.find([], say=lambda text: None)
  assert cases
  for case in cases:
    assert callable(factories.resolve(case.config["measure"], case.name))
  recorded = {one["config"] for one in ledger.read("docs")}
  assert recorded <= {case.name for case in cases}, "the ledger has rows of configs that are gone"
