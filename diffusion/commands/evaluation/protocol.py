"""`sample.py --evaluate --protocol=...`: the numbers that a published tool would give.

They go to metrics.json under `protocols`, with all that decides them: the conventions, how many samples,
which extractor by sha256, what they were compared with.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffusion.commands.evaluation import run_images, sources
from diffusion.commands.evaluation.sources import Source
from diffusion.commands.opened import open_model
from diffusion.commands.protocol_flags import SPLITS
from diffusion.config.errors import UserError
from diffusion.config.factories import plain, resolve
from diffusion.metrics import conventional, reference_files
from diffusion.metrics.conventional import Reference
from diffusion.metrics.extractors import Extractor, load
from diffusion.metrics.protocols import Protocol, named
from diffusion.metrics.streaming import Images, extract
from diffusion.metrics.sums import Features
from diffusion.run import sharding
from diffusion.run.opening import make_sampler, sampler_section
from diffusion.run.parts import checks

BATCH = 64
"""Images that a network sees at once, rounded up to a multiple of the devices."""


def run(args: argparse.Namespace, sampler: Mapping[str, Any]) -> str:
  """Measures images by a protocol; returns what was found, in words.

  Args:
    args: the parsed command line of sample.py.
    sampler: changes to the config's sampler, None for those not given.

  Raises:
    UserError: files that cannot be read or do not go together, too few images, data that are no images.
  """
  protocol = named(args.protocol)
  opened = open_model(args) if args.workdir else None
  if opened is not None and (args.samples is None or args.samples in SPLITS):
    run_images.check_images(opened.parts.dataset)
  extractors = extractors_of(args.features)
  protocol = protocol.beside(extractors)
  found, real = statistics_of(args.statistics or (), protocol, opened)
  for one in found:
    reference_files.check_extractors(one, protocol, extractors.values())
  images = _images(args, protocol, opened, sampler)
  if images.count < 2:
    raise UserError(f"a distance needs at least 2 images, and there is {images.count}: give more")
  out = _destination(args)
  written = args.write_statistics
  if written and not os.path.isdir(os.path.dirname(os.path.abspath(written))):
    raise UserError(f"--write-statistics={written} lies in no folder: make it first")
  mesh = opened.mesh if opened is not None else sharding.make_mesh()
  taking = Taking(protocol, extractors, mesh, f"{out}.{protocol.name}", args.quiet)
  reference = reference_of(protocol, found, real, taking)
  count = None if reference is None or reference.rows is None else reference.count
  features, looked_at = taking.features("samples", images, count, True, bool(written))
  metrics, left_out = conventional.measure(protocol, features, reference)
  if written:
    reference_files.write(written, protocol, features, extractors.values(), looked_at)
  taking.clear()
  record = {
    **metrics,
    "left_out": left_out,
    "conventions": protocol.conventions(),
    "samples": images.count,
    "source": dict(images.said),
    "extractors": {
      kind: {"name": one.name, "file": one.path, "sha256": one.sha256} for kind, one in extractors.items()
    },
    "reference": [{"file": one.path, "sha256": one.sha256} for one in found if one is not None]
    + [dict(one.said) | {"count": one.count} for one in real],
    **({} if opened is None or args.samples is not None else opened.record),
  }
  keep(out, protocol.name, record)
  return report(protocol, record) + f"\nwrote {out}" + (f" and {written}" if written else "")


def extractors_of(files: Iterable[str]) -> dict[str, Extractor]:
  """The extractors of --features by kind: of files of weights, or what functions of one's own return."""
  found: dict[str, Extractor] = {}
  for file in files:
    own = DOTTED.fullmatch(file) and not os.path.exists(file)
    one = resolve(file, "--features")() if own else load(file)
    one = dataclasses.replace(one, path=file)
    if one.kind in found:
      raise UserError(f"--features names two extractors of the kind {one.kind}: give one")
    found[one.kind] = one
  return found


