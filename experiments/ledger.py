"""The ledger of claims and measurements.

What papers claim beside what was measured here, as JSON for programs and as Markdown for people.
"""

import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffusion.config.errors import UserError

KEYS = (
  "source",
  "metric",
  "reported",
  "true",
  "tolerance",
  "bound",
  "reported_sure",
  "relative",
  "unit",
  "note",
  "fast",
  "seeds",
)
"""What a claim may say: see `check_claim`."""

BOUNDS = ("within", "at_least", "at_most")

HEAD = """# The ledger

Written by `reproduce.py`, and by nothing else. Each row is one claim of one config, measured on the machine
named below it. A claim holds if the mean over the seeds is within the tolerance of the true value, or of the
reported one where the truth is not known; `>=` and `<=` mark claims of one side, where the number under
"true" may be a criterion of ours. Claims that did not hold stay here. `?` marks a number that the paper may
report and that could not be verified: it decides nothing where a true value or a criterion stands beside it.
"""


def check_claim(claim: Any, where: str) -> dict[str, Any]:
  """A claim with its defaults filled in.

  Args:
    claim: a mapping with `source` (the paper), `metric` (a name that the measurement returns), `tolerance`,
      and at least one of `true` (the exact value, or the criterion of a bound) and `reported` (the paper's
      number). Optional: `bound` ('within', 'at_least', 'at_most'), `relative` (the tolerance is a fraction of
      the value), `reported_sure`, `unit`, `note`, `fast` (part of the quick subset), `seeds`.
    where: the config's path, for messages.

  Raises UserError for a key that a claim does not have, or one that it lacks.

  >>> check_claim(dict(source="arXiv:0000.00000", metric="nll", true=1.0, tolerance=0.1), "x.py")["bound"]
  'within'
  """
  if not isinstance(claim, Mapping):
    raise UserError(
      f"{where}: config.claim is a dict with source, metric, tolerance and reported or true (or a list of "
      f"such); it is {claim!r}"
    )
  for key in claim:
    if key not in KEYS:
      raise UserError(f"{where}: config.claim has no key '{key}'; it takes {', '.join(KEYS)}")
  optional = dict(
    reported=None,
    true=None,
    bound="within",
    reported_sure=True,
    relative=False,
    unit="",
    note="",
    fast=False,
    seeds=None,
  )
  full = optional | dict(claim)
  missing = [key for key in ("source", "metric", "tolerance") if full.get(key) is None]
  if missing:
    raise UserError(
      f"{where}: config.claim lacks {', '.join(missing)}: say where the claim is made, which metric it is "
      "about and how close is close enough"
    )
  if full["true"] is None and full["reported"] is None:
    raise UserError(
      f"{where}: config.claim has neither a true value nor a reported one: give at least one to compare with"
    )
  if full["bound"] not in BOUNDS:
    raise UserError(f"{where}: config.claim.bound is {full['bound']!r}: choose one of {', '.join(BOUNDS)}")
  return full


def holds(claim: Mapping[str, Any], measured: float | None) -> bool:
  """Whether a measured number is where the claim says, its tolerance included.

  >>> holds(check_claim(dict(source="s", metric="m", true=2.0, tolerance=0.5, bound="at_least"), "x.py"), 1.6)
  True
  """
  if measured is None or not math.isfinite(measured):
    return False
  target = claim["reported"] if claim["true"] is None else claim["true"]
  slack = claim["tolerance"] * (abs(target) if claim["relative"] else 1.0)
  if claim["bound"] == "at_least":
    return measured >= target - slack
  if claim["bound"] == "at_most":
    return measured <= target + slack
  return abs(measured - target) <= slack


def entry(
  config: str,
  claim: Mapping[str, Any],
  values: Sequence[float],
  seconds: float,
  machine: str,
  failure: str = "",
) -> dict[str, Any]:
  """One object of ledger.json.

  Args:
    config: its path, as `experiments/paper/name.py` or `experiments/paper/name.py:variant`.
    claim: from `check_claim`.
    values: the metric for each seed, seeds counting from 0; none if the measurement failed.
    seconds: of the whole measurement, all seeds.
    machine: what it was measured on.
    failure: the error of a measurement that did not end.
  """
  finite = bool(values) and all(math.isfinite(value) for value in values)
  mean = sum(values) / len(values) if finite else None
  spread = (
    math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    if finite and len(values) > 1
    else None
  )
  note = "; ".join(
    text for text in (claim["note"], failure, "" if finite or failure else "not finite") if text
  )
  return dict(
    paper=claim["source"],
    config=config,
    metric=claim["metric"],
    reported=claim["reported"],
    true=claim["true"],
    measured=mean,
    spread=spread,
    tolerance=claim["tolerance"],
    reproduced=holds(claim, mean),
    seconds=round(seconds, 1),
    seeds=len(values),
    reported_sure=claim["reported_sure"],
    bound=claim["bound"],
    relative=claim["relative"],
    unit=claim["unit"],
    values=list(values) if finite else [],
    machine=machine,
    note=note,
  )


