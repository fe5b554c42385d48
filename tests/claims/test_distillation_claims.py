"""The measurements of distillation, small.

What they return is what is claimed, and the exact denoiser of the digits is one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.distillation import digits, mixture
from diffusion import denoisers, losses, oracles, processes
from diffusion.claims import distillation, halving

SMALL = dict(width=8, depth=1, batch=8, updates=2, stage_one=2, stage_two=1, samples=8, fine=2)


@pytest.mark.slow
@pytest.mark.standard_promotion
@pytest.mark.parametrize("config", [mixture, digits])
def test_every_metric_that_is_claimed_is_measured(config, tmp_path, capsys):
  config = config.get_config()
  config.update(SMALL | dict(picture=str(tmp_path / "distillation.png")))
  found = getattr(distillation, config.measure.rpartition(".")[-1])(config, 0)
  assert {claim["metric"] for claim in config.claim} <= set(found)
  assert (tmp_path / "distillation.png").stat().st_size > 10_000
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 2 + 7 + 2 + 4 + 3 + 3 + 1 + 11 + 1 + 4 and all(line.count("|") == 7 for line in lines)


@pytest.mark.slow
def test_blurred_images_have_the_denoiser_of_their_mixture(x64):
  process = processes.vp_cosine()
  rng = np.random.default_rng(0)
  images, label = rng.normal(size=(6, 2, 2, 1)), np.array([0, 0, 0, 1, 2, 2])
  exact, sample = distillation.blurred(process, images, label, 0.3)
  mixed = oracles.gaussian_mixture(
    process, [1 / 3, 1 / 3, 1 / 3, 1, 1 / 2, 1 / 2], images, 0.09, labels=label
  )
  call = jax.jit(lambda model, cond: model(x, t, cond).x0)
  x, t = jnp.asarray(rng.normal(size=(5, 2, 2, 1))), jnp.asarray([1e-3, 0.2, 0.5, 0.9, 1.0])
  for cond in (None, {"label": jnp.asarray([0, 1, 2, -1, 0])}):
    np.testing.assert_allclose(call(exact, cond), call(mixed, cond), rtol=1e-5, atol=1e-6)
  # Mean and variance of the second class, of one image, within 5 standard errors of each of the four pixels.
  drawn = np.asarray(sample(jax.random.key(0), jnp.full(4000, 1))) - images[3]
  assert np.abs(drawn.mean(0)).max() < 5 * 0.3 / np.sqrt(4000) and np.abs(
    drawn.var(0) / 0.09 - 1
  ).max() < 5 * np.sqrt(2 / 4000)


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_halving_learns_the_flow_of_a_point():
  """For data at one point every step's target is that point: students of any number of steps stay at a
  network that says it."""
  process = processes.vp_cosine()
  template = denoisers.from_function(
    lambda own, x, t, cond: jnp.broadcast_to(own[None], x.shape), process, denoisers.x0()
  )
  close = lambda steps: losses.chain(
    losses.progressive_distillation(process, steps),
    losses.at_times(losses.step_times(steps), fields=losses.fields(model=template, teacher=template)),
  )
  traces = []

  def batches(key):
    traces.append(1)
    return {"x": jnp.full((4, 2), 0.5)}

  learn = halving.learner(close, 0.1, 20, batches)
  students = halving.halve(
    learn, jnp.asarray([0.5, -0.5]), process, np.linspace(1.0, 0.0, 9), jax.random.key(0), stochastic=(2,)
  )
  assert sorted(students.ddim) == [1, 2, 4] and sorted(students.double_step) == [2]
  for params in (*students.ddim.values(), *students.double_step.values()):
    np.testing.assert_allclose(params, [0.5, -0.5], atol=1e-6)
  assert len(traces) == 1  # one program for all stages
  moved, errors = learn(
    jnp.asarray([0.3, 0.0]),
    halving.repeated(losses.student_steps(process, [1.0, 0.5, 0.0]), 8),
    jax.random.key(1),
  )
  np.testing.assert_allclose(moved, [0.3, 0.0], atol=1e-6)
  assert float(errors.max()) < 1e-10 and len(traces) == 1
