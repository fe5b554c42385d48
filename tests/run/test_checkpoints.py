"""A checkpoint is used only whole and as written, and nothing that goes wrong takes an earlier one along."""

import errno
import gc
import os
import pathlib
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.config.errors import UserError
from diffusion.run import sharding, state as states
from diffusion.run.saved import checkpoints, digests


def make_state(fill: float, size: int = 24):
  params = {
    "model": {"dense": {"kernel": jnp.full((size, 8), fill), "bias": jnp.arange(8.0) * fill}},
    "loss": {},
  }
  return states.create(params, {"objective": (), "collections": {}}, optax.scale_by_adam(), ("100",)).replace(
    step=jnp.int32(fill)
  )


def template_of(state, devices=None):
  mesh = sharding.make_mesh(devices=devices or jax.devices()[:1])
  places = sharding.state_sharding(mesh, state)
  return sharding.placed(state, places)


def save(folder, *numbers, **options):
  writer = checkpoints.Writer(str(folder), **options)
  for number in numbers:
    writer.save(make_state(float(number)), {"step": number, "examples": 4 * number}, "{}")
  writer.close()


def same(a, b):
  return all(
    bool((np.asarray(x) == np.asarray(y)).all())
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def test_round_trip_to_other_device_counts(tmp_path):
  save(tmp_path, 3)
  path = checkpoints.choose(str(tmp_path))
  assert checkpoints.read_meta(path) == {"step": 3, "examples": 12, "format": states.FORMAT}
  for count in (1, 8):
    state = checkpoints.read_state(path, template_of(make_state(0.0), jax.devices()[:count]))
    assert same(state, make_state(3.0)) and isinstance(state, states.TrainState)
    assert all(len(leaf.sharding.device_set) == count for leaf in jax.tree.leaves(state))


def test_the_saved_numbers_are_those_at_the_call_though_the_buffers_are_donated_at_once(tmp_path):
  state = make_state(5.0, size=100_000)
  advance = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)
  writer = checkpoints.Writer(str(tmp_path))
  meta = {"step": 5, "unlogged": [1.0]}
  writer.save(state, meta, "{}")
  meta["unlogged"].append(2.0)
  for _ in range(20):
    old, state = state, advance(state)
  # Those of the save itself may still be held by its copy, which donation then goes around; of these none is.
  assert old.params["model"]["dense"]["kernel"].is_deleted()
  writer.close()
  path = checkpoints.choose(str(tmp_path))
  assert same(checkpoints.read_state(path, template_of(make_state(0.0, 100_000))), make_state(5.0, 100_000))
  assert checkpoints.read_meta(path)["unlogged"] == [1.0]


def test_keep_the_newest_and_every_so_many(tmp_path):
  save(tmp_path, 1, 2, 3, 4, 5, 6, 7, keep=2, keep_every=3)
  assert checkpoints.steps(str(tmp_path)) == [3, 6, 7]
  assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_saving_after_falling_back_does_not_drop_the_good_one_for_a_newer_damaged_one(tmp_path):
  save(tmp_path, 10, 20, keep=2)
  os.remove(tmp_path / "00000020" / "meta.json")
  save(tmp_path, 15, keep=1)
  assert checkpoints.choose(str(tmp_path), say=lambda _: None).endswith("00000015")
  save(tmp_path, 20, keep=1)
  assert checkpoints.choose(str(tmp_path)).endswith("00000020")


