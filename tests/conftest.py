"""Every test runs on eight simulated devices, with strict dtype promotion and no silent rank promotion."""

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


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
