"""Averages of any length, made afterwards of what a run stored of two of them."""

import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
import tiny

from diffusion.config import loading
from diffusion.config.errors import UserError
from diffusion.run import ema, loop, opening, posthoc, sharding, state as states, step as steps
from diffusion.run.parts import assembly, players
from diffusion.run.saved import averages, checkpoints, snapshots, workdir as workdirs

pytestmark = pytest.mark.standard_promotion

STEPS, EVERY, RATE = 96, 8, 0.25


def pull(params, loss_state, step, key, batch):
  """Half the squared distance to the batch: SGD moves a share of the way there at every step."""
  del step, key
  value = 0.5 * jnp.mean(jnp.sum((params["model"]["w"] - batch["x"]) ** 2, -1))
  return value, (loss_state, {"loss": value})


def targets():
  """What the parameters are pulled to, [STEPS, 3]: they drift, turn and jump."""
  t = np.arange(STEPS) / STEPS
  return np.stack([5 * t, np.sin(20 * t), np.where(t < 0.7, 1.0, -1.0)], 1).astype(np.float32)


@pytest.fixture(scope="module", params=[1, 8], ids=["one device", "eight devices"])
def known(request, tmp_path_factory):
  """(folder of a run of the real step, its trajectory [STEPS, 3], {length: the average tracked directly})."""
  folder, mesh = (
    str(tmp_path_factory.mktemp("known")),
    sharding.make_mesh(devices=jax.devices()[: request.param]),
  )
  config = ml_collections.ConfigDict(dict(training=dict(ema_snapshot_every=EVERY)))
  asked = {name: posthoc.power_gamma(float(name)) for name in ("0.075", "0.15")}
  shares = ema.averages(config.training) | {
    name: lambda step, images, gamma=gamma: ema.power_rate(gamma, step) for name, gamma in asked.items()
  }
  state = states.create(
    {"model": {"w": jnp.full(3, 9.0)}, "loss": {}},
    {"objective": {}, "collections": {}},
    optax.identity(),
    shares,
  )
  places = sharding.state_sharding(mesh, state)
  playing = players.one(pull, optax.identity(), lambda step: jnp.float32(RATE))
  step = steps.make_step(playing, {}, shares, mesh=mesh, state_sharding=places, seed=1)
  kept, writer = snapshots.Snapshots(folder, config, 0), checkpoints.Writer(workdirs.checkpoints(folder))
  state = jax.device_put(state, places)
  trajectory, now = [], np.full(3, 9.0)
  for done, target in enumerate(targets(), 1):
    state, _ = step(state, sharding.put_batch({"x": np.tile(target, (8, 1))}, mesh))
    now = now + RATE * (target - now)
    trajectory.append(now)
    if kept.due(done):
      kept.save(state, done)
  kept.close()
  writer.save(state, {"step": STEPS}, loading.to_json(config))
  writer.close()
  np.testing.assert_allclose(state.params["model"]["w"], now, rtol=1e-5)
  return folder, config, np.asarray(trajectory), {name: np.asarray(state.emas[name]["w"]) for name in asked}


