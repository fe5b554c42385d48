"""Score SDE's networks, against what the authors' code gave in PyTorch and in JAX.

The script that recorded it is make_score_sde_recorded.py.
"""

import dataclasses
import functools
import json
import lzma

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import score_sde_cases as cases
from score_sde_cases import CASES

from diffusion import weights
from diffusion.config.errors import UserError
from diffusion.weights.architectures import score_sde, score_sde_files
from diffusion.weights.contents import Contents, StoredArray
from diffusion.weights.formats import opening

TOLERANCE = 1e-5

# By default, the published kinds of network; the slow ones are the same on other processes.
SLOW = ("ddpmpp-subvp", "ncsnpp-vp", "ddpmpp-ladder", "ncsnpp-ladder")
marked = lambda names: [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in names]


@functools.cache
def recorded(kind, model="ncsnpp"):
  with np.load(cases.MODELS[model].files[kind]) as file:
    found = dict(file)
  return found, json.loads(lzma.decompress(found["about"].tobytes()))


def model_of(name):
  return "ddpm" if name in cases.OF_DDPM else "ncsnpp"


def checkpoint(kind, name):
  """The arrays of a case as a file would hold them: raw parameters are nothing that a model should be."""
  drawn = {
    key: cases.weight(key, tuple(shape)) if key != "sigmas" else np.geomspace(sigma_max(name), 0.01, 1000)
    for key, shape in recorded(kind, model_of(name))[1]["shapes"][name].items()
  }
  if kind == "flax":
    raw = {f"optimizer.target.{key}": 0.0 * value for key, value in drawn.items()}
    return raw | {f"params_ema.{key}": value for key, value in drawn.items()}
  frozen = ("sigmas", "all_modules.0.W")
  trained = [key for key in drawn if key not in frozen]
  model = {f"model.module.{key}": drawn[key] if key in frozen else 0.0 * drawn[key] for key in drawn}
  return model | {f"ema.shadow_params.{i}": drawn[key] for i, key in enumerate(trained)}


def sigma_max(name):
  return cases.EVERY[name][1].get("sigma_max", 50.0)


def told(name):
  of_network, of_process = CASES[name]
  given = {key: of_network[key] for key in ("image_size", "attn_resolutions")} | of_process
  given |= {} if of_network["progressive_input"] != "none" else {"fir": of_network["fir"]}
  return given | {"dropout": 0.0}


def loaded(kind, name):
  """(options, arrays as `score_sde.convert` takes them) of a checkpoint."""
  own = score_sde_files.averaged(checkpoint(kind, name))
  options = score_sde_files.options_of(own, told(name))
  return options, score_sde_files.own(own, score_sde.places(options))


@functools.cache
def made(name):
  """(denoiser, its network (params, x, t) -> (output, outputs of blocks)), compiled once."""
  denoiser = score_sde.denoiser(*loaded("torch", name))
  module = denoiser.fn.network.module
  heard = {}

  @jax.jit
  def call(params, x, t):
    return module.apply({"params": params}, x, t, capture_intermediates=True, mutable=["intermediates"])

  def fn(params, collections, x, t, cond, key, train):
    output, tree = call(params, x, t)
    heard.update(tree["intermediates"])
    return output, collections

  return denoiser.replace(fn=fn), heard


def given(name, process):
  """(x, t) as the script that recorded has them; a rung of a ladder is at k/1000."""
  found, of_process = cases.inputs(name), cases.EVERY[name][1]
  rungs = of_process.get("continuous") is False
  t = jnp.asarray(np.round(1000 * found["t"]) / 1000 if rungs else found["t"], jnp.float32)
  std = process.marginal(t).sigma if of_process["sde"] == "vesde" else 0.0 * t
  return found["x"] * np.sqrt(1 + np.asarray(std) ** 2)[:, None, None, None], t


def difference(found, wanted):
  assert found.shape == wanted.shape, (found.shape, wanted.shape)
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("name", marked(CASES))
def test_a_score_is_that_of_the_original(name):
  denoiser, _ = made(name)
  x, t = given(name, denoiser.process)
  score = denoiser(jnp.asarray(x), t, views=("score",)).score
  wanted = recorded("torch")[0][f"{name}/score"]
  wrong = [difference(row, of_row) for row, of_row in zip(score, wanted)]
  assert max(wrong) < TOLERANCE, wrong


