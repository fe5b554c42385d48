"""What draws lose where the Gumbel noise of float32 has a largest value.

A step of masked diffusion that draws "stay masked, or which value" at once has one class of probability near
1 and many near p / N, so that a value is drawn only by noise near the largest there is (arXiv:2409.02908,
section 4). Solvers here draw whether and which apart, and with mode="high"."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

LOW = -np.log(-np.log1p(-(2.0**-23)))  # of jax.random.gumbel by default; 2^-24 is torch's


def truncated(probability, largest):
  """The law of argmax(log pi + g) with Gumbel noise g cut off at `largest`: [K] of pi [K].

  Sorted ascending, with S_i the sum of pi_j for j >= i and e = exp(-largest): pi'_k is pi_k times the sum of
  beta_i for i <= k, beta_i = (exp(-S_i e / pi_i) - exp(-S_i e / pi_(i-1))) exp((K - i + 1) e) / S_i.
  """
  order = np.argsort(probability)
  p, e = probability[order], np.exp(-largest)
  rest = np.cumsum(p[::-1])[::-1]
  before = np.concatenate([[0.0], p[:-1]])
  last = np.where(before > 0, np.exp(-rest * e / np.where(before > 0, before, 1.0)), 0.0)
  beta = (np.exp(-rest * e / p) - last) * np.exp((len(p) - np.arange(len(p))) * e) / rest
  out = np.empty_like(p)
  out[order] = p * np.cumsum(beta)
  return out


def zipf(size):
  p = 1.0 / np.arange(1, size + 1)
  return p / p.sum()


def of_values(values, steps, largest):
  """(law of a value that is drawn, probability that one is over 1 / steps) in one of so many equal steps."""
  found = truncated(np.append(values / steps, 1 - 1 / steps), largest)[:-1]
  return found / found.sum(), found.sum() * steps


def entropy(p):
  return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0))


def test_what_float32_noise_loses_by_the_formula():
  """A Zipf law of 1,000 values, 5.19 nats: 4.28 in 4,096 steps of noise that is cut off where JAX's default
  ends, 4.64 where torch's does, and nothing lost at the range of mode="high". Fewer are unmasked, too."""
  values = zipf(1000)
  assert abs(entropy(values) - 5.191) < 1e-3
  for steps, jax_low, torch in ((256, 5.109, 5.150), (1024, 4.887, 5.03), (4096, 4.283, 4.64)):
    law, share = of_values(values, steps, LOW)
    assert abs(entropy(law) - jax_low) < 2e-3 and abs(law.sum() - 1) < 1e-9
    wide, more = of_values(values, steps, -np.log(-np.log1p(-(2.0**-24))))
    assert abs(entropy(wide) - torch) < 6e-3 and share < more < 1
  assert abs(of_values(values, 4096, 32.0)[1] - 1) < 1e-4
  assert abs(entropy(of_values(values, 4096, 32.0)[0]) - entropy(values)) < 1e-3


def atoms():
  """The values of default noise, ascending, equally likely: minus log of minus log of a 23-bit number."""
  uniform = np.arange(2**23, dtype=np.float32) * np.float32(2**-23)
  uniform[0] = np.finfo(np.float32).tiny
  return np.asarray(jax.jit(lambda u: -jnp.log(-jnp.log(u)))(jnp.asarray(uniform)))


def of_default_draws(values, steps, noise):
  """`of_values` by counting atoms of both noises in float32: each value beside staying.

  Two values are over it at once 1 / steps as often, which is left out.
  """
  stay, log_p = noise + np.float32(np.log1p(-1 / steps)), np.log(values / steps).astype(np.float32)
  over = np.zeros(len(values))
  for k, one in enumerate(log_p):
    high = noise[np.searchsorted(noise, np.float32(-4.0) - one) :]  # staying is over -4 but for e^-54
    over[k] = np.searchsorted(stay, high + one).sum(dtype=np.float64) / len(noise) ** 2
  return over / over.sum(), over.sum() * steps


@pytest.mark.slow
def test_what_default_draws_lose_exactly_and_high_ones_do_not():
  """Default noise is on the lattice of `atoms`, of which the largest is 15.94 and holds all the mass above.

  So the loss is real, 5.19 nats become 4.58, and smaller than of noise that is cut off there. Of 2^25 draws
  with mode="high" some are larger, but for a chance of e^-4.
  """
  noise, values = atoms(), zipf(1000)
  some = np.asarray(jax.random.gumbel(jax.random.key(0), (2**16,)))
  assert np.isin(some, noise).all() and abs(noise[-1] - LOW) < 1e-5
  for steps, nats, share in ((1024, 5.025, 0.945), (4096, 4.585, 0.824), (16384, 3.752, 0.642)):
    law, found = of_default_draws(values, steps, noise)
    cut, less = of_values(values, steps, LOW)
    assert abs(entropy(law) - nats) < 1e-3 and abs(found - share) < 1e-3
    assert entropy(cut) < entropy(law) and less < found
  largest = lambda mode: jax.jit(lambda key: jnp.max(jax.random.gumbel(key, (2**25,), mode=mode)))
  assert float(largest("high")(jax.random.key(0))) > noise[-1] >= float(largest("low")(jax.random.key(0)))
