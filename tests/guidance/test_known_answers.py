"""Guidance where the answer is known.

Exact classes of a mixture, products of Gaussians, thresholds, experts, rare components.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from guidance_cases import EACH_PROCESS, class_logits, mixture, points, posterior

from diffusion import denoisers, guidance, oracles, processes, solvers


@EACH_PROCESS
def test_the_exact_classifier_makes_the_conditional_model(process, x64):
  """Bayes: grad log p(x) + grad log p(c | x) = grad log p(x | c), at every noise level."""
  oracle = mixture(process)
  x, t, cond = points(oracle.means.dtype)
  nothing = denoisers.null_condition(cond)
  guided = guidance.classifier(posterior, oracle)(Unconditional(oracle))(
    x, t, cond, views=("score", "eps", "x0")
  )
  truth = oracle(x, t, cond, views=("score", "eps", "x0"))
  np.testing.assert_allclose(guided.score, truth.score, rtol=1e-8, atol=1e-8)
  np.testing.assert_allclose(guided.eps, truth.eps, rtol=1e-8, atol=1e-8)
  np.testing.assert_allclose(guided.x0, truth.x0, rtol=1e-8, atol=1e-8)
  assert np.abs(oracle(x, t, nothing).x0 - truth.x0).max() > 0.05


@struct.dataclass
class Unconditional(denoisers.Wrapper):
  """A denoiser that does not see its condition."""

  inner: oracles.GaussianMixture

  def __call__(self, x, t, cond=None, *, views=("x0", "eps"), key=None, train=False):
    return self.inner(x, t, None, views=views, key=key, train=train)


@EACH_PROCESS
def test_or_is_the_mixture_of_the_classes(process, x64):
  oracle = mixture(process)
  x, t, _ = points(oracle.means.dtype)
  either = guidance.disjunction([{"label": 0}, {"label": 1}], class_logits, oracle)(oracle)
  np.testing.assert_allclose(either(x, t).x0, mixture(process, (0, 1))(x, t).x0, rtol=1e-8, atol=1e-8)


def test_and_of_one_condition_is_classifier_free_guidance_and_not_is_its_negative():
  oracle = mixture()
  x, t, cond = points()
  same = {"label": jnp.full(5, 1)}
  np.testing.assert_allclose(
    guidance.conjunction([{"label": 1}], (2.5,))(oracle)(x, t).x0,
    guidance.classifier_free(1.5)(oracle)(x, t, same).x0,
    atol=1e-5,
  )
  # c and not c2 with equal weights: the unconditional parts cancel, so this is guidance with c2 as the
  # negative condition.
  against = guidance.conjunction([cond, {"label": 2}], (2.0, -1.0))(oracle)(x, t).x0
  np.testing.assert_allclose(
    against, guidance.classifier_free(1.0, negative={"label": 2})(oracle)(x, t, cond).x0, atol=1e-5
  )
  assert guidance.conjunction([cond, cond])(oracle).cost == 3
  assert guidance.chain(guidance.classifier_free(1.0), guidance.static_threshold())(oracle).cost == 2


def product(count=4096):
  """N(-1, 1) and N(1, 1) as classes of the unconditional N(0, 4): the true product over the unconditional has
  variance 4/7."""
  process = processes.edm(sigma_min=0.01, sigma_max=20.0)
  parts = {0: (-1.0, 1.0), 1: (1.0, 1.0), -1: (0.0, 4.0)}

  def posterior_mean(params, x, t, cond):
    del params
    label, m = cond["label"], process.marginal(t)
    mean = sum(jnp.where(label == key, value[0], 0.0) for key, value in parts.items()).astype(x.dtype)[
      :, None
    ]
    variance = sum(jnp.where(label == key, value[1], 0.0) for key, value in parts.items()).astype(x.dtype)[
      :, None
    ]
    return mean + variance / (variance + m.sigma[:, None] ** 2) * (x - mean)

  denoiser = denoisers.from_function(posterior_mean, process, denoisers.x0())
  both = guidance.conjunction([{"label": 0}, {"label": 1}])(denoiser)
  keys = jax.random.split(jax.random.key(0), count)
  return process, both, process.prior(jax.random.split(jax.random.key(1), count), (1,)), keys


def test_the_product_is_right_with_correctors_and_too_narrow_without():
  """The flow alone ends at 0.243 in place of 4/7 = 0.571 (linear, so its variance is exact up to sampling and
  steps).

  Of 4,096 samples a variance is off by less than 9% with 99.99% confidence (4 standard errors of 2.2%).
  """
  process, both, x, keys = product()
  flow = solvers.sample(both, solvers.build("dpmpp_2m", process, 40), x)
  assert abs(float(jnp.var(flow)) / 0.243 - 1.0) < 0.12
  grid = solvers.grids.karras(process, 40)
  corrected = solvers.predictor_corrector(
    process, grid, predictor=solvers.ddim, corrector=solvers.annealed, snr=0.4, n_corrector=5
  )
  assert abs(float(jnp.var(solvers.sample(both, corrected, x, keys=keys))) * 7.0 / 4.0 - 1.0) < 0.12


def test_thresholds_bound_clean_data_and_belong_after_guidance():
  oracle = mixture()
  x, t, cond = points()
  guided = guidance.classifier_free(6.0)
  last = guidance.chain(guided, guidance.static_threshold(0.8))(oracle)(x, t, cond).x0
  first = guidance.chain(guidance.static_threshold(0.8), guided)(oracle)(x, t, cond).x0
  plain = guided(oracle)(x, t, cond).x0
  np.testing.assert_allclose(last, np.clip(plain, -0.8, 0.8), atol=1e-6)
  assert np.abs(first).max() > 0.8 + 0.1
  dynamic = guidance.chain(guided, guidance.dynamic_threshold(0.5, 0.8))(oracle)(x, t, cond).x0
  reach = np.maximum(np.quantile(np.abs(plain), 0.5, axis=1, keepdims=True), 0.8)
  np.testing.assert_allclose(dynamic, np.clip(plain, -reach, reach) * 0.8 / reach, rtol=1e-5)


def test_gradient_free_guidance_moves_away_from_the_confused_class():
  oracle = mixture()
  x, t, cond = points()
  logits = lambda params, x0: jnp.log(jnp.array([[0.2, 0.5, 0.3]])) + 0.0 * x0[:, :1]
  guided = guidance.gradient_free(logits, 2.0)(oracle)(x, t, cond).x0
  target = oracle(x, t, cond).x0
  probability, wrong = np.array([0.2, 0.5, 0.3])[cond["label"]], jnp.array([1, 2, 1, 2, 1])
  reference = oracle(x, t, {"label": wrong}).x0
  np.testing.assert_allclose(
    guided, target + 2.0 * (1.0 - probability)[:, None] * (target - reference), rtol=1e-4, atol=1e-5
  )


def test_experts_answer_for_their_own_noise_levels_alone():
  process, asked = processes.edm(), []

  def scaled(params, x, t, cond):
    jax.debug.callback(lambda value: asked.append(float(value)), params)
    return params * x[:, 0]

  expert = guidance.experts(process, [0.5, 5.0], scaled)
  x = jnp.arange(1.0, 5.0)[:, None]
  call = jax.jit(lambda params, t: expert(params, x, t))
  params = jnp.array([1.0, 10.0, 100.0])
  np.testing.assert_allclose(call(params, jnp.array([0.1, 0.5, 4.9, 5.0])), [1.0, 20.0, 30.0, 400.0])
  jax.effects_barrier()
  asked.clear()
  np.testing.assert_allclose(call(params, jnp.full(4, 1.0)), 10.0 * x[:, 0])
  jax.effects_barrier()
  assert asked == [10.0]


def two_classes(name="vp_cosine", variance=0.2):
  """N(-a, v I) and N(a, v I) in equal parts, and log p(the second | x_t) in closed form."""
  process, a = processes.PROCESSES[name](), np.array([1.0, 0.4], np.float32)

  def log_prob(params, x, t, cond):
    m = process.marginal(t)
    return jax.nn.log_sigmoid(2.0 * m.alpha * (x @ jnp.asarray(a)) / (m.alpha**2 * variance + m.sigma**2))

  return oracles.gaussian_mixture(
    process, None, np.stack([-a, a]), variance, labels=[0, 1], dtype=jnp.float32
  ), log_prob


def test_experts_of_their_own_ranges_guide_as_the_exact_classifier():
  """Three classifiers, each useless outside of its range, sample as the one that is exact everywhere; with
  two in each other's place they do not."""
  oracle, exact = two_classes()
  process, boundaries = (
    oracle.process,
    (0.5, 2.0),
  )  # in sigma/alpha: sigma of a variance-preserving process never comes to the second

  def own_range_alone(params, x, t, cond):
    level = process.marginal(t).noise_to_signal
    inside = (level >= params["low"]) & (level < params["high"])
    return jnp.where(inside, exact(None, x, t, cond), -5.0 * jnp.sum(jnp.square(x - 3.0), axis=1))

  table = solvers.build(
    "dpmpp_2m", process, 12, grid=solvers.grids.log_snr(process, 12, t_max=0.97, t_min=0.01)
  )
  levels = process.marginal(np.asarray(table.t, np.float64)[:-1]).noise_to_signal
  assert np.all(np.bincount(np.searchsorted(boundaries, levels), minlength=3) >= 2)  # every expert is asked
  x = jax.random.normal(jax.random.key(0), (64, 2))
  expert = guidance.experts(process, boundaries, own_range_alone)
  guided = lambda log_prob, params=None: guidance.classifier(log_prob, params)(oracle)
  params = {"low": jnp.array([0.0, 0.5, 2.0]), "high": jnp.array([0.5, 2.0, jnp.inf])}
  truth = solvers.sample(guided(exact), table, x)
  np.testing.assert_allclose(solvers.sample(guided(expert, params), table, x), truth, atol=1e-5)
  for order in ((1, 0, 2), (0, 2, 1)):
    other = jax.tree.map(lambda leaf: leaf[jnp.array(order)], params)
    assert float(jnp.mean(jnp.abs(solvers.sample(guided(expert, other), table, x) - truth))) > 0.1
  # Those made anew are another program, and no error where the one is looked up among the other's.
  assert jax.tree.structure(
    guided(guidance.experts(process, boundaries, own_range_alone), params)
  ) != jax.tree.structure(guided(expert, params))


