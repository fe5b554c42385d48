"""The choice of slow tests: what changed, a tenth in turn, and an end in time."""

import pathlib
import subprocess
import time

import pytest
import slow_tier

ROOT = pathlib.Path(__file__).parents[1]
FILES = [
  "tests/solvers/test_a.py",
  "tests/solvers/test_b.py",
  "tests/mcmc/test_c.py",
  "tests/test_readme.py",
  "tests/commands/test_task_command.py",
  "tests/test_sharded_sampling.py",
]


@pytest.mark.parametrize(
  "changed, expected",
  [
    ([], []),
    (["tests/mcmc/test_c.py"], ["tests/mcmc/test_c.py"]),
    (["diffusion/mcmc/base.py"], ["tests/mcmc/test_c.py"]),
    (["diffusion/solvers/engine/scan.py"], ["tests/solvers/test_a.py", "tests/solvers/test_b.py"]),
    (["diffusion/commands/tasks/run.py"], ["tests/commands/test_task_command.py"]),
    (["diffusion/sampling.py"], ["tests/test_sharded_sampling.py"]),
    (["tests/solvers/solver_cases.py"], ["tests/solvers/test_a.py", "tests/solvers/test_b.py"]),
    (["docs/uses.md"], ["tests/test_readme.py"]),
    (["README.md"], ["tests/test_readme.py"]),
    (["tests/test_fast.py", "setup.cfg"], []),
    (["diffusion/mcmc/x.py", "tests/solvers/test_b.py"], ["tests/solvers/test_b.py", "tests/mcmc/test_c.py"]),
  ],
)
def test_changes_pick_themselves_and_what_mirrors_them(changed, expected):
  found = slow_tier.of_changes(changed, FILES)
  assert sorted(found) == sorted(expected)


def test_a_large_change_begins_elsewhere_each_time():
  """Of what mirrors it, the files of the turn come first; what was changed itself comes before them."""
  for turn in range(10):
    themselves, *near = slow_tier.of_changes(
      ["diffusion/solvers/x.py", "diffusion/mcmc/y.py", FILES[3]], FILES, turn
    )
    assert themselves == FILES[3] and sorted(near) == sorted(FILES[:3])
    distances = [(slow_tier.turn_of(path) - turn) % 10 for path in near]
    assert distances == sorted(distances)


def test_what_mirrors_the_rest_is_there():
  gone = [name for names in slow_tier.BESIDE.values() for name in names if not (ROOT / name).exists()]
  assert not gone and not [name for name in slow_tier.BESIDE if not (ROOT / name).exists()]


def test_ten_turns_run_every_file_once():
  turns = [slow_tier.pick([], FILES, turn)[1] for turn in range(40, 50)]
  assert sorted(path for some in turns for path in some) == sorted(FILES)
  first, others = slow_tier.pick(["tests/mcmc/test_c.py"], FILES, slow_tier.turn_of("tests/mcmc/test_c.py"))
  assert first == ["tests/mcmc/test_c.py"] and "tests/mcmc/test_c.py" not in others


def test_files_with_slow_tests_are_found():
  """By their own marks or those of the cases that they share; every file of the suite with a mark is one."""
  texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
  found = slow_tier.slow_files(texts)
  marked = {path for path, text in texts.items() if "pytest.mark.slow" in text}
  own = {"tests/slow_tier.py", "tests/test_slow_tier.py"}
  missing = {path for path in marked - own if pathlib.PurePosixPath(path).name.startswith("test_")} - set(
    found
  )
  assert not missing and not own & set(found)
  shared = {
    "tests/a/cases.py": "x = pytest.mark.slow",
    "tests/a/test_one.py": "from cases import x",
    "tests/a/test_two.py": "# cases",
    "tests/b/test_three.py": "import cases",
  }
  assert slow_tier.slow_files(shared) == ["tests/a/test_one.py"]


def test_nothing_starts_when_the_time_is_over():
  now, ran = [0.0], []

  def run(path):
    now[0] += 100.0
    ran.append(path)
    return {"a": True, "b": False, "c": None}[path]

  failed, left = slow_tier.carry_out("abcde", 250.0, run, clock=lambda: now[0])
  assert ran == ["a", "b", "c"] and failed == ["b"] and left == ["c", "d", "e"]


def test_the_choice_is_printed(capsys, monkeypatch):
  monkeypatch.setattr(
    slow_tier, "_git", lambda *words: {"diff": "tests/mcmc/test_gibbs.py"}.get(words[0], "13")
  )
  assert slow_tier.main(["--list", "--base=0123456789"]) == 0
  said = capsys.readouterr().out.splitlines()
  assert "since 012345678: 1; turn 3:" in said[0] and said[1] == "  tests/mcmc/test_gibbs.py"
  assert len(said) > 2 and all(slow_tier.turn_of(path.strip()) == 3 for path in said[2:])


def test_a_file_is_run_stopped_and_its_failure_said(tmp_path, capfd):
  """Its slow tests alone are run; what it started ends with it."""
  (tmp_path / "test_x.py").write_text(
    "import pytest, subprocess, time\n\n"
    "def test_quick():\n  assert False\n\n"
    "@pytest.mark.slow\ndef test_slow():\n  assert {}\n"
  )
  path, text = tmp_path / "test_x.py", (tmp_path / "test_x.py").read_text()
  for condition, expected in (("1 + 1 == 2", True), ("1 + 1 == 3", False)):
    path.write_text(text.format(condition))
    assert slow_tier._run(str(path), time.monotonic() + 100.0) is expected
  assert "1 failed" in capfd.readouterr().out
  path.write_text(text.format("subprocess.run(['sleep', '1234.5']).returncode == 0"))
  assert slow_tier._run(str(path), time.monotonic() + 5.0) is None
  assert "stopped" in capfd.readouterr().out
  running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
  assert "sleep 1234.5" not in running
