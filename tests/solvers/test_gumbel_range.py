"""What draws lose where the Gumbel noise of float32 has a largest value, and that ours do not lose it.

A step of masked diffusion that draws "stay masked, or which value" at once has one class of probability near
1 and many near p / N, so that a value is drawn only by noise near the largest there is (arXiv:2409.02908,
section 4)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discrete_cases import floor, margin, total_variation
from flax import struct

from diffusion import processes, solvers
from diffusion.denoisers.contract import Prediction, WithoutParameters

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
def test_default_draws_have_the_formulas_law_and_high_ones_the_true_law():
  """Eight million draws of 33 classes in 4,096 steps: the share of the four likeliest values, and of draws
  that unmask, within 4.5 standard errors of the formula by default and of the truth with mode="high"."""
  values, steps, draws = zipf(32), 4096, 2**23
  share = lambda law: law[:4].sum()
  low, some = of_values(values, steps, LOW)
  for mode, law, rate in (("low", low, some), ("high", values, 1.0)):
    counts = unmasked(mode, values, steps, draws, 2**16)
    total = counts.sum()
    expected = draws / steps * rate
    assert abs(total - expected) < 4.5 * np.sqrt(expected), (mode, total, expected)
    error = np.sqrt(share(law) * (1 - share(law)) / total)
    assert abs(counts[:4].sum() / total - share(law)) < 4.5 * error, (mode, counts, share(law))


@pytest.mark.slow
def test_our_steps_lose_nothing_at_4096():
  """Ancestral steps draw whether and which apart: the values of 4,096 samples of one token have the law, by
  total variation within floor and margin; drawing both at once would be out by twice that margin."""
  values, count = zipf(100), 4096

  @struct.dataclass
  class Same(WithoutParameters):
    process = None

    def __call__(self, x, t, cond=None, *, views, key=None, train=False):
      log_p = jnp.log(jnp.asarray(values, jnp.float32))
      return Prediction(logits=jnp.broadcast_to(log_p[None, None], (*x.shape, len(values))))

  process = processes.masked(100, (1,), t_min=0.0)
  solver = solvers.masked_ancestral(process, process.default_grid(4096))
  keys = jax.random.split(jax.random.key(0), count)
  out = solvers.sample(Same(), solver, process.prior(keys, (1,)), keys=keys)
  assert total_variation(out, values) < floor(values, count) + margin(count)
  low, _ = of_values(values, 4096, LOW)
  assert 0.5 * np.abs(low - values).sum() > 2 * margin(count)  # what the other way of drawing would lose
