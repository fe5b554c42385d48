"""guided-diffusion and OpenAI's consistency models, against what their own code gave.

The script that recorded it is make_openai_recorded.py.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import openai_cases as cases
import pytest
from openai_cases import CASES

from diffusion.weights.architectures import (
  consistency_models,
  guided_diffusion,
  guided_diffusion_options,
  noisy_classifier,
)
from diffusion.weights.architectures.guided_diffusion import UNetModel
from diffusion.weights.architectures.noisy_classifier import EncoderUNetModel

TOLERANCE = 1e-5
FILES = {"unet": guided_diffusion, "classifier": noisy_classifier, "karras": consistency_models}

# By default, what published models have; the slow ones are further options, or the same ones once more.
SLOW = ("imagenet128", "convolutions", "teacher")
marked = lambda names: [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in names]


@functools.cache
def recorded():
  with np.load(cases.RECORDED) as file:
    found = dict(file)
  return found, json.loads(found["about"].tobytes())


def arrays(name):
  """The arrays of a case as a file would hold them."""
  return {key: cases.weight(key, tuple(shape)) for key, shape in recorded()[1]["shapes"][name].items()}


def told(name):
  """What no array of a case tells."""
  kind, given, around = CASES[name]
  names = ("num_heads", "num_head_channels", "use_new_attention_order")
  of_heads = {key: given[key] for key in names if key in given and kind != "karras"}
  return (
    {"image_size": given["image_size"]}
    | of_heads
    | around
    | ({} if kind != "karras" else {"num_head_channels": 16})
  )


@functools.cache
def options(name):
  kind = CASES[name][0]
  if kind == "karras":
    return consistency_models.options_of(arrays(name), told(name))
  if kind == "classifier":
    return guided_diffusion_options.classifier(arrays(name), EncoderUNetModel, told(name))
  return guided_diffusion_options.unet(arrays(name), UNetModel, told(name))


@functools.cache
def network(name):
  """(parameters, (params, x, what it is told, cond) -> (output, outputs of blocks)), compiled once."""
  kind = CASES[name][0]
  module = FILES[kind].build(options(name))
  params = jax.tree.map(jnp.asarray, FILES[kind].convert(arrays(name), options(name)))
  blocks = name in cases.BLOCKS

  @jax.jit
  def call(params, x, t, cond):
    found = module.apply({"params": params}, x, t, cond, capture_intermediates=blocks, mutable=blocks)
    return (found[0], found[1]["intermediates"]) if blocks else (found, {})

  return params, call


def condition(name):
  given = cases.inputs(name)
  has = "label" in given and CASES[name][0] != "classifier"
  return {"label": jnp.asarray(given["label"], jnp.int32)} if has else None


@functools.cache
def made(name):
  """(denoiser whose network is compiled once, its prediction x0 or its network's output, blocks)."""
  kind, given = CASES[name][0], cases.inputs(name)
  params, call = network(name)
  if kind != "karras":
    return call(params, given["x"], jnp.asarray(given["step"], jnp.float32), condition(name))
  x = given["x"] * np.sqrt(1 + given["sigma"] ** 2)[:, None, None, None]
  if options(name).distillation:
    return call(params, x, given["sigma"], condition(name))
  denoiser = consistency_models.denoiser(options(name), arrays(name))
  return denoiser(jnp.asarray(x), given["sigma"], condition(name), views=("x0",)).x0, {}


def difference(found, wanted):
  assert found.shape == wanted.shape, (found.shape, wanted.shape)
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("name", marked(CASES))
def test_a_network_gives_what_the_original_gives(name):
  output, _ = made(name)
  wanted = recorded()[0][f"{name}/out"]
  wanted = wanted if CASES[name][0] == "classifier" else wanted[..., :3]
  for row, of_row in zip(output, wanted):
    assert difference(row, of_row) < TOLERANCE


@pytest.mark.parametrize("name", marked(cases.BLOCKS))
def test_every_block_gives_what_the_original_gives(name):
  _, tree = made(name)
  tree = tree["network"] if CASES[name][0] == "karras" else tree
  places = [*guided_diffusion.way_down(options(name))]
  places += [] if CASES[name][0] == "classifier" else guided_diffusion.way_up(options(name))
  names = {place.attention or place.block: place.ours for place in places} | {"input_blocks.0.0": "first"}
  found, prefix = recorded()[0], f"{name}/blocks/"
  keys = [key for key in found if key.startswith(prefix)]
  outputs = {key: tree[names[key.removeprefix(prefix)]]["__call__"][0][:1] for key in keys}
  wrong = {key: difference(outputs[key], found[key]) for key in keys}
  assert len(keys) == len(names) >= 6 and max(wrong.values()) < TOLERANCE, wrong
