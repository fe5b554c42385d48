"""Resizes beside the tools that they follow (`make_recorded_evaluation.py`), and what any resize must do."""

import jax
import numpy as np
import pytest

from diffusion.metrics import resizing
from tests.metrics.recorded_evaluation import records
from tests.metrics.seeded_weights import images, sampled

RECORDS = {name: array for name, array in records().items() if name.startswith("resize/")}
# The originals work in float32: with pixels up to 255, a few roundings of 1.5e-5, and in torch's of weights.
GREY = {"tf1_bilinear": 6e-5, "torch_bilinear": 6e-5, "pillow_bicubic": 6e-5, "torch_bicubic": 2e-4}


@pytest.mark.parametrize("name", RECORDS)
def test_equals_the_original(name):
  _, kind, shape, side = name.split("/")
  height, width = map(int, shape.split("x"))
  pictures = images(0, 1, height, width, 3)
  expected = RECORDS[name]
  bound = GREY.get(kind, 5e-4)
  for mine in (
    resizing.resize_exact(pictures, kind, int(side)),
    np.asarray(resizing.resize(jax.numpy.asarray(pictures), kind, int(side))),
  ):
    mine = np.clip(mine, 0, 255) if kind == "pillow_bicubic" else mine
    found = sampled(mine, len(expected) - 2)
    np.testing.assert_allclose(found[2:], expected[2:], rtol=0, atol=bound)
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-6)


@pytest.mark.parametrize("kind", resizing.KINDS)
def test_keeps_a_constant_and_the_same_size(kind):
  for size, out in ((8, 299), (300, 224), (64, 64)):
    np.testing.assert_allclose(resizing.matrix(kind, size, out).sum(axis=1), 1, rtol=0, atol=1e-12)
  np.testing.assert_allclose(resizing.matrix(kind, 64, 64), np.eye(64), rtol=0, atol=1e-12)


def test_linear_ramps_show_the_half_pixel():
  """Away from the border a ramp x = i is sampled at i s by TF1, at (i + 1/2) s - 1/2 by the others."""
  ramp = np.arange(64.0)
  i = np.arange(40, 200)
  for kind, shift in (("tf1_bilinear", 0.0), ("torch_bilinear", 0.5), ("pillow_bicubic", 0.5)):
    found = (resizing.matrix(kind, 64, 256) @ ramp)[i]
    np.testing.assert_allclose(found, (i + shift) / 4 - shift, rtol=0, atol=1e-9)


def test_only_the_widened_cubic_sees_every_pixel():
  """Shrinking by 8, each pixel has its share in the antialiased resize, and few have one in the others."""
  seen = lambda kind: float(((resizing.matrix(kind, 256, 32) != 0).sum(axis=0) > 0).mean())
  assert seen("pillow_bicubic") == seen("torch_bicubic") == 1.0
  assert seen("tf1_bilinear") == 0.125 and seen("torch_bilinear") == 0.25


def test_refusals():
  with pytest.raises(ValueError, match="resize 'nearest' is not known: choose one of tf1_bilinear"):
    resizing.matrix("nearest", 2, 4)
  with pytest.raises(ValueError, match="0 pixels"):
    resizing.matrix("tf1_bilinear", 0, 4)
