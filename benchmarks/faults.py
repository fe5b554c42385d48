"""Training runs that are killed, stopped, starved and lied to, and what is left of them.

A tiny model (dropout, batch statistics, two averages, a loss with parameters) trains 200 steps; every row of
the table is one kind of fault. After it the same command goes on, and at the end everything that was saved
(parameters, moments, averages, loss state, position) and the log must equal an untouched run bit for bit.
Moments are drawn with a fixed seed; where a kill finds the process depends on the machine, and the table
counts what it was at. Takes some minutes; --quick, a few faults of each kind, under one."""

import collections
import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "run")]
PLACE = tempfile.mkdtemp(prefix="faults-")
os.environ |= dict(
  JAX_PLATFORMS="cpu",
  JAX_NUM_CPU_DEVICES="1",
  JAX_COMPILATION_CACHE_DIR=f"{PLACE}/compiled",
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
)

import faults_child
import timing

from diffusion.run import logging
from diffusion.run.saved import checkpoints

STEPS = 200
KINDS = ("step", "save", "restore", "any")

CONFIG = """
import tiny

def get_config(data):
  config = tiny.get_config("everything")
  if data == "npz":
    config.data = dict(factory="data.npz", path="{place}/ring.npz", num_classes=3)
  elif data == "images":
    config.data = dict(factory="data.images", path="{place}/images")
    config.network = dict(factory="networks.MLP", width=16, depth=1, num_classes=3)
  else:
    config.data.delay = 0.01
  return config
"""


def command(workdir, data):
  return [f"--config={PLACE}/faults_config.py:{data}", f"--workdir={workdir}", "--no-evaluate", "--quiet"]


