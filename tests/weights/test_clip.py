"""CLIP's text encoder and its tokens: equal to transformers' on drawn weights and awkward prompts."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stable_diffusion_cases as case

from diffusion import weights
from diffusion.config.errors import UserError
from diffusion.weights.architectures import clip, clip_tokens, torch_layout

RECORDED = np.load(case.FILE)
NAMES = json.loads(RECORDED["names"].tobytes())


def arrays_of(name):
  return {one: case.draw(one, tuple(shape)) for one, shape in NAMES[name].items()}


def relative(found, wanted):
  """The norm of the difference over the norm."""
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("name", case.CLIPS)
def test_it_is_equal_to_the_original(name):
  config, tokens = case.CLIPS[name], case.clip_inputs()
  module, params = clip.build(config), clip.convert(arrays_of(name), config)
  run = jax.jit(lambda p, tokens: module.apply({"params": p}, tokens, capture_intermediates=True))
  out, kept = run(params, tokens)
  assert out.dtype == jnp.float32 and relative(out, RECORDED[f"{name}/output"]) < 1e-5
  layers = kept["intermediates"]["encoder"]
  wanted = [key for key in RECORDED.files if key.startswith(f"{name}/block/")]
  assert len(wanted) == config["num_hidden_layers"]
  for key in wanted:
    found = layers[f"layers_{key.split('.')[-1]}"]["__call__"][0]
    assert relative(case.thinned(np.asarray(found)), RECORDED[key]) < 1e-5, key


def test_a_token_knows_those_before_it_alone():
  """Another token at a place changes the embeddings from there on, and none before."""
  config, tokens = case.CLIP1, case.clip_inputs()
  params = clip.convert(arrays_of("clip1"), config)
  run = jax.jit(lambda tokens: clip.build(config).apply({"params": params}, tokens))
  other = tokens.copy()
  other[:, 40] = (other[:, 40] + 1) % config["vocab_size"]
  differ = np.abs(np.asarray(run(tokens) - run(other))).max(axis=(0, 2))
  assert differ[:40].max() < 1e-5 and differ[40:].min() > 1e-4


def test_files_with_and_without_their_prefix():
  """Old files hold numbers of places too; what is written again are the published names, bit for bit."""
  arrays = {key: value.astype(np.float16) for key, value in arrays_of("clip1").items()}
  old = arrays | {"text_model.embeddings.position_ids": np.arange(77)[None]}
  bare = {name.removeprefix("text_model."): value for name, value in arrays.items()}
  for given in (arrays, old, bare):
    again = clip.export(clip.convert(given, case.CLIP1), case.CLIP1)
    assert sorted(again) == sorted(arrays)
    for key, value in arrays.items():
      assert again[key].dtype == value.dtype and again[key].flags["C_CONTIGUOUS"]
      np.testing.assert_array_equal(again[key], value)


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda a: a.pop("text_model.final_layer_norm.bias"), "they lack text_model.final_layer_norm.bias"),
    (
      lambda a: a.update({"text_projection.weight": np.zeros((8, 8))}),
      "also have text_model.text_projection",
    ),
    (
      lambda a: a.update({"text_model.embeddings.token_embedding.weight": np.zeros((9, 8))}),
      r"token_embedding.weight of \[9, 8\] in place of",
    ),
  ],
)
def test_other_arrays_are_refused(change, message):
  arrays = arrays_of("clip1")
  change(arrays)
  with pytest.raises(UserError, match=message) as caught:
    clip.convert(arrays, case.CLIP1)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(model_type="t5"), "model_type='t5' is not known here"),
    (dict(hidden_act="relu"), "hidden_act='relu' is not known here"),
    (dict(use_attention_mask=True), "use_attention_mask=True is not known here"),
    (dict(hidden_sizes=8), "did you mean 'hidden_size'"),
    (dict(num_attention_heads=3), "3 heads do not divide 8 channels"),
  ],
)
def test_configs_that_are_not_known_are_refused(change, message):
  with pytest.raises(UserError, match=message) as caught:
    clip.build(case.CLIP1 | change)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, count, elements", [("clip1", 196, 123_060_480), ("clip2", 372, 340_387_840)])
def test_published_sizes(name, count, elements):
  """ViT-L/14's text encoder has 123,060,480 numbers; ViT-H/14's, without its last layer, 340,387,840."""
  sizes = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
  if name == "clip2":
    sizes = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16)
  leaves = jax.tree.leaves(clip.shapes(case.CLIPS[name] | sizes | dict(vocab_size=49408)))
  assert (len(leaves), sum(leaf.size for leaf in leaves)) == (count, elements)


# Tokens.


@pytest.mark.parametrize("way", case.WAYS)
def test_tokens_are_equal_to_the_original(tmp_path, way):
  made = clip_tokens.tokenizer(str(case.write_tokenizer(tmp_path / way, way)))
  found = made(case.PROMPTS)
  assert found.shape == (len(case.PROMPTS), 77) and found.dtype == np.int32
  for prompt, row, wanted in zip(case.PROMPTS, found, RECORDED[f"tokens/{way}"]):
    np.testing.assert_array_equal(row, wanted, err_msg=repr(prompt))


def test_what_the_tokens_are(tmp_path):
  """Begin, the text in lower case, end, padding; cut before the end token."""
  names, _ = case.vocabulary()
  words = {number: token for token, number in names.items()}
  for way, pad in (("sd1", case.END), ("sd2", "!")):
    made = clip_tokens.tokenizer(str(case.write_tokenizer(tmp_path / way, way)))
    empty, text, long = made(["", "The  RED\tcaf\u00e9", "red " * 100])
    assert [words[i] for i in empty] == [case.BEGIN, case.END] + [pad] * 75
    wanted = [case.BEGIN, "the</w>", "red</w>", "ca", "f", "Ã©</w>", case.END, pad]
    assert [words[i] for i in text[: len(wanted)]] == wanted
    assert [words[i] for i in long] == [case.BEGIN] + ["red</w>"] * 75 + [case.END]


def test_a_shorter_row_is_told_by_the_config(tmp_path):
  folder = case.write_tokenizer(tmp_path / "sd1", "sd1")
  config = json.loads((folder / "tokenizer_config.json").read_text())
  (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 5}))
  made = clip_tokens.tokenizer(str(folder))
  whole = clip_tokens.tokenizer(str(case.write_tokenizer(tmp_path / "again", "sd1")))(["red cat"])
  np.testing.assert_array_equal(made(["red cat"]), whole[:, :5])


@pytest.mark.parametrize(
  "prompts, error, message",
  [
    ("a red cat", TypeError, "prompts are a list of texts, got str: put one text in brackets"),
    (None, TypeError, "a list of texts, got NoneType"),
    (["a", 3], TypeError, "got int in it: give '' for no text"),
    ([], ValueError, "a list of at least one text, got none"),
  ],
)
def test_prompts_of_another_type_are_refused(tmp_path, prompts, error, message):
  made = clip_tokens.tokenizer(str(case.write_tokenizer(tmp_path / "sd1", "sd1")))
  with pytest.raises(error, match=message) as caught:
    made(prompts)
  assert "\n" not in str(caught.value)


def spoil(folder, name, contents):
  (folder / name).unlink() if contents is None else (folder / name).write_text(contents)


@pytest.mark.parametrize(
  "name, contents, message",
  [
    ("merges.txt", None, "no tokenizer.json and not both of vocab.json and merges.txt"),
    ("vocab.json", '{"a": ', "vocab.json cannot be read as a tokenizer's file"),
    ("merges.txt", "a b c\n", "merges.txt cannot be read as a list of merges"),
    ("merges.txt", "q x\n", "do not go together"),
    ("vocab.json", '{"a": 0}', "the bos_token of .* is '<|startoftext|>', which its vocabulary has not"),
    ("tokenizer_config.json", "[1]", "tokenizer_config.json cannot be read as a tokenizer's config"),
    ("tokenizer.json", '{"model": {}}', "tokenizer.json cannot be read as a tokenizer"),
    ("special_tokens_map.json", '{"pad_token": {}}', "cannot be read as the special tokens of a tokenizer"),
  ],
)
def test_files_that_are_damaged_are_refused(tmp_path, name, contents, message):
  folder = case.write_tokenizer(tmp_path / "sd1", "sd1")
  spoil(folder, name, contents)
  with pytest.raises(UserError, match=message.replace("|", r"\|")) as caught:
    clip_tokens.tokenizer(str(folder))
  assert "\n" not in str(caught.value)


def test_without_the_library_tokenizers(tmp_path, monkeypatch):
  """A sentence that says what to install."""
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  with pytest.raises(UserError, match=r"pip install 'jax-diffusion\[text\]'"):
    clip_tokens.tokenizer(str(tmp_path))


# Both.


def written(folder, config, arrays):
  """A folder as transformers saves a model."""
  folder.mkdir(parents=True)
  (folder / "config.json").write_text(json.dumps(config))
  weights.write_safetensors(str(folder / "model.safetensors"), arrays)
  return folder


def encoder(parent):
  case.write_tokenizer(parent / "tokenizer", "sd1")
  return clip.text_encoder(str(written(parent / "text_encoder", case.CLIP1, arrays_of("clip1"))))


def test_prompts_are_embedded(tmp_path):
  """As by transformers, within jit too; a row does not depend on the others."""
  made = encoder(tmp_path)
  found = made.encode(["the red cat", "a photo!"])
  assert made.width == 8 and found.shape == (2, 77, 8) and found.dtype == jnp.float32
  assert relative(found, RECORDED["sd1/prompts"]) < 1e-5
  within = jax.jit(lambda one, tokens: one.embed(tokens))(made, made.tokens(["the red cat", "a photo!"]))
  np.testing.assert_allclose(within, found, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(made.encode(["a photo!"])[0], found[1], rtol=1e-5, atol=1e-5)


def test_an_encoder_without_a_tokenizer(tmp_path):
  made = encoder(tmp_path)
  bare = clip.TextEncoder(made.params, made.module, None)
  tokens = made.tokens(["the red cat"])
  np.testing.assert_array_equal(bare.embed(tokens), made.embed(tokens))
  with pytest.raises(ValueError, match="has no tokenizer: give tokens to embed"):
    bare.encode(["the red cat"])


def test_a_tokenizer_of_another_encoder_is_refused(tmp_path):
  case.write_tokenizer(tmp_path / "tokenizer", "sd1")
  names = len(case.vocabulary()[0])
  config, name = case.CLIP1 | dict(vocab_size=names - 1), "text_model.embeddings.token_embedding.weight"
  arrays = arrays_of("clip1") | {name: np.zeros((names - 1, 8), np.float32)}
  folder = written(tmp_path / "text_encoder", config, arrays)
  with pytest.raises(UserError, match=rf"has tokens up to {names - 1} and the text encoder .* {names - 1} "):
    clip.text_encoder(str(folder))
  (folder / "config.json").unlink()
  with pytest.raises(UserError, match="has no config.json"):
    clip.text_encoder(str(folder))


def test_bfloat16_computes_near_float32():
  config, tokens = case.CLIP1, case.clip_inputs()
  params = clip.convert(arrays_of("clip1"), config)
  half = jax.jit(clip.build(config, dtype="bfloat16").apply)({"params": params}, tokens)
  assert half.dtype == jnp.float32 and 1e-4 < relative(half, RECORDED["clip1/output"]) < 0.04
  assert (
    torch_layout.dotted(("encoder", "layers_0", "mlp", "fc1", "kernel")) == "encoder.layers.0.mlp.fc1.weight"
  )
