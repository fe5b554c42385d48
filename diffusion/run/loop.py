"""The training loop: resume, step, log, save, stop.

Between two log lines nothing waits for the device: metrics stay there until a line or a checkpoint needs
them.
"""

import contextlib
import functools
import os
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion import data
from diffusion.config import loading
from diffusion.config.errors import UserError
from diffusion.run import (
  distributed,
  ema,
  interruption,
  logging,
  profiling,
  sharding,
  sinks,
  state as states,
  step as steps,
)
from diffusion.run.parts import assembly, checks, codec, roles, teacher, warm_start
from diffusion.run.saved import checkpoints, names, snapshots, workdir as workdirs

KEYS = (
  "batch_size",
  "steps",
  "ema_half_life_images",
  "ema_ramp",
  "ema_sigma_rel",
  "ema_snapshot_every",
  "log_every",
  "checkpoint_every",
  "keep",
  "keep_every",
  "accumulate",
  "warm_start",
  "layout",
  "model_devices",
  "sinks",
)
LAST = ("learning_rate",)
"""Metrics of which a log line gives the last value; of all others it gives the mean since the line before."""


class Trained(NamedTuple):
  """What a finished run hands on.

  Attributes:
    parts: of `assembly.assemble`.
    state: the last train state.
    seconds: spent training, over all restarts, compilation included.
    images_per_second: of this process, compilation left out; None if there was nothing left to do.
    num_parameters: of the network.
  """

  parts: Any
  state: Any
  seconds: float
  images_per_second: float | None
  num_parameters: int


def train(config: Any, workdir: str, quiet: bool = False, profile: bool = False) -> Trained:
  """Trains to `config.training.steps`, from the newest checkpoint in `workdir` if there is one.

  Args:
    config, workdir: of the run.
    quiet: no progress bar.
    profile: whether to record a few steps into workdir/profile.

  Raises:
    UserError: whatever the caller can mend: a config that does not fit, another run's workdir, a full disk,
      a loss that is not finite.
    interruption.Stopped: SIGTERM or Ctrl-C came; the state is saved.
  """
  section = config.get("training", {})
  loading.check_keys(section, KEYS, "config.training")
  for key, default in (
    ("batch_size", None),
    ("steps", None),
    ("keep", 3),
    ("log_every", 100),
    ("checkpoint_every", 1000),
  ):
    if not isinstance(section.get(key, default), int) or section.get(key, default) < 1:
      raise UserError(f"config.training.{key} must be a whole number, 1 or more; it is {section.get(key)!r}")
  config = codec.resolve(roles.resolve(config, workdir), workdir)
  parts = assembly.assemble(config)
  playing = assembly.players_of(parts)
  teacher.check(parts, playing)
  checks.check(parts)
  written = sinks.build(section.get("sinks"))  # a mistake there should not wait for the end of training
  mesh = sharding.make_mesh(section.get("model_devices", 1))
  sharding.check_batch_size(section.batch_size, section.get("accumulate", 1), mesh)
  shapes = assembly.shape_state(parts)
  names.check(shapes)
  places = sharding.state_sharding(mesh, shapes, section.get("layout", "replicated"))
  step = steps.make_step(
    playing,
    parts.roles,
    ema.averages(section),
    mesh=mesh,
    state_sharding=places,
    seed=config.get("seed", 0),
    accumulate=section.get("accumulate", 1),
    encode=None if parts.codec is None else functools.partial(codec.encoded, parts.codec),
  )
  workdirs.claim(workdir, config)
  with interruption.Watch() as watch:
    return _Run(parts, workdir, mesh, shapes, places, written, quiet, profile).go(step, watch)


