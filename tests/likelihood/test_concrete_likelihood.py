"""Probabilities from a concrete score: exact where the score is, and least squares where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import likelihood, oracles, processes
from diffusion.processes import neighbourhoods

SIZES = (3, 2, 3)
JOINT = np.random.default_rng(0).dirichlet(np.full(18, 0.7)).reshape(SIZES)
STATES = np.array(list(np.ndindex(SIZES)), np.int32)


def true_table(of, p):
  """The concrete score of every state, nonsense where there is no neighbour."""
  y, exists = map(np.asarray, jax.jit(of.neighbours)(STATES))
  flat = np.ravel_multi_index(np.moveaxis(y, 2, 0), SIZES)
  return np.where(exists, p.reshape(-1)[flat] / p.reshape(-1)[:, None] - 1.0, -5.0)


@pytest.mark.parametrize("wrap", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_all_states_from_exact_ratios(wrap):
  of = neighbourhoods.grid(SIZES, (1,), wrap=wrap)
  np.testing.assert_allclose(
    np.exp(likelihood.log_prob_of_states(true_table(of, JOINT), of)), JOINT.reshape(-1), rtol=1e-9
  )


def test_wrong_ratios_of_rare_states_do_not_spoil_the_rest():
  """A circle of nine with a gap in it, whose ratios in the gap are off by a factor of 20: the two sides still
  close the other way round."""
  p = np.array([3.0, 5.0, 2.0, 1e-6, 1e-6, 1e-6, 2.0, 4.0, 1.0])
  p /= p.sum()
  c = np.roll(p, -1) / p - 1.0
  c[3] = 20.0 * (1.0 + c[3]) - 1.0
  found = np.exp(likelihood.log_prob_of_states(c[:, None], neighbourhoods.cycle(9)))
  np.testing.assert_allclose(found[p > 0.01], p[p > 0.01], rtol=2e-3)


class Jumps:
  """The oracle's concrete score for moves to every other value, x_d + 1 first."""

  def __init__(self, oracle, of):
    self.oracle, self.of = oracle, of

  def __call__(self, x, t, cond=None):
    values, _ = self.of.values(x)
    every = self.oracle.concrete(x, t)[:, np.asarray(self.of.coordinate)]
    return jnp.take_along_axis(every, values[:, :, None], axis=2)[:, :, 0]


def test_following_the_noise_gives_the_oracles_log_prob(x64):
  """Every state; the error of the quadrature falls with the nodes."""
  oracle = oracles.uniform_resample_categorical(JOINT)
  of = neighbourhoods.build(
    np.array(SIZES), lambda size: [np.roll(np.arange(size), -step) for step in range(1, size)], "jumps"
  )
  concrete, process = Jumps(oracle, of), processes.uniform_resample(SIZES)
  log_prob = jax.jit(
    lambda x, nodes: likelihood.annealed_log_prob(concrete, process, of, x, 0.02, nodes=nodes),
    static_argnums=1,
  )
  expected = np.asarray(oracle.log_prob(jnp.asarray(STATES), jnp.full(18, 0.02)))
  few, many = (np.abs(np.asarray(log_prob(jnp.asarray(STATES), nodes)) - expected).max() for nodes in (4, 24))
  assert many < 1e-6 and many < 0.01 * few


@pytest.mark.parametrize(
  "call,words",
  [
    (
      lambda: likelihood.log_prob_of_states(np.zeros((4, 2)), neighbourhoods.cycle(4)),
      "has 4 states with 1 neighbours each",
    ),
    (
      lambda: likelihood.annealed_log_prob(
        None, processes.uniform_resample(4), neighbourhoods.cycle(4), jnp.zeros((1, 1), int)
      ),
      r"range\(1, K\)",
    ),
    (
      lambda: likelihood.annealed_log_prob(
        None, processes.uniform_resample(2, t_max=0.5), neighbourhoods.cycle(2), jnp.zeros((1, 1), int)
      ),
      "take a process with b = 1 there",
    ),
    (
      lambda: likelihood.annealed_log_prob(
        None, processes.uniform_resample(2), neighbourhoods.cycle(2), jnp.zeros((1, 1), int), 1.0
      ),
      "t lies between",
    ),
  ],
)
def test_mistakes_raise_a_sentence(call, words):
  with pytest.raises(ValueError, match=words):
    call()
