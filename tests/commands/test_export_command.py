"""`sample.py --export`: a program that JAX alone runs, equal to `sample.py`; sentences for what has none."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import test_codec
import test_masked_and_two_ended_commands as others
from jax import export as jax_export

from diffusion import export, sampling
from diffusion.commands import train
from diffusion.config import loading
from diffusion.run import loop, sharding
from diffusion.run.opening import make_sampler, open_run
from tests import scripts

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.standard_promotion
NUM, SEED, FIRST = 4, 3, 2

ALONE = """
import sys
import jax
import numpy as np
from jax import export

for path in sys.argv[1:]:
  with open(path + ".jax", "rb") as file:
    program = export.deserialize(bytearray(file.read()))
  inputs = dict(np.load(path + ".npz"))
  np.savez(path + "_alone.npz", **jax.jit(program.call)(inputs))
assert not any(name.startswith(("diffusion", "flax")) for name in sys.modules)
"""


@pytest.fixture(scope="module", autouse=True)
def one_device():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
    yield


@pytest.fixture(scope="module")
def script():
  return scripts.module("sample")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
  """From 'digits', 'masked' or 'pairs' to a run, trained for four steps."""
  folder = tmp_path_factory.mktemp("runs")
  return functools.cache(lambda kind: trained(folder, kind))


def trained(folder, kind):
  label, rng = np.arange(240) % others.LEVELS, np.random.default_rng(0)
  if kind == "masked":
    x = np.broadcast_to(label[:, None, None], (240, 2, 2)).astype(np.uint8)
    np.savez(folder / "masked.npz", x=x, label=label)
  elif kind == "pairs":
    x = rng.normal(size=(240, 2)).astype(np.float32)
    np.savez(folder / "pairs.npz", x=x, other=x + others.SHIFT)
  if kind == "digits":
    overrides = {
      "network.width": "16",
      "network.depth": "1",
      "training.steps": "4",
      "training.batch_size": "32",
      "training.checkpoint_every": "4",
      "training.log_every": "4",
      "sampler.steps": "3",
      "optimizer.warmup_steps": "2",
    }
    config = loading.load(str(ROOT / "configs" / "digits.py"), list(overrides.items()))
  else:
    config = others.config(folder, kind, 4)
  loop.train(config, str(folder / kind), quiet=True)
  return folder / kind


def called(script, workdir, *flags):
  """Exit status of sample.py."""
  return train.run(script.main, [f"--workdir={workdir}", *flags])


def exported(script, workdir, path, *flags):
  """Exports a sampler and samples with the same flags; what `sample.py` wrote."""
  flags = (f"--num={NUM}", f"--first={FIRST}", f"--seed={SEED}", f"--batch={NUM}", *flags)
  assert called(script, workdir, *flags, f"--export={path}.jax") == 0
  assert called(script, workdir, *flags, f"--out={path}_sampled", "--quiet") == 0
  return dict(np.load(f"{path}_sampled.npz"))


def run_alone(*paths):
  """Runs exported programs in a process that knows JAX alone; their outputs by name."""
  env = os.environ | dict(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1", PYTHONPATH="")
  command = [sys.executable, "-c", ALONE, *map(str, paths)]
  done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=paths[0].parent)
  assert done.returncode == 0, done.stderr
  return [dict(np.load(f"{path}_alone.npz")) for path in paths]


def assert_same(found, wanted):
  if wanted["x"].dtype.kind == "i":
    np.testing.assert_array_equal(found["x"], wanted["x"])
  else:
    np.testing.assert_allclose(found["x"], wanted["x"], rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(found["stored"], wanted["stored"])
  assert found["stored"].dtype == wanted["stored"].dtype


CASES = {
  "guided": ("digits", ("--guidance=1.5",)),
  "masked": ("masked", ()),
}
MORE = {
  "stochastic": ("digits", ("--solver=predictor_corrector", "--guidance=0", "--label=3")),
  "adaptive": ("digits", ("--solver=dpm_solver_adaptive", "--tolerance=0.1")),
  "pairs": ("pairs", ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("cases", [CASES, MORE], ids=["usual", "more"])
def test_jax_alone_gives_what_sample_py_gives(script, run_of, tmp_path, cases):
  wanted = [exported(script, run_of(run), tmp_path / name, *flags) for name, (run, flags) in cases.items()]
  found = run_alone(*(tmp_path / name for name in cases))
  for name, one, other in zip(cases, found, wanted, strict=True):
    assert len(one["x"]) == NUM and np.isfinite(one["x"]).all(), name
    assert_same(one, other)


@pytest.fixture(scope="module")
def guided(script, run_of, tmp_path_factory):
  """(program, inputs, words) of the guided digits."""
  path = tmp_path_factory.mktemp("guided") / "digits"
  assert called(script, run_of("digits"), "--num=3", f"--export={path}") == 0
  program = jax_export.deserialize(bytearray(path.with_suffix(".jax").read_bytes()))
  return program, dict(np.load(path.with_suffix(".npz"))), json.loads(path.with_suffix(".json").read_text())


def test_it_is_lowered_for_three_platforms_and_any_batch_and_says_so(guided):
  program, inputs, words = guided
  assert program.platforms == ("cpu", "cuda", "tpu") == tuple(words["platforms"])
  assert words["batch"] == "any" and not program.nr_devices > 1
  assert set(words["inputs"]) == set(inputs) and words["inputs"]["label"]["shape"] == ["batch"]
  assert inputs["guidance"] == 0.5 and words["guidance_interval"] == [0.05, 0.6]
  assert words["evaluations"] == 5 and words["network_evaluations"] == 10
  text = program.mlir_module()
  assert "custom_call" not in text.replace("stablehlo.custom_call @shape_assertion", "")


@pytest.mark.slow
def test_every_input_is_what_it_says(script, run_of, guided, tmp_path):
  """Another seed, class, weight and number of samples, and another table, against `sample.py` with these."""
  program, inputs, _ = guided
  flags = ("--seed=9", "--first=1", "--num=5", "--batch=5", "--label=7", "--guidance=2")
  assert called(script, run_of("digits"), *flags, f"--out={tmp_path / 'one'}", "--quiet") == 0
  changed = inputs | dict(
    key=jax.random.PRNGKey(9),
    index=np.arange(1, 6, dtype=np.int32),
    label=np.full(5, 7, np.int32),
    guidance=np.float32(2),
  )
  assert_same(jax.jit(program.call)(changed), dict(np.load(tmp_path / "one.npz")))

  opened = open_run(str(run_of("digits")))
  (denoiser, uniform), (_, asinh) = (make_sampler(opened, grid=grid) for grid in ("uniform", "asinh"))
  index, cond = np.arange(3), dict(label=np.arange(3, dtype=np.int32))
  given = export.inputs_of(uniform, index=index, cond=cond)
  program = export.exported(denoiser, uniform, opened.parts.shape, given, platforms=("cpu",))
  given |= {name: array for name, array in export.inputs_of(asinh, index=index).items() if "." in name}
  found = jax.jit(program.call)(given)["x"]
  wanted = sampling.generate(denoiser, asinh, opened.parts.shape, 3, batch=3, labels=lambda index: index)
  np.testing.assert_allclose(found, wanted.x, rtol=1e-6, atol=1e-6)
  other = sampling.generate(denoiser, uniform, opened.parts.shape, 3, batch=3, labels=lambda index: index)
  assert abs(other.x - wanted.x).max() > 1e-3


def test_what_cannot_be_exported_is_one_sentence_and_nothing_is_written(script, run_of, tmp_path, capsys):
  def refused(*flags):
    capsys.readouterr()
    assert called(script, run_of("digits"), *flags) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and not list(tmp_path.rglob("*.jax")), said
    return said

  there = f"--export={tmp_path / 'one.jax'}"
  assert "no place beside it" in refused(there, "--out=x")
  assert "no place beside it" in refused(there, "--shards=x")
  assert "is a folder and no file" in refused(f"--export={tmp_path}/")
  (tmp_path / "file").write_text("")
  assert "cannot be written" in refused(f"--export={tmp_path / 'file' / 'one'}")
  (tmp_path / "two.npz").mkdir()
  assert "choose another name" in refused(f"--export={tmp_path / 'two'}")
  assert "--num=0" in refused(there, "--num=0")
  assert not list(tmp_path.glob(".export-*"))


@pytest.mark.slow
def test_a_latent_run_is_decoded_within_the_program(script, tmp_path):
  np.savez(tmp_path / "data.npz", x=test_codec.PIXELS, label=np.arange(120) % 3)
  loop.train(test_codec.autoencoder(tmp_path), str(tmp_path / "autoencoder"), quiet=True)
  loop.train(test_codec.latent(tmp_path), str(tmp_path / "latent"), quiet=True)
  wanted = exported(script, tmp_path / "latent", tmp_path / "one")
  assert_same(*run_alone(tmp_path / "one"), wanted)
