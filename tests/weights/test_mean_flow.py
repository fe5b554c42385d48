"""MeanFlow's SiT, against what its own code gave; the script is make_mean_flow_recorded.py."""

import functools
import json

import diffusers_networks as case
import jax
import jax.numpy as jnp
import make_mean_flow_recorded as recorded_case
import numpy as np
import pytest

from diffusion import solvers, weights
from diffusion.config.errors import UserError
from diffusion.weights.architectures import mean_flow

TOLERANCE = 1e-5


@functools.cache
def recorded():
  with np.load(recorded_case.FILE) as file:
    found = dict(file)
  return found, json.loads(found["shapes"].tobytes())


def arrays():
  drawn = {name: case.draw(name, tuple(shape)) for name, shape in recorded()[1].items()}
  return drawn | {"pos_embed": recorded()[0]["pos_embed"]}


def difference(found, wanted):
  assert found.shape == wanted.shape, (found.shape, wanted.shape)
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("until", ["data", pytest.param("now", marks=pytest.mark.slow)])
def test_a_network_and_its_blocks_give_what_the_original_gives(until):
  config = mean_flow.config_of(arrays(), {"until": until, "num_heads": 2})
  module = mean_flow.build(config)
  params = mean_flow.convert(arrays(), config)
  x, label = recorded_case.inputs()
  _, t = recorded_case.TIMES[until]
  t = jnp.asarray(t, jnp.float32)
  call = jax.jit(functools.partial(module.apply, capture_intermediates=True, mutable=["intermediates"]))
  output, tree = call({"params": params}, x, t, {"label": jnp.where(label == 5, -1, label)})
  found = recorded()[0]
  velocity = found[f"{until}/velocity"]
  wanted = x - np.asarray(t)[:, None, None, None] * velocity if until == "data" else velocity
  assert difference(output, wanted) < TOLERANCE
  for i in range(2):
    block = tree["intermediates"][f"blocks_{i}"]["__call__"][0]
    assert difference(block, found[f"{until}/blocks.{i}"]) < TOLERANCE


def test_a_file_is_loaded_and_sampled_in_one_step(tmp_path):
  path = str(tmp_path / "meanflow.safetensors")
  average = {f"ema.{name}": one for name, one in arrays().items()}
  raw = {f"model.{name}": 0.0 * one for name, one in arrays().items()}
  weights.write_safetensors(path, average | raw)
  model = weights.load(path, told={"num_heads": 2})
  assert (model.shape, model.classes, model.sampler.cost) == ((4, 4, 4), 5, 1)
  x, label = recorded_case.inputs()
  cond = {"label": jnp.where(label == 5, -1, label)}
  made = solvers.sample(model.denoiser, model.sampler, jnp.asarray(x), cond=cond)
  assert difference(made[0], x[0] - recorded()[0]["data/velocity"][0]) < TOLERANCE  # the row of t = 1


@pytest.mark.parametrize(
  "change, told, words",
  [
    (lambda given: given.pop("r_embedder.mlp.2.bias"), {}, ["1 missing: r_embedder.mlp.2.bias"]),
    (lambda given: given.pop("t_embedder.mlp.2.bias"), {}, ["t_embedder.mlp.2.bias"]),
    (lambda given: None, {"until": "then"}, ["'data' or 'now'"]),
    (lambda given: None, {"num_heads": None}, ["num_heads"]),
  ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, change, told, words):
  given = arrays()
  change(given)
  path = str(tmp_path / "meanflow.safetensors")
  weights.write_safetensors(path, given)
  told = {name: one for name, one in ({"num_heads": 2} | told).items() if one is not None}
  with pytest.raises(UserError) as caught:
    weights.load(path, told=told)
  assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value
