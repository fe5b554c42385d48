"""One executor for every chain: what a chain depends on, what is kept, and what raises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffusion import mcmc


@struct.dataclass
class Position:
  x: jax.Array


@struct.dataclass
class Walk:
  """A random walk that reports the step it made."""

  scale: jax.Array

  def init(self, x):
    return Position(x)

  def step(self, state, keys):
    step = self.scale * jax.vmap(lambda key: jax.random.normal(key, state.x.shape[1:]))(keys)
    return Position(state.x + step), {"step": step[:, 0], "up": step[:, 0] > 0}


WALK, KEYS = Walk(jnp.float32(0.5)), jax.random.split(jax.random.key(1), 6)


def test_kept_positions_are_those_of_every_step_and_info_is_their_mean():
  x = jnp.arange(12.0).reshape(6, 2)
  every, some, none = (mcmc.run(WALK, x, KEYS, 12, thin=thin) for thin in (1, 4, None))
  np.testing.assert_array_equal(some.samples, every.samples[3::4])
  np.testing.assert_array_equal(every.samples[-1], every.x)
  np.testing.assert_array_equal(none.x, every.x)
  assert none.samples is None
  steps = np.diff(np.concatenate([x[None], every.samples])[:, :, 0], axis=0)
  np.testing.assert_allclose(none.info["step"], steps.mean(0), atol=1e-6)
  np.testing.assert_allclose(none.info["up"], (steps > 0).mean(0), rtol=1e-6)


def test_a_chain_depends_on_its_own_key_alone_and_goes_on_where_it_stopped():
  x = jnp.zeros((6, 2))
  whole = mcmc.run(WALK, x, KEYS, 12)
  np.testing.assert_array_equal(mcmc.run(WALK, x[2:4], KEYS[2:4], 12).x, whole.x[2:4])
  half = mcmc.run(WALK, x, KEYS, 6)
  np.testing.assert_array_equal(mcmc.run(WALK, half.x, KEYS, 6, first=6).x, whole.x)
  one = jax.random.key(7)
  np.testing.assert_array_equal(mcmc.run(WALK, x, one, 12).x[:3], mcmc.run(WALK, x[:3], one, 12).x)
  assert len(np.unique(whole.x)) == 12


def test_another_step_size_is_the_same_program():
  traces = []

  @struct.dataclass
  class Counted(Walk):
    def step(self, state, keys):
      traces.append(1)
      return Walk.step(self, state, keys)

  seen = None
  for scale in (0.1, 0.2, 0.3):
    mcmc.run(Counted(jnp.float32(scale)), jnp.zeros((2, 1)), jax.random.key(0), 5)
    seen = len(traces) if scale == 0.1 else seen
  assert len(traces) == seen


@pytest.mark.parametrize(
  "arguments,error,words",
  [
    (dict(num_steps=0), ValueError, "num_steps=1 or more"),
    (dict(num_steps=10, thin=3), ValueError, "take 9 steps"),
    (dict(num_steps=10, keys=KEYS[:2]), ValueError, "one key a chain"),
    (dict(num_steps=10, keys=jnp.zeros(6)), TypeError, "typed keys"),
    (dict(num_steps=10, kernel=jnp.sin), TypeError, "a kernel has init"),
    (dict(num_steps=10, x=0.0, keys=jax.random.key(0)), ValueError, "one row a chain"),
  ],
)
def test_mistakes_raise_a_sentence(arguments, error, words):
  with pytest.raises(error, match=words):
    mcmc.run(**{"kernel": WALK, "x": jnp.zeros((6, 2)), "keys": KEYS, **arguments})