def test_autoguidance_moves_a_gaussian_by_its_weight_times_what_the_worse_model_lacks():
  """Means m and m' of one variance: (1 + w) good - w worse is the denoiser of the mean m + w (m - m'), each
  row with its own w."""
  process, mean, lacks, variance = (
    processes.vp_cosine(),
    np.array([1.0, -0.5]),
    np.array([0.5, -0.6]),
    np.array([0.3, 2.0]),
  )
  good, worse = (
    oracles.gaussian(process, centre, variance, dtype=jnp.float32) for centre in (mean, mean - lacks)
  )
  x, t, weights = (
    np.array([[0.3, 0.4], [-1.0, 0.2], [0.7, 1.5]]),
    np.array([0.1, 0.5, 0.8]),
    np.array([0.0, 0.7, 2.5]),
  )
  guided = guidance.autoguidance(worse, jnp.asarray(weights, jnp.float32))(good)(
    jnp.asarray(x, jnp.float32), jnp.asarray(t, jnp.float32)
  )
  alpha, sigma = (part[:, None] for part in (process.marginal(t).alpha, process.marginal(t).sigma))
  moved = mean + weights[:, None] * lacks
  eps = sigma * (x - alpha * moved) / (alpha**2 * variance + sigma**2)
  np.testing.assert_allclose(guided.eps, eps, atol=1e-5)
  np.testing.assert_allclose(guided.x0, (x - sigma * eps) / alpha, atol=1e-5)


