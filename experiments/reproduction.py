"""Runs what configs claim: finds them, measures each with a few seeds, and keeps the ledger."""

import ast
import fnmatch
import functools
import importlib.util
import os
import pathlib
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from diffusion.config import factories, loading
from diffusion.config.errors import UserError
from experiments import ledger, parallel

SHORT = 300.0
"""Seconds under which a measurement is repeated with other seeds."""


class Case(NamedTuple):
  """A config that claims something: its name, the config, and its claims with their defaults."""

  name: str
  config: ConfigDict
  claims: tuple[dict[str, Any], ...]


def find(
  patterns: Sequence[str], configs: str = "experiments", say: Callable[..., Any] = print
) -> list[Case]:
  """The configs that match any of the patterns (all of them for none), claim something and can be measured.

  A config file with variants lists those that claim in a module-level `VARIANTS`. Raises UserError if nothing
  matches.
  """
  folder = pathlib.Path(configs)
  files = [str(path) for path in sorted(folder.rglob("*.py"))] if folder.is_dir() else []
  own = [os.path.normpath(pattern) for pattern in patterns if os.path.isfile(pattern.partition(":")[0])]
  if not files and not own:
    raise UserError(
      f"there are no configs in {configs}: run this in the root of the repository, or name the folder with "
      "--configs"
    )
  cases, skipped, matched = [], {}, set()
  for path in [*files, *(path for path in own if path.partition(":")[0] not in files)]:
    for name in [path] if ":" in path else with_variants(path):
      hits = [pattern for pattern in patterns if matches(name, pattern)]
      if patterns and not hits:
        continue
      matched.update(hits)
      case = claimed(name)
      if isinstance(case, Case):
        cases.append(case)
      else:
        skipped.setdefault(case, []).append(name)
  missing = [pattern for pattern in patterns if pattern not in matched]
  if missing:
    raise UserError(
      f"no config matches '{missing[0]}'{factories.closest(missing[0], files)}: see --list for those that "
      "claim something"
    )
  for reason, names in skipped.items():
    say(f"skipped {len(names)} {reason}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")
  return cases


def matches(name: str, pattern: str) -> bool:
  """Whether a config's path contains the pattern, or matches it where it has * or ?.

  >>> matches("experiments/meco/gaussian_mean.py:4", "meco"), matches("mine/a.py", "*/b*")
  (True, False)
  >>> matches("mine/a.py", "./mine/a.py")
  True
  """
  pattern = os.path.normpath(pattern)
  if any(sign in pattern for sign in "*?["):
    return fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, f"*{pattern}*")
  return pattern in name


