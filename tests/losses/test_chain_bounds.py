"""Bounds of chains, exactly: at the posterior the entropy, at another law's posterior its cross-entropy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, processes
from losses import enumerated

K = 3
OBJECTIVES = ["continuous_time_bound", "score_entropy"]
PROCESSES = ["masked", "masked_cosine", "uniform_resample"]


@functools.cache
def process(name, size):
  build = processes.MASKED.get(name) or processes.DISCRETE[name]
  return build(K, (size,))


@functools.cache
def program(objective, name, size):
  make = losses.CHAIN_OBJECTIVES | losses.MASKED_OBJECTIVES
  of = process(name, size)
  return enumerated.expected(make[objective](of), of, of.num_states)


@pytest.mark.parametrize(
  "objective,name,size,nodes",
  [
    ("continuous_time_bound", "masked", 5, 0),
    ("continuous_time_bound", "uniform_resample", 3, 36),
    pytest.param("continuous_time_bound", "masked_cosine", 3, 36, marks=pytest.mark.slow),
    pytest.param("score_entropy", "uniform_resample", 3, 36, marks=pytest.mark.slow),
    pytest.param("score_entropy", "masked", 3, 0, marks=pytest.mark.slow),
    pytest.param("continuous_time_bound", "uniform_resample", 5, 36, marks=pytest.mark.slow),
    pytest.param("score_entropy", "uniform_resample", 5, 36, marks=pytest.mark.slow),
    pytest.param("score_entropy", "masked_cosine", 5, 36, marks=pytest.mark.slow),
  ],
)
def test_a_bound_is_the_cross_entropy_of_the_law_whose_posterior_the_model_has(
  objective, name, size, nodes, x64
):
  """To 1e-5 nats, over all states and noises: the entropy at the data's own posterior, where the gradient is
  zero, and more by the Kullback-Leibler divergence at another law's, for its reverse chain is that law's."""
  of, p = process(name, size), enumerated.joint(size, K)
  rule = enumerated.smooth_integral(nodes) if nodes else enumerated.integral(size // 2 + 1)
  run = functools.partial(enumerated.bound, program(objective, name, size), of, p)
  value, slope = run(functools.partial(enumerated.log_posterior, of, p), rule)
  assert abs(value - enumerated.entropy(p)) < 1e-5
  assert np.abs(slope).max() < 1e-12
  other = enumerated.joint(size, K, seed=9)
  value, slope = run(functools.partial(enumerated.log_posterior, of, other), rule)
  assert abs(value + np.sum(p * np.log(other))) < 1e-5
  assert np.abs(slope).max() > 1e-3


def informed(p, transition):
  """What x_t tells of x_0 in nats, their mutual information, by enumeration; transition: [K, S]."""
  x0, x_t, q = enumerated.pairs(p, transition)
  flat = np.ravel_multi_index(x_t.T, (transition.shape[1],) * p.ndim)
  total = np.bincount(flat, q, transition.shape[1] ** p.ndim)[flat]
  return np.sum(q * np.log(q / (p[tuple(x0.T)] * total)))


JUMPS = [name for name, build in processes.CHAINS.items() if build(K, (1,)).jumps]
LADDERS = [name for name in processes.CHAINS if name not in JUMPS]


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name == "path_with_masks" else pytest.mark.slow) for name in JUMPS]
)
def test_of_every_chain_the_bound_is_the_entropy_less_what_the_end_still_tells(name, x64):
  """To 1e-5 nats at the exact posterior, where the gradient is zero: H(x_0) - I(x_0; x_T), of two tokens."""
  of, p = processes.CHAINS[name](K, (2,)), enumerated.joint(2, K)
  run = enumerated.expected(losses.continuous_time_bound(of), of, of.num_states)
  logits = functools.partial(enumerated.log_posterior, of, p)
  value, slope = enumerated.bound(run, of, p, logits, enumerated.smooth_integral(40))
  left = informed(p, enumerated.kernel(of, 1.0))
  assert abs(value - (enumerated.entropy(p) - left)) < 1e-5
  assert np.abs(slope).max() < 1e-11 and (left > 1e-3) == (name == "path_with_masks")


@pytest.mark.slow
@pytest.mark.parametrize("name", LADDERS)
def test_of_every_ladder_d3pm_of_one_coordinate_is_the_same(name, x64):
  of, p = processes.CHAINS[name](K, (1,)), enumerated.joint(1, K)
  grid = np.linspace(0.0, 1.0, of.num_steps + 1)
  logits = functools.partial(enumerated.log_posterior, of, p)
  value, slope = steps_bound(losses.d3pm_bound(of, of.num_steps), of, p, logits, grid)
  wanted = enumerated.entropy(p) - informed(p, enumerated.kernel(of, 1.0))
  np.testing.assert_allclose(value, wanted, atol=1e-10)
  assert slope < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["masked", "uniform_resample", *processes.CHAINS])
def test_what_sampling_starts_from_has_the_law_that_is_stated(name):
  """4,096 states of two tokens: each share within 4.5 standard errors (3e-5 for the eight of a case)."""
  of = (processes.MASKED | processes.DISCRETE | processes.CHAINS)[name](K, (2,))
  x = np.asarray(of.prior(jax.random.split(jax.random.key(0), 4096), (2,)))
  law = np.broadcast_to(np.asarray(of.prior_law(jnp.float32)), (1, 2, of.num_states))[0, 0]
  np.testing.assert_allclose(law.sum(), 1.0, rtol=1e-6)
  for d in range(2):
    share = np.bincount(x[:, d], minlength=of.num_states) / 4096
    assert np.all(np.abs(share - law) <= 4.5 * np.sqrt(law * (1 - law) / 4096) + 1e-6)


def rows(of, t, size, seed=0):
  """Some x_0, x_t and logits at a time, in float64."""
  generator = np.random.default_rng(seed)
  x0, x_t, _ = enumerated.pairs(enumerated.joint(size, K), enumerated.kernel(of, t))
  logits = generator.normal(size=(of.num_states**size, size, K))
  model = enumerated.tabular(of, jnp.asarray(logits), of.num_states)
  return enumerated.placed(t, x0, x_t), model


def interior(objective, placed, model):
  return jax.jit(lambda: objective.evaluate({"model": model}, placed, {}, {}, losses.START).interior)()


@pytest.mark.parametrize("name", ["masked", pytest.param("masked_cosine", marks=pytest.mark.slow)])
def test_under_masks_every_bound_is_the_masked_cross_entropy_row_by_row(name, x64):
  of = process(name, 2)
  placed, model = rows(of, 0.3, 2)
  wanted = interior(losses.masked_cross_entropy(of), placed, model)
  for objective in (
    losses.continuous_time_bound(of),
    losses.score_entropy(of),
    losses.discrete_flow_matching(of, weight="generalised_kl"),
  ):
    np.testing.assert_allclose(interior(objective, placed, model), wanted, rtol=1e-11, atol=1e-13)


def test_under_uniform_noise_the_bound_is_that_of_udlm(x64):
  """arXiv:2412.10193, eq. 18, whose x_theta is the law of x_0 given the other coordinates alone."""
  of, t = process("uniform_resample", 2), 0.4
  placed, model = rows(of, t, 2)
  keep = of.clock(t)
  own = np.asarray(placed.x_t)[..., None]
  p = np.asarray(model(placed.x_t, placed.t, views=("probabilities",)).probabilities)
  seen = np.where(own == np.arange(K), keep.alpha + keep.noised / K, keep.noised / K)
  theta = p / seen / np.sum(p / seen, axis=-1, keepdims=True)
  bar = lambda x: K * keep.alpha * x + keep.noised
  true, mean = bar(np.eye(K)[np.asarray(placed.x0)]), bar(theta)
  at = lambda a: np.take_along_axis(a, own, axis=-1)
  inner = K / at(true) - K / at(mean)
  inner = inner - np.sum(true / at(true) * np.log(at(mean) * true / (mean * at(true))), -1, keepdims=True)
  wanted = (keep.d_alpha / (K * keep.alpha) * inner)[..., 0].sum(-1)
  for objective in (losses.continuous_time_bound(of), losses.score_entropy(of)):
    np.testing.assert_allclose(interior(objective, placed, model), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_score_entropy_of_a_model_of_ratios_is_least_at_the_ratios_whatever_the_weights(x64):
  """The mean at one time, over all states: its gradient in the ratios is zero at those of p_t."""
  of, t = process("uniform_resample", 2), 0.4
  p = enumerated.joint(2, K)
  x0, x_t, q = enumerated.pairs(p, enumerated.kernel(of, t))
  placed = enumerated.placed(t, x0, x_t)
  exact = enumerated.tabular(of, jnp.asarray(enumerated.log_posterior(of, p, t)), K)
  every = jnp.asarray(enumerated.states(K, 2))
  truth = jnp.log(exact(every, jnp.full(len(every), t), views=("ratios",)).ratios)
  table = lambda own, x, t, cond: jnp.exp(own[x[:, 0] * K + x[:, 1]])
  for weight in ("generator", "one"):
    objective = losses.score_entropy(of, weight=weight)

    @jax.jit
    def slope(own, objective=objective):
      mean = lambda own: jnp.sum(
        jnp.asarray(q)
        * objective.evaluate(
          {"model": denoisers.from_functions(own, ratios=table)}, placed, {}, {}, losses.START
        ).interior
      )
      return jax.grad(mean)(own)

    np.testing.assert_allclose(slope(truth), 0.0, atol=1e-14)
    assert np.abs(slope(truth + 0.1)).max() > 1e-3


def steps_bound(objective, of, p, logits, grid):
  """The sum over steps of the expected value over x_0 and x_t."""
  count, total, slopes = len(grid) - 1, 0.0, []
  run = enumerated.expected(objective, of, of.num_states)
  for s, t in itertools.pairwise(grid):
    x0, x_t, q = enumerated.pairs(p, enumerated.kernel(of, t))
    placed = enumerated.placed(t, x0, x_t, s=jnp.full(len(x0), s))
    value, slope = run(jnp.asarray(logits(t)), placed, jnp.asarray(q / count))
    total, slopes = total + float(value), [*slopes, float(np.abs(slope).max())]
  return total, max(slopes)


def told(of, p, grid):
  """How much the coordinates of x_s tell of each other given x_t, summed over the steps, by enumeration."""
  size, total = p.ndim, 0.0
  clean, states = enumerated.states(K, size), enumerated.states(of.num_states, size)
  for s, t in itertools.pairwise(grid):
    to_s = np.prod(enumerated.kernel(of, s)[clean[:, None], states[None]], -1)
    step = np.asarray(of.transition(np.float64(s), np.float64(t)))
    to_t = np.prod(step[states[:, None], states[None]], -1)
    joint = (p.reshape(-1) @ to_s)[:, None] * to_t  # [x_s, x_t]
    log = lambda a: np.log(np.where(a > 0, a, 1.0))
    parts = np.zeros_like(joint)
    shaped = joint.reshape(*[of.num_states] * size, -1)
    for d in range(size):
      own = shaped.sum(tuple(e for e in range(size) if e != d), keepdims=True)
      parts = parts + np.broadcast_to(log(own), shaped.shape).reshape(joint.shape)
    of_t = joint.sum(0, keepdims=True)
    total += np.sum(joint * (log(joint) - parts + (size - 1) * log(of_t)))
  return total


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name == "masked" else pytest.mark.slow) for name in PROCESSES]
)
@pytest.mark.parametrize("grid", [[0.0, 1.0], [0.0, 0.1, 0.45, 0.7, 1.0]], ids=["one_step", "four_steps"])
def test_d3pm_of_one_coordinate_is_the_entropy_for_any_steps(name, grid, x64):
  """To 1e-10 nats; at another law's posterior it is that law's cross-entropy."""
  of, p, other = process(name, 1), enumerated.joint(1, K), enumerated.joint(1, K, seed=4)
  objective = losses.d3pm_bound(of, grid)
  value, slope = steps_bound(objective, of, p, functools.partial(enumerated.log_posterior, of, p), grid)
  np.testing.assert_allclose(value, enumerated.entropy(p), atol=1e-10)
  assert slope < 1e-12
  value, slope = steps_bound(objective, of, p, functools.partial(enumerated.log_posterior, of, other), grid)
  np.testing.assert_allclose(value, -np.sum(p * np.log(other)), atol=1e-10)
  assert slope > 1e-3


@pytest.mark.parametrize("name", ["uniform_resample", pytest.param("masked", marks=pytest.mark.slow)])
def test_d3pm_of_more_coordinates_is_above_by_what_they_tell_of_each_other(name, x64):
  """To 1e-10 nats, for 1, 4 and 16 steps; the excess falls as 1 / T."""
  of, p = process(name, 2), enumerated.joint(2, K)
  excess = []
  for count in (1, 4, 16):
    grid = np.linspace(0.0, 1.0, count + 1)
    logits = functools.partial(enumerated.log_posterior, of, p)
    value, slope = steps_bound(losses.d3pm_bound(of, grid), of, p, logits, grid)
    excess.append(value - enumerated.entropy(p))
    np.testing.assert_allclose(excess[-1], told(of, p, grid), atol=1e-10)
    assert slope < 1e-12
  order = np.log(excess[1] / excess[2]) / np.log(4.0)
  assert excess[0] > excess[1] > excess[2] > 0 and 0.8 < order < 1.2


@pytest.mark.slow
def test_the_auxiliary_term_is_the_cross_entropy_of_the_same_step(x64):
  of = process("uniform_resample", 2)
  placed, model = rows(of, 0.5, 2)
  placed = placed.replace(targets={"s": placed.t - 0.25})
  plain, more = (losses.d3pm_bound(of, 4, auxiliary=weight) for weight in (0.0, 0.01))
  added = interior(more, placed, model) - interior(plain, placed, model)
  cross_entropy = interior(losses.discrete_flow_matching(of), placed, model)
  np.testing.assert_allclose(added, 0.01 * cross_entropy, rtol=1e-9, atol=1e-13)


def test_one_step_is_drawn_in_place_of_all_and_stratified_times_take_each_alike():
  of = process("uniform_resample", 2)
  objective = losses.d3pm_bound(of, [0.0, 0.2, 0.5, 1.0])
  t = losses.low_discrepancy(losses.uniform_times(of.t_min, of.t_max)).sample(jax.random.key(0), 12)
  draw = objective.draw(jax.random.key(1), {"x": jnp.zeros((12, 2), jnp.int32)}, t, {})
  placed = objective.place({}, draw)
  steps = sorted(
    zip(np.asarray(placed.targets["s"]).round(6).tolist(), np.asarray(placed.t).round(6).tolist())
  )
  wanted = sorted([(0.0, 0.2), (0.2, 0.5), (0.5, 1.0)] * 4)
  np.testing.assert_allclose(steps, wanted, atol=1e-6)
  np.testing.assert_array_equal(placed.x_t, of.corrupt(draw.x0, draw.noise, placed.t))


def test_flow_matching_of_uniform_noise_is_least_at_the_posterior_and_above_the_entropy(x64):
  """Paths given x_0 jump at most once, so that their mixture remembers: its bound is not tight. Of one
  coordinate the excess is known: that of the Markov chain with its rates, by quadrature over paths."""
  of, p = process("uniform_resample", 1), enumerated.joint(1, K)
  rule = enumerated.smooth_integral(40)
  logits = functools.partial(enumerated.log_posterior, of, p)
  value, slope = enumerated.bound(
    program("discrete_flow_matching_generalised_kl", "uniform_resample", 1), of, p, logits, rule
  )
  assert np.abs(slope).max() < 1e-12
  np.testing.assert_allclose(value, one_jump(of, p, rule), atol=1e-6)
  assert value > enumerated.entropy(p) + 0.05
  plain, slope = enumerated.bound(
    program("discrete_flow_matching", "uniform_resample", 1), of, p, logits, rule
  )
  assert np.abs(slope).max() < 1e-12 and plain < enumerated.entropy(p)


def one_jump(of, p, rule):
  """-E log of the model's density of a path over the path's given x_0, for paths from noise n to x_0 = k.

  In u = 1 - alpha from 1 down to 0 such a path jumps once, at a u that is uniform, or never where n = k. The
  model leaves a state a at the rate (1 - p(a | a)) / u and jumps to k at p(k | n) / u: it stays at n until u,
  and at k from there on.
  """
  u, w = rule
  chances = np.stack([enumerated.posterior(p, enumerated.kernel(of, v))[:, 0] for v in u])  # [u, x_t, k]
  leave = (1.0 - np.stack([np.diag(each) for each in chances])) / u[:, None]
  total = 0.0
  for n, k in itertools.product(range(K), repeat=2):
    stays = leave[:, k] if n == k else u * leave[:, n] + (1.0 - u) * leave[:, k]
    jumps = 0.0 if n == k else np.log(u / chances[:, n, k])
    total += p[k] / K * np.sum(w * (stays + jumps))
  return total


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_bound_keeps_its_digits_near_the_end_where_nothing_is_left_of_the_data(objective):
  """In float32 at alpha = 1e-2, 1e-4 and 0, at rates of 1e7: it falls with alpha, and slopes are finite."""
  of = process("uniform_resample", 1)
  bound = losses.CHAIN_OBJECTIVES[objective](of)
  t = jnp.asarray([0.99, 0.9999, 1.0], jnp.float32)
  drawn = bound.draw(jax.random.key(0), {"x": jnp.zeros((3, 1), jnp.int32)}, t, {})
  drawn = drawn.replace(noise={"uniform": jnp.zeros((3, 1)), "value": jnp.ones((3, 1), jnp.int32)})
  constant = lambda own, x, t, cond: jnp.broadcast_to(own, (*x.shape, K))

  @jax.jit
  def values(own):
    model = denoisers.from_function(constant, of, denoisers.logits(), own)
    return bound({"model": model}, drawn).interior

  found, slope = values(jnp.arange(3.0)), jax.jacobian(values)(jnp.arange(3.0))
  np.testing.assert_allclose(found / found[0], [1.0, 0.01, 0.0], atol=2e-4)
  assert np.all(np.isfinite(slope)) and np.abs(slope[2]).max() < 1e-5


def test_misfits_raise_a_sentence():
  edm, gaussian, of = processes.edm(), processes.discretised_gaussian(3), process("masked", 2)
  for call, words in (
    (lambda: losses.continuous_time_bound(edm), "jump rates in continuous time"),
    (lambda: losses.continuous_time_bound(gaussian), "jump rates in continuous time"),
    (lambda: losses.score_entropy(None), "jump rates in continuous time"),
    (lambda: losses.score_entropy(of, weight="two"), "weight='generator' or 'one'"),
    (lambda: losses.d3pm_bound(gaussian, 4), "Markov chain in t"),
    (lambda: losses.d3pm_bound(of, 0), "at least 1"),
    (lambda: losses.d3pm_bound(of, [0.1, 1.0]), "increase from 0"),
    (lambda: losses.d3pm_bound(of, [0.0, 2.0]), "up to 1 at most"),
    (lambda: losses.d3pm_bound(of, 4, auxiliary=-1.0), "auxiliary >= 0"),
    (lambda: losses.discrete_flow_matching(edm), "needs a discrete process"),
    (lambda: losses.discrete_flow_matching(gaussian, weight="generalised_kl"), "drawn anew"),
    (lambda: losses.discrete_flow_matching(of, weight="kl"), "weight='one' or"),
  ):
    with pytest.raises(ValueError, match=words):
      call()