def test_the_minority_score_of_gaussian_data_is_its_distance_from_the_mean_and_the_noise_that_passes():
  """x0 - x0_hat = (1 - alpha g) (x0 - m) - g sigma z with g = alpha v / (alpha^2 v + sigma^2): the mean
  square and its error in closed form.

  Of 200 draws of 32 entries, within 4.5 standard errors for four rows from 0 to 3 from the mean.
  """
  process, mean, v, t, size, draws = processes.vp_cosine(), 0.4, 0.6, 0.5, 32, 200
  data = oracles.gaussian(process, np.full(size, mean), np.full(size, v), dtype=jnp.float32)
  away = np.array([0.0, 0.5, 1.0, 3.0])
  x0 = jnp.broadcast_to(jnp.asarray(mean + away, jnp.float32)[:, None], (4, size))
  scores = np.asarray(
    guidance.minority_score(data, x0, t, jax.random.split(jax.random.key(0), 4), draws=draws), np.float64
  )
  m = process.marginal(t)
  gain = m.alpha * v / (m.alpha**2 * v + m.sigma**2)
  bias, noise = (1 - m.alpha * gain) * away, gain * m.sigma
  error = np.sqrt((4 * bias**2 * noise**2 + 2 * noise**4) / (size * draws))
  assert np.all(np.abs(scores - bias**2 - noise**2) < 4.5 * error), (scores, bias**2 + noise**2)


