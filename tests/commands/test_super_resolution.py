"""A published network of super-resolution, told its small images by the records of a file."""

import functools
import pathlib
import sys

import jax
import numpy as np
import pytest

from diffusion import sampling, solvers, weights
from diffusion.run import sharding
from tests.scripts import sample

sys.path.append(str(pathlib.Path(__file__).parents[1] / "weights"))
import test_openai as openai

pytestmark = pytest.mark.standard_promotion


@pytest.fixture
def flags(tmp_path, monkeypatch):
  """Of the file, with a folder that has data of its images and of small ones."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
  draw = np.random.default_rng(0)
  large, small = (draw.integers(0, 256, (40, side, side, 3)).astype(np.uint8) for side in (4, 2))
  np.savez("data.npz", x=large, label=np.arange(40) % 5, low_res=small)
  np.savez("without.npz", x=large, label=np.arange(40) % 5)
  path = openai.write(tmp_path, "upsampler", openai.arrays("upsampler"))
  told = [f"--told={name}={value}" for name, value in openai.told("upsampler").items()]
  return [f"--weights={path}", *told, "--num=3", "--batch=4"]


@pytest.mark.parametrize(
  "more, words",
  [((), ["low_res", "--data=FILE.npz"]), (("--data=without.npz",), ["low_res", "without.npz"])],
)
def test_small_images_are_asked_for_in_one_sentence(flags, more, words):
  status, _, err = sample(*flags, *more)
  assert status != 0 and len(err.splitlines()) == 1 and all(word in err for word in words), err


@pytest.mark.slow
def test_samples_are_told_the_small_images_of_the_records(flags):
  status, _, err = sample(*flags, "--data=data.npz", "--solver=ddim", "--steps=2", "--out=found")
  assert status == 0, err
  found = np.load("found.npz")
  assert found["low_res"].shape == (3, 2, 2, 3) and found["low_res"].dtype == np.uint8
  model = weights.load(flags[0].removeprefix("--weights="), told=openai.told("upsampler"))
  solver = solvers.build("ddim", model.denoiser.process, 2)
  told = {"label": found["label"], "low_res": np.float32(found["low_res"] / 127.5 - 1)}
  by_hand = sampling.generate(
    model.denoiser,
    solver,
    model.shape,
    3,
    cond=lambda index: {name: one[index % 3] for name, one in told.items()},
    batch=4,
  )
  assert openai.difference(found["x"], by_hand.x) < 1e-5  # of the norm: nothing clips a random network
