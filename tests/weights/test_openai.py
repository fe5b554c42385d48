"""guided-diffusion and OpenAI's consistency models, against what their own code gave.

The script that recorded it is make_openai_recorded.py.
"""

import functools
import json
import lzma

import jax
import jax.numpy as jnp
import numpy as np
import openai_cases as cases
import pytest
from openai_cases import CASES

from diffusion import denoisers, guidance, solvers, weights
from diffusion.config.errors import UserError
from diffusion.solvers import randomness
from diffusion.weights.architectures import (
  consistency_models,
  guided_diffusion,
  guided_diffusion_options,
  noisy_classifier,
  super_resolution,
)
from diffusion.weights.architectures.guided_diffusion import UNetModel
from diffusion.weights.architectures.noisy_classifier import EncoderUNetModel
from diffusion.weights.architectures.super_resolution import SuperResModel

TOLERANCE = 1e-5
FILES = {
  "unet": guided_diffusion,
  "super": super_resolution,
  "classifier": noisy_classifier,
  "karras": consistency_models,
}

# By default, what published models have; the slow ones are further options, or the same ones once more.
SLOW = ("imagenet128", "convolutions", "teacher")
marked = lambda names: [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in names]


@functools.cache
def recorded():
  with np.load(cases.RECORDED) as file:
    found = dict(file)
  return found, json.loads(lzma.decompress(found["about"].tobytes()))


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
  return guided_diffusion_options.unet(
    arrays(name), {"unet": UNetModel, "super": SuperResModel}[kind], told(name)
  )


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
  found = {"label": jnp.asarray(given["label"], jnp.int32)} if has else {}
  found |= {key: jnp.asarray(given[key]) for key in ("low_res",) if key in given}
  return found or None


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


@pytest.mark.parametrize("name", marked(cases.SAMPLED))
def test_samples_are_those_of_the_original_sampler(name):
  """DDIM on strided steps, Heun's method, and one step of a consistency model, from the authors' noise."""
  file, x = FILES[CASES[name][0]], jnp.asarray(cases.inputs(name)["x"])
  denoiser = file.denoiser(options(name), arrays(name))
  if name != "imagenet64":
    x = 80.0 * x
  of_file = guided_diffusion.ddim if name == "imagenet64" else file.sampler
  sampler = of_file(options(name), cases.STRIDED)
  samples = solvers.sample(denoiser, sampler, x, cond=condition(name))
  assert difference(samples, recorded()[0][f"{name}/sampled"]) < TOLERANCE


@pytest.mark.parametrize("name", cases.RANDOM)
def test_random_samples_are_those_of_the_original_sampler(name, monkeypatch):
  """`model.sampler` is the authors' p_sample of a learned variance, respaced and clipped."""
  denoiser = FILES[CASES[name][0]].denoiser(options(name), arrays(name))
  assert denoiser.views[-1] == "variance_fraction"
  solver = guided_diffusion.sampler(options(name), cases.STRIDED)
  noises = cases.noises(name)
  monkeypatch.setattr(randomness, "normal", lambda keys, step, purpose, like: jnp.asarray(noises[step - 1]))
  ask = jax.jit(lambda x, t: denoiser(x, t, condition(name), views=solver.views))
  x = jnp.asarray(cases.inputs(name)["x"])
  keys = jax.random.split(jax.random.key(0), len(x))
  for i in range(solver.num_steps):
    at, t, _ = solver.ask(x, i)
    x = solver.tell(x, i, ask(at, t), keys)
  assert difference(x, recorded()[0][f"{name}/random"]) < TOLERANCE