@pytest.mark.parametrize("name", marked(cases.FLAX))
def test_a_checkpoint_of_flax_is_the_same_network(name):
  """With the parameters of that checkpoint, by the program that PyTorch's have."""
  denoiser, _ = made(name)
  options, arrays = loaded("flax", name)
  params = jax.tree.map(jnp.asarray, score_sde.convert(arrays, options))
  x, t = given(name, denoiser.process)
  score = denoiser.with_params(params)(jnp.asarray(x), t, views=("score",)).score
  assert difference(score, recorded("flax")[0][f"{name}/score"]) < TOLERANCE
  assert options == loaded("torch", name)[0]


@pytest.mark.parametrize("name", marked(cases.BLOCKS))
def test_every_module_gives_what_the_original_gives(name):
  denoiser, heard = made(name)
  x, t = given(name, denoiser.process)
  heard.clear()
  denoiser(jnp.asarray(x), t, views=("score",))
  found, wrong = recorded("torch")[0], {}
  for i, place in enumerate(score_sde.places(loaded("torch", name)[0])):
    tree = heard
    for part in place.ours:
      tree = tree[part]
    output = np.asarray(tree["__call__"][0][:1])
    wanted = found[f"{name}/blocks/{i}"]
    if place.kind == "Combine":  # there with what it is added to
      continue
    wrong[place.ours] = difference(output, wanted)
  assert len(wrong) >= 12 and max(wrong.values()) < TOLERANCE, wrong


@pytest.mark.parametrize("kind", ["torch", "flax"])
@pytest.mark.parametrize("name", cases.PUBLISHED)
def test_published_options_are_found(kind, name):
  """From the names and shapes of the published models alone, as the authors' configs have them."""
  of_network, of_process = cases.PUBLISHED[name]
  shapes = recorded("torch")[1]["published"][name]
  arrays = {key: jax.ShapeDtypeStruct(shape, "float32") for key, shape in shapes.items()}
  sigmas = arrays.pop("sigmas")
  wanted = score_sde.NCSNpp(**of_network, **of_process)
  given = {"sde": of_process["sde"]} if of_process["sde"] != "vesde" else {}
  if kind == "torch":
    assert tuple(sigmas.shape) == (1000,)
    arrays["sigmas"] = np.geomspace(of_process.get("sigma_max", 50.0), 0.01, 1000)
  else:
    arrays = in_flax(arrays, wanted)
    given |= {"sigma_max": of_process["sigma_max"]} if of_network["image_size"] == 256 else {}
  found = score_sde_files.options_of(arrays, given)
  if kind == "torch":
    np.testing.assert_allclose(found.sigma_max, wanted.sigma_max)
    found = dataclasses.replace(found, sigma_max=wanted.sigma_max, sigma_min=0.01)
  assert found == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", cases.PUBLISHED)
def test_published_sizes(name):
  """As many parameters as the authors' networks have."""
  of_network, of_process = cases.PUBLISHED[name]
  options = score_sde.NCSNpp(**of_network, **of_process)
  x = jax.ShapeDtypeStruct((1, options.image_size, options.image_size, 3), jnp.float32)
  init = score_sde.build(options).init
  made = jax.eval_shape(init, jax.random.key(0), x, jax.ShapeDtypeStruct((1,), jnp.float32))
  shapes = recorded("torch")[1]["published"][name]
  count = sum(int(np.prod(one.shape)) for one in jax.tree.leaves(made))
  assert count == sum(int(np.prod(one)) for key, one in shapes.items() if key != "sigmas")


