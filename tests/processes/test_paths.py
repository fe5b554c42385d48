"""Paths between two ends: ends, slopes, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import processes

PATHS = {
  "spherical": processes.spherical(),
  "spherical_data": processes.spherical("data", "data"),
  "log_variance": processes.log_variance(),
  "trigonometric": processes.trigonometric(),
  "linear": processes.linear(),
  "bridge": processes.linear(bridge=0.7),
  "linear_to_normal": processes.linear("data", "normal"),
  "vp": processes.from_process(processes.vp_linear()),
}


@pytest.mark.parametrize("name", PATHS)
def test_slopes_are_the_derivatives_of_the_values(name, x64):
  path = PATHS[name]
  t = jnp.linspace(float(path.t_min), float(path.t_max), 9)[1:-1]
  values = lambda t: (lambda b: (b.first, b.second, b.variance, b.first**2, b.second**2))(path.blend(t))
  _, slopes = jax.jvp(values, (t,), (jnp.ones_like(t),))
  b = path.blend(t)
  for given, slope in zip((b.d_first, b.d_second, b.d_variance, b.d_first_square, b.d_second_square), slopes):
    np.testing.assert_allclose(given, slope, rtol=1e-11, atol=1e-13)
  host = path.blend(np.asarray(t))
  np.testing.assert_allclose(host.variance, b.variance, rtol=1e-12, atol=1e-15)


def test_a_path_starts_at_its_first_end_and_arrives_at_its_second():
  x0, x1, eps = (jnp.full((2, 3), value) for value in (2.0, 5.0, 0.1))
  for name in ("spherical_data", "trigonometric", "linear", "bridge"):
    for t, end in ((0.0, x0), (1.0, x1)):
      np.testing.assert_allclose(PATHS[name].corrupt(x0, eps, jnp.full(2, t), x1), end, atol=1e-5)
  np.testing.assert_allclose(PATHS["spherical"].corrupt(None, eps, jnp.zeros(2), x1), eps)
  np.testing.assert_allclose(PATHS["linear_to_normal"].corrupt(x0, eps, jnp.ones(2)), eps)


def test_a_process_and_its_path_are_the_same():
  process = processes.subvp()
  x0, eps, t = jnp.ones((3, 2)), jnp.full((3, 2), 0.5), jnp.array([0.1, 0.5, 1.0])
  np.testing.assert_allclose(
    processes.from_process(process).corrupt(x0, eps, t), process.corrupt(x0, eps, t), rtol=1e-6
  )


def test_log_variance_is_the_spherical_path_in_another_clock(x64):
  u = np.linspace(0.1, 12.0, 7)
  fast, plain = processes.log_variance(), processes.spherical()
  t = np.sqrt(-np.expm1(-u))
  np.testing.assert_allclose(fast.blend(u).variance, plain.blend(t).variance, rtol=1e-9)
  np.testing.assert_allclose(
    fast.blend(u).d_variance, plain.blend(t).d_variance * (np.exp(-u) / (2 * t)), rtol=1e-9
  )


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: processes.spherical("normal", "normal"), "both ends"),
    (lambda: processes.linear("noise", "data"), "'data' or 'normal'"),
    (lambda: processes.linear(bridge=-1.0), "not negative"),
    (lambda: processes.spherical(t_min=1.0), "larger t_max"),
    (lambda: processes.from_process(None), "Gaussian process"),
    (lambda: processes.through(processes.linear(), jnp.log, None), "two functions"),
    (lambda: processes.through(PATHS_THROUGH, jnp.log, jnp.exp), "compose the maps"),
    (lambda: processes.as_path(3.0), "densities that change smoothly"),
  ],
)
def test_what_does_not_fit_raises_a_sentence(build, words):
  with pytest.raises(ValueError, match=words):
    build()


PATHS_THROUGH = processes.through(processes.linear(), jnp.log, jnp.exp)