class Runs:
  """Starts children on one data set, and knows the untouched run that all others must equal.

  Attributes:
    seconds: from a start to its first step.
  """

  def __init__(self, data):
    self.data, self.number = data, 0
    workdir = self.folder()
    begun = time.monotonic()
    child = self.start(workdir)
    child.until(lambda: child.step)
    self.seconds = time.monotonic() - begun
    if child.wait():
      raise SystemExit(f"the untouched run failed: {child.said()}")
    self.reference = self.fingerprint(workdir)

  def folder(self):
    self.number += 1
    return f"{PLACE}/{self.data}{self.number}"

  def start(self, workdir, **options):
    return faults_child.Child(command(workdir, self.data), f"{workdir}.out", **options)

  def fingerprint(self, workdir):
    """A digest of all arrays, the position and the log of a finished run, but for the clock's part."""

    def found():
      import jax

      path = checkpoints.choose(os.path.join(workdir, "checkpoints"), STEPS)
      sha = hashlib.sha256()
      for key, leaf in jax.tree_util.tree_leaves_with_path(checkpoints.read_arrays(path)):
        sha.update(f"{jax.tree_util.keystr(key)} {leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
      meta = checkpoints.read_meta(path)
      log = [
        {key: value for key, value in line.items() if key not in logging.TIMED}
        for line in logging.read(os.path.join(workdir, "log.jsonl"))
      ]
      assert [line["step"] for line in log] == [*range(7, STEPS, 7), STEPS]
      sha.update(json.dumps([meta["step"], meta["examples"], log]).encode())
      return sha.hexdigest()

    return faults_child.isolated(found)

  def same(self, workdir, **options):
    """Goes on to the end and compares; what the last process said, and whether the run equals the untouched
    one."""
    child = self.start(workdir, **options)
    if child.wait():
      return child.said(), False
    return child.said(), self.fingerprint(workdir) == self.reference


def newest(workdir):
  """The newest complete checkpoint's step, -1 for none."""
  return max(checkpoints.steps(os.path.join(workdir, "checkpoints")), default=-1)


def moment(child, kind, chance, start_seconds):
  """Waits for a random moment of a kind; False if the child ended before."""
  if kind == "restore":
    there, spread = child.until(lambda: child.phase() == "restore" or child.step), 0.03
  elif kind == "save":
    there, spread = child.until(lambda: child.phase() == "save"), 0.03
  elif kind == "step":
    there = child.until(lambda: child.step)
    first, steps = child.step, chance.randrange(1, 25)
    there, spread = there and child.until(lambda: child.step >= first + steps), 0.015
  else:
    there, spread = True, 1.2 * start_seconds
  end = time.monotonic() + chance.random() * spread
  return there and child.until(lambda: time.monotonic() >= end)


def strikes(runs, number, wanted, each, seed):
  """Signals at random moments, `each` to a run, until there were `wanted`: counts by phase, and what was
  wrong."""
  chance, phases, wrong, finished, turn = random.Random(seed), collections.Counter(), [], 0, 0
  while sum(phases.values()) < wanted:
    workdir, done, struck = runs.folder(), False, 0
    while not done and struck < each and sum(phases.values()) < wanted:
      before = newest(workdir)
      child = runs.start(workdir)
      if moment(child, KINDS[turn % len(KINDS)], chance, runs.seconds):
        phases[child.strike(number)] += 1
        struck += 1
      turn += 1
      status, said = child.wait(), child.said()
      done = status == 0
      if not done and status not in (-number, 128 + number):
        wrong.append(f"status {status}: {said[-300:]}")
      if before >= 0 and "going on from" in said and f"{before:08d}" not in said:
        wrong.append(f"step {before} was saved and not gone on from: {said[-300:]}")
      if newest(workdir) < before:
        wrong.append(f"step {before} was saved and is gone")
      if "SIGTERM: saved step" in said and f"saved step {newest(workdir)} " not in said:
        wrong.append(f"said to be saved and is not: {said[-300:]}")
    said, same = runs.same(workdir)
    finished += 1
    if not same:
      wrong.append(f"the run differs from the untouched one, or failed: {said[-300:]}")
  return dict(count=wanted, runs=finished, phases=dict(phases), wrong=wrong)


def damages(runs, quick):
  """A run stopped half-way, whose newest checkpoint is then damaged in every way."""
  chance, wrong, workdir = random.Random(2), [], runs.folder()
  child = runs.start(workdir)
  child.until(lambda: child.step > STEPS // 2)
  child.strike(signal.SIGTERM)
  child.wait()
  step = newest(workdir)
  files = lambda folder: sorted(
    path for path in pathlib.Path(folder, "checkpoints", f"{step:08d}").rglob("*") if path.is_file()
  )
  # Largest first: the arrays themselves, then what describes them.
  names = [
    path.relative_to(workdir) for path in sorted(files(workdir), key=lambda path: -path.stat().st_size)
  ]

  def flip(path):
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)

  ways = [
    ("one bit flipped", flip, names[0]),
    ("cut short", lambda path: os.truncate(path, path.stat().st_size // 2), names[0]),
  ]
  if not quick:
    ways += [
      ("one bit flipped", flip, chance.choice(names[1:])),
      ("cut short", lambda path: os.truncate(path, 0), chance.choice(names[1:])),
      ("a file gone", os.remove, chance.choice(names)),
      (
        "cut short",
        lambda path: os.truncate(path, 40),
        pathlib.Path("checkpoints", f"{step:08d}", "digests.json"),
      ),
    ]
  for what, damage, name in ways:
    copy = runs.folder()
    shutil.copytree(workdir, copy)
    damage(pathlib.Path(copy, name))
    before = checkpoints.steps(f"{copy}/checkpoints")[-2]
    said, same = runs.same(copy)
    if f"{step:08d} is damaged" not in said or f"going on from {copy}/checkpoints/{before:08d}" not in said:
      wrong.append(f"{what} in {name}: not said, or not the one before: {said[-300:]}")
    if not same:
      wrong.append(f"{what} in {name}: the run differs")
  copy = runs.folder()
  shutil.copytree(workdir, copy)
  for name in os.listdir(f"{copy}/checkpoints"):
    os.remove(f"{copy}/checkpoints/{name}/meta.json")
  child = runs.start(copy)
  if child.wait() != 2 or "every checkpoint" not in child.said():
    wrong.append(f"all damaged: {child.said()[-300:]}")
  return dict(count=len(ways) + 1, runs=len(ways), phases={"damaged": len(ways) + 1}, wrong=wrong)


def full_disk(runs):
  """The run's folder is a small file system that something else fills."""
  workdir, wrong = runs.folder(), []
  os.makedirs(workdir)
  if subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", workdir], capture_output=True
  ).returncode:
    return dict(
      count=0, runs=0, phases={}, wrong=[], note="not run: mounting a file system needs more rights"
    )
  try:
    child = runs.start(workdir)
    child.until(lambda: newest(workdir) >= 30)
    with contextlib.suppress(OSError), open(f"{workdir}/filler", "wb", buffering=0) as file:
      while True:
        file.write(bytes(4096))
    status, saved = child.wait(), newest(workdir)
    if status != 2 or child.said().count("disk is full") != 1:
      wrong.append(f"status {status}: {child.said()[-300:]}")
    os.remove(f"{workdir}/filler")
    said, same = runs.same(workdir)
    if f"{saved:08d}" not in said or not same:
      wrong.append(f"the run differs, or went on from another step than {saved}: {said[-300:]}")
  finally:
    subprocess.run(["umount", "-l", workdir], check=True)
  return dict(count=1, runs=1, phases={"save": 1}, wrong=wrong)


def clock(runs, quick):
  """The clock jumps by up to ten years all along, through a kill and a stop."""
  wrong, workdir = [], runs.folder()
  for seed, number in [(0, signal.SIGKILL), (1, signal.SIGTERM)][: 1 if quick else 2]:
    child = runs.start(workdir, clock=seed)
    child.until(lambda: newest(workdir) >= 20 + 40 * seed)
    child.strike(number)
    child.wait()
  said, same = runs.same(workdir, clock=2)
  if not same:
    wrong.append(f"the run differs: {said[-300:]}")
  return dict(count=1, runs=1, phases={"throughout": 1}, wrong=wrong)


def missing_file(runs, path, at_start):
  """A data file goes away during training; where the whole set was read before that matters to the next start
  alone."""
  workdir, wrong, away = runs.folder(), [], f"{path}.away"
  child = runs.start(workdir)
  if not at_start:
    child.until(lambda: child.step)
    os.rename(path, away)  # the first epoch is not through
    status = child.wait()
  else:
    child.until(lambda: newest(workdir) >= 50)
    os.rename(path, away)
    child.until(lambda: child.step >= 90)
    child.strike(signal.SIGKILL)
    child.wait()
    child = runs.start(workdir)
    status = child.wait()
  if status != 2 or child.said().count("error: ") != 1 or os.path.basename(path) not in child.said():
    wrong.append(f"status {status}: {child.said()[-400:]}")
  os.rename(away, path)
  said, same = runs.same(workdir)
  if not same:
    wrong.append(f"the run differs: {said[-300:]}")
  return dict(count=1, runs=1, phases={"start" if at_start else "step": 1}, wrong=wrong)


def make_data():
  """The ring of the tiny model as NPZ, and small grey images in folders."""
  import numpy as np
  from PIL import Image

  generator = np.random.default_rng(0)
  angle = generator.uniform(0, 2 * np.pi, 500)
  np.savez(
    f"{PLACE}/ring.npz",
    x=np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32),
    label=(angle * 3 / (2 * np.pi)).astype(np.int64),
  )
  for number in range(3000):
    folder = f"{PLACE}/images/{'abc'[number % 3]}"
    os.makedirs(folder, exist_ok=True)
    Image.fromarray(generator.integers(0, 256, (4, 4), dtype=np.uint8)).save(f"{folder}/{number:04d}.png")
  pathlib.Path(PLACE, "faults_config.py").write_text(CONFIG.format(place=PLACE))


def main():
  args = timing.arguments(__doc__).parse_args()
  begun, quick = time.monotonic(), args.quick
  make_data()
  os.chdir(ROOT / "tests" / "run")
  rows = {}

  def row(name, function, *arguments):
    rows[name] = found = function(*arguments)
    shown = ", ".join(f"{phase} {count}" for phase, count in sorted(found["phases"].items())) or found.get(
      "note", ""
    )
    good = "yes" if not found["wrong"] else "NO"
    print(
      f"{name:34}{found['count']:>7}{found['runs']:>6}  {shown:44}{good if found['count'] else '':>5}",
      flush=True,
    )
    for text in found["wrong"]:
      print("    " + " ".join(text.split()), flush=True)

  try:
    plain = Runs("ring")
    print(f"{'fault':34}{'faults':>7}{'runs':>6}  {'the process was at':44}{'whole':>5}")
    row("SIGKILL", strikes, plain, signal.SIGKILL, 4 if quick else 24, 8, 0)
    row("SIGTERM", strikes, plain, signal.SIGTERM, 3 if quick else 12, 6, 1)
    row("checkpoint damaged", damages, plain, quick)
    row("disk full", full_disk, plain)
    row("clock jumps by up to ten years", clock, plain, quick)
    if not quick:
      row("data file gone at the next start", missing_file, Runs("npz"), f"{PLACE}/ring.npz", True)
    row("data file gone while it is read", missing_file, Runs("images"), f"{PLACE}/images/b", False)
  finally:
    shutil.rmtree(PLACE, ignore_errors=True)
  print(
    "whole: nothing saved was lost, each fault was said in one sentence, and the run that went on equals the "
    "untouched one bit for bit"
  )
  seconds = time.monotonic() - begun
  print(f"{sum(found['count'] for found in rows.values())} faults in {seconds:.0f} s")
  timing.write(args.out, {"faults": rows, "seconds": seconds, "steps": STEPS})
  if any(found["wrong"] for found in rows.values()):
    sys.exit(1)


if __name__ == "__main__":
  main()