def binned(count=3000, bins=12):
  """A mixture with one component of 4%, samples of it and their bins by minority score."""
  process = processes.edm(
    sigma_min=0.01, sigma_max=80.0
  )  # from 20 the start alone, without the guided mean, costs the rare one 0.02
  oracle = oracles.gaussian_mixture(
    process, [0.48, 0.48, 0.04], [[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]], 0.05, dtype=jnp.float32
  )
  data = oracle.sample(jax.random.key(0), count)
  return (
    oracle,
    data,
    guidance.minority_bins(
      guidance.minority_score(oracle, data, 2.0, jax.random.split(jax.random.key(1), count), draws=16), bins
    ),
  )


def share_of_the_rare(oracle, denoiser, rows=2000):
  """Share of samples in the third component, by 30 steps of a sampler."""
  x = solvers.sample(
    denoiser,
    solvers.build("dpmpp_2m", oracle.process, 30),
    oracle.process.prior(jax.random.split(jax.random.key(2), rows), (2,)),
  )
  return float(jnp.mean(jnp.argmax(oracle.responsibilities(x, jnp.full(rows, 0.01)), axis=1) == 2))


@pytest.mark.slow
def test_the_highest_minority_bin_asked_for_brings_the_rare_component():
  """Bins of equal share by score; by Bayes on the mixture p(highest | x_t) is the mean of each component's
  share in that bin.

  The guided model is then the mixture with its weights times these shares. Of 2,000 samples the rare
  component's part is that within 4.5 standard errors and 0.01 for 30 steps from sigma 80, and at least eight
  times its 4%; the lowest bin holds none of it.
  """
  oracle, data, bins = binned()
  assert np.bincount(bins).tolist() == [250] * 12
  component = np.asarray(jnp.argmax(oracle.responsibilities(data, jnp.full(3000, 0.01)), axis=1))
  top = np.array([np.mean(bins[component == k] == 11) for k in range(3)])
  assert not np.any(bins[component == 2] == 0)
  highest = lambda top, x, t, cond: jnp.log(jnp.sum(oracle.responsibilities(x, t) * top[None, :], axis=1))
  expected = 0.04 * top[2] / np.sum(np.array([0.48, 0.48, 0.04]) * top)
  share = share_of_the_rare(oracle, guidance.classifier(highest, jnp.asarray(top, jnp.float32))(oracle))
  assert (
    abs(share - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 2000) + 0.01 and share > 8 * 0.04
  ), (share, expected)


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_a_classifier_that_learned_the_minority_bins_brings_the_rare_component():
  """A small network learns the bin of noised data, and guides to the highest: at least six times the rare
  component's 4% among 2,000 samples."""
  oracle, data, bins = binned()
  labels = jnp.asarray(bins)

  def logits(params, x, t):
    h = jnp.concatenate([x / jnp.sqrt(1.0 + t**2)[:, None], jnp.log(t)[:, None]], axis=1)
    for matrix, bias in params[:-1]:
      h = jax.nn.gelu(h @ matrix + bias)
    return h @ params[-1][0] + params[-1][1]

  def loss(params, key):
    which, levels, noise = jax.random.split(key, 3)
    rows = jax.random.randint(which, (512,), 0, len(labels))
    t = jnp.exp(jax.random.uniform(levels, (512,), minval=np.log(0.01), maxval=np.log(80.0)))
    x = data[rows] + t[:, None] * jax.random.normal(noise, (512, 2))
    return -jnp.mean(jax.nn.log_softmax(logits(params, x, t))[jnp.arange(512), labels[rows]])

  sizes, optimizer = (3, 64, 64, 12), optax.adam(3e-3)
  params = [
    (jax.random.normal(key, (a, b)) / np.sqrt(a), jnp.zeros(b))
    for key, a, b in zip(jax.random.split(jax.random.key(3), 3), sizes, sizes[1:])
  ]

  def step(carry, key):
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss)(params, key), state)
    return (optax.apply_updates(params, updates), state), None

  (params, _), _ = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))(
    (params, optimizer.init(params)), jax.random.split(jax.random.key(4), 2000)
  )
  highest = lambda params, x, t, cond: jax.nn.log_softmax(logits(params, x, t))[:, -1]
  plain, share = (
    share_of_the_rare(oracle, oracle),
    share_of_the_rare(oracle, guidance.classifier(highest, params)(oracle)),
  )
  # Both shares are of 2,000: 4.5 standard errors under six times 4% and over 4% would not be chance.
  assert (
    plain < 0.04 + 4.5 * np.sqrt(0.04 * 0.96 / 2000)
    and share - 4.5 * np.sqrt(share * (1 - share) / 2000) > 6 * 0.04
  ), (plain, share)


