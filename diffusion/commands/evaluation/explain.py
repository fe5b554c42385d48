"""`sample.py --explain A B`: which conventions make two numbers differ, and by how much.

Both numbers are measured again on A's images, with one convention after another changed from A's to B's. The
changes add up to the whole difference, so each has its share; the shares depend on the order a little, and
the order is that of the list `STEPS`.
"""

import argparse
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from diffusion.commands.evaluation import protocol as command, sources
from diffusion.config.errors import UserError
from diffusion.metrics import conventional, reference_files
from diffusion.metrics.extractors import Extractor
from diffusion.metrics.protocols import Protocol, named
from diffusion.run import sharding

STEPS = (
  "images",
  "samples",
  "rounding",
  "resize",
  "centre",
  "extractor",
  "reference",
  "splits",
  "subsets",
  "neighbours",
)
"""What can differ, in the order in which it is changed."""

CONCERNS = {"splits": ("inception_score",), "subsets": ("kid",), "neighbours": ("precision", "recall")}
"""What changes some numbers alone."""


@dataclasses.dataclass(frozen=True)
class Setting:
  """All that decides a number.

  Attributes:
    protocol: its conventions.
    images: path of the images, '' where they are samples of a run.
    samples: how many.
    extractors: (kind, file) of each.
    reference: paths of what they were compared with.
    levels: grey levels that the images were stored with.
  """

  protocol: Protocol
  images: str
  samples: int
  extractors: tuple[tuple[str, str], ...]
  reference: tuple[str, ...]
  levels: int = 256


def run(args: argparse.Namespace) -> str:
  """What makes the numbers of two metrics.json differ, in words.

  Args:
    args: of sample.py: `explain` (two paths), `samples` (images to measure on, where A's are not there).

  Raises:
    UserError: a file that is not there or holds no protocol, files without a number in common.
  """
  (name_a, a), (name_b, b) = (record_of(path) for path in args.explain)
  own = [name for name in a if name.startswith("fd_") and name not in command.NUMBERS]
  shared = [metric for metric in (*command.NUMBERS, *own) if metric in a and metric in b]
  if not shared:
    raise UserError(
      f"{args.explain[0]} and {args.explain[1]} have no number in common: compare those of one kind"
    )
  differing = differences(a, b)
  measured, why = _measured(name_a, a, name_b, b, differing, shared, args.samples)
  lines = []
  for metric in shared:
    text = command.NUMBERS.get(metric, f"{metric} {{:.4f}}")
    lines.append(
      f"{text.format(a[metric])} by {name_a}, {text.format(b[metric])} by {name_b}: "
      f"{b[metric] - a[metric]:+.4g}"
    )
    left = b[metric] - a[metric]
    for step, (before, after) in differing.items():
      if metric not in CONCERNS.get(step, (metric,)) or (step == "reference" and metric == "inception_score"):
        continue
      line = f"  {step}: {before} -> {after}"
      if step in measured and metric in measured[step]:
        share = measured[step][metric]
        left -= share
        line += f": {share:+.4g}"
        line += " (the images are whole grey levels already)" if step == "rounding" and share == 0 else ""
      else:
        line += ": not measured"
      lines.append(line)
    if measured:
      lines.append(f"  not explained: {left:+.4g}")
    elif not differing:
      lines.append("  no convention differs: the images do")
  return "\n".join([*lines, *([f"not measured: {why}"] if why else [])])


def record_of(given: str) -> tuple[str, dict[str, Any]]:
  """(name, record) of a protocol in a metrics.json, FILE or FILE:NAME."""
  path, name = given, ""
  if not os.path.exists(path) and ":" in given:
    path, _, name = given.rpartition(":")
  if not os.path.exists(path):
    raise UserError(f"there is no {path}: give the metrics.json that --protocol wrote")
  found = command.kept(path)
  if not found:
    raise UserError(f"{path} has no numbers of a protocol: run sample.py --evaluate --protocol=NAME first")
  if not name and len(found) > 1:
    raise UserError(f"{path} has {', '.join(sorted(found))}: say which as {path}:{sorted(found)[0]}")
  name = name or next(iter(found))
  if name not in found:
    raise UserError(f"{path} has no numbers of {name}: it has {', '.join(sorted(found))}")
  return name, found[name]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
  """What differs between two records: step -> (A's, B's) in words, in the order of `STEPS`."""
  both = [
    {
      "images": _source(one["source"]),
      "samples": f"{one['samples']:,}",
      "extractor": ", ".join(
        f"{kind} {part['sha256'][:12]}" for kind, part in sorted(one["extractors"].items())
      ),
      "reference": ", ".join(_source(part) for part in one["reference"]) or "none",
      **{key: str(value) for key, value in one["conventions"].items()},
    }
    for one in (a, b)
  ]
  kinds = set(a["extractors"]) & set(b["extractors"])
  if all(a["extractors"][kind]["sha256"] == b["extractors"][kind]["sha256"] for kind in kinds):
    both[0]["extractor"] = both[1]["extractor"]
  return {
    step: (both[0][step], both[1][step])
    for step in STEPS
    if step in both[0] and step in both[1] and both[0][step] != both[1][step]
  }