def test_the_classifier_guides_as_the_original_does():
  """Its gradient is that of the authors' cond_fn, on a denoiser whose score is zero."""
  log_prob, params = noisy_classifier.log_prob(options("classifier"), arrays("classifier"))
  given, wanted = cases.inputs("classifier"), recorded()[0]["classifier/gradient"]
  x, t = jnp.asarray(given["x"]), jnp.asarray((given["step"] + 1) / 1000, jnp.float32)
  cond = {"label": jnp.asarray(given["label"], jnp.int32)}
  process = guided_diffusion.process(options("imagenet128"))
  flat = denoisers.from_function(lambda params, x, t, cond: 0.0 * x, process, denoisers.score())
  guided = guidance.classifier(log_prob, params, 3.0)(flat)
  score = jax.jit(lambda x: guided(x, t, cond, views=("score",)).score)(x)
  assert difference(score / 3.0, wanted) < TOLERANCE
  with pytest.raises(ValueError, match="'label'"):
    log_prob(params, x, t, {})
  assert log_prob == noisy_classifier.log_prob(options("classifier"), arrays("classifier"))[0]


def test_a_network_without_classes_passes_the_label_on():
  """What a classifier looks at does not reach it, if that is said; else it is refused."""
  call = lambda **changes: guided_diffusion.denoiser(options("imagenet512"), arrays("imagenet512"), **changes)
  ask = lambda denoiser, cond: jax.eval_shape(
    lambda x, t: denoiser(x, t, cond, views=("x0",)).x0, jnp.zeros((1, 4, 4, 3)), jnp.ones(1)
  )
  cond = {"label": jnp.zeros(1, jnp.int32)}
  assert ask(call(passed_over=("label",)), cond).shape == (1, 4, 4, 3)
  with pytest.raises(ValueError, match="without classes"):
    ask(call(), cond)


def shapes_of(name):
  return {
    key: jax.ShapeDtypeStruct(shape, "float16") for key, shape in recorded()[1]["published"][name].items()
  }


@functools.cache
def published(name):
  """(file, options) of a published model by its names and shapes alone."""
  shapes = shapes_of(name)
  if name.endswith("classifier"):
    return noisy_classifier, guided_diffusion_options.classifier(shapes, EncoderUNetModel)
  if name.startswith(("edm_", "cd_")):
    return consistency_models, consistency_models.options_of(shapes, distillation=name.startswith("cd_"))
  if name.endswith("upsampler"):
    return super_resolution, guided_diffusion_options.unet(shapes, SuperResModel)
  return guided_diffusion, guided_diffusion_options.unet(shapes, UNetModel)


