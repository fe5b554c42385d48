"""One-dimensional Langevin chains, coordinate by coordinate.

Their known bias, and what falling noise is for.
"""

import conditional_families as family
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import autoregressive, processes


def test_every_conditional_has_the_stationary_variance_of_the_step():
  """v / (1 - step / (4 v)) for each conditional variance v: 4096 chains, variances and correlations within
  4.5 standard errors."""
  root = np.linalg.cholesky(family.COVARIANCE)
  step, v = 0.3, np.diag(root) ** 2
  x = jax.jit(
    lambda: autoregressive.langevin_sample(
      family.gaussian(), jax.random.key(0), 4096, (3,), step_size=step, num_steps=40
    )
  )()
  z = np.linalg.solve(
    root, np.asarray(x, np.float64).T - family.MEAN[:, None]
  )  # each row: what its chain made of a unit normal
  expected = 1.0 / (1.0 - step / (4 * v))
  assert np.all(expected > 1.08)  # the bias is what is seen
  left = (1.0 - step / (2 * v)) ** 80  # of the start
  assert np.all(left < 1e-4)
  found = np.cov(z)
  assert np.all(np.abs(np.diag(found) - expected) < 4.5 * expected * np.sqrt(2 / 4096))
  off = found[np.triu_indices(3, 1)] / np.sqrt(np.outer(expected, expected)[np.triu_indices(3, 1)])
  assert np.all(np.abs(off) < 4.5 / 64) and np.all(np.abs(z.mean(1)) < 4.5 * np.sqrt(expected) / 64)


@pytest.mark.slow
def test_falling_noise_finds_the_weights_of_modes_that_plain_chains_do_not():
  """Two normals at distance ten spreads, weights 0.7 and 0.3; plain chains stay where they began, half and
  half.

  4096 chains: 4.5 standard errors, plus 0.015 for the steps' bias and the finite ladder of levels.
  """
  process = processes.edm()
  model = family.mixture(process)
  times = np.geomspace(4.0, 0.02, 12)
  run = lambda t, **more: jax.jit(
    lambda: autoregressive.langevin_sample(
      model, jax.random.key(1), 4096, (1,), t=t, num_steps=100, process=process, **more
    )
  )()
  share = lambda x: float(jnp.mean(x < 0.0))
  error = np.sqrt(0.21 / 4096)
  plain = share(run(0.02, step_size=0.02))
  assert abs(plain - 0.5) < 4.5 * np.sqrt(0.25 / 4096)
  annealed = run(times, step_size=8e-5, start=4.0)
  assert abs(share(annealed) - 0.7) < 4.5 * error + 0.015
  with pytest.raises(ValueError, match="falling times"):
    run(times[::-1], step_size=0.1)


@pytest.mark.parametrize(
  "changes,words",
  [
    (dict(num_steps=0), "num_steps=1 or more"),
    (dict(step_size=0.0), "positive step_size"),
    (dict(t=(1.0, 0.5)), "pass process"),
    (dict(t=(1.0, 0.0), process=processes.edm()), "noise at its last"),
    (dict(n=0), "n=1 or more"),
  ],
)
def test_mistakes_raise_a_sentence(changes, words):
  options = dict(n=2, step_size=0.1, num_steps=1) | changes
  with pytest.raises(ValueError, match=words):
    autoregressive.langevin_sample(family.gaussian(), jax.random.key(0), options.pop("n"), (3,), **options)