def with_variants(path: str) -> list[str]:
  """The path, or path:variant for each name in the file's VARIANTS; nothing for a file that makes no
  config."""
  tree = ast.parse(pathlib.Path(path).read_text(), path)
  defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
  if "get_config" not in defined:  # what measures stands beside what is measured
    return []
  spec = importlib.util.spec_from_file_location("config_file", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return [f"{path}:{variant}" for variant in vars(module).get("VARIANTS", ())] or [path]


def claimed(name: str) -> Case | str:
  """The config and its claims, or in a few words why there is nothing to measure."""
  config = loading.load(name)
  claims = factories.plain(config.get("claim")) if config.get("claim") else None
  if not claims:
    return "without a claim"
  if not isinstance(config.get("measure"), str):
    return "that claim something and name no config.measure"
  claims = claims if isinstance(claims, (list, tuple)) else (claims,)
  return Case(name, config, tuple(ledger.check_claim(factories.plain(claim), name) for claim in claims))


Measured = tuple[list[dict[str, float]], float, str]
"""The results of each seed, the seconds of all of them, and the failure as text."""


def measure(case: Case, seeds: int | None, say: Callable[..., Any] = print) -> Measured:
  """(results of each seed as dicts, seconds, the failure as text): three seeds if the first takes under five
  minutes."""
  function = factories.resolve(case.config["measure"], case.name)
  wanted = seeds or next((claim["seeds"] for claim in case.claims if claim["seeds"]), None)
  results, start = [], time.perf_counter()
  while True:
    began = time.perf_counter()
    try:
      result = function(case.config, len(results))
      missing = [claim["metric"] for claim in case.claims if claim["metric"] not in result]
      if missing:
        raise UserError(
          f"{case.name}: {case.config['measure']} returned {', '.join(result)}, and the claim is about "
          f"'{missing[0]}'"
        )
    except UserError:
      raise
    except Exception as error:  # one failure must not cost the other rows
      say(traceback.format_exc().rstrip())
      return (
        [],
        time.perf_counter() - start,
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
      )
    results.append({key: float(value) for key, value in result.items()})
    spent = time.perf_counter() - began
    say(
      f"  seed {len(results) - 1}: {spent:.1f} s  "
      + "  ".join(f"{claim['metric']} {ledger.number(results[-1][claim['metric']])}" for claim in case.claims)
    )
    if len(results) >= (wanted or (3 if spent < SHORT else 1)):
      return results, time.perf_counter() - start, ""


def measure_named(name: str, say: Callable[..., Any], seeds: int | None = None) -> Measured:
  """What `measure` returns of a claiming config by its name, for a process of its own."""
  return measure(claimed(name), seeds, say)


def all_measured(
  cases: Sequence[Case], jobs: int, seeds: int | None, say: Callable[..., Any]
) -> Iterator[tuple[Case, Measured]]:
  """Yields (case, what `measure` returns): in order, or as they are done where several run at a time."""
  if jobs == 1:
    for index, case in enumerate(cases):
      say(f"[{index + 1}/{len(cases)}] {case.name}")
      yield case, measure(case, seeds, say)
    return
  named = {case.name: case for case in cases}
  for index, (name, result) in enumerate(
    parallel.run_each(functools.partial(measure_named, seeds=seeds), list(named), jobs, say)
  ):
    say(f"[{index + 1}/{len(cases)}] {name}")
    yield named[name], result


def processor_seconds() -> float:
  """Seconds that this process and those it has waited for have computed, on all cores together: what a busy
  machine does not change."""
  times = os.times()
  return times.user + times.system + times.children_user + times.children_system


def machine() -> str:
  """The processor count, the system, JAX and its device, in one line."""
  import jax

  device = jax.devices()[0]
  host = f"{os.cpu_count()} x {platform.machine()} ({device.device_kind}), {platform.system()}"
  return f"{host}, Python {platform.python_version()}, JAX {jax.__version__}"


def run(
  patterns: Sequence[str] = (),
  *,
  configs: str = "experiments",
  out: str | None = None,
  fast: bool = False,
  seeds: int | None = None,
  list_only: bool = False,
  check: bool = False,
  jobs: int = 1,
  say: Callable[..., Any] = print,
) -> list[dict[str, Any]]:
  """What reproduce.py does; returns the new entries. With `jobs`, so many configs are measured at a time,
  each on its share of the cores.

  Raises UserError for a pattern without a config, a config that can not be read, or more jobs than cores;
  SystemExit(1) where a measurement failed, or, with `check`, where a claim that the ledger calls reproduced
  no longer holds.
  """
  if seeds is not None and seeds < 1:
    raise UserError(f"--seeds={seeds}: one seed is the least")
  parallel.shares(jobs, parallel.available_cores())
  say = lambda text, say=say: say(text, flush=True) if say is print else say(text)
  cases = find(patterns, configs, say)
  if fast:
    cases, seeds = [case for case in cases if any(claim["fast"] for claim in case.claims)], seeds or 1
  folder = out or "docs"
  before = ledger.read(folder)
  writes = not check and not list_only and (out is not None or not fast)
  if list_only:
    return show(cases, before, say)
  if not cases:
    say("nothing to run: none of these configs claims anything" + (" and is marked fast" if fast else ""))
    return []
  where, new, failed = machine() + (f", {jobs} at a time" if jobs > 1 else ""), [], False
  cost = {row["config"]: row["seconds"] for row in before}
  cases = (
    cases if jobs == 1 else sorted(cases, key=lambda case: -cost.get(case.name, SHORT))
  )  # the longest first, so that none is left alone
  start, spent = time.perf_counter(), processor_seconds()
  for case, (results, seconds, failure) in all_measured(cases, jobs, seeds, say):
    failed |= bool(failure)
    rows = [
      ledger.entry(case.name, claim, [one[claim["metric"]] for one in results], seconds, where, failure)
      for claim in case.claims
    ]
    for row in rows:
      say(
        f"  {row['metric']}: {ledger.number(row['measured']) or 'nothing'}, "
        f"{'reproduced' if row['reproduced'] else 'NOT reproduced'}"
      )
    new += rows
    if writes:
      ledger.write(
        folder, ledger.merged(ledger.read(folder), rows)
      )  # after each, so that an interruption loses one
  say(
    f"{len(cases)} configs in {(time.perf_counter() - start) / 60:.1f} "
    f"minutes{f', {jobs} at a time' if jobs > 1 else ''}: {(processor_seconds() - spent) / 60:.1f} minutes "
    "of processor time, all cores together"
  )
  if writes:
    say(f"wrote {folder}/ledger.md and {folder}/ledger.json")
  held = {(row["config"], row["metric"]) for row in before if row["reproduced"]}
  lost = [row for row in new if not row["reproduced"] and (row["config"], row["metric"]) in held]
  for row in lost:
    say(
      f"{row['config']}: {row['metric']} was reproduced and is not any more: {ledger.number(row['measured'])}"
    )
  if failed or (check and lost):
    raise SystemExit(1)
  return new


def show(
  cases: Sequence[Case], entries: Sequence[dict[str, Any]], say: Callable[..., Any]
) -> list[dict[str, Any]]:
  """Prints every claim, and what the ledger says of it."""
  known = {(row["config"], row["metric"]): row for row in entries}
  for case in cases:
    for claim in case.claims:
      row = known.get((case.name, claim["metric"]))
      state = "not run yet" if row is None else ("reproduced" if row["reproduced"] else "not reproduced")
      measured = (
        f", measured {ledger.number(row['measured'])} in {row['seconds']:g} s"
        if row and row["measured"] is not None
        else ""
      )
      say(f"{case.name}  {claim['metric']}  {claim['source']}: {state}{measured}")
  return []
