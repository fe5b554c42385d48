"""Inception and DINOv2 beside their originals, layer by layer, with random weights drawn alike on both sides.

`make_recorded_evaluation.py` kept of every layer its norm and 24 entries, of networks with a sixteenth of the
channels and of the whole ones. The bound is 1e-5 of the norm, in float32.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from diffusion.metrics import resizing
from diffusion.metrics.extractors import dinov2, files, inception
from tests.metrics.recorded_evaluation import records
from tests.metrics.seeded_weights import difference, images, seeded

BOUND = 1e-5
RECORDS = records()


def inception_arrays(narrow):
  """The arrays of torch-fidelity's class by name, with random weights."""
  shapes = jax.eval_shape(
    inception.Inception(narrow).init, jax.random.key(0), jnp.zeros((1, inception.SIDE, inception.SIDE, 3))
  )["params"]
  found = {}
  for path, leaf in traverse_util.flatten_dict(shapes).items():
    if path[-1] == "kernel":
      height, width, inputs, outputs = leaf.shape
      name = ".".join(path[:-1])
      found[f"{name}.conv.weight"] = (outputs, inputs, height, width)
      found |= {f"{name}.bn.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")}
  found["fc.weight"] = (inception.CLASSES, 2048 // narrow)
  return {name: seeded(name, shape) for name, shape in found.items()}


@functools.cache
def inception_outputs(narrow):
  """(features, every layer by its original name)."""
  params = inception.parameters(inception_arrays(narrow), narrow)
  pictures = jnp.asarray(images(1, 2, 40, 32, 3))

  @jax.jit
  def run(params, pictures):
    x = resizing.resize(pictures, "tf1_bilinear", inception.SIDE)
    apply = inception.Inception(narrow).apply
    return apply({"params": params}, (x - 128.0) / 128.0, mutable=["intermediates"])

  features, kept = run(params, pictures)
  layers = {}
  for path, (value,) in traverse_util.flatten_dict(kept["intermediates"]).items():
    layers[".".join(path).removesuffix("_out")] = value
  return features, layers


@pytest.mark.parametrize("narrow", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_inception_layer_by_layer(narrow):
  features, layers = inception_outputs(narrow)
  names = [name.partition("/")[2] for name in RECORDS if name.startswith(f"inception{narrow}/")]
  assert len(names) == 94 + 11 + 3  # convolutions, blocks, outputs
  worst = {}
  for name in names:
    mine = features[name] if name in features else layers[name]
    worst[name] = difference(mine, RECORDS[f"inception{narrow}/{name}"])
  print(f"largest of {len(worst)}: {max(worst.values()):.1e}")
  assert max(worst.values()) < BOUND, max(worst, key=worst.get)


TINY = (64, 2, 2)
LARGE = (1024, 24, 16)


def dinov2_arrays(width, depth):
  """The arrays of facebookresearch/dinov2 by name, with random weights."""
  shapes = {
    "cls_token": (1, 1, width),
    "pos_embed": (1, 37 * 37 + 1, width),
    "patch_embed.proj.weight": (width, 3, 14, 14),
    "patch_embed.proj.bias": (width,),
    "norm.weight": (width,),
    "norm.bias": (width,),
    "mask_token": (1, width),
  }
  for i in range(depth):
    inner = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for name, (out, into) in inner.items():
      shapes[f"blocks.{i}.{name}.weight"] = (out * width, into * width)
      shapes[f"blocks.{i}.{name}.bias"] = (out * width,)
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
      shapes[f"blocks.{i}.{name}"] = (width,)
  return {name: seeded(name, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("who", ["original", "timm"])
@pytest.mark.parametrize("size", ["tiny", pytest.param("large", marks=pytest.mark.slow)])
def test_dinov2_layer_by_layer(size, who):
  width, depth, heads = TINY if size == "tiny" else LARGE
  arrays = dinov2_arrays(width, depth)
  options = dinov2.options_of(arrays, heads)
  assert options == (width, depth, heads, 0)
  params = dinov2.parameters(arrays, options, who)
  pictures = jnp.asarray(images(2, 2, 32, 32, 3))

  @jax.jit
  def run(params, pictures):
    x = dinov2.normalised(resizing.resize(pictures, "torch_bicubic", dinov2.SIDE))
    return dinov2.Transformer(options).apply({"params": params}, x, mutable=["intermediates"])

  features, kept = run(params, pictures)
  layers = {name.removesuffix("_out"): value for name, (value,) in kept["intermediates"].items()}
  names = [name for name in RECORDS if name.startswith(f"dinov2_{size}/{who}/")]
  assert len(names) == depth + 1
  worst = {}
  for name in names:
    last = name.rpartition("/")[2]
    worst[name] = difference(features[last] if last in features else layers[last], RECORDS[name])
  print(f"largest of {len(worst)}: {max(worst.values()):.1e}")
  assert max(worst.values()) < BOUND, max(worst, key=worst.get)


def test_mean_pool_counts_no_padding():
  x = np.random.RandomState(0).standard_normal((1, 5, 4, 2)).astype(np.float32)
  found = np.asarray(inception.mean_pool(jnp.asarray(x)))
  for i, j in ((0, 0), (0, 2), (2, 1), (4, 3)):
    around = x[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean(axis=(0, 1))
    np.testing.assert_allclose(found[0, i, j], around, rtol=1e-5, atol=1e-6)


def test_positions_of_the_same_grid_stay():
  learned = np.random.RandomState(0).standard_normal((1, 17, 3)).astype(np.float32)
  assert dinov2.positions(learned, 4) is learned
  constant = np.ones((1, 37 * 37 + 1, 3), np.float32)
  for how in ("original", "timm"):
    np.testing.assert_allclose(dinov2.positions(constant, how=how), 1.0, rtol=1e-6)


def test_files_that_are_no_extractor():
  arrays = inception_arrays(16)
  del arrays["Mixed_7c.branch_pool.bn.bias"]
  arrays["fc.weight"] = arrays["fc.weight"][:1000]
  with pytest.raises(
    ValueError, match=r"lack Mixed_7c.branch_pool.bn.bias \[12\], fc.weight \[1008, 128\]: give"
  ):
    files.of_inception(arrays, narrow=16)
  arrays = dinov2_arrays(64, 1)
  arrays["blocks.0.ls1.gamma"] = np.ones(3, np.float32)
  with pytest.raises(ValueError, match=r"lack blocks.0.ls1.gamma \[64\]: give dinov2_vitl14"):
    files.of_dinov2(arrays, heads=2)
