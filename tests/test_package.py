"""What the package promises as a whole: light imports, and imports that only go downwards."""

import ast
import configparser
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "diffusion"
HEAVY = (
  "tensorflow",
  "tensorflow_datasets",
  "grain",
  "orbax",
  "matplotlib",
  "sklearn",
  "tensorboardX",
  "PIL",
  "tqdm",
  "torch",
)
CORE = ("processes", "networks", "codecs", "denoisers", "oracles", "losses", "guidance", "solvers")

# A part may import from its own level or below. Equal numbers are siblings.
LEVEL = {
  "lazy": -2,
  "config": -1,
  "math": 0,
  "processes": 1,
  "networks": 1,
  "mcmc": 2,
  "codecs": 2,
  "denoisers": 2,
  "weights": 5,
  "oracles": 3,
  "losses": 3,
  "density_ratio": 4,
  "autoregressive": 4,
  "guidance": 4,
  "solvers": 4,
  "pictures": 4,
  "likelihood": 5,
  "data": 5,
  "tasks": 6,
  "metrics": 6,
  "sampling": 6,
  "export": 7,
  "run": 7,
  "commands": 8,
}


def imported_modules(path):
  """Dotted names that a file imports anywhere, functions included."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_parts(path):
  """Parts of the package that a file imports anywhere, functions included."""
  for name in imported_modules(path):
    pieces = name.split(".")
    if pieces[0] == "diffusion" and len(pieces) > 1:
      yield pieces[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
  part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
  if part == "__init__":
    return
  for other in imported_parts(path):
    assert LEVEL[other] < LEVEL[part] or other == part, f"{part} imports {other}, which is not below it"
  outside = {name.split(".")[0] for name in imported_modules(path)} & {"experiments", "configs", "tests"}
  assert not outside, f"{part} imports {outside}, which is not in the wheel"


@pytest.mark.parametrize("parts", [(), CORE], ids=["package", "core parts"])
def test_core_imports_stay_light(parts):
  code = "import sys, diffusion\n"
  code += "".join(f"import diffusion.{part}\n" for part in parts)
  code += f"print([m for m in {HEAVY!r} if m in sys.modules])"
  out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
  assert out.stdout.strip() == "[]"


def test_core_imports_nothing_but_its_dependencies():
  """Whatever the core parts bring in beyond jax, flax, optax, chex, ml_collections and numpy is a new
  dependency."""
  code = "import sys, jax, flax.linen, flax.struct, optax, chex, ml_collections, numpy\n"
  code += "import jax.scipy.special, scipy.special\n"
  code += (
    "top = lambda: {m.split('.')[0] for m in sys.modules if not m.split('.')[0] in sys.stdlib_module_names}\n"
  )
  code += (
    "before = top()\n"
    + "".join(f"import diffusion.{part}\n" for part in CORE)
    + "print(sorted(top() - before))"
  )
  out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
  assert out.stdout.strip() == "['diffusion']"


def test_reading_a_run_loads_no_published_network():
  code = "import sys, diffusion.run.saved.weights\nprint([m for m in sys.modules if 'architectures' in m])"
  out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
  assert out.stdout.strip() == "[]"


def test_unknown_part_says_which_exist():
  import diffusion

  with pytest.raises(AttributeError, match="solvers"):
    _ = diffusion.sampler


WALK = """
import sys
for package, modules in {tree!r}.items():
  for name in [name for name in sys.modules if name.partition(".")[0] == "diffusion"]:
    del sys.modules[name]  # what one package loads must not hide what another lacks
  import diffusion
  part = getattr(diffusion, package)
  assert package in dir(diffusion), package
  for name in modules:
    getattr(part, name)
print("walked")
"""


def test_every_module_is_an_attribute():
  """`import diffusion` alone reaches each sub-package and each module, without a list of them."""
  tree = {path.stem: [] for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
  for path in PACKAGE.glob("*/__init__.py"):
    tree[path.parent.name] = sorted(file.stem for file in path.parent.glob("[!_]*.py"))
  assert {"tasks", "run", "sampling"} <= set(tree) and "step" in tree["run"]
  code = WALK.format(tree=tree)
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
  assert done.stdout.strip() == "walked", done.stderr


def test_the_wheel_has_the_package_and_nothing_else():
  """What setup.cfg takes is every folder of diffusion/: no experiments, configs or tests."""
  setuptools = pytest.importorskip("setuptools")
  setup = configparser.ConfigParser()
  setup.read(ROOT / "setup.cfg")
  include = setup["options.packages.find"]["include"].split()
  found = set(setuptools.find_packages(str(ROOT), include=include))
  folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")}
  assert found == {".".join(folder.parts) for folder in folders}
  everything = set(setuptools.find_packages(str(ROOT)))
  assert "experiments.meco" in everything - found