@pytest.mark.parametrize("name", cases.PUBLISHED)
def test_published_options_are_found(name):
  """As the authors' flags have them."""
  flags, (file, found) = cases.PUBLISHED[name], published(name)
  side = flags.get("image_size", flags.get("large_size"))
  assert found.image_size == side and found.resblock_updown
  attended = [int(one) for one in flags.get("attention_resolutions", "32,16,8").split(",")]
  assert found.attention_resolutions == tuple(sorted(side // one for one in attended))
  if file is noisy_classifier:
    assert (found.num_res_blocks, found.model_channels) == (flags["classifier_depth"], 128)
    return
  assert (found.num_classes == 1000) == flags["class_cond"] and found.num_classes in (None, 1000)
  assert found.num_head_channels == flags.get("num_head_channels", -1)
  assert found.use_scale_shift_norm == flags["use_scale_shift_norm"]
  if file is super_resolution:
    assert (found.in_channels, found.entering, found.out_channels) == (3, 6, 6) and (
      found.num_heads == flags.get("num_heads", 1)
    )
  if file is guided_diffusion:
    assert (found.noise_schedule == "cosine") == (side == 64)
    assert found.use_new_attention_order == flags.get("use_new_attention_order", False)
    assert (found.out_channels, found.num_heads) == (6, flags.get("num_heads", 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", cases.PUBLISHED)
def test_published_sizes(name):
  """As many parameters as the authors' networks have."""
  file, found = published(name)
  x = jax.ShapeDtypeStruct((1, found.image_size, found.image_size, 3), jnp.float32)
  init = file.build(found).init
  low_res = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  cond = {"low_res": low_res} if file is super_resolution else {}
  made = jax.eval_shape(init, jax.random.key(0), x, jax.ShapeDtypeStruct((1,), jnp.float32), cond)
  count = lambda tree: sum(int(np.prod(one.shape)) for one in jax.tree.leaves(tree))
  assert count(made) == count(shapes_of(name))


def test_numbers_of_elements_are_known():
  """Those of the authors' own networks, counted with the flags of their pages."""
  count = lambda name: sum(int(np.prod(one.shape)) for one in shapes_of(name).values())
  assert count("64x64_diffusion") == 295904454 and count("256x256_diffusion") == 553838086
  assert count("edm_imagenet64_ema") == 295899267


def write(folder, name, given):
  path = str(folder / f"{name}.safetensors")
  weights.write_safetensors(path, given)
  return path


@pytest.mark.parametrize("name", ["imagenet64", "consistency"])
def test_a_file_is_loaded(tmp_path, name):
  """What no array tells is told by the caller, or by a config.json beside the file."""
  path = write(tmp_path, name, arrays(name))
  of_told = weights.load(path, told=told(name))
  assert (of_told.shape, of_told.classes) == ((4, 4, 3), 5 if name == "imagenet64" else 0)
  assert of_told.sampler.cost == (250 if name == "imagenet64" else 1)
  (tmp_path / "config.json").write_text(json.dumps(told(name)))
  of_config = weights.load(path)
  direct = FILES[CASES[name][0]].denoiser(options(name), arrays(name))
  for model in (of_told.denoiser, of_config.denoiser):
    assert model.process.name == direct.process.name and model.parameterization == direct.parameterization
    assert model.fn == direct.fn
    jax.tree.map(np.testing.assert_array_equal, model.params, direct.params)


@pytest.mark.parametrize(
  "name, change, more, words",
  [
    ("imagenet64", lambda given: given.pop("out.2.bias"), {}, ["1 missing: out.2.bias"]),
    ("imagenet64", lambda given: given.update(other=np.zeros(2, np.float32)), {}, ["1 unknown: other"]),
    ("imagenet64", lambda given: given.update({"out.0.bias": np.zeros(3)}), {}, ["that differ", "(3,)"]),
    ("imagenet64", None, {"num_head_channels": 48}, ["not divided", "num_head_channels=48"]),
    ("imagenet64", None, {"noise_schedule": "sigmoid"}, ["'sigmoid'", "linear, cosine"]),
    ("imagenet64", None, {"width": 3}, ["no width", "model_channels"]),
    ("consistency", None, {"distillation": None}, ["edm_*", "distillation=False or True"]),
    ("classifier", None, {}, ["classifier", "noisy_classifier"]),
  ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(tmp_path, name, change, more, words):
  given, of_case = arrays(name), told(name) | more
  of_case = {key: value for key, value in of_case.items() if value is not None}
  if change is not None:
    change(given)
  with pytest.raises(UserError) as caught:
    weights.load(write(tmp_path, name, given), told=of_case)
  assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value


@pytest.mark.parametrize(
  "change, words",
  [
    (lambda given: None, ["none of the published sizes", "image_size, noise_schedule, num_heads"]),
    (lambda given: given.update({"input_blocks.0.0.weight": np.zeros((32, 4, 3, 3))}), ["4 channels in"]),
    (lambda given: given.pop("input_blocks.1.0.out_layers.3.weight"), ["they lack input_blocks.1.0"]),
    (lambda given: given.update({"label_emb.weight": np.zeros(5)}), ["label_emb.weight has the shape (5,)"]),
  ],
)
def test_a_size_that_nobody_published_has_to_be_told(change, words):
  given = arrays("imagenet64")
  change(given)
  with pytest.raises(UserError) as caught:
    guided_diffusion_options.unet(given, UNetModel)
  assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value
