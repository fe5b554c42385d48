"""The configs of text: parts are built, sizes are the published ones, and the whole step is lowered."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import data
from diffusion.config import loading
from diffusion.data.text_files import of_values
from diffusion.run import ema, sharding, step as steps
from diffusion.run.parts import assembly, checks

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # as it is for `python train.py`
  sys.path.insert(0, str(ROOT))
CONFIGS = [f"{name}{form}" for name in ("stdlib", "text8", "lm1b") for form in ("", ":autoregressive")]


class Numbers:
  """A vocabulary of so many pieces, each written as its number."""

  unit = "token"

  def __init__(self, size):
    self.size = size

  def decode(self, values):
    return " ".join(map(str, values))


def assembled(name):
  config = loading.load(f"{ROOT}/configs/text/{name.replace(':', '.py:') if ':' in name else name + '.py'}")
  length = config.process.shape[0]
  values = np.zeros(2 * length, np.uint16)
  vocabulary = Numbers(config.process.num_values)
  dataset = of_values("zeros", values, values, vocabulary, length=length, split="none")
  return assembly.assemble(config, dataset)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_part_is_built_and_fits(name):
  parts = assembled(name)
  checks.check(parts)
  assert parts.network.causal == (":" in name) and parts.config.data.length == parts.shape[0]
  assert ("next_logits" in assembly.denoiser(parts).views) == (":" in name)


def test_both_models_of_a_text_have_one_size():
  """But for the weights of the neighbours to the right: 4 for each of 128 features, twice in 4 blocks."""
  for name, right in (("stdlib", 4 * 128 * 2 * 4), ("lm1b", 0)):
    masked, in_order = (
      sum(leaf.size for leaf in jax.tree.leaves(assembly.shape_state(assembled(one)).params["model"]))
      for one in (name, f"{name}:autoregressive")
    )
    assert masked - in_order == right


def test_published_sizes():
  """12 blocks of 768: 12 (12 * 768^2) of matrices, and with time 6 * 768^2 of modulation a block."""
  for name, modulated in (("text8", 6), ("lm1b", 0)):
    parts = assembled(name)
    size = sum(
      leaf.size
      for path, leaf in jax.tree_util.tree_leaves_with_path(assembly.shape_state(parts).params["model"])
      if "block" in str(path[0]) and leaf.ndim == 2
    )
    assert size == 12 * (12 + modulated) * 768**2
    assert parts.config.training.batch_size == 512 and parts.config.training.steps == 1_000_000
    decay = 0.5 ** (512 / parts.config.training.ema_half_life_images[0])
    assert abs(decay - 0.9999) < 1e-6


@pytest.mark.slow
@pytest.mark.standard_promotion  # optax
@pytest.mark.parametrize("name", CONFIGS)
def test_step_is_lowered(name):
  """The whole training step at its full size, over the mesh, with nothing computed."""
  parts = assembled(name)
  mesh = sharding.make_mesh()
  state = assembly.shape_state(parts)
  step = steps.make_step(
    assembly.players_of(parts),
    parts.roles,
    ema.averages(parts.config.training),
    mesh=mesh,
    state_sharding=sharding.state_sharding(mesh, state),
    seed=0,
  )
  batch = assembly.example_batch(parts, parts.config.training.batch_size)
  after, metrics = step.lower(state, batch).out_info
  assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(lambda leaf: leaf.shape, state)
  assert {"loss", "grad_norm", "learning_rate"} <= set(metrics) and batch["x"].dtype == jnp.int32


def test_binary_mnist_is_built():
  """The U-Net over embedded values, for images of two values."""
  config = loading.load(f"{ROOT}/configs/binary_mnist.py")
  grey = data.Arrays(np.zeros((4, 28, 28, 1), np.uint8))
  images = data.describe("zeros", grey, grey, split="none")
  parts = assembly.assemble(config, data.black_and_white(images))
  checks.check(parts)
  batch = assembly.example_batch(parts, 8)
  params = assembly.shape_state(parts).params["model"]
  of = lambda params, x, t: assembly.denoiser(parts, params)(x, t, views=("logits",)).logits
  logits = jax.eval_shape(of, params, batch["x"], jax.ShapeDtypeStruct((8,), jnp.float32))
  assert logits.shape == (8, 28, 28, 1, 2) and batch["x"].dtype == jnp.int32
