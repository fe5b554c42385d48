"""DiT and SiT: equal to the authors' modules and to diffusers' on drawn weights, and their files."""

import functools
import json

import diffusers_networks as case
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.weights.architectures import dit, dit_files, dit_options, dit_sizes

RECORDED = np.load(case.FILE)
NAMES = json.loads(RECORDED["names"].tobytes())
CONFIGS = case.DIT_DIFFUSERS | {
  name: {"_class_name": "DiT" if name == "dit" else "SiT", **config}
  for name, config in case.DIT_ORIGINAL.items()
}
EVERY = pytest.mark.parametrize("name", CONFIGS)


def arrays_of(name):
  found = {one: case.draw(one, tuple(shape)) for one, shape in NAMES[name].items()}
  return found | ({"pos_embed": RECORDED[f"{name}/pos_embed"]} if "pos_embed" in found else {})


def shared(name):
  """The arrays of diffusers' file as published: the embedding of every block is the first one's."""
  found = arrays_of(name)
  return {
    one: found[one.replace("blocks.1.", "blocks.0.")] if ".norm1.emb." in one else a
    for one, a in found.items()
  }


def relative(found, wanted):
  """The norm of the difference over the norm."""
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@functools.partial(jax.jit, static_argnames="views")
def asked(denoiser, x, t, cond, views):
  return denoiser(x, t, cond, views=views)


def net_of(name, arrays, **changes):
  config = CONFIGS[name]
  return dit_files.build(config, dit_files.copies_of(arrays, config), **changes), dit_files.convert(
    arrays, config
  )


@EVERY
def test_it_is_equal_to_the_original(name):
  """To the function that each class computes; diffusers' is another one than the authors'."""
  arrays = arrays_of(name)
  net, params = net_of(name, arrays, trained_in_diffusers=name in case.DIT_DIFFUSERS)
  x, t, label = case.dit_inputs(name)
  blocks = name in case.WITH_BLOCKS
  run = jax.jit(lambda p, *inputs: net.apply({"params": p}, *inputs, capture_intermediates=blocks))
  out = run(params, x, t, {"label": label})
  out, kept = out if blocks else (out, {"intermediates": {}})
  assert out.dtype == jnp.float32 and relative(out, RECORDED[f"{name}/output"]) < 1e-5
  wanted = [key for key in RECORDED.files if key.startswith(f"{name}/block/")]
  assert len(wanted) == (2 if blocks else 0)
  for key in wanted:
    block = kept["intermediates"][f"blocks_{key.split('.')[-1]}"]["__call__"][0]
    assert relative(case.thinned(np.asarray(block)), RECORDED[key]) < 1e-5, key


def test_diffusers_file_of_the_authors_weights_is_the_authors_function():
  """The same weights in both containers give the authors' output, and the variance in its second half."""
  original, config = arrays_of("dit"), dict(CONFIGS["dit_diffusers"])
  params = dit_files.convert(original, CONFIGS["dit"])
  as_diffusers = dit_files.export(params, config)
  assert dit_files.copies_of(as_diffusers, config) == 1
  x, t, label = case.dit_inputs("dit")
  denoiser = dit_files.denoiser(config, None, as_diffusers)
  found = asked(denoiser, x, (t + 1) / 1000, {"label": label}, views=("eps", "variance_fraction"))
  got = found.eps
  assert relative(got, RECORDED["dit/output"][..., :4]) < 1e-5
  assert relative(found.variance_fraction, 0.5 * (1 + RECORDED["dit/output"][..., 4:])) < 1e-5
  other = dit_files.denoiser(config, None, as_diffusers, trained_in_diffusers=True)
  assert (
    relative(asked(other, x, (t + 1) / 1000, {"label": label}, views=("eps",)).eps, np.asarray(got)) > 1e-2
  )


@EVERY
def test_a_file_comes_back_bit_for_bit(name):
  for arrays in (arrays_of(name), *([shared(name)] if name in case.DIT_DIFFUSERS else [])):
    again = dit_files.export(dit_files.convert(arrays, CONFIGS[name]), CONFIGS[name])
    assert sorted(again) == sorted(arrays)
    for key, value in arrays.items():
      assert again[key].dtype == value.dtype and again[key].flags["C_CONTIGUOUS"]
      np.testing.assert_array_equal(again[key], value)


def test_one_embedding_is_kept_where_all_are_the_same():
  config = CONFIGS["dit_diffusers"]
  assert "embedding_1" in dit_files.convert(arrays_of("dit_diffusers"), config)
  assert "embedding_1" not in dit_files.convert(shared("dit_diffusers"), config)


def test_sit_is_a_rectified_flow():
  """Its time runs from noise to data and its output is x0 - eps; the library's, eps - x0 at one minus it."""
  denoiser = dit_files.denoiser(CONFIGS["sit"], None, arrays_of("sit"))
  x, t, label = case.dit_inputs("sit")
  got = asked(denoiser, x, 1 - t, {"label": label}, views=("velocity", "x0"))
  want = RECORDED["sit/output"]
  assert relative(got.velocity, -want) < 1e-5
  assert relative(got.x0, x + (1 - t)[:, None, None, None] * want) < 1e-5


