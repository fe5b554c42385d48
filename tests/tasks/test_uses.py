"""Translation, editing and classification by a denoiser, where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import likelihood, oracles, processes, solvers, tasks


def two_gaussians(name="vp_cosine"):
  process = processes.PROCESSES[name]()
  return (
    process,
    oracles.gaussian(process, [1.0, -0.5], [4.0, 0.25]),
    oracles.gaussian(process, [-2.0, 0.3], [0.1, 1.0]),
  )


def test_gaussians_are_translated_by_their_affine_map(x64):
  """Each flow is x -> alpha' m + sqrt(v'/v) (x - alpha m) with v = alpha^2 s^2 + sigma^2 of either end."""
  process, first, second = two_gaussians()
  x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
  ends = {"t_min": 0.01, "t_max": 0.95}
  low, high = (process.marginal(np.float64(ends[name])) for name in ("t_min", "t_max"))
  encoded = np.asarray(x)
  found = likelihood.decode(second, likelihood.encode(first, x, num_steps=64, **ends), num_steps=64, **ends)
  for mean, variance, (a, b) in (
    ([1.0, -0.5], [4.0, 0.25], (low, high)),
    ([-2.0, 0.3], [0.1, 1.0], (high, low)),
  ):
    v = lambda m: m.alpha**2 * np.array(variance) + m.sigma**2
    encoded = b.alpha * np.array(mean) + np.sqrt(v(b) / v(a)) * (encoded - a.alpha * np.array(mean))
  np.testing.assert_allclose(found, encoded, atol=1e-6)
  # The default ends: nearly the map between the data themselves.
  whole = tasks.translate(first, second, x)
  np.testing.assert_allclose(
    whole.x,
    np.array([-2.0, 0.3])
    + np.sqrt(np.array([0.1, 1.0]) / np.array([4.0, 0.25])) * (np.asarray(x) - np.array([1.0, -0.5])),
    atol=0.05,
  )


def cycle_error(first, second, x, process, n):
  grid = solvers.grids.log_snr(process, n, t_min=0.02, t_max=0.95)
  there = dict(
    encoder=tasks.ddim_encoder(process, grid, np.float64),
    decoder=solvers.ddim(process, grid, dtype=np.float64),
  )
  back = tasks.translate(second, first, tasks.translate(first, second, x, **there).x, **there).x
  return float(jnp.sqrt(jnp.mean(jnp.square(back - x))))


@pytest.mark.slow
def test_the_cycle_error_falls_with_the_order_of_the_solver(x64):
  process = processes.vp_cosine()
  first = oracles.gaussian_mixture(process, None, [[-1.0, 0.0], [1.0, 0.4]], 0.2, labels=[0, 1])
  _, _, second = two_gaussians()
  x = first.sample(jax.random.key(0), 64)
  errors = [cycle_error(first, second, x, process, n) for n in (50, 100, 200)]
  slopes = np.log2(np.array(errors[:-1]) / errors[1:])
  assert np.all(np.abs(slopes - 1.0) < 0.15), slopes
  rounds = []
  for n in (8, 16):
    there = tasks.translate(first, second, x, num_steps=n)
    rounds.append(float(jnp.abs(tasks.translate(second, first, there.x, num_steps=n).x - x).max()))
  assert rounds[1] < rounds[0] / 8 and rounds[1] < 1e-3, rounds
  # Within one model, from class to class and back.
  classes = [{"label": jnp.full(64, c)} for c in (0, 1)]
  moved = tasks.translate(first, first, x, source_cond=classes[0], target_cond=classes[1], num_steps=16)
  back = tasks.translate(first, first, moved.x, source_cond=classes[1], target_cond=classes[0], num_steps=16)
  assert float(jnp.abs(back.x - x).max()) < 1e-2
  # Classes of equal round Gaussians: every point moves from its own class's mean to the other's by the same
  # vector.
  means, points = np.asarray(first.means), np.asarray(x)
  start = jnp.asarray(
    points + means[:1] - means[np.linalg.norm(points[:, None] - means[None], axis=2).argmin(axis=1)]
  )
  moved = tasks.translate(first, first, start, source_cond=classes[0], target_cond=classes[1], num_steps=32).x
  np.testing.assert_allclose(moved - start, jnp.broadcast_to(jnp.array([2.0, 0.4]), start.shape), atol=0.02)


def manifold():
  process = processes.edm(sigma_min=0.01, sigma_max=20.0)
  angle = 2 * np.pi * np.arange(16) / 16
  return process, oracles.gaussian_mixture(
    process, None, np.stack([np.cos(angle), np.sin(angle)], 1), 0.02**2, dtype=jnp.float32
  )


@pytest.mark.slow
def test_a_later_start_is_less_faithful_and_more_realistic():
  """A point off the data: the distance to the guide grows with t0, and that to the data falls to their
  own."""
  process, data = manifold()
  guide = jnp.broadcast_to(jnp.array([0.3, 0.5]), (256, 2))
  keys = jax.random.split(jax.random.key(0), 256)
  to_guide, to_data = [], []
  for t0 in (0.05, 0.2, 0.8, 3.0):
    x = tasks.edit(data, tasks.start_at(process, t0, 20), guide, keys).x
    to_guide.append(float(jnp.mean(jnp.linalg.norm(x - guide, axis=1))))
    to_data.append(float(jnp.mean(jnp.min(jnp.linalg.norm(x[:, None] - data.means[None], axis=2), axis=1))))
  assert to_guide == sorted(to_guide) and to_guide[-1] > 2 * to_guide[0]
  assert to_data[-1] < 0.06 and to_data[0] > to_data[-1]


def test_outside_the_mask_the_guide_comes_back_exactly():
  process, data = manifold()
  guide = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
  keys = jax.random.split(jax.random.key(1), 6)
  solver = tasks.start_at(process, 0.5, 8)
  edited = tasks.edit(data, solver, guide, keys, mask=np.array([1, 0]), repeats=2)
  np.testing.assert_array_equal(edited.x[:, 1], guide[:, 1])
  assert float(jnp.abs(edited.x[:, 0] - guide[:, 0]).min()) > 0 and edited.evaluations == 2 * solver.cost
  each = np.stack([[1, 0]] * 3 + [[0, 1]] * 3)
  mixed = tasks.edit(data, solver, guide, keys, mask=each, repeats=2).x
  np.testing.assert_array_equal(mixed[:3], edited.x[:3])
  np.testing.assert_array_equal(mixed[3:, 0], guide[3:, 0])
  # Row i is of (guide i, key i) alone.
  part = tasks.edit(data, solver, guide[2:4], keys[2:4], mask=np.array([1, 0]), repeats=2).x
  np.testing.assert_allclose(part, edited.x[2:4], atol=1e-5)


def test_edits_of_gaussian_data_have_the_moments_of_their_repeats():
  """The flow is affine: a repeat is x -> m + s (alpha x + sigma z - alpha m), s^2 = v / (alpha^2 v +
  sigma^2), with new noise z each time.

  So K of them leave (s alpha)^K of the guide's distance from the mean, and the variance (s sigma)^2 sum_k (s
  alpha)^2k: of 4,096 rows within 4.5 standard errors.
  """
  process, data, _ = two_gaussians()
  mean, variance, guide, t0, rows, repeats = (
    np.array([1.0, -0.5]),
    np.array([4.0, 0.25]),
    np.array([4.0, -2.5]),
    0.4,
    4096,
    3,
  )
  guides, keys = (
    jnp.broadcast_to(jnp.asarray(guide, jnp.float32), (rows, 2)),
    jax.random.split(jax.random.key(0), rows),
  )
  edited = tasks.edit(data, tasks.start_at(process, t0, 48, solver="dpmpp_3m"), guides, keys, repeats=repeats)
  m = process.marginal(t0)
  s = np.sqrt(variance / (m.alpha**2 * variance + m.sigma**2))
  kept, spread = (
    (s * m.alpha) ** repeats,
    (s * m.sigma) ** 2 * sum((s * m.alpha) ** (2 * k) for k in range(repeats)),
  )
  x = np.asarray(edited.x, np.float64)
  assert edited.evaluations == repeats * 48
  assert np.all(np.abs(x.mean(0) - mean - kept * (guide - mean)) < 4.5 * np.sqrt(spread / rows)), (
    x.mean(0),
    mean + kept * (guide - mean),
  )
  assert np.all(np.abs(x.var(0) / spread - 1.0) < 4.5 * np.sqrt(2.0 / rows)), (x.var(0), spread)


def test_what_is_edited_sees_the_rest_noised_anew_at_every_step():
  """Correlated Gaussian data under DDIM: the edited pixel is an affine map a step of itself and of alpha y +
  sigma z, z its neighbour's own noise.

  Mean and variance follow step by step, and of 4,096 rows they are met within 4.5 standard errors. A
  neighbour that is denoised on the way instead tells less of y at first and more than it should of its own
  noise.
  """
  process, mean, covariance, rows, repeats = (
    processes.vp_cosine(),
    np.array([0.5, -1.0]),
    np.array([[1.0, 0.8], [0.8, 1.0]]),
    4096,
    2,
  )
  guide, solver = np.array([2.0, 0.7]), tasks.start_at(process, 0.6, 8, solver="ddim")
  data = oracles.gaussian(process, mean, covariance, dtype=jnp.float32)
  guides, keys = (
    jnp.broadcast_to(jnp.asarray(guide, jnp.float32), (rows, 2)),
    jax.random.split(jax.random.key(0), rows),
  )
  x = np.asarray(tasks.edit(data, solver, guides, keys, mask=np.array([1, 0]), repeats=repeats).x, np.float64)
  m = process.marginal(np.asarray(solver.t, np.float64))
  centre, spread = guide[0], 0.0
  for _ in range(repeats):
    centre, spread = m.alpha[0] * centre, m.alpha[0] ** 2 * spread + m.sigma[0] ** 2
    for a, s, a_next, s_next in zip(m.alpha[:-1], m.sigma[:-1], m.alpha[1:], m.sigma[1:]):
      own, other = (a * covariance @ np.linalg.inv(a**2 * covariance + s**2 * np.eye(2)))[0]
      ratio, weight = s_next / s, a_next - a * s_next / s
      centre = ratio * centre + weight * (
        mean[0] + own * (centre - a * mean[0]) + other * a * (guide[1] - mean[1])
      )
      spread = (ratio + weight * own) ** 2 * spread + (weight * other * s) ** 2
  assert abs(x[:, 0].mean() - centre) < 4.5 * np.sqrt(spread / rows), (x[:, 0].mean(), centre)
  assert abs(x[:, 0].var() / spread - 1.0) < 4.5 * np.sqrt(2.0 / rows), (x[:, 0].var(), spread)


def test_the_recommended_level_is_the_first_that_goes_its_share_of_the_way():
  levels, way = [0.1, 0.3, 0.5, 1.0, 2.0, 4.0], np.array([0.05, 0.4, 0.55, 0.85, 0.95, 1.0])
  distances = 7.0 - (7.0 - 2.0) * way
  for i, share in enumerate(way[:-1]):
    assert tasks.recommended(levels, distances, 7.0, share=share - 1e-6) == levels[i]
    assert tasks.recommended(levels, distances, 7.0, share=share + 1e-6) == levels[i + 1]
  assert tasks.recommended(levels, distances, 7.0) == 2.0  # nine tenths: 0.85 of the way is not enough


def test_the_class_posterior_is_exact_for_exact_denoisers():
  """log p(x | c) is minus half the integral of E ||eps - eps_hat||^2 over the log-SNR, up to a constant
  (arXiv:2302.03792, eq. 10).

  The mean of 16 estimates within 4.5 of its standard errors (each answer fails by chance with probability
  4e-4).
  """
  process = processes.edm()
  data = oracles.gaussian_mixture(
    process,
    [0.5, 0.25, 0.25],
    [[-1.0, 0.0], [1.0, 0.3], [0.5, -1.0]],
    0.3,
    labels=[0, 1, 1],
    dtype=jnp.float32,
  )
  x = jnp.array([[0.9, 0.0], [-1.2, 0.1], [0.0, 0.2], [-0.2, -0.5]])
  count, low, high = 500, -8.0, 10.0
  levels = low + (high - low) * (np.arange(count) + 0.5) / count
  times = jnp.asarray(process.t_of_log_snr(levels), jnp.float32)
  share = lambda process, t: jnp.full_like(t, (high - low) / count)
  found = [
    tasks.classify(data, x, 2, key, times, weight=share) for key in jax.random.split(jax.random.key(0), 16)
  ]
  each = jnp.stack([data.log_prob(x, jnp.zeros(4), {"label": jnp.full(4, c)}) for c in (0, 1)], axis=1)
  expected = jax.nn.log_softmax(each, axis=1)
  difference = lambda log_prob: np.asarray(log_prob[:, 0] - log_prob[:, 1])
  each = np.stack([difference(one.log_prob) for one in found])
  error = each.std(0, ddof=1) / 4.0
  assert np.all(np.abs(each.mean(0) - difference(expected)) < 4.5 * error) and error.max() < 0.2
  assert np.ptp(difference(expected)) > 4.0 and found[0].evaluations == 1000


@pytest.mark.slow
def test_classes_are_given_up_in_rounds_at_the_stated_cost():
  """The classes that are left have the errors that they have without rounds, and only they are evaluated."""
  process = processes.edm()
  angle = 2 * np.pi * np.arange(6) / 6
  data = oracles.gaussian_mixture(
    process,
    None,
    2 * np.stack([np.cos(angle), np.sin(angle)], 1),
    0.05,
    labels=np.arange(6),
    dtype=jnp.float32,
  )
  x, times, key = data.sample(jax.random.key(0), 40), tasks.strata(process, 8), jax.random.key(1)
  whole = tasks.classify(data, x, 6, key, times)
  found = tasks.classify(data, x, 6, key, times, rounds=((4, 2),))
  assert (whole.evaluations, found.evaluations) == (48, 4 * 6 + 4 * 2)
  kept = np.isfinite(np.asarray(found.log_prob))
  assert np.all(kept.sum(axis=1) == 2)
  np.testing.assert_allclose(np.asarray(found.errors)[kept], np.asarray(whole.errors)[kept], rtol=1e-5)
  np.testing.assert_array_equal(found.label, whole.label)
  np.testing.assert_allclose(np.exp(np.asarray(found.log_prob)).sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_more_rounds_cost_what_they_say():
  process = processes.edm()
  data = oracles.gaussian_mixture(process, None, 2 * np.eye(5), 0.05, labels=np.arange(5), dtype=jnp.float32)
  found = tasks.classify(
    data,
    data.sample(jax.random.key(0), 20),
    5,
    jax.random.key(1),
    tasks.strata(process, 7),
    rounds=((1, 4), (3, 2)),
  )
  assert found.evaluations == 5 + 2 * 4 + 4 * 2
  assert np.all(np.isfinite(np.asarray(found.log_prob)).sum(axis=1) == 2)


def test_strata_cover_the_range_at_every_power_of_two():
  process = processes.vp_cosine()
  levels = np.log([float(process.marginal(t).noise_to_signal) for t in tasks.strata(process, 16, 0.1, 3.0)])
  np.testing.assert_allclose(
    np.sort(levels), np.log(0.1) + np.log(30.0) * (np.arange(16) + 0.5) / 16, rtol=1e-9
  )
  for count in (2, 4, 8):
    part = np.floor((levels[:count] - np.log(0.1)) / np.log(30.0) * count)
    assert sorted(part) == list(range(count))


@pytest.mark.parametrize(
  "make,words",
  [
    (
      lambda: tasks.translate(*two_gaussians()[1:2], two_gaussians("edm")[1], jnp.zeros((1, 2))),
      "do not share their latents",
    ),
    (
      lambda: tasks.check_shared(
        oracles.gaussian(processes.edm(sigma_max=80.0), [0.0], [1.0]),
        oracles.gaussian(processes.edm(sigma_max=60.0), [0.0], [1.0]),
      ),
      "up to t = 80",
    ),
    # The same time and the same noise at the end, and another way there.
    (
      lambda: tasks.check_shared(
        *(oracles.gaussian(processes.vp_linear(*beta), [0.0], [1.0]) for beta in ((0.1, 20.0), (2.1, 18.0)))
      ),
      "with alpha = ",
    ),
    (lambda: tasks.ddim_encoder(processes.edm(), [1.0, 0.0]), "start it a little above"),
    (
      lambda: tasks.translate(
        two_gaussians()[1],
        two_gaussians()[1],
        jnp.zeros((1, 2)),
        encoder=solvers.build("ddim", processes.vp_cosine(), 5),
      ),
      "from noise to data",
    ),
    (lambda: tasks.start_at(processes.vp_cosine(), 2.0, 5), "not a time of the process"),
    (
      lambda: tasks.edit(
        manifold()[1],
        tasks.start_at(manifold()[0], 0.5, 3),
        jnp.zeros((1, 2)),
        jax.random.split(jax.random.key(0), 1),
        mask=np.ones(3),
      ),
      "one mask",
    ),
    (
      lambda: tasks.edit(
        manifold()[1],
        tasks.start_at(manifold()[0], 0.5, 3),
        jnp.zeros((1, 2)),
        jax.random.split(jax.random.key(0), 1),
        mask=np.full(2, 0.5),
      ),
      "a mask is 1",
    ),
    (lambda: tasks.edit(manifold()[1], None, jnp.zeros((1, 2)), None, repeats=0), "1 or more"),
    (
      lambda: tasks.classify(manifold()[1], jnp.zeros((1, 2)), 1, jax.random.key(0), jnp.ones(1)),
      "two classes",
    ),
    (
      lambda: tasks.classify(
        manifold()[1], jnp.zeros((1, 2)), 9, jax.random.key(0), jnp.ones(4), rounds=((2, 3), (2, 2))
      ),
      "more draws than",
    ),
    (
      lambda: tasks.classify(
        manifold()[1], jnp.zeros((1, 2)), 3, jax.random.key(0), jnp.ones(4), rounds=((2, 3),)
      ),
      "fewer classes than",
    ),
    (lambda: tasks.strata(processes.edm(), 3, 0.1, 100.0), "0.002 to 80"),
  ],
)
def test_mistakes_are_named(make, words):
  with pytest.raises(ValueError, match=words):
    make()
