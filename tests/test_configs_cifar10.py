"""The CIFAR-10 configs of Score SDE.

Every one is built, and its network counted against the published architecture.
"""

import functools
import json
import math
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import data
from diffusion.config import factories, loading
from diffusion.run import ema, sharding, step as steps
from diffusion.run.parts import assembly, sampler_config

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # as it is for `python train.py`
  sys.path.insert(0, str(ROOT))
FILES = sorted(path.stem for path in (ROOT / "configs/cifar10").glob("*_*.py") if path.stem != "score_sde")


@functools.cache
def load(name):
  return loading.load(str(ROOT / f"configs/cifar10/{name}.py"))


def part(name, section):
  return factories.build(load(name)[section], where=f"config.{section}")


# ---- the published architecture, layer by layer, in numbers only ------------------------------------------
# Follows the authors' model (one code for all three families) from the input to the output.


def conv(size, channels, out):
  return size * size * channels * out + out


def dense(channels, out):
  return channels * out + out


def norm(channels):
  return 2 * channels


def attention(channels):
  return norm(channels) + 4 * dense(channels, channels)  # query, key, value, output


def residual_block(channels, out, biggan, resampled=False, embedding=512):
  total = norm(channels) + conv(3, channels, out) + dense(embedding, out) + norm(out) + conv(3, out, out)
  if biggan and (resampled or channels != out):
    total += conv(1, channels, out)
  if not biggan and channels != out:
    total += dense(channels, out)
  return total


def published_count(family, blocks, fourier):
  """Parameters for 32x32x3 images: 128 channels times (1, 2, 2, 2), attention at 16x16 and in the middle."""
  biggan, ncsnpp, stem, image = family != "ddpm", family == "ncsnpp", 128, 3
  widths, sizes = [128, 256, 256, 256], [32, 16, 8, 4]
  # Fourier frequencies are stored, and give a sine and a cosine each
  total = (stem + dense(2 * stem, 512) if fourier else dense(stem, 512)) + dense(512, 512)
  total += conv(3, image, stem)
  skips, channels, pyramid = [stem], stem, image
  for level, width in enumerate(widths):
    for _ in range(blocks):
      total += residual_block(channels, width, biggan)
      channels = width
      if sizes[level] == 16:
        total += attention(channels)
      skips.append(channels)
    if level < 3:
      total += (
        residual_block(channels, channels, True, resampled=True) if biggan else conv(3, channels, channels)
      )
      if ncsnpp:  # the image, halved by a filtered convolution to the width of the level
        total += conv(3, pyramid, channels)
        pyramid = channels
      skips.append(channels)
  total += 2 * residual_block(channels, channels, biggan) + attention(channels)
  for level in (3, 2, 1, 0):
    for _ in range(blocks + 1):
      total += residual_block(channels + skips.pop(), widths[level], biggan)
      channels = widths[level]
    if sizes[level] == 16:
      total += attention(channels)
    if level > 0:
      total += (
        residual_block(channels, channels, True, resampled=True) if biggan else conv(3, channels, channels)
      )
  assert not skips
  return total + norm(channels) + conv(3, channels, image)


def architecture(name):
  """(family, blocks, fourier) that a file's own name and the paper's appendix H ask for."""
  family = next(family for family in ("ncsnpp", "ddpmpp", "ddpm") if f"_{family}" in name)
  blocks = 2 if family == "ddpm" else 8 if "deep" in name else 4
  return family, blocks, name.startswith("ve_") and "continuous" in name


@functools.cache
def shapes(network):
  x, t = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
  return jax.eval_shape(network.init_with_output, jax.random.key(0), x, t)


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=[pytest.mark.slow] * (i % 4 > 0)) for i, name in enumerate(FILES)]
)
def test_network_has_the_published_parameters(name):
  y, variables = shapes(part(name, "network"))
  assert y.shape == (2, 32, 32, 3) and set(variables) == {"params"}
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == published_count(*architecture(name))