def _source(one: Mapping[str, Any]) -> str:
  """A set of images or a file of statistics in a few words."""
  if "file" in one:
    return f"{one['file']} ({one['sha256'][:12]})"
  if "images" in one:
    return str(one["images"]) + (f" ({one['sha256'][:12]})" if "sha256" in one else "")
  if "data" in one:
    return f"{one['data']} {one['split']}"
  return f"samples of {one.get('samples_of')}, seed {one.get('seed')}"


def _setting(name: str, record: Mapping[str, Any], images: str | None) -> Setting:
  path = images or record["source"].get("images", "")
  reference = tuple(part.get("file") or part.get("images", "") for part in record["reference"])
  files = tuple((kind, part["file"]) for kind, part in sorted(record["extractors"].items()))
  levels = record["source"].get("levels", 256)
  return Setting(named(name), path, record["samples"], files, tuple(dict.fromkeys(reference)), levels)


def _measured(name_a, a, name_b, b, differing, shared, images):
  """({step: {metric: share}}, why nothing was measured)."""
  if not differing:
    return {}, ""
  now, end = _setting(name_a, a, images), _setting(name_b, b, images)
  for what, path in (
    *(("images", one.images) for one in (now, end)),
    *(("extractor", file) for one in (now, end) for _, file in one.extractors),
    *(("reference", file) for one in (now, end) for file in one.reference),
  ):
    if not path and what == "reference":
      return {}, "the data of a run are no file: evaluate both with --statistics=FILE"
    if not path:
      return {}, "samples of a run are not kept: give images by --samples, or evaluate its --shards"
    if not os.path.exists(path) and not (what == "extractor" and command.DOTTED.fullmatch(path)):
      return {}, f"the {what} {path} is no longer there" + (
        ": give images by --samples" if what == "images" else ""
      )
  for record in (a, b):
    for part in record["extractors"].values():
      if os.path.exists(part["file"]) and reference_files.digest(part["file"]) != part["sha256"]:
        return {}, f"{part['file']} is not the file that it was"
  measuring = _Measuring(shared)
  numbers, found = measuring.numbers(now), {}
  for step in differing:
    now = _changed(now, end, step)
    new = measuring.numbers(now)
    found[step] = {
      metric: new[metric] - numbers[metric] for metric in shared if metric in new and metric in numbers
    }
    numbers = new
  return found, ""


def _changed(now: Setting, end: Setting, step: str) -> Setting:
  """A setting with one convention as it is at the end."""
  of = dict(images="images", samples="samples", extractor="extractors", reference="reference")
  if step in of:
    return dataclasses.replace(now, **{of[step]: getattr(end, of[step])})
  fields = ("resize", "clip") if step == "resize" else (step,)
  changed = {field: getattr(end.protocol, field) for field in fields}
  return dataclasses.replace(now, protocol=dataclasses.replace(now.protocol, **changed))


class _Measuring:
  """Numbers of settings; an extractor is read once."""

  def __init__(self, shared: list[str]) -> None:
    self.shared, self.mesh = tuple(shared), sharding.make_mesh()
    self.extractors: dict[str, Extractor] = {}

  def numbers(self, setting: Setting) -> dict[str, float]:
    """The shared numbers of a setting."""
    protocol = setting.protocol.beside(kind for kind, _ in setting.extractors).only(self.shared)
    images = sources.of_path(setting.images, protocol.rounding, levels=setting.levels)
    if images.count < setting.samples:
      raise UserError(
        f"{setting.images} holds {images.count} images and {setting.samples} were measured: give --samples"
      )
    images = dataclasses.replace(images, count=setting.samples)
    used = {}
    for kind, file in setting.extractors:
      if kind in protocol.extractors:
        if file not in self.extractors:
          (self.extractors[file],) = command.extractors_of([file]).values()
        used[kind] = self.extractors[file]
    found, real = command.statistics_of(setting.reference, protocol, None)
    taking = command.Taking(protocol, used, self.mesh, None, True)
    reference = command.reference_of(protocol, found, real, taking)
    count = None if reference is None or reference.rows is None else reference.count
    features, _ = taking.features("samples", images, count, True, False)
    metrics, _ = conventional.measure(protocol, features, reference)
    return metrics
