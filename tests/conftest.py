"""Every test runs on eight simulated devices, with strict dtype promotion and no silent rank promotion."""

import atexit
import gc
import importlib.metadata
import os
import shutil
import tempfile
import threading

import pytest

# Nearly all the time of the tests is compilation of small programs that run once, so they are compiled with
# few optimisations. XLA aborts on a flag that it does not know: each version's own are named, and a version
# not seen yet compiles as users' programs do.
QUICK = (
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
  "--xla_cpu_parallel_codegen_split_count=1"
)
FLAGS = {(0, 10): QUICK + " --xla_cpu_use_fusion_emitters=false", (0, 12): QUICK}
if "PYTEST_XDIST_WORKER" not in os.environ and "XLA_FLAGS" not in os.environ:
  version = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
  os.environ["XLA_FLAGS"] = FLAGS.get(version, "")

if "PYTEST_XDIST_WORKER" not in os.environ and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  # Equal programs of different tests, workers and child processes are compiled once a run; set before JAX is
  # imported.
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jax-tests-")
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

# Tracing makes many objects that live long: the collector looks at them less often.
gc.set_threshold(50_000, 20, 20)

# JAX keeps the module of every program that it lowered beside the compiled one: a megabyte each, and each new
# module is slower to write the more of them there are. Of what was compiled, only programs that call back to
# Python go with these caches. A version that has others keeps what it keeps.
try:
  from jax._src.interpreters.pxla import _cached_lowering_to_hlo
  from jax._src.pjit import _pjit_lower
except ImportError:
  LOWERED = ()
else:
  LOWERED = (_pjit_lower, _cached_lowering_to_hlo)

# JAX also makes an MLIR context for every program, 3 ms each: most programs here are smaller than that. One
# serves many, of one thread alone; a new one now and then, for a context keeps what it has seen.
PROGRAMS_A_CONTEXT = 64
try:
  from jax._src.interpreters import mlir

  make_context = mlir.make_ir_context
except (ImportError, AttributeError):
  pass
else:

  class Contexts(threading.local):
    """The context of a thread, and how many programs it may still serve."""

    context, left = None, 0

  shared = Contexts()

  def context_of_many():
    if not shared.left:
      shared.context, shared.left = make_context(), PROGRAMS_A_CONTEXT
    shared.left -= 1
    return shared.context

  mlir.make_ir_context = context_of_many


@pytest.fixture(autouse=True, scope="module")
def no_modules_are_kept():
  """What a file of tests lowered is dropped after it; its own tests share what calls back to Python."""
  yield
  for cache in LOWERED:
    cache.cache_clear()


@pytest.fixture(autouse=True)
def strict_promotion(request):
  """A silent float64 or a silent broadcast is a bug here; optax's own updates need the standard rules."""
  if request.node.get_closest_marker("standard_promotion"):
    yield
  else:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
      yield


@pytest.fixture
def x64():
  """Double precision for tests of orders and exact identities."""
  before = jax.config.jax_enable_x64
  jax.config.update("jax_enable_x64", True)
  yield
  jax.config.update("jax_enable_x64", before)