@pytest.mark.parametrize("length", ["0.075", "0.15"])
def test_what_is_made_is_what_was_tracked(known, length):
  """Within error |p| |theta - c|, by Cauchy and Schwarz, and the rounding of float32."""
  folder, config, trajectory, tracked = known
  path = checkpoints.path_of(workdirs.checkpoints(folder), STEPS)
  found = averages.choose(path, config, length)
  params, collections = found.read()
  gamma = posthoc.power_gamma(float(length))
  norm = np.sqrt(posthoc.gram([STEPS], [gamma], [STEPS], [gamma])[0, 0])
  spread = np.sqrt(np.sum((trajectory - trajectory[-20:].mean(0)) ** 2, 0))
  rounding = 1e-5 * np.abs(trajectory).max(0)
  apart = np.abs(params["w"] - tracked[length])
  assert collections == {} and 0 < found.error < 0.02
  assert (apart <= found.error * norm * spread + rounding).all()
  assert apart.max() > 1e-6  # the bound says something: rounding is not all that there is
  # And both are what the profile says of the trajectory.
  exact = np.diff((np.arange(STEPS + 1) / STEPS) ** (gamma + 1)) @ trajectory
  np.testing.assert_allclose(tracked[length], exact, rtol=1e-5, atol=1e-5)
  parts = {(os.path.basename(place), name): factor for place, name, factor in found.parts}
  assert set(parts) == {
    (f"{step:08d}", name) for step in range(EVERY, STEPS + 1, EVERY) for name in ("0.05", "0.1")
  }
  np.testing.assert_allclose(sum(parts.values()), 1.0, rtol=1e-12)
  # Sharper: what was made is what its own profile, the sum of the stored ones, says.
  ages = np.arange(STEPS + 1)
  own = sum(
    factor * np.diff(np.minimum(ages / int(step), 1.0) ** (posthoc.power_gamma(float(name)) + 1))
    for (step, name), factor in parts.items()
  )
  np.testing.assert_allclose(params["w"], own @ trajectory, rtol=1e-5, atol=1e-5)


def test_only_averages_by_powers_are_in_a_snapshot_and_its_size_is_theirs(known):
  folder, *_ = known
  path = checkpoints.path_of(workdirs.snapshots(folder), EVERY)
  found = checkpoints.read_arrays(path)
  assert jax.tree.map(np.shape, found) == {"emas": {"0.05": {"w": (3,)}, "0.1": {"w": (3,)}}}
  assert checkpoints.read_meta(path)["step"] == EVERY


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run by train.py's loop: forty steps, a snapshot every four, a checkpoint every ten: three are kept."""
  config = tiny.get_config("everything")
  config.training.update(dict(steps=40, checkpoint_every=10, ema_half_life_images=(500,)))
  config.training.ema_snapshot_every = 4
  folder = tmp_path_factory.mktemp("trained")
  loop.train(config, str(folder), quiet=True)
  return folder


def by_hand(folder, step, length, every=4):
  """The sum in float64, of the files as they are."""
  places = [workdirs.snapshots(str(folder))] * (step // every) + [workdirs.checkpoints(str(folder))] * (
    step % every > 0
  )
  times = [*range(every, step + 1, every), *([step] if step % every else [])]
  if not step % every:
    places[-1] = workdirs.checkpoints(str(folder))
  gammas = [posthoc.power_gamma(one) for one in (0.05, 0.1)]
  factors = posthoc.combine(
    np.repeat(times, 2), np.tile(gammas, len(times)), step, posthoc.power_gamma(length)
  ).weights.reshape(-1, 2)
  total = None
  for place, time, (short, long) in zip(places, times, factors):
    found = checkpoints.read_arrays(checkpoints.path_of(place, time))["emas"]
    add = lambda a, b, short=short, long=long: short * a.astype(np.float64) + long * b.astype(np.float64)
    part = jax.tree.map(add, found["0.05"], found["0.1"])
    total = part if total is None else jax.tree.map(np.add, total, part)
  return total


def close(found, expected):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-7), dict(found), expected)


@pytest.mark.slow
@pytest.mark.parametrize("step, count", [pytest.param(40, 8, marks=pytest.mark.slow), (30, 1)])
def test_an_opened_run_has_the_length_asked_for(trained, step, count):
  """Also of an earlier checkpoint, between two snapshots; on any number of devices, with its collections."""
  mesh = sharding.make_mesh(devices=jax.devices()[:count])
  run = opening.open_run(str(trained), checkpoint=step, ema="0.150", mesh=mesh)
  close(run.params, by_hand(trained, step, 0.15))
  assert (run.average, run.step) == ("0.15", step) and 0 < run.made.error < posthoc.NEAR
  assert all(len(leaf.sharding.device_set) == count for leaf in jax.tree.leaves(run.params))
  kept = opening.open_run(str(trained), checkpoint=step, ema="0.1", mesh=mesh)
  assert (
    kept.made is None
    and max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), kept.params, run.params))) > 1e-4
  )
  jax.tree.map(np.testing.assert_array_equal, kept.denoiser.collections, run.denoiser.collections)