class _Run:
  """One process's part of a run: what it has yet to write and where."""

  def __init__(self, parts, workdir, mesh, shapes, places, written, quiet, profile):
    self.parts, self.config, self.section = parts, parts.config, parts.config.training
    self.workdir, self.mesh, self.quiet = workdir, mesh, quiet
    self.folder = workdirs.checkpoints(workdir)
    self.template = sharding.placed(shapes, places)
    self.places, self.sinks = places, written
    self.on_device = []  # (step, metrics) not yet fetched
    self.on_host = []  # metrics as numbers, not yet logged
    self.profile, self.waited = profile, 0.0  # seconds that the loop waited for data since the last log line

  def go(self, step, watch) -> Trained:
    state, done, spent = self._begin()
    total, size = self.section.steps, self.section.batch_size
    count = states.count_parameters(state.params["model"])
    if done >= total:
      _say(f"{self.workdir} is trained already: {done} steps of {total}")
      return Trained(self.parts, state, spent, None, count)
    writer = self.writer = checkpoints.Writer(
      self.folder, self.section.get("keep", 3), self.section.get("keep_every")
    )
    kept = self.snapshots = snapshots.Snapshots(self.workdir, self.config, done)
    log = (
      logging.RunLog(self.workdir, done, total, self.sinks, self.quiet)
      if distributed.first()
      else logging.Silent()
    )
    batches = data.stream(
      self.parts.dataset,
      size,
      self.config.get("seed", 0),
      start=done * size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    begun, first, saved = time.perf_counter() - spent, done, done
    profile = profiling.Profile(
      profiling.folder_of(self.workdir) if self.profile and distributed.first() else None, first
    )
    try:
      shape = assembly.example_batch(self.parts, size)
      step = step.lower(self.template, jax.tree.map(self._on_mesh, shape)).compile()
      compiled = mark = time.perf_counter()
      if not done and not self.quiet:
        processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        log.say(
          f"training {count:,} parameters on {self.mesh.size} device(s){processes}; data: "
          f"{self.parts.dataset.said}"
        )
      ahead = self._take(batches)
      while done < total and watch.ask(done) is None:
        batch, ahead = ahead, None
        said = profile.step(done, state)
        if said:
          log.say(said)
        state, metrics = step(state, batch)
        done += 1
        if done < total:
          ahead = self._take(batches)  # while the device works
        self.on_device.append((done, metrics))
        if done % self.section.get("log_every", 100) == 0 or done == total:
          self._fetch()
          now = time.perf_counter()
          log.write(
            self._record(
              done, now - begun, len(self.on_host) * size / (now - mark), self.waited / (now - mark)
            )
          )
          mark, self.waited = now, 0.0
        if kept.due(done):
          writer.wait()
          self._check(state, done)
          kept.save(state, done)
        if done % self.section.get("checkpoint_every", 1000) == 0 and done < total:
          self._save(writer, state, done, time.perf_counter() - begun)
          saved = done
      self._fetch()
      now = time.perf_counter()
      if done > saved:
        self._save(writer, state, done, now - begun)
      for _ in range(5):
        if writer.wait():
          break
        self._save(writer, state, done, now - begun)
      else:
        raise UserError(
          f"step {done} could not be saved, for the clock of this machine jumps; {self._kept()}; set the "
          "clock and run the same command"
        )
      if watch.signal is not None:
        if not done:
          raise interruption.Stopped(
            f"{watch.signal.name}: stopped before the first step, so there is nothing to save",
            128 + watch.signal,
          )
        raise interruption.Stopped(
          f"{watch.signal.name}: saved step {done} of {total} in {self.folder}; run the same command to go "
          "on",
          128 + watch.signal,
        )
      return Trained(self.parts, state, now - begun, (done - first) * size / (now - compiled), count)
    finally:
      profile.close()
      log.close()
      batches.close()
      _close(kept)
      _close(writer)

  def _begin(self):
    """(state, steps done, seconds spent) from the newest good checkpoint, else from the start."""
    chosen = checkpoints.choose(self.folder, say=_warn)
    newest = distributed.agreed(
      -1 if chosen is None else int(os.path.basename(chosen))
    )  # a file system may show them at different times
    chosen = None if newest < 0 else checkpoints.path_of(self.folder, newest)
    if chosen is None:
      # Run once: on a CPU its compilation takes far longer than it does, so it is compiled with less care.
      quick: dict[str, Any] = {"xla_backend_optimization_level": 0}
      options = quick if jax.default_backend() == "cpu" else None
      state = (
        jax.jit(lambda: assembly.init_state(self.parts), out_shardings=self.places).lower().compile(options)()
      )
      if self.section.get("warm_start"):
        state = warm_start.load(self.section.warm_start, state)
      state = roles.load(self.parts.roles, state, say=_say)
      state = codec.load(self.config, self.parts.codec, self.parts.dataset, state, say=_say)
      return state, 0, 0.0
    meta = checkpoints.read_meta(chosen)
    state = checkpoints.read_state(chosen, self.template)
    if meta["examples"] != meta["step"] * self.section.batch_size:
      raise UserError(
        f"{chosen} stands at example {meta['examples']}, which is not step {meta['step']} of batches of "
        f"{self.section.batch_size}"
      )
    self.on_host = meta["unlogged"]
    _say(f"going on from {chosen}")
    return state, meta["step"], meta["seconds"]

  def _take(self, batches):
    """The next batch, on its way to the devices."""
    begun = time.perf_counter()
    batch = next(batches)
    self.waited += time.perf_counter() - begun
    return sharding.put_batch(batch, self.mesh)

  def _on_mesh(self, shape):
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding.batch_sharding(self.mesh))

  def _fetch(self):
    """Brings the metrics to the host; UserError at the first that is not finite."""
    waiting, self.on_device = self.on_device, []
    for (number, _), metrics in zip(waiting, jax.device_get([metrics for _, metrics in waiting])):
      numbers = {name: float(value) for name, value in sorted(metrics.items())}
      bad = [name for name, value in numbers.items() if not np.isfinite(value)]
      if bad:
        terms = [name for name in bad if name not in ("loss", "grad_norm")] or bad
        raise UserError(
          f"training stopped at step {number}: {', '.join(terms)} not finite "
          f"({', '.join(f'{name} {numbers[name]}' for name in bad)}); "
          f"{self._kept()}; try a lower config.optimizer.learning_rate or a config.optimizer.clip in a new "
          "--workdir"
        )
      self.on_host.append(numbers)

  def _kept(self):
    """What remains after a failure, once the save under way is through."""
    self.writer.wait()
    good = checkpoints.steps(self.folder)
    return (
      f"the checkpoint of step {good[-1]} is kept in {self.folder}" if good else "there is no checkpoint yet"
    )

  def _record(self, done, seconds, speed, waited):
    rows, self.on_host = self.on_host, []
    means = {}
    for name in rows[-1]:
      player, _, metric = name.rpartition("/")
      moved = f"{player}/moved" if player else "moved"
      of_turns = [row[name] for row in rows if row.get(moved, 1.0)]  # of the steps where its player moved
      if metric != "moved" and of_turns:
        means[name] = of_turns[-1] if metric in LAST else float(np.mean(of_turns))
    return {
      "step": done,
      "images": done * self.section.batch_size,
      **means,
      "seconds": seconds,
      "images_per_second": speed,
      "data_wait": waited,
    }

  def _save(self, writer, state, done, seconds):
    self._check(state, done)
    meta = {
      "step": done,
      "examples": done * self.section.batch_size,
      "seconds": seconds,
      "unlogged": self.on_host,
    }
    self.snapshots.wait()  # when a checkpoint stands, so do the snapshots before it
    writer.save(state, meta, loading.to_json(self.config))

  def _check(self, state, done):
    """Brings the metrics to the host; UserError unless they and the whole state are finite."""
    self._fetch()
    if not bool(steps.all_finite(state)):
      raise UserError(
        f"training stopped at step {done}: a parameter or an average is not finite, so this step is not "
        f"saved; {self._kept()}; "
        "try a lower config.optimizer.learning_rate in a new --workdir"
      )


def _say(text):
  if distributed.first():
    print(text)


def _warn(text):
  if distributed.first():
    print(text, file=sys.stderr)


def _close(writer):
  """Ends the writer; an error of its own must not hide the one on its way."""
  if sys.exc_info()[0] is None:
    writer.close()
  else:
    with contextlib.suppress(Exception):  # the first error is the one to show
      writer.close()
