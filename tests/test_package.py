"""What the package promises as a whole: light imports, and imports that only go downwards."""

import ast
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
CORE = ("processes", "networks", "denoisers", "oracles", "losses", "guidance", "solvers")

# A part may import from its own level or below. Equal numbers are siblings.
LEVEL = {
  "errors": 0,
  "activations": 0,
  "precision": 0,
  "factories": 1,
  "configuration": 2,
  "views": 1,
  "directional": 1,
  "processes": 1,
  "networks": 1,
  "symmetric": 0,
  "mcmc": 2,
  "denoisers": 2,
  "oracles": 3,
  "losses": 3,
  "density_ratio": 4,
  "autoregressive": 4,
  "guidance": 4,
  "solvers": 4,
  "metrics": 4,
  "pictures": 4,
  "likelihood": 5,
  "data": 5,
  "training": 6,
  "ledger": 6,
  "measuring": 1,
  "tasks": 6,
  "claims": 7,
  "sampling": 6,
  "saved_run": 7,
  "reproduction": 8,
  "sampling_command": 8,
  "shards": 1,
  "shards_command": 9,
  "fit_command": 9,
  "task_command": 9,
  "evaluation": 8,
}


def imported_parts(path):
  """Parts of the package that a file imports anywhere, functions included."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
      continue
    for name in names:
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
  code = (
    "import sys, jax, flax.linen, flax.struct, optax, chex, ml_collections, numpy, jax.scipy.special, "
    "scipy.special\n"
  )
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


def test_unknown_part_says_which_exist():
  import diffusion

  with pytest.raises(AttributeError, match="solvers"):
    _ = diffusion.sampler