def test_an_opened_run_has_what_it_kept_as_before(trained):
  """The first is that by half-life; the checkpoint and the snapshot of one step hold the same averages."""
  first = opening.open_run(str(trained))
  there = checkpoints.read_arrays(first.checkpoint)
  assert first.average == "500" and set(there["emas"]) == {"500", "0.05", "0.1"}
  jax.tree.map(np.testing.assert_array_equal, dict(first.params), there["emas"]["500"])
  folder = workdirs.snapshots(str(trained))
  assert checkpoints.steps(folder) == list(range(4, 41, 4))
  assert checkpoints.steps(workdirs.checkpoints(str(trained))) == [20, 30, 40]
  for step in (20, 40):
    snapshot = checkpoints.read_arrays(checkpoints.path_of(folder, step))["emas"]
    whole = checkpoints.read_arrays(checkpoints.path_of(workdirs.checkpoints(str(trained)), step))["emas"]
    jax.tree.map(np.testing.assert_array_equal, snapshot, {name: whole[name] for name in snapshot})


def test_another_run_learns_from_a_length_that_was_made(trained):
  said = []
  params, _ = averages.of_run(str(trained), None, "0.15", "teacher", "config.roles.teacher", said.append)
  close(params, by_hand(trained, 40, 0.15))
  assert "teacher from" in said[0] and "relative length 0.15 made of 20 stored ones" in said[0]
  parts = assembly.assemble(workdirs.read(str(trained)))
  with pytest.raises(UserError, match="0.15 is not in the train state"):
    assembly.trained_params(parts, assembly.shape_state(parts), "0.15")


def test_a_run_that_goes_back_writes_the_same_snapshots_again(trained, tmp_path):
  """From step 20, though a snapshot of 36 is damaged and one is half-written; what is older stays."""
  folder = pathlib.Path(shutil.copytree(trained, tmp_path / "back"))
  for step in (30, 40):
    shutil.rmtree(folder / "checkpoints" / f"{step:08d}")
  os.remove(folder / "snapshots" / "00000036" / "meta.json")
  shutil.copytree(folder / "snapshots" / "00000040", folder / "snapshots" / "00000044.tmp")
  older = (folder / "snapshots" / "00000016" / "digests.json").stat().st_mtime_ns
  loop.train(workdirs.read(str(folder)), str(folder), quiet=True)
  assert (folder / "snapshots" / "00000016" / "digests.json").stat().st_mtime_ns == older
  assert sorted(os.listdir(folder / "snapshots")) == [f"{step:08d}" for step in range(4, 41, 4)]
  for kind, step in (*(("snapshots", step) for step in range(4, 41, 4)), ("checkpoints", 40)):
    ours, theirs = (checkpoints.read_arrays(str(place / kind / f"{step:08d}")) for place in (folder, trained))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_what_is_refused(trained, tmp_path):
  folder = pathlib.Path(shutil.copytree(trained, tmp_path / "bad"))
  opened = lambda length, **more: opening.open_run(str(folder), ema=length, **more)
  with pytest.raises(UserError, match="from 0.0001 to 0.2887.*it has 500, 0.05, 0.1"):
    opened("0.5")
  with pytest.raises(
    UserError, match=r"the 9 snapshots up to step 40 .* 0.01 only to \d\d% .* name one from 0.03 to 0.2"
  ):
    opened("0.01")
  with pytest.raises(UserError, match="no average of half-life 7 images"):
    opened("7")
  os.remove(folder / "snapshots" / "00000012" / "meta.json")
  with pytest.raises(
    UserError, match="snapshot .*00000012 is damaged .meta.json is missing.*delete that folder"
  ):
    opened("0.15")
  before = opened("0.1").params
  shutil.rmtree(folder / "snapshots" / "00000012")
  assert len(opened("0.15").made.parts) == 18
  shutil.rmtree(folder / "snapshots")
  with pytest.raises(UserError, match="made of snapshots, and there are none up to step 40"):
    opened("0.15")
  jax.tree.map(np.testing.assert_array_equal, opened("0.1").params, before)