def read(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The entries of folder/ledger.json; none if there is no such file. UserError if it is not a ledger."""
  path = pathlib.Path(folder) / "ledger.json"
  if not path.exists():
    return []
  try:
    entries = json.loads(path.read_text())
  except ValueError:
    entries = None
  if not isinstance(entries, list) or not all(
    isinstance(one, dict) and {"config", "metric"} <= set(one) for one in entries
  ):
    raise UserError(
      f"{path} is not a ledger (a JSON list of objects with config and metric): move it away and run again"
    )
  return entries


def merged(old: Iterable[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """The entries of both, sorted by config; where a config is in `new`, all its old entries go.

  >>> old = [dict(config="a", metric="m", measured=1), dict(config="b", metric="m", measured=1)]
  >>> [e["measured"] for e in merged(old, [dict(config="b", metric="n", measured=2)])]
  [1, 2]
  """
  fresh = {one["config"] for one in new}
  return sorted([one for one in old if one["config"] not in fresh] + list(new), key=lambda one: one["config"])


def write(folder: str | os.PathLike[str], entries: Sequence[Mapping[str, Any]]) -> None:
  """Writes ledger.json and ledger.md, each by one rename."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in (
    ("ledger.json", json.dumps(entries, indent=2, allow_nan=False) + "\n"),
    ("ledger.md", markdown(entries)),
  ):
    part = folder / (name + ".part")
    part.write_text(text)
    os.replace(part, folder / name)


def markdown(entries: Sequence[Mapping[str, Any]]) -> str:
  """The page: one table a paper folder, and below it what the claims note."""
  lines = [HEAD]
  count = sum(one["reproduced"] for one in entries)
  minutes = sum({one["config"]: one["seconds"] for one in entries}.values()) / 60
  lines.append(f"{count} of {len(entries)} claims hold; {minutes:.1f} minutes in all.\n")
  folders = {}
  for one in entries:
    folders.setdefault(one["config"].rpartition("/")[0], []).append(one)
  for folder, rows in folders.items():
    lines += [
      f"## {folder}\n",
      "| paper | config | metric | reported | true | measured | tolerance | reproduced | seconds | seeds |",
      "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
      sign = {"within": "", "at_least": ">= ", "at_most": "<= "}[one.get("bound", "within")]
      reported = number(one["reported"]) + (
        "" if one.get("reported_sure", True) or one["reported"] is None else "?"
      )
      measured = number(one["measured"]) + ("" if one["spread"] is None else f" ± {number(one['spread'])}")
      tolerance = f"{100 * one['tolerance']:g}%" if one.get("relative") else number(one["tolerance"])
      truth = (sign if one["true"] is not None else "") + number(one["true"])
      reported = (sign if one["true"] is None else "") + reported
      unit = f" ({one['unit']})" if one.get("unit") else ""
      cells = (
        one["paper"],
        f"`{one['config']}`",
        one["metric"] + unit,
        reported,
        truth,
        measured,
        tolerance,
        "yes" if one["reproduced"] else "**no**",
        f"{one['seconds']:g}",
        str(one["seeds"]),
      )
      lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    lines.append("")
    lines += dict.fromkeys(f"- {one['metric']}: {one['note']}" for one in rows if one["note"])
    machines = sorted({one["machine"] for one in rows if one.get("machine")})
    lines += ["", *(f"Measured on {machine}." for machine in machines), ""]
  return "\n".join(lines).rstrip() + "\n"


def number(value: float | None) -> str:
  """Three significant digits, an empty cell for None.

  >>> number(0.012345), number(None), number(40.0)
  ('0.0123', '', '40')
  """
  return "" if value is None else f"{value:.3g}"
