"""What every process promises, for all of them at once: one signature, the law of x_t, its views, its
clock."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import process_cases as cases
import pytest

from diffusion import processes, solvers
from diffusion.solvers.velocity import euler_velocity, heun_velocity

EVERY = pytest.mark.parametrize("name", cases.params(cases.NAMES))
SOLVED = ("linear", "bridge", "linear_to_normal", "trigonometric", "spherical", "path_of_vp", "log_variance")


def case_of(name):
  return cases.cases()[name]


@EVERY
def test_parts_are_there_and_what_it_states_holds(name):
  process = case_of(name).process
  processes.check(process)
  assert process.kind in ("gaussian", "two_ended", "discrete") and process.name and len(process.ends) == 2
  assert jax.tree.structure(process) == jax.tree.structure(jax.tree.map(lambda leaf: leaf, process))


@EVERY
def test_one_signature_for_prior_noise_and_corrupt(name):
  case, keys = case_of(name), jax.random.split(jax.random.key(3), 6)
  process, order = case.process, np.array([4, 0, 5, 1, 3, 2])
  if process.ends[1] == "data":
    with pytest.raises(ValueError, match="second data set"):
      process.prior(keys, case.shape)
    process = process.replace(starts=cases.data(case, 9)[1])
  start = process.prior(keys, case.shape)
  assert start.shape == (6, *case.shape)
  assert start.dtype == (jnp.int32 if case.discrete else jnp.float32)
  np.testing.assert_array_equal(process.prior(keys[order], case.shape), start[order])
  jitted = jax.jit(lambda process, keys: process.prior(keys, case.shape))(process, keys)
  np.testing.assert_allclose(jitted, start, rtol=1e-6)
  x0, x1 = cases.data(case, 6)
  like = x1 if x0 is None else x0
  noise = process.noise(keys, like)
  again = process.noise(keys[order], like)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[order], b), noise, again)
  x_t = process.corrupt(x0, noise, jnp.full(6, cases.times(case)[1], jnp.float32), x1)
  assert (x_t.shape, x_t.dtype) == (like.shape, like.dtype)


@pytest.mark.parametrize("name", cases.CONTINUOUS)
def test_the_law_of_x_t_has_the_moments_of_closed_form(name):
  """Three times: means and covariances within 5 standard errors, 6e-7 an entry, of 20,000 draws."""
  case, n = case_of(name), 20_000
  for t in cases.times(case):
    x = np.asarray(cases.placed(case, n, t)[0], np.float64)
    mean, covariance = cases.moments(case, t)
    scale = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(x.mean(0) - mean) <= 5 * scale / np.sqrt(n))
    spread = np.sqrt((np.outer(scale, scale) ** 2 + covariance**2) / n)
    assert np.all(np.abs(np.cov(x.T) - covariance) <= 5 * spread)


@pytest.mark.parametrize("name", cases.params(name for name in cases.NAMES if name not in cases.CONTINUOUS))
def test_the_law_of_x_t_is_the_table_of_closed_form(name):
  """Three times: Pearson's statistic of 20,000 draws over at most 16 states, above 60 once in 5e6 at 15
  degrees."""
  case, n = case_of(name), 20_000
  for t in cases.times(case):
    x = np.asarray(cases.placed(case, n, t)[0])
    counts = (x[:, None, :] == cases.states(case)[None]).all(2).sum(0)
    expected = n * cases.table_at(case, t)
    assert counts.sum() == n and np.sum((counts - expected) ** 2 / expected) < 60.0


@EVERY
def test_every_view_of_every_kind_agrees_with_the_oracle(name, x64):
  case = case_of(name)
  process = case.process
  for t in cases.times(case):
    if case.discrete:
      x, exact = jnp.asarray(cases.states(case)), cases.exact_views(case, t)
      exact = {view: jnp.asarray(value) for view, value in exact.items() if view in process.views}
    else:
      x = jnp.asarray(
        np.random.default_rng(0).normal(size=(5, 2)) * np.sqrt(np.diag(cases.moments(case, t)[1]))
      )
      views = tuple(view for view in process.views if view != "time_score")
      exact = _answered(cases.oracle(case), x, np.full(5, t), views)
    converted = _converted(process, exact, x, np.full(x.shape[:1], t))
    for kind in exact:
      found = converted[kind]
      assert kind in found and set(found) == {view for view in process.views_of(kind) if view in exact}
      for view in found:
        np.testing.assert_allclose(
          found[view], exact[view], rtol=1e-8, atol=1e-9, err_msg=f"{kind} -> {view}"
        )


@functools.partial(jax.jit, static_argnames="views")
def _answered(oracle, x, t, views):
  return oracle(x, t, views=views).views


@jax.jit
def _converted(process, exact, x, t):
  """{kind: its views}: every kind of output in one program, whatever the time."""
  views = {kind: tuple(view for view in process.views_of(kind) if view in exact) for kind in exact}
  return {kind: process.convert(kind, exact[kind], x, t, views[kind]) for kind in exact}


@EVERY
def test_targets_regress_on_the_views(name):
  """E[(target - view(x_t)) f(x_t)] = 0 for f = 1 and each coordinate: within 5 standard errors of 20,000
  draws."""
  case, n, t = case_of(name), 20_000, cases.times(case_of(name))[1]
  x_t, targets = cases.placed(case, n, t, seed=5)
  assert set(targets) <= set(case.process.views) and targets
  if case.discrete:
    state = np.argmax((np.asarray(x_t)[:, None, :] == cases.states(case)[None]).all(2), axis=1)
    exact = {view: value[state] for view, value in cases.exact_views(case, t).items() if view in targets}
  else:
    exact = _answered(cases.oracle(case), x_t, np.full(n, t, np.float32), tuple(targets))
  features = np.concatenate([np.ones((n, 1)), np.asarray(x_t, np.float64)], 1)
  for view, target in targets.items():
    assert target.shape == exact[view].shape
    error = (np.asarray(target, np.float64) - np.asarray(exact[view], np.float64)).reshape(n, -1)
    product = error[:, :, None] * features[:, None, :]
    bound = 5 * product.std(0) / np.sqrt(n) + 1e-5 * np.abs(np.asarray(target)).max()
    assert np.all(np.abs(product.mean(0)) <= bound), view


@EVERY
def test_the_level_increases_and_is_inverted(name):
  process = case_of(name).process
  t = float(process.t_min) + np.linspace(0.01, 0.99, 33) * (float(process.t_max) - float(process.t_min))
  level = process.level(t)
  assert level.dtype == np.float64 and np.all(np.diff(level) > 0)
  np.testing.assert_allclose(process.t_of_level(level), t, rtol=1e-9, atol=1e-9)
  device = jnp.asarray(t, jnp.float32)
  np.testing.assert_allclose(process.level(device), level, rtol=1e-3)
  np.testing.assert_allclose(process.t_of_level(process.level(device)), t, rtol=3e-3, atol=1e-5)


@EVERY
def test_the_default_grid_runs_from_its_start_towards_data(name):
  process = case_of(name).process
  for n in (1, 2, 9):
    grid = process.default_grid(n)
    assert grid.shape == (n + 1,) and grid.dtype == np.float64
    assert grid[0] == process.t_max and np.all(np.diff(grid) < 0) and grid[-1] <= process.t_min
  with pytest.raises(ValueError, match="whole number of at least 1"):
    process.default_grid(0)


def converges(run, wanted, order):
  """Asserts that run(n) tends to `wanted` with an error of this order in 1/n, from 32, 64 and 128 steps.

  The order p is the multiple of one half that is nearest to the one observed. Richardson's extrapolation
  takes out the leading term. What it leaves falls faster than n^-p, so that one more doubling of n changes it
  by more than 2^p - 1 times what is left then.
  """
  first, second, third = (run(n) for n in (32, 64, 128))
  observed = np.log2(np.abs(second - first).max() / np.abs(third - second).max())
  assert round(2 * observed) / 2 == order, observed
  gain = 2.0**order - 1.0
  coarse, fine = second + (second - first) / gain, third + (third - second) / gain
  assert np.abs(fine - wanted).max() < np.abs(fine - coarse).max() / gain


def transported(case, solver, mean, covariance):
  """Moments of what a solver of an affine flow makes of N(mean, covariance), exact, from three points: the
  mean, above the covariance."""
  points = np.concatenate([np.zeros((1, 2)), np.eye(2)])
  ends = np.asarray(solvers.sample(cases.oracle(case), solver, jnp.asarray(points)), np.float64)
  matrix = (ends[1:] - ends[0]).T
  return np.vstack([ends[0] + matrix @ mean, matrix @ covariance @ matrix.T])


@pytest.mark.parametrize("name", processes.PROCESSES)
def test_solving_a_gaussian_process_along_its_grid_reaches_the_data(name, x64):
  """DDIM converges with order 1 to where the flow of Gaussian data carries the prior.

  That flow scales each eigenvector of the covariance by the quotient of the standard deviations of x_t. Out
  of pure noise the grid's first step always leads to one level, where its result is N(alpha m, sigma^2 I):
  there the flow starts.
  """
  case = case_of(name)
  process, (mean, covariance) = case.process, cases.FIRST
  prior = np.zeros(2), float(process.prior_std) ** 2 * np.eye(2)

  def run(n):
    return transported(case, solvers.ddim(process, process.default_grid(n), dtype=np.float64), *prior)

  start, stop = (process.marginal(t) for t in process.default_grid(8)[[0, -1]])
  begun = prior
  if start.alpha == 0:
    start = process.marginal(process.default_grid(8)[1])
    begun = start.alpha * mean, start.sigma**2 * np.eye(2)
  variances, axes = np.linalg.eigh(covariance)
  spread = lambda m: np.sqrt(m.alpha**2 * variances + m.sigma**2)
  flow = axes @ np.diag(spread(stop) / spread(start)) @ axes.T
  carried = stop.alpha * mean + flow @ (begun[0] - start.alpha * mean)
  converges(run, np.vstack([carried, flow @ begun[1] @ flow.T]), 1)


@pytest.mark.parametrize("name", SOLVED)
def test_following_the_velocity_carries_one_end_to_the_other(name, x64):
  """Euler's moments converge with order 1 and Heun's with order 2 to those of p_0."""
  case = case_of(name)
  process = case.process
  start, wanted = (cases.moments(case, float(t)) for t in (process.t_max, process.t_min))

  def run(builder, n):
    return transported(case, builder(process, process.default_grid(n), dtype=np.float64), *start)

  if name == "log_variance":
    # x_1 enters like the root of t: Euler's last step, from t = h, takes h / (2 sqrt(h)) of its sqrt(h) away.
    # So much is left of its mean, and the square of it of its covariance. Its clock runs up to 20.
    converges(lambda n: run(euler_velocity, 20 * n)[0], wanted[0], 0.5)
    converges(lambda n: run(euler_velocity, 20 * n)[1:], wanted[1], 1)
    return
  converges(functools.partial(run, euler_velocity), np.vstack(wanted), 1)
  converges(functools.partial(run, heun_velocity), np.vstack(wanted), 2)


@pytest.mark.parametrize("name", processes.MASKED)
def test_unmasking_along_the_grid_reaches_the_data(name):
  """Ancestral steps of a masked process (arXiv:2406.07524, eq. 6), as a chain of laws over all states.

  Each step fills each mask on its own with probability (alpha_s - alpha_t) / (1 - alpha_t), so that two
  filled in one step are independent: an error of order 1/n.
  """
  case = case_of(name)
  x = cases.states(case)
  masks = case.process.mask

  def run(n):
    law = np.all(x == masks, axis=1).astype(float)
    grid = case.process.default_grid(n)
    for t, s in itertools.pairwise(grid):
      now, then = (float(case.process.clock(u).alpha) for u in (t, s))
      fill = (then - now) / (1.0 - now)
      p = cases.exact_views(case, max(t, 1e-6) * (1 - 1e-9))["probabilities"]
      step = np.ones((len(x), len(x)))
      for d in range(2):
        for i, old in enumerate(x[:, d]):
          filled = np.append(fill * p[i, d], 1.0 - fill) if old == masks else np.eye(masks + 1)[old]
          step[i] *= filled[x[:, d]]
      law = law @ step
    clean = law.reshape(masks + 1, masks + 1)[:masks, :masks]
    np.testing.assert_allclose(clean.sum(), 1.0, atol=1e-9)
    return clean

  converges(run, case.table, 1)


def test_what_does_not_fit_raises_a_sentence():
  linear, masked = processes.linear(), processes.masked(3, (2,))
  for call, words in (
    (lambda: linear.views_of("logits"), "converts outputs of kind velocity, x0, x1, score, time_score"),
    (lambda: processes.edm().views_of("logits"), "choose a parameterisation"),
    (lambda: masked.views_of("x0"), "kind logits, probabilities"),
    (lambda: processes.uniform_resample(3).views_of("x0"), "kind logits"),
    (
      lambda: masked.convert(
        "logits", jnp.zeros((1, 2, 4)), jnp.zeros((1, 2), int), jnp.ones(1), ("logits",)
      ),
      "give the network as many outputs",
    ),
    (lambda: masked.prior(jax.random.split(jax.random.key(0), 2), (3,)), "states of shape"),
    (lambda: processes.masked(1, (2,)), "two or more values"),
    (lambda: processes.masked(3, (2,), t_min=1.0), "larger t_max"),
    (
      lambda: linear.replace(starts=jnp.zeros((4, 3))).prior(jax.random.split(jax.random.key(0), 2), (2,)),
      "ask for its own",
    ),
    (lambda: euler_velocity(masked, [1.0, 0.0]), "has none: its views are"),
    (lambda: heun_velocity(linear, [0.0, 1.0]), "decreasing times"),
  ):
    with pytest.raises(ValueError, match=words):
      call()
