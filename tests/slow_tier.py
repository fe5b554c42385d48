"""The slow tests that a commit has to pass: those of what changed, and a tenth of the others in turn.

`python tests/slow_tier.py` picks the files with slow tests that belong to what changed since main (or, on
main, since the commit before), and those of the rest whose turn it is: each file has a number from 0 to 9, a
hash of its path, and the turn is the last digit of the number of commits. So ten commits in a row run every
slow test. It starts no further file when the minutes are used up, stops what runs three minutes later, and
says which were left out.

`python -m pytest -m slow` runs all of them.
"""

import argparse
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).parents[1]
TURNS = 10

GRACE = 3.0
"""Minutes after the last start in which a file may end; then it is stopped, and counts as left out."""

BESIDE = {
  "README.md": ("tests/test_readme.py",),
  "docs": ("tests/test_readme.py",),
  "benchmarks": ("tests/test_benchmarks.py", "tests/test_frontier.py"),
  "configs": ("tests/test_configs_cifar10.py", "tests/commands/test_train_command.py"),
  "train.py": ("tests/commands/test_train_command.py", "tests/run"),
  "sample.py": ("tests/commands/test_sample_command.py", "tests/test_sharded_sampling.py"),
  "experiments": ("tests/test_reproduce.py", "tests/experiments"),
  "reproduce.py": ("tests/test_reproduce.py", "tests/experiments"),
}
"""What is outside the package, and the tests (files or folders) that mirror it."""


def slow_files(texts: Mapping[str, str]) -> list[str]:
  """The test files that have slow tests, sorted.

  A file has them if it marks them, or if it imports a module beside it that does.

  Args:
    texts: what stands in every Python file below tests/, by its path from the root.

  >>> slow_files({"tests/a/cases.py": "mark.slow", "tests/a/test_x.py": "from cases import y"})
  ['tests/a/test_x.py']
  """
  marked = {path for path, text in texts.items() if "mark.slow" in text and path != "tests/slow_tier.py"}
  shared = {pathlib.PurePosixPath(path) for path in marked if not _is_test(path)}

  def imports(path: str, text: str) -> bool:
    beside = [other.stem for other in shared if other.parent == pathlib.PurePosixPath(path).parent]
    return any(re.search(rf"^\s*(from|import)\b.*\b{name}\b", text, re.M) for name in beside)

  found = {path for path, text in texts.items() if path in marked or imports(path, text)}
  return sorted(path for path in found if _is_test(path) and path != "tests/test_slow_tier.py")


def _is_test(path: str) -> bool:
  return pathlib.PurePosixPath(path).name.startswith("test_")


def of_changes(changed: Iterable[str], files: Iterable[str], turn: int = 0) -> list[str]:
  """Those of `files` that belong to changed paths: first what changed itself, then what mirrors the rest.

  `diffusion/solvers/x.py` is mirrored by tests/solvers/ and tests/test_solvers.py, a module `diffusion/x.py`
  by every test file with x in its name, a shared file of tests/solvers/ by the tests beside it. Of those that
  mirror, the files of this turn come first, so that a large change leaves out others each time.

  >>> of_changes(["diffusion/solvers/heun.py"], ["tests/solvers/test_a.py", "tests/mcmc/test_b.py"])
  ['tests/solvers/test_a.py']
  """
  changed, files = sorted(set(changed)), sorted(files)
  themselves = [path for path in files if path in changed]
  mirrors: list[str] = []
  for path in changed:
    top, *rest = pathlib.PurePosixPath(path).parts
    if top == "diffusion" and len(rest) > 1:
      mirrors += [f"tests/{rest[0]}", f"tests/test_{rest[0]}.py"]
    elif top == "diffusion" and rest:
      mirrors += [
        name for name in files if pathlib.PurePosixPath(rest[0]).stem in pathlib.PurePosixPath(name).stem
      ]
    elif top == "tests" and len(rest) > 1 and not _is_test(path):
      mirrors.append(f"tests/{rest[0]}")
    else:
      mirrors += BESIDE.get(top, ())
  near = [name for name in files if any(name == other or name.startswith(other + "/") for other in mirrors)]
  near.sort(key=lambda name: ((turn_of(name) - turn) % TURNS, name))
  return themselves + [name for name in near if name not in themselves]


