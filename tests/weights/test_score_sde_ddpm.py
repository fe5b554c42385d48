"""Score SDE's DDPM, against what the authors' code gave in PyTorch and in JAX.

The script that recorded it is make_score_sde_recorded.py, with 'ddpm' at its end.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import score_sde_cases as cases
import test_score_sde as alike
from test_score_sde import difference, opened  # noqa: F401 (a fixture)

from diffusion import weights
from diffusion.config.errors import UserError
from diffusion.weights import families
from diffusion.weights.architectures import authors, score_sde_ddpm, score_sde_files

TOLERANCE = 1e-5
SLOW = ("ddpm-ladder", "ddpm-ve", "ddpm-pooled", "ddpm-untold")  # other processes and further options
marked = lambda names: [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in names]


def recorded(kind):
  return alike.recorded(kind, "ddpm")


def told(name):
  """What no array of a case tells."""
  of_network, of_process = cases.OF_DDPM[name]
  given = (
    {key: of_network[key] for key in ("image_size", "attn_resolutions")} | {"continuous": True} | of_process
  )
  return given | ({} if of_network["resamp_with_conv"] else {"ch_mult": of_network["ch_mult"]})


def loaded(kind, name):
  """(options, arrays as `convert` takes them) of a checkpoint."""
  own = score_sde_files.averaged(alike.checkpoint(kind, name))
  options = score_sde_ddpm.options_of(own, told(name))
  return options, score_sde_files.own(own, score_sde_ddpm.places(options))


def kind_of(name):
  return "flax" if name in cases.NOT_IN_TORCH else "torch"


@functools.cache
def made(name):
  """(denoiser, x, t, score and what each module gives), of the checkpoint of PyTorch where there is one."""
  denoiser = score_sde_ddpm.denoiser(*loaded(kind_of(name), name))
  module, heard = denoiser.fn.network.module, {}
  call = jax.jit(
    lambda params, x, t: module.apply(
      {"params": params}, x, t, capture_intermediates=True, mutable="intermediates"
    )
  )

  def fn(params, collections, x, t, cond, key, train):
    output, tree = call(params, x, t)
    heard.update(tree["intermediates"])
    return output, collections

  denoiser = denoiser.replace(fn=fn)
  x, t = alike.given(name, denoiser.process)
  score = denoiser(jnp.asarray(x), t, views=("score",)).score
  return denoiser, x, t, score, dict(heard)


@pytest.mark.parametrize("name", marked([one for one in cases.OF_DDPM if kind_of(one) == "torch"]))
def test_a_score_is_that_of_the_original(name):
  found, wanted = made(name)[3], recorded("torch")[0][f"{name}/score"]
  wrong = [difference(row, of_row) for row, of_row in zip(found, wanted)]
  assert max(wrong) < TOLERANCE, wrong


@pytest.mark.parametrize("name", marked(cases.MODELS["ddpm"].flax))
def test_a_checkpoint_of_flax_is_the_same_network(name):
  denoiser, x, t, *_ = made(name)
  options, arrays = loaded("flax", name)
  params = jax.tree.map(jnp.asarray, score_sde_ddpm.convert(arrays, options))
  score = denoiser.with_params(params)(jnp.asarray(x), t, views=("score",)).score
  assert difference(score, recorded("flax")[0][f"{name}/score"]) < TOLERANCE
  assert options == loaded(kind_of(name), name)[0] and options.conditional == (name != "ddpm-untold")


def test_every_module_gives_what_the_original_gives():
  name = "ddpm-vp"
  found, wrong, heard = recorded("torch")[0], {}, made(name)[-1]
  for i, place in enumerate(score_sde_ddpm.places(loaded("torch", name)[0])):
    tree = heard
    for part in place.ours:
      tree = tree[part]
    output = np.asarray(tree["__call__"][0][:1])[..., :: cases.MODELS["ddpm"].channels]
    wrong[place.ours] = difference(output, found[f"{name}/blocks/{i}"])
  assert len(wrong) >= 12 and max(wrong.values()) < TOLERANCE, wrong


@pytest.mark.parametrize("kind", ["torch", "flax"])
@pytest.mark.parametrize("name", cases.PUBLISHED_DDPM)
def test_published_options_are_found(kind, name):
  """From the names and shapes of the authors' configs alone."""
  of_network, of_process = cases.PUBLISHED_DDPM[name]
  shapes = recorded("torch")[1]["published"][name]
  arrays = {key: jax.ShapeDtypeStruct(shape, "float32") for key, shape in shapes.items() if key != "sigmas"}
  wanted = score_sde_ddpm.DDPM(**of_network, **of_process)
  if kind == "flax":
    arrays = in_flax(arrays, wanted)
  assert score_sde_ddpm.options_of(arrays, of_process) == wanted