def test_published_sizes():
  """In millions, rounded: DDPM's 35.7 (arXiv:2006.11239) counts two more attention blocks going up, 0.53
  together."""
  millions = {
    family: published_count(*family) / 1e6
    for family in [("ddpm", 2, False), ("ddpmpp", 4, False), ("ncsnpp", 4, True), ("ncsnpp", 8, True)]
  }
  assert round(millions["ddpm", 2, False] + 2 * attention(256) / 1e6, 1) == 35.7
  assert [round(value) for value in millions.values()] == [35, 62, 63, 108]


@pytest.mark.parametrize("name", FILES)
def test_every_part_is_built(name):
  config, process, view = load(name), part(name, "process"), part(name, "denoiser")
  kind = name.split("_")[0]
  assert view.kind == ("scaled_score" if kind == "ve" else "eps")
  assert config.data.centered == config.network.centered == (kind != "ve")
  # EMA of decay 0.999 or 0.9999 a step of 128 images
  decay = 0.5 ** (128 / config.training.ema_half_life_images[0])
  assert math.isclose(1 - decay, 1e-3 if kind == "ve" else 1e-4, rel_tol=1e-3)
  assert config.training.steps == (950_001 if "deep" in name else 1_300_001)

  factories.build(
    config.loss, process, where="config.loss", without=("weight", "times", "condition_dropout", "transforms")
  )
  for section in (config.loss.weight, config.loss.times, *config.loss.get("transforms", ())):
    factories.build(section)
  section = config.sampler
  # 1000 evaluations of the predictor, and as many of the corrector on VE.
  solver = sampler_config.solver(section, process)
  assert solver.cost == (2000 if kind == "ve" else 1000)
  json.dumps(config.to_dict())


@pytest.mark.parametrize("name", FILES)
def test_the_network_is_handed_the_published_clock(name):
  process, view = part(name, "process"), part(name, "denoiser")
  if "continuous" in name:
    t = np.array([1e-5, 0.3, 1.0])
    want = np.log(0.01 * 5000.0**t) if name.startswith("ve_") else 999 * t
  else:  # DDPM counts its rungs up from 0, NCSN down to 0 at the largest level
    rungs = np.array([1, 400, 1000])
    t = rungs / 1000
    want = 1000 - rungs if name.startswith("ve_") else rungs - 1
  t = jnp.asarray(t, jnp.float32)
  np.testing.assert_allclose(view.clock(process, t), want, rtol=1e-5, atol=1e-3)


@pytest.mark.standard_promotion  # optax
@pytest.mark.parametrize(
  "name",
  [pytest.param(name, marks=pytest.mark.slow) for name in FILES],
)
def test_step_is_lowered(name):
  """The whole training step: the config's loss, clipping, Adam and averages around its network, over the
  mesh."""
  config = load(name)
  noise = data.Arrays(np.zeros((8, 32, 32, 3), np.uint8))
  dataset = data.describe("noise", noise, noise, split="noise", num_classes=0)
  parts = assembly.assemble(config, dataset)
  mesh = sharding.make_mesh()
  state = assembly.shape_state(parts)
  places = sharding.state_sharding(mesh, state)
  step = steps.make_step(
    assembly.players_of(parts),
    parts.roles,
    ema.averages(config.training),
    mesh=mesh,
    state_sharding=places,
    seed=0,
  )
  lowered = step.lower(state, assembly.example_batch(parts, 16))
  after, metrics = lowered.out_info
  assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(lambda leaf: leaf.shape, state)
  assert {"loss", "grad_norm", "learning_rate"} <= set(metrics)


def test_the_set_is_complete():
  assert len(FILES) == 17
  for family in ("ve_ncsnpp", "vp_ddpmpp", "vp_ddpm", "vp_ncsnpp"):
    assert {family, f"{family}_continuous"} <= set(FILES)
  assert {f"{kind}_deep_continuous" for kind in ("ve_ncsnpp", "vp_ddpmpp", "subvp_ddpmpp")} <= set(FILES)
