"""The measurements of distillation, small.

What they return is what is claimed, and the exact denoiser of the digits is one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes
from experiments.distillation import digits, mixture, students

SMALL = dict(width=8, depth=1, batch=8, updates=2, stage_one=2, stage_two=1, samples=8, fine=2)


@pytest.mark.slow
@pytest.mark.standard_promotion
@pytest.mark.parametrize("config", [mixture, digits])
def test_every_metric_that_is_claimed_is_measured(config, tmp_path, capsys):
  config = config.get_config()
  config.update(SMALL | dict(picture=str(tmp_path / "distillation.png")))
  found = getattr(students, config.measure.rpartition(".")[-1])(config, 0)
  assert {claim["metric"] for claim in config.claim} <= set(found)
  assert (tmp_path / "distillation.png").stat().st_size > 10_000
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 2 + 7 + 2 + 4 + 3 + 3 + 1 + 11 + 1 + 4 and all(line.count("|") == 7 for line in lines)


@pytest.mark.slow
def test_blurred_images_have_the_denoiser_of_their_mixture(x64):
  process = processes.vp_cosine()
  rng = np.random.default_rng(0)
  images, label = rng.normal(size=(6, 2, 2, 1)), np.array([0, 0, 0, 1, 2, 2])
  exact, sample = students.blurred(process, images, label, 0.3)
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
