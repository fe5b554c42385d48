"""The spacings that are known by a name elsewhere, against what defines them."""

import numpy as np
import pytest

from diffusion import processes, solvers
from diffusion.solvers import grids

FLOW = processes.rectified_flow()


def test_beta_steps_are_equal_in_its_distribution_function():
  """Beta(1/2, 1/2) is the arcsine law, whose quantiles are sin^2(pi q / 2); Beta(1, 1) is even."""
  q = np.linspace(1, 0, 13)
  arcsine = grids.beta(FLOW, 12, t_min=0.0, first=0.5, second=0.5)
  np.testing.assert_allclose(arcsine, np.sin(np.pi * q / 2) ** 2, atol=1e-12)
  np.testing.assert_allclose(grids.beta(FLOW, 12, t_min=0.0, first=1.0, second=1.0), q, atol=1e-12)
  # Beta(1/2, 1) has the distribution function sqrt(x), and Beta(a, b) of x is 1 - Beta(b, a) of 1 - x.
  np.testing.assert_allclose(grids.beta(FLOW, 12, t_min=0.0, first=0.5, second=1.0), q**2, atol=1e-12)
  turned = 1 - grids.beta(FLOW, 12, t_min=0.0, first=0.7, second=0.5)[::-1]
  np.testing.assert_allclose(grids.beta57(FLOW, 12, t_min=0.0), turned, atol=1e-12)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", processes.PROCESSES)
def test_a_shift_multiplies_noise_levels(name, shift):
  """Divided by the shift, the noise levels are even in the flow's time."""
  process = processes.PROCESSES[name]()
  t = grids.flow_shift(process, 12, shift=shift)
  with np.errstate(divide="ignore", invalid="ignore"):
    level = process.marginal(t).noise_to_signal / shift
    flow_time = np.where(np.isinf(level), 1.0, level / (1 + level))
  np.testing.assert_allclose(np.diff(flow_time, 2), 0, atol=1e-9)


def test_a_dynamic_shift_is_the_shift_of_so_many_tokens():
  """e^0.5 at 256 tokens, e^1.15 at 4,096, geometric between."""
  shifts = [np.exp(0.5), np.exp(0.825), np.exp(1.15)]
  for tokens, shift in zip((256, 2176, 4096), shifts):
    expected = grids.flow_shift(FLOW, 9, t_min=0.0, shift=float(shift))
    np.testing.assert_allclose(grids.dynamic_shift(FLOW, 9, t_min=0.0, tokens=tokens), expected, rtol=1e-12)


@pytest.mark.parametrize("n", [2, 9, 10, 64])
def test_linear_quadratic_is_even_and_then_quadratic_with_one_slope(n):
  """These conditions leave one schedule: it takes `threshold` in n // 2 even steps, and the rest is the
  parabola that goes on with the same slope and ends at the data."""
  done, even, threshold = 1 - grids.linear_quadratic(FLOW, n, t_min=0.0), n // 2, 0.025
  np.testing.assert_allclose(done[: even + 1], threshold * np.arange(even + 1) / even, atol=1e-12)
  i = np.arange(n - even + 1)
  curve = (1 - threshold - threshold / even * i[-1]) / i[-1] ** 2
  np.testing.assert_allclose(done[even:], threshold + threshold / even * i + curve * i**2, atol=1e-12)


def test_exponential_is_even_in_the_logarithm_of_the_noise_level():
  level = processes.edm().marginal(solvers.GRIDS["exponential"](processes.edm(), 9)).sigma
  np.testing.assert_allclose(np.diff(np.log(level), 2), 0, atol=1e-9)


@pytest.mark.parametrize(
  "grid, options, said",
  [
    ("beta", dict(first=0.0), "positive"),
    ("flow_shift", dict(shift=-1.0), "positive"),
    ("dynamic_shift", dict(tokens=0), "one token or more"),
    ("linear_quadratic", dict(threshold=0.6), "share of the interval"),
  ],
)
def test_bad_options_are_refused(grid, options, said):
  with pytest.raises(ValueError, match=said):
    solvers.GRIDS[grid](FLOW, 4, **options)
