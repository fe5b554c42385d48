"""Runs that version 0.1.0 wrote (before roles and players) are opened, sampled and gone on with."""

import pathlib
import tarfile

import jax
import numpy as np
import pytest

from diffusion import sampling
from diffusion.config.errors import UserError
from diffusion.run import loop, opening
from diffusion.run.parts import assembly
from diffusion.run.saved import checkpoints, weights, workdir as workdirs

pytestmark = pytest.mark.standard_promotion


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """plain and student, of six steps each; what 0.1.0 sampled from them; plain's weights after nine steps."""
  place = tmp_path_factory.mktemp("old")
  with tarfile.open(pathlib.Path(__file__).with_name("saved_by_0.1.0.tar.gz")) as archive:
    archive.extractall(place, filter="data")
  return place


@pytest.mark.parametrize("name", ["plain", "student"])
def test_samples_are_those_that_were_drawn_then(folder, name):
  run = opening.open_run(str(folder / name))
  denoiser, solver = opening.make_sampler(run)
  found = sampling.generate(denoiser, solver, (2,), 8, seed=3, labels=lambda index: 0 * index + 1, batch=8)
  np.testing.assert_allclose(found.x, np.load(folder / f"{name}-samples.npz")["x"], rtol=2e-5, atol=2e-5)


def test_a_student_keeps_its_teacher(folder):
  """Its config.teacher is the role that it is today, and its weights those of the run it learned from."""
  run = opening.open_run(str(folder / "student"))
  role = run.parts.roles["teacher"]
  assert (
    role.kind == "run" and role.source == "plain" and assembly.template(role).own_conditions == ("guidance",)
  )
  path = checkpoints.choose(str(folder / "plain" / "checkpoints"))
  taught, _ = weights.read_weights(path, average="64")
  jax.tree.map(np.testing.assert_array_equal, run.loss_inputs()[0]["teacher"], taught)
  assert run.objective.conditions == {"guidance": (0.0, 2.0)}


def test_it_goes_on_where_it_stood(folder):
  config = workdirs.read(str(folder / "plain"))
  config.training.steps = 9
  state = loop.train(config, str(folder / "plain"), quiet=True).state
  expected = np.load(folder / "longer.npz")
  found = {"params": state.params["model"], "emas": state.emas["64"]}
  for key, leaf in jax.tree_util.tree_leaves_with_path(found):
    np.testing.assert_allclose(leaf, expected[jax.tree_util.keystr(key)], rtol=2e-4, atol=2e-5)


def test_a_config_with_the_old_section_says_what_it_is_now(folder):
  import json

  from diffusion.config import loading

  old = loading.from_json((folder / "student" / "config.json").read_text())
  assert "teacher" in old and json.dumps(old.teacher.to_dict())
  with pytest.raises(UserError, match="config.teacher is config.roles.teacher now"):
    assembly.assemble(old)
