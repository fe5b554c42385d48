"""The checker of processes: silent on what is right, one sentence on each thing that is wrong."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffusion import processes
from diffusion.processes.base import GaussianProcess, Marginal
from diffusion.processes.paths import Linear


@struct.dataclass
class Straight:
  """alpha = 1 - t, sigma = t, each part to be spoilt."""

  d_alpha: float = -1.0
  d_variance: float = 2.0
  sign: float = 1.0
  shift: float = 0.0

  def __call__(self, t):
    # Written for the device alone, as one's own schedules are.
    t = jnp.asarray(t) if self.sign > 0 else 1.0 - jnp.asarray(t)
    one = jnp.ones_like(t)
    return Marginal(
      1.0 - t, t, self.d_alpha * self.sign * one, self.sign * one, self.d_variance * self.sign * t
    )

  def t_of_log_snr(self, log_snr):
    rho = jnp.exp(-0.5 * jnp.asarray(log_snr))
    return rho / (1.0 + rho) + self.shift


@struct.dataclass
class WrongLinear(Linear):
  """The slope of the variance as if it were a bridge of twice the height."""

  def __call__(self, t):
    blend = super().__call__(t)
    return blend.replace(d_variance=2.0 * blend.d_variance)


@pytest.mark.parametrize("name", processes.LADDERS)
def test_ladders_pass_though_their_slopes_jump(name):
  processes.check(processes.LADDERS[name]())


def test_a_right_schedule_of_ones_own_passes():
  processes.check(GaussianProcess(Straight(), 0.01, 0.99, 1.0, name="own"))
  processes.check(GaussianProcess(Straight(jnp.float32(-1.0)), 0.01, 0.99, 1.0, name="own"))


@pytest.mark.parametrize(
  "schedule,words",
  [
    (
      Straight(d_alpha=1.0),
      "states that alpha changes by 1 a unit of time at t = .*, where it changes by -1",
    ),
    (Straight(d_variance=1.0), "states that sigma\\^2 changes by"),
    (Straight(sign=-1.0), "the level of 'own' increases in t, but goes from"),
    (Straight(shift=0.01), "t_of_level of 'own' leads from the level at t = .* make it the inverse"),
  ],
)
def test_a_wrong_gaussian_schedule_is_named(schedule, words):
  with pytest.raises(ValueError, match=words):
    processes.check(GaussianProcess(schedule, 0.01, 0.99, 1.0, name="own"))


def test_a_wrong_path_and_what_is_no_process_are_named():
  path = processes.linear(bridge=0.5)
  processes.check(path)
  with pytest.raises(ValueError, match="'linear' states that variance changes by"):
    processes.check(path.replace(schedule=WrongLinear(0.5)))
  with pytest.raises(TypeError, match="float has no name, kind"):
    processes.check(np.float64(3.0).item())
  with pytest.raises(ValueError, match="larger t_max"):
    processes.check(processes.edm().replace(t_max=0.001))
