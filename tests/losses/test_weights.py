"""Each weight against its formula, on every process, and at the ends."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import losses, processes
from diffusion.losses.weights import noise_scale

# Written in alpha, sigma and their derivatives, straight from the papers.
FORMULAS = {
  "uniform": lambda a, s, da, dv, g2: 1.0 + 0 * a,
  "likelihood": lambda a, s, da, dv, g2: g2 / s**2,
  "snr": lambda a, s, da, dv, g2: s / a,
  "truncated_snr": lambda a, s, da, dv, g2: np.maximum((a / s) ** 2, 1.0) * (s / a) ** 2,
  "min_snr": lambda a, s, da, dv, g2: np.minimum((a / s) ** 2, 5.0) * (s / a) ** 2,
  "edm": lambda a, s, da, dv, g2: ((s / a) ** 2 + 0.25) / (0.5 * s / a) ** 2 * (s / a) ** 2,
  "sigmoid": lambda a, s, da, dv, g2: 1 / (1 + np.exp(np.log((a / s) ** 2) - 2.0)),
  "native_x0": lambda a, s, da, dv, g2: (s / a) ** 2,
  "native_eps": lambda a, s, da, dv, g2: 1.0 + 0 * a,
  "native_score": lambda a, s, da, dv, g2: 1 / s**2,
  "native_v": lambda a, s, da, dv, g2: (a**2 + s**2) ** 2 / a**2,
  "native_velocity": lambda a, s, da, dv, g2: (dv / (2 * s) - s * da / a) ** 2,
}


@pytest.mark.parametrize("process_name", processes.PROCESSES)
def test_weights_are_their_formulas_on_host_and_device(process_name):
  process = processes.PROCESSES[process_name]()
  t = np.linspace(process.t_min, process.t_max, 42)[1:-1]
  m = process.marginal(t)
  numbers = (m.alpha, m.sigma, m.d_alpha, m.d_variance, process.drift_diffusion(t)[1])
  assert set(FORMULAS) == set(losses.WEIGHTS)
  for name, make in losses.WEIGHTS.items():
    weight, expected = make(), FORMULAS[name](*numbers)
    assert weight(process, t).dtype == np.float64
    np.testing.assert_allclose(weight(process, t), expected, rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(
      weight(process, jnp.asarray(t, jnp.float32)), expected, rtol=5e-3, err_msg=name
    )


@pytest.mark.parametrize("process_name", processes.PROCESSES)
def test_the_likelihood_weight_integrates_to_the_range_of_log_snr(process_name):
  """It is -d lambda/dt, so half its integral times a constant error is nats of an ideal code."""
  process = processes.PROCESSES[process_name]()
  t = np.geomspace(max(process.t_min, 1e-3), 0.99 * process.t_max, 20001)
  w = losses.likelihood()(process, t)
  integral = np.sum(0.5 * (w[1:] + w[:-1]) * np.diff(t))
  np.testing.assert_allclose(integral, process.log_snr(t[0]) - process.log_snr(t[-1]), rtol=1e-5)


@pytest.mark.parametrize("process_name", processes.PROCESSES)
def test_weights_and_scales_are_finite_at_both_ends_of_the_process(process_name):
  process = processes.PROCESSES[process_name]()
  ends = jnp.array([0.0, process.t_max])
  for name in ("truncated_snr", "min_snr", "edm", "sigmoid", "snr", "native_x0", "native_v", "native_score"):
    assert np.all(np.isfinite(losses.WEIGHTS[name]()(process, ends))), name
  for view in ("x0", "eps", "score", "v"):
    scale = noise_scale(process, ends, view)
    assert np.all(np.isfinite(scale)), view
    # The native weight undoes the scale exactly, also where either is at its bound.
    np.testing.assert_allclose(losses.native(view)(process, ends) * scale**2, 1.0, rtol=1e-5)


def test_weights_multiply_the_interior_and_not_the_boundary():
  process = processes.edm()
  objective = losses.Objective(
    "toy",
    draw=lambda key, batch, t, state: losses.Draw(t=t),
    place=lambda roles, draw: losses.placed_at(draw, None),
    evaluate=lambda roles, placed, params, state, clock: losses.terms(placed.t, boundary=placed.t),
    process=process,
  )
  weighted = losses.chain(objective, losses.weight_by(losses.snr(-1)))
  terms = weighted({}, losses.Draw(t=jnp.array([1.0, 2.0, 3.0])))
  np.testing.assert_allclose(terms.interior, [1.0, 8.0, 27.0], rtol=1e-5)
  np.testing.assert_allclose(terms.boundary, [1.0, 2.0, 3.0])
