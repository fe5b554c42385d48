"""Compiled programs are kept between processes, within a bound; no state of the folder stops a command."""

import errno
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import pytest

from diffusion.run import compile_cache

ROOT = pathlib.Path(__file__).parents[2]
CHILD = """
import jax
from diffusion.run import compile_cache
from jax import monitoring

found = []
monitoring.register_event_listener(lambda name, **_: found.append(name.rpartition("/")[2]))
compile_cache.keep()
f = jax.jit(lambda x: (x @ x).sum())
g = jax.jit(lambda x: jax.numpy.tanh(x).sum())
x = jax.numpy.eye(7)
print(float(f(x)), round(float(g(x)), 4), found.count("cache_hits"), found.count("cache_misses"))
"""


def child(home, **changes):
  """(results, hits, misses, lines on stderr) of a process that compiles two programs and a few small ones."""
  env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
  env |= dict(XDG_CACHE_HOME=str(home), JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT), **changes)
  done = subprocess.run([sys.executable, "-c", CHILD], env=env, capture_output=True, text=True, check=True)
  *results, hits, misses = done.stdout.split()
  return results, int(hits), int(misses), done.stderr.splitlines()


def test_damage_is_mended_and_the_next_process_compiles_nothing(tmp_path):
  results, hits, misses, said = child(tmp_path)
  assert (results, hits, said) == (["7.0", "5.3312"], 0, []) and misses >= 2
  kept = sorted((tmp_path / "jax-diffusion").rglob("*-cache"))
  assert len(kept) == misses

  for path in kept:
    path.write_bytes(path.read_bytes()[:-20])
  again, hits, _, said = child(tmp_path)
  assert (again, hits) == (results, 0) and len(said) == 1 and "could not be read" in said[0]

  assert child(tmp_path) == (results, misses, 0, [])


@pytest.fixture
def alone(monkeypatch, tmp_path):
  """This process as if nobody had given JAX a folder; (home of the caches, what was said)."""
  import jax

  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
  monkeypatch.setattr(compile_cache.atexit, "register", lambda *_: None)
  names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update("jax_compilation_cache_dir", None)
  yield tmp_path, []
  for name, value in before.items():
    jax.config.update(name, value)


def test_the_users_own_place_and_the_switch_are_left_alone(alone, monkeypatch):
  import jax

  home, said = alone
  jax.config.update("jax_compilation_cache_dir", str(home / "other"))
  assert compile_cache.keep(said.append) is None
  jax.config.update("jax_compilation_cache_dir", None)
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    assert compile_cache.keep(said.append) is None
  finally:
    jax.config.update("jax_enable_compilation_cache", True)
  assert not said and not list(home.iterdir())


def test_a_folder_that_cannot_be_written_is_one_sentence(alone, monkeypatch):
  home, said = alone
  (home / "jax-diffusion").write_text("a file in its place")
  assert compile_cache.keep(said.append) is None
  assert len(said) == 1 and "JAX_ENABLE_COMPILATION_CACHE=false" in said[0]

  (home / "jax-diffusion").unlink()

  def full(**_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(tempfile, "TemporaryFile", full)
  assert compile_cache.keep(said.append) is None
  assert len(said) == 2 and "No space left" in said[1]


def test_what_jax_warns_of_is_said_once_and_other_warnings_are_shown(alone):
  _, said = alone
  shown = []
  warnings.showwarning = lambda message, *_: shown.append(str(message))
  folder = pathlib.Path(compile_cache.keep(said.append))
  (folder / "a-cache").write_bytes(b"x")
  with warnings.catch_warnings():
    warnings.simplefilter("always")
    warnings.warn("something else", stacklevel=1)
    for name in "ab":
      warnings.warn(
        f"Error writing persistent compilation cache entry for '{name}': OSError: disk", stacklevel=1
      )
  assert shown == ["something else"] and len(said) == 1 and "disk" in said[0]
  assert (folder / "a-cache").exists()


def test_a_folder_that_the_machine_cannot_load_is_closed_until_it_is_deleted(alone):
  import jax

  _, said = alone
  folder = pathlib.Path(compile_cache.keep(said.append))
  (folder / "a-cache").write_bytes(b"x")
  with warnings.catch_warnings():
    warnings.simplefilter("always")
    warnings.warn(
      "Error reading persistent compilation cache entry for 'a': JaxRuntimeError: another machine",
      stacklevel=1,
    )
  assert [path.name for path in folder.iterdir()] == [compile_cache.OFF] and len(said) == 1
  jax.config.update("jax_compilation_cache_dir", None)
  assert compile_cache.keep(said.append) is None and len(said) == 1


def test_the_least_recently_used_go_first(tmp_path):
  for age, name in enumerate(["new", "used", "old"]):
    (tmp_path / name).write_bytes(bytes(100))
    os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
  os.utime(tmp_path / "old", (2e9, 1e9))  # read lately
  assert compile_cache.trim(str(tmp_path), 200) == 200
  assert {path.name for path in tmp_path.iterdir()} == {"new", "old"}
  assert compile_cache.trim(str(tmp_path / "nothing"), 0) == 0
