"""diffusers' UNet2DConditionModel: equal to the original on drawn weights, its files, texts and refusals."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stable_diffusion_cases as case
from flax import traverse_util

from diffusion import guidance
from diffusion.config.errors import UserError
from diffusion.weights.architectures import torch_layout, unet2d_condition

RECORDED = np.load(case.FILE)
NAMES = json.loads(RECORDED["names"].tobytes())
EVERY = pytest.mark.parametrize("name", case.UNETS)


def arrays_of(name):
  return {one: case.draw(one, tuple(shape)) for one, shape in NAMES[name].items()}


def relative(found, wanted):
  """The norm of the difference over the norm."""
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


def outputs_of(tree, path=()):
  """The outputs that Flax kept of each module, by dotted name."""
  for key, value in tree.items():
    if key == "__call__":
      out = value[0]
      yield torch_layout.dotted((*path, ""))[:-1], out[-1] if isinstance(out, tuple) else out
    elif isinstance(value, dict):
      yield from outputs_of(value, (*path, key))


@pytest.mark.parametrize(
  "name", ["sd2", *(pytest.param(one, marks=pytest.mark.slow) for one in ("sd1", "options", "no_middle"))]
)
def test_it_is_equal_to_the_original(name):
  x, t, cond = case.unet_inputs(name)
  config = case.UNETS[name]
  module, params = unet2d_condition.build(config), unet2d_condition.convert(arrays_of(name), config)
  blocks = name in case.WITH_BLOCKS
  run = jax.jit(lambda p, *inputs: module.apply({"params": p}, *inputs, capture_intermediates=blocks))
  out = run(params, x, t, cond)
  out, kept = out if blocks else (out, {"intermediates": {}})
  assert out.dtype == jnp.float32 and relative(out, RECORDED[f"{name}/output"]) < 1e-5
  found = dict(outputs_of(kept["intermediates"]))
  wanted = [key for key in RECORDED.files if key.startswith(f"{name}/block/")]
  assert len(wanted) == {"sd1": 32, "sd2": 24}.get(name, 0)
  for key in wanted:
    assert relative(case.thinned(np.asarray(found[key.split("/")[2]])), RECORDED[key]) < 1e-5, key


@EVERY
def test_a_file_comes_back_bit_for_bit(name):
  config = case.UNETS[name]
  arrays = {key: value.astype(np.float16) for key, value in arrays_of(name).items()}
  again = unet2d_condition.export(unet2d_condition.convert(arrays, config), config)
  assert sorted(again) == sorted(arrays)
  for key, value in arrays.items():
    assert again[key].dtype == value.dtype and again[key].flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(again[key], value)


PUBLISHED = dict(case.SD1, sample_size=64, block_out_channels=[320, 640, 1280, 1280], cross_attention_dim=768)
PUBLISHED |= dict(attention_head_dim=8, norm_num_groups=32)
PUBLISHED |= dict(down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
PUBLISHED |= dict(up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3)


@pytest.mark.slow
def test_the_published_size():
  """Numbers of arrays and of elements of Stable Diffusion 1, and its program, lowered in bfloat16."""
  shapes = unet2d_condition.shapes(PUBLISHED)
  leaves = jax.tree.leaves(shapes)
  assert (len(leaves), sum(leaf.size for leaf in leaves)) == (686, 859_520_964)
  module = unet2d_condition.build(PUBLISHED, dtype="bfloat16", no_text=77)
  struct = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  variables = {"params": shapes, unet2d_condition.NO_TEXT: {"text": struct(77, 768)}}
  cond = {"text": struct(2, 77, 768)}
  lowered = jax.jit(module.apply).lower(variables, struct(2, 64, 64, 4), struct(2), cond)
  assert lowered.out_info.shape == (2, 64, 64, 4) and lowered.out_info.dtype == jnp.float32


SMALLEST = case.SD1 | dict(
  block_out_channels=[8],
  down_block_types=["CrossAttnDownBlock2D"],
  layers_per_block=1,
  mid_block_type=None,
  up_block_types=["UpBlock2D"],
)


@functools.cache
def denoisers():
  """(with an embedding of no text, without), and that embedding."""
  leaves = traverse_util.flatten_dict(unet2d_condition.shapes(SMALLEST))
  shapes = {
    torch_layout.dotted(path): torch_layout.torch_shape(path, leaf.shape) for path, leaf in leaves.items()
  }
  arrays = {name: case.draw(name, shape) for name, shape in shapes.items()}
  none = case.numbers(8, 7, SMALLEST["cross_attention_dim"])
  make = lambda no_text: unet2d_condition.denoiser(SMALLEST, case.PNDM, arrays, no_text)
  return make(none), make(None), none


@functools.partial(jax.jit, static_argnames="views")
def asked(denoiser, x, t, cond, views=("eps",)):
  return denoiser(x, t, cond, views=views)


def test_no_text_is_the_embedding_of_none():
  """Zeros throughout, and no condition, are the embedding of no text; row by row."""
  told, plain, none = denoisers()
  x, _, cond = case.unet_inputs("sd1")
  t = jnp.array([0.008, 0.952])
  rows = np.stack([none, none])
  want = asked(plain, x, t, {"text": rows}).eps
  np.testing.assert_array_equal(asked(told, x, t, {"text": np.zeros_like(rows)}).eps, want)
  np.testing.assert_array_equal(asked(told, x, t, None).eps, want)
  mixed = cond["text"].copy()
  mixed[1] = 0
  found = asked(told, x, t, {"text": mixed}).eps
  np.testing.assert_allclose(found[1], want[1], rtol=1e-5, atol=1e-5)
  text = asked(plain, x, t, cond).eps
  np.testing.assert_allclose(found[0], text[0], rtol=1e-5, atol=1e-5)
  assert relative(text, np.asarray(want)) > 1e-3


def test_guidance_moves_away_from_no_text():
  """(1 + w) told - w of no text: the library's classifier-free guidance, in diffusers' terms scale 1 + w."""
  told, plain, none = denoisers()
  x, _, cond = case.unet_inputs("sd1")
  t = jnp.array([0.008, 0.952])
  found = asked(guidance.classifier_free(6.5)(told), x, t, cond).eps
  away = np.asarray(asked(plain, x, t, {"text": np.stack([none, none])}).eps)
  text = np.asarray(asked(plain, x, t, cond).eps)
  assert relative(found, away + 7.5 * (text - away)) < 1e-6
  assert told.params.keys() == plain.params.keys()  # no text is no parameter: nothing trains it


def test_texts_and_conditions_that_do_not_fit_are_refused():
  told, plain, _ = denoisers()
  x, t, cond = case.unet_inputs("sd1")
  call = lambda one, cond: jax.eval_shape(lambda: one(x, t / 1000, cond))
  for one, given, message in [
    (plain, None, r"told a text: give cond=\{'text'"),
    (plain, {"label": np.zeros(2, np.int32)}, r"the condition 'text', got also \['label'\]"),
    (told, {"text": cond["text"][:, :5]}, "has 5 tokens and no text has 7"),
    (told, {"text": cond["text"][..., :6]}, r"shape \(2, 'N', 8\), got \(2, 7, 6\)"),
    (told, {"text": cond["text"][0]}, r"got \(7, 8\)"),
  ]:
    with pytest.raises(ValueError, match=message):
      call(one, given)
  with pytest.raises(ValueError, match="takes 4 channels"):
    jax.eval_shape(lambda: told(x[..., :3], t / 1000, cond))


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(class_embed_type="projection"), "class_embed_type='projection' is not known here"),
    (dict(addition_embed_type="text_time"), "addition_embed_type='text_time' is not known"),
    (dict(time_cond_proj_dim=256), "time_cond_proj_dim=256 is not known"),
    (dict(transformer_layers_per_block=[1, 2]), r"transformer_layers_per_block=\(1, 2\) is not known here"),
    (dict(cross_attention_dims=8), "did you mean 'cross_attention_dim'"),
    (dict(attention_head_dim=[2, 4, 4]), "one attention_head_dim or as many, got 3"),
    (
      dict(attention_head_dim=3),
      "3 heads do not divide 8 channels: attention_head_dim is the number of heads",
    ),
    (dict(block_out_channels=[8, 16, 16]), "has as many down_block_types, got 2"),
    (dict(up_block_types=["UpBlock2D", "AttnUpBlock2D"]), "a block of type 'AttnUpBlock2D' is not known"),
    (dict(_class_name="UNet2DModel"), "of the class 'UNet2DModel'"),
  ],
)
def test_configs_that_are_not_known_are_refused(change, message):
  with pytest.raises(UserError, match=message) as caught:
    unet2d_condition.build(case.SD1 | change)
  assert "\n" not in str(caught.value)


def test_models_that_are_told_more_are_refused():
  """Inpainting (9 channels in) and depth (5)."""
  with pytest.raises(UserError, match="takes 9 and gives 4: it is told more than x"):
    unet2d_condition.denoiser(case.SD1 | dict(in_channels=9), None, {})
  with pytest.raises(
    UserError, match="embeddings of width 12 and this UNet2DConditionModel reads .* width 8"
  ):
    unet2d_condition.denoiser(case.SD1, None, {}, np.zeros((77, 12), np.float32))


def test_other_arrays_are_refused():
  arrays = arrays_of("sd1")
  key = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
  for changed, message in [
    ({k: a for k, a in arrays.items() if k != key}, f"they lack {key}"),
    (arrays | {"model_ema.decay": arrays["conv_in.bias"]}, "also have model_ema.decay"),
    (arrays | {key: arrays[key][:, :5]}, rf"{key} of \[8, 5\] in place of \[8, 8\]"),
  ]:
    with pytest.raises(UserError, match=message) as caught:
      unet2d_condition.convert(changed, case.SD1)
    assert "\n" not in str(caught.value)