def statistics_of(
  given: Iterable[str], protocol: Protocol, opened: Any
) -> tuple[list[reference_files.Found], list[Source]]:
  """(files of statistics, sets of real images) of --statistics."""
  found, real = [], []
  for path in given:
    if path in SPLITS:
      run_images.check_images(opened.parts.dataset)
      real.append(run_images.of_data(opened.parts.dataset, path, protocol.rounding))
    elif os.path.isdir(path) or path.lower().endswith((".zip", ".npy")):
      real.append(sources.of_path(path, protocol.rounding))
    else:
      one = reference_files.read(path)
      found.append(one)
      if one.images:
        real.append(sources.of_path(path, protocol.rounding))
  if len(real) > 1:
    raise UserError("--statistics names two sets of real images: give one")
  return found, real


def _images(args, protocol, opened, sampler) -> Source:
  """The images that are measured."""
  if args.samples in SPLITS:
    return run_images.of_data(opened.parts.dataset, args.samples, protocol.rounding, args.num)
  if args.samples is not None:
    levels = 256 if opened is None else opened.parts.dataset.scaling.levels or 256
    return sources.of_path(args.samples, protocol.rounding, args.num, levels)
  section = dict(opened.config.get("evaluation", {}))
  checks.check_evaluation(section)
  denoiser, solver = make_sampler(opened, **sampler)
  given = lambda flag, key, usual: flag if flag is not None else section.get(key, usual)
  num = given(args.num, "num_samples", 1000)
  batch, seed = given(args.batch, "batch", 250), given(args.seed, "seed", 0)
  if num < 1 or batch < 1:
    raise UserError(f"--num={num} and --batch={batch} must be at least 1")
  used = {key: plain(value) for key, value in sampler_section(opened, sampler).items()}
  return run_images.of_run(opened, denoiser, solver, num, batch, seed, protocol.rounding, used)


def _destination(args) -> str:
  """The metrics.json that is written."""
  path = args.out or (
    os.path.join(args.workdir, "metrics.json") if args.workdir else args.samples.rstrip("/") + ".metrics.json"
  )
  path = path if path.endswith(".json") else path + ".json"
  folder = os.path.dirname(os.path.abspath(path))
  if args.weights is not None and not args.out:
    os.makedirs(folder, exist_ok=True)  # the folder of a run is there; that of a file is made
  if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
    raise UserError(f"{path} cannot be written: name a file in a folder of your own by --out")
  return path


def reference_of(
  protocol: Protocol, found: Iterable[reference_files.Found], real: Sequence[Source], taking: "Taking"
) -> Reference | None:
  """What all of --statistics comes to; images are looked at where files do not say it all."""
  gaussians: dict[str, tuple[np.ndarray, np.ndarray]] = {}
  index, rows, count = None, None, None
  for one in found:
    gaussians |= dict(one.reference.gaussians)
    if one.reference.rows is not None:
      index, rows, count = one.reference.index, one.reference.rows, one.reference.count
  asked = [metric for metric, (kind, _) in protocol.gaussians.items() if kind in taking.extractors]
  lacking = [metric for metric in asked if metric not in gaussians]
  compared = {"kid", "precision"} & set(protocol.metrics)
  if real and (lacking or (compared and rows is None)):
    (images,) = real
    features, _ = taking.features("real", images, images.count, False, "kid" in compared)
    for metric in lacking:
      kind, output = protocol.gaussians[metric]
      one = features[kind].statistics[output]
      gaussians[metric] = (one.mean, one.covariance)
    if "inception" in features:
      index, rows, count = features["inception"].index, features["inception"].rows, images.count
  return Reference(gaussians, index, rows, count) if found or real else None


