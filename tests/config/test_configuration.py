"""Overrides keep types, factories get only arguments they take, and every mistake names its mending."""

import math

import ml_collections
import pytest

from diffusion.config import factories, loading
from diffusion.config.errors import UserError


def make(**extra):
  return ml_collections.ConfigDict(
    dict(
      seed=0,
      flag=True,
      name="a",
      sizes=(1, 2),
      optional=None,
      training=dict(steps=10, rate=0.1),
      shape=dict(factory="fractions.Fraction", numerator=1),
      **extra,
    )
  )


@pytest.mark.parametrize(
  "key,text,value",
  [
    ("seed", "7", 7),
    ("seed", "1e3", 1000),
    ("seed", "-2", -2),
    ("flag", "false", False),
    ("flag", "1", True),
    ("name", "12", "12"),
    ("name", "a=b", "a=b"),
    ("sizes", "(3,4,5)", (3, 4, 5)),
    ("sizes", "3,4", (3, 4)),
    ("sizes", "9", (9,)),
    ("optional", "3", 3),
    ("optional", "/a/b", "/a/b"),
    ("training.steps", "5", 5),
    ("training.rate", "1", 1.0),
    ("training.rate", "1e-4", 1e-4),
    ("training.rate", "None", None),
    ("shape.denominator", "3", 3),
  ],
)
def test_override_keeps_the_type(key, text, value):
  config = make()
  loading.override(config, key, text)
  found = loading.flatten(config)[key] if not isinstance(value, tuple) else config[key]
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
  "key,text,words",
  [
    ("sede", "1", ["--config.sede", "'seed'", "training"]),
    ("training.stesp", "1", ["'steps'", "config.training has"]),
    ("trainig.steps", "1", ["'training'"]),
    ("seed.x", "1", ["config.seed is a value"]),
    ("training.steps", "many", ["must be int", "'many'"]),
    ("training.steps", "1.5", ["must be int"]),
    ("training.rate", "fast", ["must be float"]),
    ("flag", "maybe", ["true or false"]),
    ("training", "3", ["is a section with rate, steps"]),
    ("shape.denomimator", "3", ["'denominator'"]),
  ],
)
def test_override_mistakes(key, text, words):
  with pytest.raises(UserError) as caught:
    loading.override(make(), key, text)
  assert all(word in str(caught.value) for word in words), str(caught.value)
  assert "\n" not in str(caught.value)


def test_a_section_is_replaced_as_a_whole():
  config = make()
  loading.override(config, "shape", "{'factory': 'math.hypot'}")
  assert config.shape.to_dict() == {"factory": "math.hypot"}


@pytest.mark.parametrize(
  "factory,words",
  [
    ("processes.vp_linaer", ["'vp_linear'"]),
    ("proceses.edm", ["'processes'", "importable"]),
    ("math.hypotenuse", ["no 'hypotenuse'"]),
    ("math.pi", ["not a function"]),
    ("edm", ["no module"]),
    ("config.load", ["no 'load'", "'loading'", "offers errors"]),
  ],
)
def test_unknown_factories(factory, words):
  with pytest.raises(UserError) as caught:
    factories.build(dict(factory=factory), where="config.process")
  assert "config.process" in str(caught.value) and all(word in str(caught.value) for word in words), str(
    caught.value
  )


def test_an_import_error_inside_a_module_is_not_called_a_missing_module(tmp_path, monkeypatch):
  (tmp_path / "broken_user_module.py").write_text("import a_package_nobody_has\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):
    factories.resolve("broken_user_module.thing")


def test_an_own_module_may_have_the_name_of_a_folder(tmp_path, monkeypatch):
  """What diffusion.commands lacks is looked for in the user's own module `commands`."""
  (tmp_path / "commands.py").write_text("def mine():\n  return 7\n")
  monkeypatch.syspath_prepend(tmp_path)
  assert factories.build(dict(factory="commands.mine")) == 7
  with pytest.raises(UserError, match="no 'theirs' in 'diffusion.commands'"):
    factories.build(dict(factory="commands.theirs"))


def test_build_own_module_nested_and_positional(tmp_path, monkeypatch):
  (tmp_path / "my_research.py").write_text(
    "def inner(a):\n  return a + 1\n\ndef outer(process, *, part, parts=(), sizes=()):\n  return process, "
    "part, parts, sizes\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  section = dict(
    factory="my_research.outer",
    part=dict(factory="my_research.inner", a=1),
    parts=[dict(factory="my_research.inner", a=2)],
    sizes=[1, 2],
  )
  assert factories.build(section, "p") == ("p", 2, (3,), (1, 2))
  with pytest.raises(UserError, match=r"config\.loss\.part: 'my_research.inner' has no argument 'b'"):
    factories.build(section | dict(part=dict(factory="my_research.inner", b=1)), "p", where="config.loss")
  with pytest.raises(UserError, match="missing a required argument: 'process'"):
    factories.build(section)


def test_a_factory_that_refuses_a_value_is_a_user_error():
  with pytest.raises(UserError, match="config.x: 'math.sqrt': "):
    factories.build(dict(factory="math.sqrt"), -1.0, where="config.x")


def test_json_round_trip_and_differences():
  config = make(deep=dict(a=(1, (2, 3)), b=math.inf))
  back = loading.from_json(loading.to_json(config))
  assert back.deep.a == (1, (2, 3)) and loading.differences(config, back) == []
  back.training.steps, back.seed = 11, 1
  assert loading.differences(config, back, ignore=("training",)) == [("seed", 0, 1)]
  assert loading.differences(dict(a=1), dict()) == [("a", 1, "(absent)")]


def test_load_variants_and_mistakes(tmp_path):
  file = tmp_path / "one.py"
  file.write_text(
    "import ml_collections\ndef get_config(variant='x'):\n"
    "  if variant not in 'xy':\n    raise ValueError(f'no variant {variant}: there are x, y')\n"
    "  return ml_collections.ConfigDict(dict(kind=variant, seed=0))\n"
  )
  assert loading.load(str(file)).kind == "x"
  assert loading.load(f"{file}:y", [("seed", "3")]).to_dict() == dict(kind="y", seed=3)
  with pytest.raises(UserError, match="there are x, y"):
    loading.load(f"{file}:z")
  with pytest.raises(UserError, match=r"no such file \(did you mean 'one.py'"):
    loading.load(str(tmp_path / "on.py"))
  file.write_text("x = 1\n")
  with pytest.raises(UserError, match="defines no get_config"):
    loading.load(str(file))


def test_a_config_without_its_ending_is_refused(tmp_path):
  (tmp_path / "one").write_text("def get_config():\n  return None\n")
  with pytest.raises(UserError, match=r"a config is a Python file, so give one whose name ends in \.py"):
    loading.load(str(tmp_path / "one"))


def test_split_overrides_needs_a_value():
  with pytest.raises(UserError, match="needs a value"):
    loading.split_overrides(["--config.seed", "--workdir=x"])
