"""Type annotations: every public signature of the package has them, and pyright checks every file."""

import ast
import pathlib
import tomllib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "diffusion"


def unannotated(tree: ast.Module) -> Iterator[str]:
  """What lacks an annotation in a module, as 'line 3: sample: keys, return'.

  Functions, classes and methods whose name has no leading underscore count, and methods with two of them
  (`__call__`). Not `self` and `cls`, and not what `__init__` returns. Attributes count where a class assigns
  them in its body. Functions inside functions do not.
  """
  for node in tree.body:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
      for target in node.targets:
        if isinstance(target, ast.Name) and _public(target.id):
          yield f"line {node.lineno}: {target.id}: a lambda has no annotations, write def"
    yield from _members(node, "")


def _members(node: ast.stmt, prefix: str) -> Iterator[str]:
  if isinstance(node, (ast.If, ast.Try)):
    for inner in node.body:
      yield from _members(inner, prefix)
  elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and _public(node.name):
    missing = list(_missing(node, method=bool(prefix)))
    if missing:
      yield f"line {node.lineno}: {prefix}{node.name}: {', '.join(missing)}"
  elif isinstance(node, ast.ClassDef) and _public(node.name):
    for inner in node.body:
      yield from _members(inner, f"{prefix}{node.name}.")
      if isinstance(inner, ast.Assign):
        names = [target.id for target in inner.targets if isinstance(target, ast.Name)]
        for name in names:
          if not name.startswith("_"):
            yield f"line {inner.lineno}: {prefix}{node.name}.{name}: the attribute"


def _public(name: str) -> bool:
  return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def _missing(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> Iterator[str]:
  arguments = [*node.args.posonlyargs, *node.args.args]
  static = any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in node.decorator_list)
  if method and not static:
    arguments = arguments[1:]
  arguments += [*node.args.kwonlyargs, *filter(None, (node.args.vararg, node.args.kwarg))]
  yield from (argument.arg for argument in arguments if argument.annotation is None)
  if node.returns is None and node.name != "__init__":
    yield "return"


def modules() -> dict[str, pathlib.Path]:
  """The package's public files, by their path from the package."""
  found = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
  return {name: path for name, path in found.items() if _public(path.stem)}


def lacking() -> dict[str, list[str]]:
  """What is not annotated, by file."""
  found = {name: list(unannotated(ast.parse(path.read_text()))) for name, path in modules().items()}
  return {name: missing for name, missing in found.items() if missing}


def test_public_signatures_are_annotated():
  left = lacking()
  assert not left, "\n".join(f"diffusion/{name} {line}" for name, lines in left.items() for line in lines)


def test_pyright_checks_the_whole_package():
  section = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
  assert section["include"] == ["diffusion"]
  assert not section.get("ignore") and not section.get("exclude")


@pytest.mark.parametrize(
  "source, expected",
  [
    ("def f(x: int, *, y: str = '') -> int: ...", []),
    ("def f(x, *more, y: str = '', **rest) -> int: ...", ["line 1: f: x, more, rest"]),
    ("def f(x: int): ...", ["line 1: f: return"]),
    ("def _f(x): ...", []),
    ("def f(x: int) -> int:\n  def inner(y): ...", []),
    ("f = lambda x: x", ["line 1: f: a lambda has no annotations, write def"]),
    ("class A:\n  def __init__(self, x): ...", ["line 2: A.__init__: x"]),
    ("class A:\n  x = 3\n  y: int = 4\n  _z = 5", ["line 2: A.x: the attribute"]),
    ("class A:\n  @staticmethod\n  def f(x) -> int: ...", ["line 3: A.f: x"]),
    ("class A:\n  def __call__(self, x: int): ...\n  def _f(self, x): ...", ["line 2: A.__call__: return"]),
    ("class _A:\n  def f(self, x): ...", []),
    ("class A:\n  class B:\n    def f(self): ...", ["line 3: A.B.f: return"]),
  ],
)
def test_what_counts_as_annotated(source, expected):
  assert list(unannotated(ast.parse(source))) == expected
