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
  """A Zipf law of 1,000 values, 5.19 nats: 4.28 in 4,096 steps of default draws, 4.64 with torch's range, and
  nothing at the range of mode="high". Fewer are unmasked, too."""
  values = zipf(1000)
  assert abs(entropy(values) - 5.191) < 1e-3
  for steps, jax_low, torch in ((256, 5.109, 5.150), (1024, 4.887, 5.03), (4096, 4.283, 4.64)):
    law, share = of_values(values, steps, LOW)
    assert abs(entropy(law) - jax_low) < 2e-3 and abs(law.sum() - 1) < 1e-9
    wide, more = of_values(values, steps, -np.log(-np.log1p(-(2.0**-24))))
    assert abs(entropy(wide) - torch) < 6e-3 and share < more < 1
  assert abs(of_values(values, 4096, 32.0)[1] - 1) < 1e-4
  assert abs(entropy(of_values(values, 4096, 32.0)[0]) - entropy(values)) < 1e-3


def unmasked(mode, values, steps, draws, batch):
  """Values that draws of "stay, or which value" gave: counts [K], by `jax.random.categorical`."""
  logits = jnp.log(jnp.asarray(np.append(values / steps, 1 - 1 / steps), jnp.float32))

  def some(counts, key):
    drawn = jax.random.categorical(key, logits, shape=(batch,), mode=mode)
    return counts + jnp.bincount(drawn, length=len(values) + 1)[:-1].astype(jnp.int32), None

  start = jnp.zeros(len(values), jnp.int32)
  run = jax.jit(lambda keys: jax.lax.scan(some, start, keys)[0])
  return np.asarray(run(jax.random.split(jax.random.key(0), draws // batch)))


@pytest.mark.slow
def test_default_draws_miss_values_and_high_ones_do_not():
  """A quarter million draws of 1,000 equal values in 16,384 steps: 16 are to unmask, and by the formula
  default draws unmask a seventh of that; each within 4.5 standard errors, and far from one another."""
  values, steps, draws = np.full(1000, 1e-3), 2**14, 2**18
  found = {}
  for mode, rate in (("low", of_values(values, steps, LOW)[1]), ("high", 1.0)):
    expected = draws / steps * rate
    found[mode] = unmasked(mode, values, steps, draws, 2**12).sum()
    assert abs(found[mode] - expected) < 4.5 * np.sqrt(expected), (mode, found, expected)
  assert found["high"] > 3 * found["low"], found
