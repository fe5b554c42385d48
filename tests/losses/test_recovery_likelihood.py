"""Diffusion recovery likelihood on Gaussians.

There the law of the negatives, the likelihood and its gradient are known.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, processes

PROCESS = processes.vp_cosine()
TIMES = (0.1, 0.3, 0.55, 0.9)
TABLE = processes.recovery_levels(PROCESS, TIMES)
SIZE = 10_000
MEAN, PRECISION = 0.4, 3.0


def energy(own, x, t, cond=None):
  """In one dimension, with a minimum and a precision for each row, so that one gradient tells of every
  row."""
  del t, cond
  return 0.5 * own["precision"] * jnp.square(x[:, 0] - own["mean"])


def params(size=SIZE, mean=MEAN, precision=PRECISION):
  return {"mean": jnp.full(size, mean), "precision": jnp.full(size, precision)}


def same_rows(objective, level, x=0.9, noise=-0.6):
  """A placed draw whose rows differ in the keys of their chains alone."""
  draw = objective.draw(jax.random.key(5), {"x": jnp.zeros((SIZE, 1))}, jnp.full(SIZE, TIMES[level]), {})
  draw = draw.replace(targets=draw.targets | {"normal": jnp.full((SIZE, 1), noise)})
  return losses.placed_at(draw, jnp.full((SIZE, 1), x))


def gradients(objective, placed, own):
  """The gradient of each row [B], in float64."""

  def total(own):
    roles = losses.roles(model=denoisers.from_functions(energy=energy))({"model": own, "loss": {}}, {})
    return jnp.sum(objective.evaluate(roles, placed, {}, {}, losses.START).interior)

  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.jit(jax.grad(total))(own))


def negatives(objective, placed, own):
  """The ends of the chains [B]: the derivative in the minimum is precision times (end - x_i)."""
  return np.asarray(placed.x_t[:, 0], np.float64) + gradients(objective, placed, own)["mean"] / PRECISION


def noisier(level, x=0.9, noise=-0.6):
  return TABLE.gain[level] * x + TABLE.noise[level] * noise


def recovered(level, mean=MEAN, precision=PRECISION, x=0.9, noise=-0.6):
  """Mean and variance of x_i given x_{i+1}."""
  gain, sigma = TABLE.gain[level], TABLE.noise[level]
  variance = 1.0 / (precision + (gain / sigma) ** 2)
  return variance * (precision * mean + gain * noisier(level, x, noise) / sigma**2), variance


def langevin(level, steps, size):
  """Mean and variance after plain Langevin steps of squared length `size` from the noisy point."""
  centre, variance = recovered(level)
  mean, spread = TABLE.start[level] * noisier(level), 0.0
  shrink = 1.0 - 0.5 * size / variance
  return centre + shrink**steps * (mean - centre), size * sum(
    shrink ** (2 * k) for k in range(steps)
  ) + shrink ** (2 * steps) * spread


def published(level, steps):
  """The same in the convention of arXiv:2012.08125: y = gain x, network f = -step^2 energy, y <- y + step^2/2
  d/dy [...] + step z."""
  gain, sigma = TABLE.gain[level], TABLE.noise[level]
  levels = PROCESS.marginal(np.array(TIMES)).sigma
  step2 = 2e-2 * levels[level] / levels[0] * sigma**2
  mean, variance, noisy = noisier(level), 0.0, noisier(level)
  for _ in range(steps):
    slope = lambda y: (
      -PRECISION * (y / gain - MEAN) / gain - (y - noisy) / sigma**2
    )  # of f / step^2 less the quadratic
    factor = 1.0 + 0.5 * step2 * (slope(1.0) - slope(0.0))
    mean, variance = mean + 0.5 * step2 * slope(mean), factor**2 * variance + step2
  return mean / gain, variance / gain**2


CASES = {
  "from the noisy point, short": (
    dict(steps=5, step=0.4),
    lambda i: langevin(i, 5, TABLE.step[i] * 0.4 / 0.3),
  ),
  "long": (dict(steps=60, step=0.8), lambda i: langevin(i, 60, TABLE.step[i] * 0.8 / 0.3)),
  "long, adjusted": (dict(steps=60, step=0.8, adjusted=True), recovered),
  "published steps": (dict(steps=8, step=processes.published_step(2e-2)), lambda i: published(i, 8)),
  "normal approximation": (
    dict(steps=0, start="gaussian"),
    lambda i: (
      noisier(i) / TABLE.gain[i]
      - (TABLE.noise[i] / TABLE.gain[i]) ** 2 * PRECISION * (noisier(i) / TABLE.gain[i] - MEAN),
      (TABLE.noise[i] / TABLE.gain[i]) ** 2,
    ),
  ),
  "normal approximation, then adjusted": (
    dict(steps=40, step=0.8, adjusted=True, start="gaussian"),
    recovered,
  ),
}

FIRST = ("long, adjusted", "published steps")


@pytest.mark.parametrize(
  "level,name",
  [
    pytest.param(level, name, marks=() if level == 0 and name in FIRST else pytest.mark.slow)
    for level in (0, 1)
    for name in CASES
  ],
)
def test_negatives_have_the_law_of_their_chain(level, name):
  """Mean and variance within 5 standard errors; adjusted chains have that of the recovery posterior
  itself."""
  options, law = CASES[name]
  objective = losses.recovery_likelihood(PROCESS, TIMES, **options)
  ends = negatives(objective, same_rows(objective, level), params())
  mean, variance = law(level)
  assert abs(ends.mean() - mean) < 5 * np.sqrt(variance / SIZE)
  assert abs(ends.var() / variance - 1) < 5 * np.sqrt(2 / SIZE)


def test_the_gradient_is_that_of_the_recovery_log_likelihood():
  """Against the closed form of -log p(x_i | x_{i+1}), away from the truth, within 5 standard errors."""
  objective = losses.recovery_likelihood(PROCESS, TIMES, steps=40, step=0.8, adjusted=True)
  found = gradients(objective, same_rows(objective, 1, 1.5), params())
  with jax.enable_x64(True):

    def likelihood(mean, precision):
      centre, variance = recovered(1, mean, precision, 1.5)
      return 0.5 * (1.5 - centre) ** 2 / variance + 0.5 * jnp.log(variance)

    exact = dict(zip(("mean", "precision"), map(float, jax.grad(likelihood, (0, 1))(MEAN, PRECISION))))
  for name, value in exact.items():
    assert abs(found[name].mean() - value) < 5 * found[name].std() / np.sqrt(SIZE), name
    assert abs(value) > 20 * found[name].std() / np.sqrt(SIZE)


def test_the_bias_of_plain_langevin_is_of_the_order_it_declares():
  """A long chain's variance is off by (h / 4v) / (1 - h / 4v), h the squared step: it halves with the step,
  and a little faster."""
  off = {}
  for step in (0.8, 0.4):
    objective = losses.recovery_likelihood(PROCESS, TIMES, steps=60, step=step)
    assert objective.bias_order == 1
    variance = recovered(1)[1]
    off[step] = negatives(objective, same_rows(objective, 1), params()).var() / variance - 1
    size = TABLE.step[1] * step / 0.3 / variance
    assert abs(off[step] - size / 4 / (1 - size / 4)) < 6 * np.sqrt(2 / SIZE)
  assert 1.6 < off[0.8] / off[0.4] < 3.1


@pytest.mark.slow
def test_the_bias_of_the_normal_approximation_is_of_the_order_it_declares():
  """With s = precision times squared noise the slope in the precision at the truth is off by s^2 (1 - s) / (2
  precision).

  The curvature of the likelihood goes like s, so the minimiser is off by O(s): of order 2 in the noise. 5
  standard errors.
  """
  size, slopes, process = 400_000, [], processes.edm()
  x = jnp.asarray(
    MEAN + np.random.default_rng(0).standard_normal((size, 1)) / np.sqrt(PRECISION), jnp.float32
  )
  for s in (0.2, 0.1):
    objective = losses.recovery_likelihood(
      process, (1.0, float(np.sqrt(1.0 + s / PRECISION))), steps=0, start="gaussian"
    )
    assert objective.bias_order == 2
    draw = objective.draw(jax.random.key(1), {"x": x}, jnp.ones(size), {})
    found = gradients(objective, losses.placed_at(draw, x), params(size))["precision"]
    assert abs(found.mean() - s**2 * (1 - s) / (2 * PRECISION)) < 5 * found.std() / np.sqrt(size)
    slopes.append(found.mean() / s)
  assert 1.4 < slopes[0] / slopes[1] < 2.2


@pytest.mark.parametrize("adjusted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rows_and_their_chains_do_not_meet(adjusted):
  """Rows in another order, or fewer of them, have the same negatives."""
  objective = losses.recovery_likelihood(PROCESS, TIMES, steps=5, adjusted=adjusted)
  t = jnp.linspace(0.1, 0.9, 8)
  draw = objective.draw(jax.random.key(1), {"x": jax.random.normal(jax.random.key(2), (8, 1))}, t, {})
  roles = losses.roles(model=denoisers.from_functions(energy=energy))({"model": params(1), "loss": {}}, {})
  value = jax.jit(lambda draw: objective(roles, draw).interior)
  order = np.array([5, 2, 7, 0, 1, 3, 4, 6])
  rows = jax.tree.map(lambda leaf: leaf[order] if leaf.ndim else leaf, draw)
  np.testing.assert_allclose(value(rows), value(draw)[order], rtol=1e-5, atol=1e-6)


def test_the_sampled_time_chooses_the_level_below_it_and_level_times_gives_each_the_same_share():
  objective = losses.recovery_likelihood(PROCESS, TIMES)
  t = jnp.asarray([0.05, 0.1, 0.29, 0.3, 0.6, 0.95])
  draw = objective.draw(jax.random.key(0), {"x": jnp.zeros((6, 1))}, t, {})
  assert draw.targets["level"].tolist() == [0, 0, 0, 1, 2, 2]
  np.testing.assert_array_equal(draw.t, np.float32(TIMES)[draw.targets["level"]])
  sampler = losses.at_times(
    losses.level_times(TIMES), roles=losses.roles(model=denoisers.from_functions(energy=energy))
  )(objective).sampler
  np.testing.assert_array_equal(sampler.quantile(jnp.asarray([0.1, 0.4, 0.99])), np.float32(TIMES[:3]))
  np.testing.assert_allclose(
    jnp.exp(sampler.log_density(jnp.float32(np.array([TIMES[1], 0.2])))), [1 / 3, 0.0], rtol=1e-6
  )


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: losses.recovery_likelihood(PROCESS, 0), "at least one level"),
    (lambda: losses.recovery_likelihood(PROCESS, (0.5, 0.2)), "ascending times"),
    (lambda: losses.recovery_likelihood(PROCESS, (0.0, 0.2)), "start later than t = 0"),
    (lambda: losses.recovery_likelihood(PROCESS, steps=0), "steps=1 or more"),
    (lambda: losses.recovery_likelihood(PROCESS, step=-1.0), "positive share"),
    (lambda: losses.recovery_likelihood(PROCESS, start="data"), "choose one of noisy, gaussian"),
    (lambda: losses.recovery_likelihood(PROCESS, data_std=0.0), "deviation of the data"),
    (lambda: losses.recovery_likelihood(None), "Gaussian process"),
  ],
)
def test_mistakes_raise_a_sentence(build, words):
  with pytest.raises(ValueError, match=words):
    build()