@pytest.mark.slow
def test_rare_components_become_common_under_minority_guidance():
  """Six components of weights 1/21 to 6/21: the rarest two score above the two most common, and guidance
  raises the share of the two rarest from 14% past 40%."""
  process = processes.edm(sigma_max=20.0)
  angle = 2 * np.pi * np.arange(6) / 6
  means, weights = 2.0 * np.stack([np.cos(angle), np.sin(angle)], 1), np.arange(1, 7) / 21
  oracle = oracles.gaussian_mixture(process, weights, means, 0.04)
  data = oracle.sample(jax.random.key(0), 2000)
  scores = np.asarray(
    guidance.minority_score(oracle, data, 2.0, jax.random.split(jax.random.key(1), 2000), draws=16)
  )
  component = np.asarray(jnp.argmax(oracle.responsibilities(data, jnp.full(2000, 1e-3)), axis=1))
  averages = [scores[component == k].mean() for k in range(6)]
  assert min(averages[:2]) > max(averages[4:])
  rare = lambda oracle, x, t, cond: jnp.log(jnp.sum(oracle.responsibilities(x, t)[:, :2], axis=1))
  x = process.prior(jax.random.split(jax.random.key(2), 1000), (2,))
  table = solvers.build("dpmpp_2m", process, 20)
  share = lambda denoiser: float(
    jnp.mean(
      jnp.argmax(oracle.responsibilities(solvers.sample(denoiser, table, x), jnp.full(1000, 1e-2)), axis=1)
      < 2
    )
  )
  assert abs(share(oracle) - 3 / 21) < 0.05 and share(guidance.classifier(rare, oracle, 3.5)(oracle)) > 0.4


@pytest.mark.parametrize(
  "make,error,words",
  [
    (lambda: guidance.dynamic_threshold(1.5), ValueError, "share of a sample's entries"),
    (lambda: guidance.static_threshold(0.0), ValueError, "positive"),
    (lambda: guidance.conjunction([]), ValueError, "at least one condition"),
    (lambda: guidance.conjunction([{"label": 1}], (1.0, 2.0)), ValueError, "a weight for each"),
    (lambda: guidance.disjunction([{"label": 1}], 3.0), TypeError, "log_weights is a function"),
    (lambda: guidance.classifier(2.0), TypeError, "log_prob is a function"),
    (lambda: guidance.gradient_free(None, 1.0), TypeError, "classify is a function"),
    (lambda: guidance.experts(processes.edm(), [2.0, 1.0], lambda *a: 0), ValueError, "ascending"),
    (
      lambda: guidance.autoguidance(mixture("ve"), 1.0)(mixture("edm")),
      ValueError,
      "one lives on 'edm' and the other on 've'",
    ),
    (
      lambda: guidance.autoguidance(oracles.gaussian(processes.vp_linear(beta_max=5.0), [0.0], [1.0]), 1.0)(
        oracles.gaussian(processes.vp_linear(), [0.0], [1.0])
      ),
      ValueError,
      "alpha = .* and alpha = ",
    ),
    (
      lambda: guidance.gradient_free(lambda p, x: x, 1.0)(mixture())(*points()[:2]),
      ValueError,
      "target class",
    ),
    (
      lambda: guidance.conjunction([{"label": jnp.zeros(3, jnp.int32)}])(mixture())(*points()[:2]),
      ValueError,
      "3 rows and the batch has 5",
    ),
    (
      lambda: guidance.classifier(lambda params, x, t, cond: x, None)(mixture())(*points()),
      ValueError,
      "one number per example",
    ),
    (lambda: guidance.minority_bins(np.zeros(3), 4), ValueError, "2 to 3 bins"),
  ],
)
def test_mistakes_are_named(make, error, words):
  with pytest.raises(error, match=words):
    make()
