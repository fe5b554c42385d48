"""The scalar energy with waves.

Its score is its slope, a new one is a Gaussian, and labels and times reach it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import networks


def test_the_score_is_minus_the_slope_and_a_new_network_is_a_gaussian():
  """By central differences, with every parameter away from its start; the label and the time count."""
  net = networks.Potential(width=8, depth=2, frequencies=(1.0, 3.0), std=0.5, num_classes=3)
  x, t, step = jax.random.normal(jax.random.key(0), (5, 2)), jnp.linspace(-1.0, 1.0, 5), 1e-2
  cond = {"label": jnp.array([0, 1, 2, -1, 0])}
  inputs = [
    (x, t, cond),
    *((x + sign * step * jnp.eye(2)[axis][None], t, cond) for axis in (0, 1) for sign in (1, -1)),
    (x, t + 0.5, cond),
    (x, t, {"label": jnp.array([1, 1, 2, -1, 0])}),
  ]
  stacked = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *inputs)

  @jax.jit
  def both(variables):
    return net.apply(variables, *stacked, method="energy").reshape(7, 5), net.apply(variables, x, t, cond)

  variables = jax.jit(net.init)(jax.random.key(1), x, t, cond)
  np.testing.assert_allclose(both(variables)[0][0], 2.0 * np.sum(np.square(x), 1), rtol=1e-6)
  rng = np.random.default_rng(2)
  values, score = both(
    jax.tree.map(lambda leaf: leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), variables)
  )
  for axis in range(2):
    slope = (values[1 + 2 * axis] - values[2 + 2 * axis]) / (2 * step)
    np.testing.assert_allclose(-score[:, axis], slope, rtol=2e-2, atol=2e-2)
  assert np.abs(values[5] - values[0]).min() > 1e-4
  assert abs(values[6, 0] - values[0, 0]) > 1e-4 and np.abs(values[6, 1:] - values[0, 1:]).max() < 1e-5


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_the_config_of_recovery_likelihood_closes_into_a_loss_with_a_gradient(monkeypatch):
  import pathlib

  from diffusion.config import loading
  from diffusion.run.parts import assembly

  root = pathlib.Path(__file__).parents[2]
  monkeypatch.syspath_prepend(str(root))
  config = loading.load(
    f"{root}/configs/drl/toy2d.py:moons", [("network.width", "16"), ("data.size", "64"), ("loss.steps", "3")]
  )
  parts = assembly.assemble(config)
  params = jax.jit(lambda: assembly.init_network(parts, parts.network, jax.random.key(1)))()[0]
  loss = assembly.loss(parts)
  loss_params, state = loss.init(jax.random.key(0))
  batch = {"x": jax.random.normal(jax.random.key(0), (64, 2))}
  value = lambda params: loss({"model": params, "loss": loss_params}, state, 0, jax.random.key(2), batch)[0]
  gradient = jax.jit(jax.grad(value))(params)
  assert sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(gradient)) > 1e-6
  times = loss.sample_times(0, jax.random.key(0), batch)
  assert len(np.unique(times)) <= 12 and float(times.min()) == np.float32(0.0044)