def turn_of(path: str) -> int:
  """The turn of a test file, 0 to 9: a hash of its path.

  >>> 0 <= turn_of("tests/test_readme.py") < 10
  True
  """
  return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") % TURNS


def pick(changed: Iterable[str], files: Iterable[str], turn: int) -> tuple[list[str], list[str]]:
  """(files of what changed, files of this turn): disjoint; of `files`, which have slow tests."""
  files = list(files)
  first = of_changes(changed, files, turn)
  return first, [path for path in sorted(files) if turn_of(path) == turn % TURNS and path not in first]


def carry_out(
  files: Iterable[str],
  seconds: float,
  run: Callable[[str], bool | None],
  workers: int = 1,
  clock: Callable[[], float] = time.monotonic,
) -> tuple[list[str], list[str]]:
  """Runs the files in order, `workers` at a time; (those that failed, those that were left out).

  None is started after so many seconds. `run` says whether a file passed, or None if it was stopped.
  """
  end, failed, left = clock() + seconds, [], []

  def one(path: str) -> None:
    passed = run(path) if clock() < end else None
    if passed is None:
      left.append(path)
    elif not passed:
      failed.append(path)

  with ThreadPoolExecutor(workers) as pool:
    list(pool.map(one, files))
  return sorted(failed), sorted(left)


def _git(*words: str) -> str | None:
  """What a git command prints, None if it fails."""
  done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
  return done.stdout.strip() if done.returncode == 0 else None


def base_commit() -> str | None:
  """Where this branch left main; on main itself the commit before. None without a history."""
  here = _git("rev-parse", "HEAD")
  for main in ("origin/main", "main"):
    base = _git("merge-base", main, "HEAD")
    if base and base != here:
      return base
  return _git("rev-parse", "HEAD~1")


def _run(path: str, end: float) -> bool | None:
  begun = time.monotonic()
  command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "slow", "-p", "no:cacheprovider", path]
  process = subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
  )
  try:
    out, _ = process.communicate(timeout=max(0.0, end - begun))
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)  # with the processes that its tests started
    process.communicate()
    print(f"  stopped {path} {time.monotonic() - begun:.0f} s", flush=True)
    return None
  good = process.returncode in (0, 5)  # 5: none of its tests is slow
  if not good:
    print(out, flush=True)
  print(f"  {'passed' if good else 'FAILED'} {path} {time.monotonic() - begun:.0f} s", flush=True)
  return good


def main(argv: list[str] | None = None) -> int:
  """Picks and runs; the exit status, 1 if a test failed."""
  parser = argparse.ArgumentParser(description="The slow tests of what changed, and a tenth of the others.")
  parser.add_argument(
    "--minutes", type=float, default=6.0, help="start no further file after these (default 6)"
  )
  parser.add_argument(
    "--base", help="the commit that changes are counted from (default: where main was left)"
  )
  parser.add_argument("--turn", type=int, help="which tenth, 0 to 9 (default: from the number of commits)")
  parser.add_argument("--list", action="store_true", help="say what would run, and run nothing")
  flags = parser.parse_args(argv)
  texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
  files = slow_files(texts)
  base = flags.base or base_commit()
  diff = _git("diff", "--name-only", base) if base else None
  turn = flags.turn if flags.turn is not None else int(_git("rev-list", "--count", "HEAD") or 0)
  first, others = pick((diff or "").splitlines(), files, turn)
  since = f"since {base[:9]}" if base else "unknown (no history)"
  print(f"slow tests: {len(files)} files; changes {since}: {len(first)}; turn {turn % TURNS}: {len(others)}")
  for path in first + others:
    print(f"  {path}")
  if flags.list:
    return 0
  workers = max(1, min(2, len(os.sched_getaffinity(0))))
  end = time.monotonic() + 60 * (flags.minutes + GRACE)
  failed, left = carry_out(first + others, 60 * flags.minutes, lambda path: _run(path, end), workers)
  if left:
    print(f"left out, for {flags.minutes:g} minutes were over: {', '.join(left)}")
  if failed:
    print(f"failed: {', '.join(failed)}")
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