def test_any_flipped_truncated_missing_or_added_file_is_seen(tmp_path):
  """Every file of the checkpoint in turn, the list of digests included."""
  save(tmp_path, 1, 2)
  newest = checkpoints.path_of(str(tmp_path), 2)
  files = [os.path.join(place, name) for place, _, names in os.walk(newest) for name in names]
  assert len(files) > 8
  for file in files:
    content = pathlib.Path(file).read_bytes()
    damages = [content[:-1], b"", None]
    for place in {0, len(content) // 2, len(content) - 1}:
      damages.append(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
    for damage in damages if content else ():
      os.remove(file)
      if damage is not None:
        with open(file, "wb") as out:
          out.write(damage)
      said = []
      assert checkpoints.choose(str(tmp_path), say=said.append).endswith("00000001"), file
      assert "is damaged" in said[0] and os.path.basename(file) in said[0] and "00000002" in said[0]
      with pytest.raises(UserError, match="is damaged"):
        checkpoints.choose(str(tmp_path), step=2)
      with open(file, "wb") as out:
        out.write(content)
    assert checkpoints.choose(str(tmp_path)).endswith("00000002")
  open(os.path.join(newest, "state", "extra"), "w").close()
  assert "was not there" in digests.problem(newest)


def test_all_damaged_none_and_missing(tmp_path):
  assert checkpoints.choose(str(tmp_path / "nowhere")) is None
  save(tmp_path, 1)
  with pytest.raises(UserError, match="no checkpoint of step 7 in .*there are 1"):
    checkpoints.choose(str(tmp_path), step=7)
  os.remove(tmp_path / "00000001" / "config.json")
  with pytest.raises(UserError, match="every checkpoint .* is damaged"):
    checkpoints.choose(str(tmp_path), say=lambda _: None)


def test_a_half_written_checkpoint_is_not_a_checkpoint(tmp_path):
  save(tmp_path, 1)
  shutil.copytree(tmp_path / "00000001", tmp_path / "00000002.tmp")
  assert checkpoints.steps(str(tmp_path)) == [1]
  checkpoints.Writer(str(tmp_path)).close()
  assert sorted(os.listdir(tmp_path)) == ["00000001"]


def test_another_shape_is_refused_with_its_name(tmp_path):
  save(tmp_path, 1)
  with pytest.raises(UserError, match="does not fit the state"):
    checkpoints.read_state(checkpoints.choose(str(tmp_path)), template_of(make_state(1.0, size=7)))


def test_a_save_that_the_wall_clock_ends_is_left_out_and_said(tmp_path, monkeypatch, capsys):
  save(tmp_path, 1)
  writer = checkpoints.Writer(str(tmp_path))

  def late(_):
    raise TimeoutError("timed out after 5028943.89 seconds")

  monkeypatch.setattr(digests, "write", late)  # the last thing before a save is complete
  writer.save(make_state(2.0), {"step": 2}, "{}")
  assert not writer.wait() and "step 2 is left out" in capsys.readouterr().err
  monkeypatch.undo()
  writer.save(make_state(3.0), {"step": 3}, "{}")
  assert writer.wait()
  writer.close()
  assert checkpoints.steps(str(tmp_path)) == [1, 3] and len(os.listdir(tmp_path)) == 2
  assert same(
    checkpoints.read_state(checkpoints.choose(str(tmp_path)), template_of(make_state(0.0))), make_state(3.0)
  )


@pytest.mark.parametrize("where", ["digests", "orbax"])
def test_full_disk_keeps_what_is_saved(tmp_path, monkeypatch, where):
  save(tmp_path, 1)
  writer = checkpoints.Writer(str(tmp_path))

  def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(*((digests, "write") if where == "digests" else (writer._orbax, "save")), full)
  with pytest.raises(UserError, match=r"disk is full.*step 2.*kept \(1\).*free some space"):
    writer.save(make_state(2.0), {"step": 2}, "{}")
    writer.wait()
  monkeypatch.undo()
  writer.close()
  assert sorted(os.listdir(tmp_path)) == ["00000001"]
  assert same(
    checkpoints.read_state(checkpoints.choose(str(tmp_path)), template_of(make_state(0.0))), make_state(1.0)
  )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # writes that Orbax gave up on
def test_a_really_full_disk(tmp_path):
  """A file system of one megabyte; skipped where mounting is not allowed."""
  if subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True
  ).returncode:
    pytest.skip("mounting a file system needs more rights")
  try:
    save(tmp_path, 1)
    writer = checkpoints.Writer(str(tmp_path))
    big = states.create(
      {"model": {"w": jax.random.normal(jax.random.key(0), (1_000_000,))}, "loss": {}},
      {},
      optax.identity(),
      (),
    )
    with pytest.raises(UserError, match=r"disk is full.*step 2"):
      writer.save(big, {"step": 2}, "{}")
      writer.wait()
    writer.close()
    assert checkpoints.choose(str(tmp_path)).endswith("00000001") and sorted(os.listdir(tmp_path)) == [
      "00000001"
    ]
    del writer
    gc.collect()  # the failed writes complain when they are collected: let it be here
  finally:
    subprocess.run(["umount", str(tmp_path)], check=True)