def in_flax(arrays, options):
  """Shapes by the names of a Flax checkpoint."""
  counts, found = {}, {}
  for i, place in enumerate(score_sde_ddpm.places(options)):
    k = counts[place.kind] = counts.get(place.kind, -1) + 1
    for key in [key for key in arrays if key.startswith(f"all_modules.{i}.")]:
      inside, _, leaf = key.removeprefix(f"all_modules.{i}.").rpartition(".")
      shape = tuple(arrays[key].shape)
      if leaf == "weight":
        leaf = "scale" if len(shape) == 1 else "kernel"
        shape = {1: shape, 2: shape[::-1]}.get(len(shape), (*shape[2:], *shape[1::-1]))
      name = ".".join(part for part in (f"{place.kind}_{k}", inside, leaf) if part)
      found[name] = jax.ShapeDtypeStruct(shape, "float32")
  return found


@pytest.mark.slow
@pytest.mark.parametrize("name", cases.PUBLISHED_DDPM)
def test_published_sizes(name):
  """As many parameters as the authors' networks have."""
  of_network, of_process = cases.PUBLISHED_DDPM[name]
  options = score_sde_ddpm.DDPM(**of_network, **of_process)
  x = jax.ShapeDtypeStruct((1, options.image_size, options.image_size, 3), jnp.float32)
  shapes = jax.eval_shape(
    score_sde_ddpm.build(options).init, jax.random.key(0), x, jax.ShapeDtypeStruct((1,), jnp.float32)
  )["params"]
  count = lambda tree: sum(int(np.prod(one.shape)) for one in jax.tree.leaves(tree))
  there = recorded("torch")[1]["published"][name]
  assert count(shapes) == sum(int(np.prod(one)) for key, one in there.items() if key != "sigmas")


@pytest.mark.parametrize(
  "kind, name", [pytest.param("torch", "ddpm-ladder", marks=pytest.mark.slow), ("flax", "ddpm-vp")]
)
def test_a_checkpoint_is_loaded(opened, kind, name):  # noqa: F811
  """Its average, and not its raw parameters; with the authors' sampler, and a description that is JSON."""
  model = weights.load(opened(alike.checkpoint(kind, name)), told=told(name))
  assert model.description["model"] == "ddpm" and (model.shape, model.classes) == ((4, 4, 3), 0)
  assert families.parts(json.loads(json.dumps(model.description))).network == model.parts.network
  direct = score_sde_ddpm.denoiser(*loaded(kind, name))
  jax.tree.map(np.testing.assert_array_equal, model.denoiser.params, direct.params)
  ladder = name == "ddpm-ladder"
  assert model.denoiser.process.name == ("vp_ladder" if ladder else "vp_linear")
  assert (model.sampler.name, model.sampler.cost) == ("ancestral" if ladder else "euler_maruyama", 1000)
  assert model.parts.values == (-1.0, 1.0)


@pytest.mark.slow
def test_the_two_models_of_one_library_are_told_apart():
  for name, model in (("ddpm-vp", "ddpm"), ("ddpmpp-vp", "ncsnpp"), ("ncsnpp-ve", "ncsnpp")):
    for kind in ("torch", "flax"):
      assert authors.kind_of(alike.checkpoint(kind, name)) == model


@pytest.mark.parametrize(
  "name, change, more, words",
  [
    ("ddpm-vp", None, {"sde": None, "continuous": None}, ["give sde and continuous", "cifar10_continuous"]),
    ("ddpm-vp", None, {"image_size": None}, ["image_size", "none of the published sizes"]),
    ("ddpm-vp", None, {"sde": "vesde"}, ["continuous=False alone"]),
    ("ddpm-vp", None, {"nonlinearity": "elu"}, ["'elu'", "'swish'"]),
    ("ddpm-vp", lambda given: given.pop("params_ema.Conv_1.bias"), {}, ["1 missing", "DDPM"]),
    (
      "ddpm-vp",
      lambda given: given.pop("params_ema.ResnetBlockDDPM_3.Conv_1.kernel"),
      {},
      ["residual blocks do not make", "whole checkpoint"],
    ),
    ("ddpm-vp", lambda given: given.update({"params_ema.Conv_9.bias": np.ones(3)}), {}, ["1 unknown"]),
  ],
)
def test_what_does_not_fit_is_one_sentence(opened, name, change, more, words):  # noqa: F811
  given, of_case = alike.checkpoint("flax", name), told(name) | more
  if change is not None:
    change(given)
  with pytest.raises(UserError) as caught:
    weights.load(opened(given), told={key: one for key, one in of_case.items() if one is not None})
  assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value