def in_flax(arrays, options):
  """Shapes by the names of a Flax checkpoint."""
  counts, found = {}, {}
  for i, place in enumerate(score_sde.places(options)):
    k = counts[place.kind] = counts.get(place.kind, -1) + 1
    for key in [key for key in arrays if key.startswith(f"all_modules.{i}.")]:
      inside, _, leaf = key.removeprefix(f"all_modules.{i}.").rpartition(".")
      shape = tuple(arrays[key].shape)
      if leaf == "weight":
        leaf = "weight" if inside == "Conv2d_0" else "scale" if len(shape) == 1 else "kernel"
        shape = {1: shape, 2: shape[::-1]}.get(len(shape), (*shape[2:], *shape[1::-1]))
      name = ".".join(part for part in (f"{place.kind}_{k}", inside, leaf) if part)
      found[name] = jax.ShapeDtypeStruct(shape, "float32")
  return found


@pytest.fixture
def opened(monkeypatch):
  """A function that makes arrays those of a file, in the order in which it has them."""

  def write(given):
    held = {key: np.asarray(one, np.float32) for key, one in given.items()}
    stored = {key: StoredArray(one.shape, one.dtype, one.__getitem__) for key, one in held.items()}
    monkeypatch.setattr(
      opening, "read", lambda path: Contents(path, "torch zip", stored, {"tree": {"step": 3}})
    )
    return "checkpoint.pth"

  return write


@pytest.mark.parametrize("kind, name", [("torch", "ncsnpp-ve"), ("flax", "skip-ve"), ("torch", "ddpmpp-vp")])
def test_a_checkpoint_is_loaded(opened, kind, name):
  """Its average, and not its raw parameters; with the authors' sampler."""
  model = weights.load(opened(checkpoint(kind, name)), told=told(name))
  direct = score_sde.denoiser(*loaded(kind, name))
  jax.tree.map(np.testing.assert_array_equal, model.denoiser.params, direct.params)
  assert (model.shape, model.classes) == ((4, 4, 3), 0)
  assert model.denoiser.fn.network.module.centered == (name == "ddpmpp-vp")
  assert model.denoiser.process.name == ("vp_linear" if name == "ddpmpp-vp" else "ve")
  assert model.sampler.cost == (1000 if name == "ddpmpp-vp" else 2000)


def in_order(given):
  """The arrays by the alphabet, as safetensors has them; the first ones are taken out."""
  return {key: given.pop(key) for key in sorted(given)}


@pytest.mark.parametrize(
  "kind, name, change, more, words",
  [
    ("torch", "ddpmpp-vp", None, {"sde": None}, ["sde='vpsde' or 'subvpsde'"]),
    ("torch", "ddpmpp-vp", None, {"image_size": None}, ["image_size", "none of the published sizes"]),
    ("flax", "skip-ve", None, {"sigma_max": None}, ["sigma_max, 380 for LSUN"]),
    ("torch", "ddpmpp-vp", None, {"sde": "vpsd"}, ["'vpsd'", "subvpsde"]),
    ("torch", "ddpmpp-vp", lambda given: given.pop("ema.shadow_params.3"), {}, ["not the average"]),
    ("torch", "ddpmpp-vp", lambda given: given.pop("ema.shadow_params.0"), {}, ["does not name"]),
    ("torch", "ddpmpp-vp", lambda given: given.update(in_order(given)), {}, ["in another"]),
    ("flax", "skip-ve", lambda given: given.pop("params_ema.Conv_1.bias"), {}, ["1 missing"]),
    (
      "flax",
      "skip-ve",
      lambda given: given.pop("params_ema.ResnetBlockBigGANpp_3.Conv_0.kernel"),
      {},
      ["residual blocks do not make", "whole checkpoint"],
    ),
    (
      "flax",
      "skip-ve",
      lambda given: given.update({"params_ema.Conv_9.bias": np.ones(3)}),
      {},
      ["1 unknown"],
    ),
    ("flax", "skip-ve", lambda given: given.update({"params_ema.Conv_1.bias": np.ones(5)}), {}, ["(5,)"]),
  ],
)
def test_what_does_not_fit_is_one_sentence(opened, kind, name, change, more, words):
  given, of_case = checkpoint(kind, name), told(name) | more
  of_case = {key: value for key, value in of_case.items() if value is not None}
  if change is not None:
    change(given)
  with pytest.raises(UserError) as caught:
    weights.load(opened(given), told=of_case)
  assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value
