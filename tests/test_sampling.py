"""Sample i depends on (seed, i) alone, whatever is drawn around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, guidance, networks, processes, sampling, solvers
from diffusion.config.errors import UserError
from diffusion.run import sharding

SHAPE = (4, 4, 1)


@pytest.fixture(scope="module")
def denoiser():
  """A small random network with classes, so that rows can differ by matrix products as well as by noise."""
  module = networks.MLP(width=32, depth=1, num_classes=10)
  x, t = jnp.zeros((2, *SHAPE)), jnp.zeros(2)
  params = module.init(jax.random.key(0), x, t, {"label": jnp.zeros(2, jnp.int32)})["params"]
  # The last layers start at zero; random ones make the samples depend on everything.
  leaves, tree = jax.tree.flatten(params)
  leaves = [
    leaf + 0.2 * jax.random.normal(jax.random.fold_in(jax.random.key(1), i), leaf.shape)
    for i, leaf in enumerate(leaves)
  ]
  return denoisers.from_flax(module, processes.edm(), denoisers.edm(), jax.tree.unflatten(tree, leaves))


def draw(denoiser, num, name="dpmpp_2m_sde", **options):
  solver = solvers.build(name, denoiser.process, 6)
  guided = guidance.classifier_free(1.0)(denoiser)
  return sampling.generate(guided, solver, SHAPE, num, labels=lambda i: i % 10, **options)


@pytest.mark.parametrize("name", ["heun", "predictor_corrector"])
def test_any_part_of_the_sequence_is_the_same_bit_for_bit(denoiser, name):
  whole = draw(denoiser, 64, name, batch=16, seed=3)
  part = draw(denoiser, 8, name, batch=16, seed=3, first=8)
  np.testing.assert_array_equal(whole.x[8:16], part.x)
  np.testing.assert_array_equal(whole.labels[8:16], part.labels)
  odd = draw(denoiser, 5, name, batch=16, seed=3, first=59)
  np.testing.assert_array_equal(whole.x[59:], odd.x)
  assert np.abs(whole.x[:8] - whole.x[10:18]).min() > 0


@pytest.mark.parametrize("name", ["dpmpp_2m_sde"])
def test_batch_size_and_device_count_change_only_the_rounding(denoiser, name):
  reference = draw(denoiser, 24, name, batch=24).x
  assert np.abs(reference).max() > 0.1
  for batch in (7,):
    np.testing.assert_allclose(draw(denoiser, 24, name, batch=batch).x, reference, atol=1e-4)
  for count in (8,):
    mesh = sharding.make_mesh(devices=jax.devices()[:count])
    place = lambda array: jax.device_put(array, sharding.batch_sharding(mesh))
    spread = jax.device_put(denoiser, sharding.replicated(mesh))
    x = draw(spread, 24, name, batch=24, place=place).x
    np.testing.assert_allclose(x, reference, atol=1e-4)


def test_seeds_differ_and_cost_is_counted(denoiser):
  a, b = draw(denoiser, 4, batch=4, seed=0), draw(denoiser, 4, batch=4, seed=1)
  assert np.abs(a.x - b.x).max() > 0.1
  assert (a.nfe, a.forward_passes) == (6, 12)
  plain = sampling.generate(
    denoiser, solvers.build("heun", denoiser.process, 6), SHAPE, 2, labels=lambda i: i % 10, batch=2
  )
  assert (plain.nfe, plain.forward_passes) == (11, 11)


def test_new_seeds_classes_and_weights_do_not_retrace():
  traces = []

  def network(params, x, t, cond):
    traces.append(1)
    return params * x + processes.expand(cond["label"].astype(x.dtype), x)

  process = processes.edm()
  for number, params in enumerate((0.1, 0.2, 0.3)):
    # Another table of the same length as well.
    solver = solvers.build("dpmpp_2m", process, 5, grid="karras" if number else "log_snr")
    denoiser = guidance.classifier_free(0.5 * number)(
      denoisers.from_function(network, process, denoisers.edm(), jnp.float32(params))
    )
    sampling.generate(denoiser, solver, (2,), 6, seed=number, labels=lambda i: (i + number) % 3, batch=4)
    if number == 0:
      first = len(traces)
  assert len(traces) == first


def test_progress_and_errors(denoiser):
  seen = []
  draw(denoiser, 10, batch=4, progress=seen.append)
  assert seen == [4, 4, 2]
  with pytest.raises(ValueError, match="at least 1"):
    draw(denoiser, 0)


def test_a_sample_that_is_not_finite_is_said():
  process = processes.edm()
  blown = denoisers.from_function(
    lambda params, x, t, cond: jnp.where(x > 40, jnp.nan, x), process, denoisers.x0()
  )
  with pytest.raises(
    UserError,
    match=r"samples are not finite, the first of them sample \d+ of seed 7 .*dpmpp_2m.*: take more steps",
  ):
    sampling.generate(blown, solvers.build("dpmpp_2m", process, 4), (2,), 8, seed=7, batch=4)


def test_an_adaptive_solver_reports_the_mean_of_its_calls():
  process = processes.vp_linear()
  # Of N(0, 1), the noise predicted is sigma x.
  denoiser = denoisers.from_function(
    lambda params, x, t, cond: process.marginal(t).sigma[:, None] * x, process, denoisers.eps()
  )
  solver = solvers.dpm_solver_adaptive(process, rtol=0.05, atol=0.01)
  found = sampling.generate(
    guidance.classifier_free(1.0)(denoiser), solver, (2,), 6, labels=lambda i: i % 2, batch=4
  )
  assert found.x.shape == (6, 2) and 2 < found.nfe < 200
  assert found.forward_passes == 2 * found.nfe