class Taking:
  """Takes features of sets of images by every extractor, with a bar, and goes on where it stopped.

  `base` is what files on the disk are called, None to go without.
  """

  def __init__(
    self, protocol: Protocol, extractors: Mapping[str, Extractor], mesh: Any, base: str | None, quiet: bool
  ) -> None:
    self.protocol, self.extractors, self.mesh, self.base, self.quiet = protocol, extractors, mesh, base, quiet
    self.remembered: list[sources.Remembered] = []

  def features(
    self, name: str, images: Source, real: int | None, sample: bool, everything: bool
  ) -> tuple[dict[str, Features], Images]:
    """(features by kind, the images, which may now lie on the disk)."""
    looked_at: Images = images
    if len(self.extractors) > 1 and self.base is not None and images.drawn:  # drawn once, for both
      said = json.dumps([dict(images.said), images.count, str(self.protocol.rounding)], sort_keys=True)
      folder = f"{self.base}.{name}-{hashlib.sha256(said.encode()).hexdigest()[:12]}.part"
      looked_at = sources.Remembered(images, folder)
      self.remembered.append(looked_at)
    devices = self.mesh.shape["data"]
    found = {}
    for kind, one in self.extractors.items():
      wanted = conventional.wanted(self.protocol, kind, images.count, real, sample, everything)
      wanted = dataclasses.replace(
        wanted, sums=tuple(output for output in wanted.sums if output in one.outputs)
      )
      with self._bar(images.count, f"{kind} of {name}") as shown:
        try:
          found[kind] = extract(
            looked_at,
            one,
            wanted,
            resize=one.resize or self.protocol.resize,
            clip=self.protocol.clip and not one.resize,
            centre=self.protocol.centre,
            batch=-(-BATCH // devices) * devices,
            place=lambda array: jax.device_put(array, sharding.batch_sharding(self.mesh)),
            whole=lambda tree: jax.device_put(tree, sharding.replicated(self.mesh)),
            folder=None if self.base is None else f"{self.base}.{name}.{kind}.part",
            progress=shown.update,
          )
        except ValueError as error:
          raise UserError(str(error)) from error
    return found, looked_at

  def clear(self) -> None:
    """Removes what was kept on the disk."""
    for images in self.remembered:
      images.forget()

  def _bar(self, total, what):
    from tqdm import tqdm

    return contextlib.closing(
      tqdm(total=total, disable=self.quiet, unit="image", desc=what, dynamic_ncols=True)
    )


def kept(path: str) -> dict[str, Any]:
  """The protocols that a metrics.json has; none where there is no such file, or no whole one."""
  try:
    with open(path) as file:
      content = json.load(file)
  except (OSError, ValueError):
    return {}
  found = content.get("protocols", {}) if isinstance(content, dict) else {}
  return found if isinstance(found, dict) else {}


def keep(path: str, name: str, record: Mapping[str, Any]) -> None:
  """Puts the record of a protocol into a metrics.json; what else the file says stays."""
  content: dict[str, Any] = {}
  if os.path.exists(path):
    try:
      with open(path) as file:
        content = json.load(file)
    except (OSError, ValueError):
      content = {}
  content = content if isinstance(content, dict) else {}
  content["protocols"] = kept(path) | {name: record}
  with open(path + ".tmp", "w") as file:
    json.dump(content, file, indent=2, sort_keys=True)
    file.write("\n")
  os.replace(path + ".tmp", path)


DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
"""A function by its dotted path."""

NUMBERS = {
  "fid": "FID {:.4f}",
  "sfid": "sFID {:.4f}",
  "fd_dinov2": "FD-DINOv2 {:.4f}",
  "inception_score": "Inception score {:.4f}",
  "kid": "KID {:.6f}",
  "precision": "precision {:.4f}",
  "recall": "recall {:.4f}",
}
"""How numbers are said."""


def report(protocol: Protocol, record: Mapping[str, Any]) -> str:
  """The numbers of a protocol as a few lines for a person."""
  named_numbers = NUMBERS | {name: f"{name} {{:.4f}}" for name in protocol.measured if name not in NUMBERS}
  numbers = [text.format(record[name]) for name, text in named_numbers.items() if name in record]
  lines = [f"{protocol.name}: {', '.join(numbers) or 'nothing was measured'}"]
  own = protocol.samples
  few = f" (papers take {own:,}: fewer raise FID)" if record["samples"] < own else ""
  with_what = ", ".join(f"{one['name']} {one['sha256'][:12]}" for one in record["extractors"].values())
  lines.append(f"of {record['samples']:,} images{few}, by {with_what}")
  lines += [f"left out: {name}: {why}" for name, why in record["left_out"].items()]
  lines += [f"note: {protocol.note}"] if protocol.note else []
  return "\n".join(lines)