def test_no_label_is_the_class_of_none():
  net, params = net_of("dit", arrays_of("dit"))
  x, t, _ = case.dit_inputs("dit")
  run = jax.jit(lambda cond: net.apply({"params": params}, x, t, cond))
  want = run({"label": np.full(3, 6, np.int32)})
  np.testing.assert_array_equal(run({"label": np.full(3, -1, np.int32)}), want)
  np.testing.assert_array_equal(jax.jit(lambda: net.apply({"params": params}, x, t))(), want)


@pytest.mark.parametrize("name", case.DIT_ORIGINAL)
def test_arguments_are_read_off_an_authors_file(name):
  config = CONFIGS[name]
  found = dit_sizes.config_of(arrays_of(name), config["_class_name"], config["num_heads"])
  assert dit_options.shape_of(found) == dit_options.shape_of(config)
  with pytest.raises(UserError, match="of hidden_size 16 is none of the published sizes"):
    dit_sizes.config_of(arrays_of(name), "DiT")
  with pytest.raises(UserError, match="lack pos_embed, x_embedder.proj.weight"):
    dit_sizes.config_of({"ema.pos_embed": np.zeros(1)}, "DiT")


def test_positions_of_another_side_are_stretched():
  """Twice the side has every second position where the trained side had it."""
  whole, half = (dit.positions((n, n), 8, 4).reshape(n, n, 8) for n in (8, 4))
  np.testing.assert_array_equal(whole[::2, ::2], half)


@pytest.mark.parametrize(
  "name, copies, arrays, elements",
  [
    ("DiT", 1, 292 - 1, 675_129_632 - 256 * 1152),
    pytest.param(dit_options.DIFFUSERS, 28, 538 - 28 * 4, 749_826_464, marks=pytest.mark.slow),
  ],
)
def test_published_sizes(name, copies, arrays, elements):
  """Of DiT-XL/2 at 256 pixels, less the positions; and of diffusers' file, whose q, k and v are apart."""
  x, t = jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
  config = {"_class_name": name} | ({"out_channels": 8} if copies > 1 else {})
  net = dit_files.build(config, copies)
  leaves = jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0), x, t))
  assert (len(leaves), sum(leaf.size for leaf in leaves)) == (arrays, elements)


@pytest.mark.parametrize(
  "name, change, message",
  [
    (
      "dit",
      lambda a: a.pop("blocks.1.attn.qkv.bias"),
      "of a DiT of this config: they lack blocks.1.attn.qkv.b",
    ),
    ("dit", lambda a: a.update(step=np.zeros(())), "also have step"),
    ("dit", lambda a: a.pop("pos_embed"), "lack pos_embed"),
    ("dit", lambda a: a.update(pos_embed=a["pos_embed"] + 1), "is not that of a DiT of input_size 8"),
    (
      "dit_diffusers",
      lambda a: a.pop("transformer_blocks.0.attn1.to_k.bias"),
      "lack transformer_blocks.0.attn1.to_k",
    ),
    (
      "dit_diffusers",
      lambda a: a.pop("transformer_blocks.0.ff.net.2.weight"),
      "lack transformer_blocks.0.ff.net.2",
    ),
    (
      "dit_diffusers",
      lambda a: a.update({"proj_out_2.bias": a["proj_out_2.bias"][:3]}),
      r"proj_out_2.bias of \[3\] in place of \[32\]",
    ),
  ],
)
def test_other_arrays_are_refused(name, change, message):
  arrays = arrays_of(name)
  change(arrays)
  with pytest.raises(UserError, match=message):
    dit_files.convert(arrays, CONFIGS[name])


def test_the_config_of_facebook_is_read():
  """It names a class of which DiT's is a part today, with options that are those of others."""
  old = CONFIGS["dit_diffusers"] | dict(
    _class_name="Transformer2DModel",
    _diffusers_version="0.12.0.dev0",
    norm_type="ada_norm_zero",
    cross_attention_dim=None,
    double_self_attention=False,
    num_vector_embeds=None,
    only_cross_attention=False,
    use_linear_projection=False,
  )
  assert dit_files.build(old) == dit_files.build(CONFIGS["dit_diffusers"])
  found = dit_files.convert(shared("dit_diffusers"), old)
  assert sorted(dit_files.export(found, old)) == sorted(NAMES["dit_diffusers"])
  for change in (dict(use_linear_projection=True), dict(norm_type="layer_norm")):
    with pytest.raises(UserError, match="'use_linear_projection'|is DiT, SiT or DiTTr"):
      dit_files.build(old | change)


def test_configs_that_are_not_known_are_refused():
  for config, message in [
    ({"_class_name": "U-ViT"}, "is DiT, SiT or DiTTransformer2DModel, got 'U-ViT'"),
    ({"_class_name": "DiT", "widht": 3}, "option 'widht'"),
    ({"_class_name": "SiT", "num_heads": 7}, "7 heads has a hidden_size they divide, got 1152"),
    (CONFIGS["dit_diffusers"] | dict(activation_fn="gelu"), "activation_fn='gelu' is not known here"),
  ]:
    with pytest.raises(UserError, match=message):
      dit_files.build(config)
  with pytest.raises(UserError, match="a SiT has no scheduler config"):
    dit_files.denoiser(CONFIGS["sit"], {"_class_name": "DDIMScheduler"}, arrays_of("sit"))
