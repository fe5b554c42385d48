"""The time-shift sampler."""

import digits_kde
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import guidance, oracles, processes, solvers


def energy_distance(x, y):
  """2 E|X - Y| - E|X - X'| - E|Y - Y'| over all pairs."""
  square = lambda a: jnp.sum(a**2, axis=-1)
  between = lambda a, b: jnp.mean(
    jnp.sqrt(jnp.maximum(square(a)[:, None] + square(b)[None, :] - 2 * a @ b.T, 1e-9))
  )
  return float(2 * between(x, y) - between(x, x) - between(y, y))


@pytest.mark.slow
def test_it_helps_states_with_too_much_noise_and_no_others():
  """The sign of the effect (arXiv:2305.15583): DDIM in 10 steps on digits with a denoiser whose eps is 2% too
  large or too small.

  In energy distance of 1,000 samples to data (its own noise is about 0.001). Epsilon scaling by the same 2%
  is the exact remedy for both.
  """
  process = processes.ddpm_ladder()
  denoiser = digits_kde.denoiser(process)
  points = jnp.asarray(digits_kde.points(), jnp.float32)
  data = points + digits_kde.STD * jax.random.normal(jax.random.key(5), points.shape)
  grid, x = solvers.grids.uniform(process, 10, t_min=0.0), jax.random.normal(jax.random.key(0), (1000, 64))
  run = lambda denoiser, solver: energy_distance(solvers.sample(denoiser, solver, x), data)
  shifts = [
    solvers.time_shift(process, grid, window=w, cutoff=c) for w, c in ((0.02, 0.2), (0.04, 0.2), (0.08, 0.3))
  ]
  true = run(denoiser, solvers.ddim(process, grid))
  for gain in (1.02, 0.98):
    wrong = guidance.epsilon_scaling(1 / gain)(denoiser)
    plain, shifted = run(wrong, solvers.ddim(process, grid)), [run(wrong, solver) for solver in shifts]
    repaired = run(guidance.epsilon_scaling(gain)(wrong), solvers.ddim(process, grid))
    print(
      f"gain {gain}: plain {plain:.4f}, shifted {np.round(shifted, 4)}, scaled {repaired:.4f}, true "
      f"{true:.4f}"
    )
    np.testing.assert_allclose(repaired, true, rtol=0.01)
    if gain > 1:
      assert max(shifted) < plain - 0.001 and shifted == sorted(shifted, reverse=True)
    else:
      assert min(shifted) > plain


@pytest.mark.slow
def test_without_a_window_it_is_ddim_and_the_shift_finds_the_noise(x64):
  process = processes.vp_linear()
  oracle = oracles.gaussian(process, np.zeros(3), 0.05)
  grid = solvers.grids.uniform(process, 6, t_min=0.0)
  x = jax.random.normal(jax.random.key(0), (3, 3), jnp.float64)
  options = dict(dtype=np.float64)
  plain = solvers.sample(oracle, solvers.ddim(process, grid, **options), x)
  for solver in (
    solvers.time_shift(process, grid, window=0.0, cutoff=0.1, **options),
    solvers.time_shift(process, grid, window=0.5, cutoff=1.0, **options),
  ):
    np.testing.assert_allclose(solvers.sample(oracle, solver, x), plain, rtol=1e-9)
  # States that carry the noise of other times, each row its own, are found out: 40,000 entries tell the
  # variance to 0.7%.
  true, scheduled = jnp.asarray([0.2, 0.3, 0.4]), jnp.full(3, 0.3)
  m = process.marginal(true)
  noisy = jnp.sqrt(m.alpha**2 * 0.05 + m.sigma**2)[:, None] * jax.random.normal(
    jax.random.key(1), (3, 40_000)
  )
  solver = solvers.time_shift(
    process, grid, window=0.4, cutoff=0.1, data_variance=0.05, candidates=201, **options
  )
  np.testing.assert_allclose(solver._shift(noisy, scheduled), true, atol=0.02)
  # Within the window only, and one row does not know of another.
  narrow = solver.replace(window=0.1)
  np.testing.assert_allclose(narrow._shift(noisy, scheduled), [0.25, 0.3, 0.35], atol=0.02)
  np.testing.assert_array_equal(
    solver._shift(noisy[1:2], scheduled[:1]), solver._shift(noisy, scheduled)[1:2]
  )


def test_mistakes_are_named():
  process, grid = processes.vp_linear(), np.linspace(1.0, 0.0, 5)
  for options in (
    dict(window=-1.0, cutoff=0.1),
    dict(window=0.1, cutoff=0.0),
    dict(window=0.1, cutoff=0.1, candidates=0),
  ):
    with pytest.raises(ValueError, match="window >= 0, cutoff > 0"):
      solvers.time_shift(process, grid, **options)
  with pytest.raises(ValueError, match="strictly decrease"):
    solvers.time_shift(process, grid[::-1], window=0.1, cutoff=0.1)
