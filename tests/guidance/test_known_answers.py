"""Guidance where the answer is known: exact classes of a mixture, products of Gaussians, thresholds, experts, rare components."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, guidance, oracles, processes, solvers
from diffusion.sampling import forward_passes
from guidance_cases import EACH_PROCESS, class_logits, mixture, points, posterior


@EACH_PROCESS
def test_the_exact_classifier_makes_the_conditional_model(process, x64):
  """Bayes: grad log p(x) + grad log p(c | x) = grad log p(x | c), at every noise level."""
  oracle = mixture(process)
  x, t, cond = points(oracle.means.dtype)
  nothing = denoisers.null_condition(cond)
  guided = guidance.classifier(posterior, oracle)(Unconditional(oracle))(x, t, cond, views=("score", "eps", "x0"))
  truth = oracle(x, t, cond, views=("score", "eps", "x0"))
  np.testing.assert_allclose(guided.score, truth.score, rtol=1e-8, atol=1e-8)
  np.testing.assert_allclose(guided.eps, truth.eps, rtol=1e-8, atol=1e-8)
  np.testing.assert_allclose(guided.x0, truth.x0, rtol=1e-8, atol=1e-8)
  assert np.abs(oracle(x, t, nothing).x0 - truth.x0).max() > 0.05


class Unconditional:
  """A denoiser that does not see its condition."""

  def __init__(self, oracle):
    self.oracle, self.process = oracle, oracle.process

  def __call__(self, x, t, cond=None, **options):
    return self.oracle(x, t, None, **options)


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
  np.testing.assert_allclose(guidance.conjunction([{"label": 1}], (2.5,))(oracle)(x, t).x0, guidance.classifier_free(1.5)(oracle)(x, t, same).x0, atol=1e-5)
  # c and not c2 with equal weights: the unconditional parts cancel, so this is guidance with c2 as the negative condition.
  against = guidance.conjunction([cond, {"label": 2}], (2.0, -1.0))(oracle)(x, t).x0
  np.testing.assert_allclose(against, guidance.classifier_free(1.0, negative={"label": 2})(oracle)(x, t, cond).x0, atol=1e-5)
  assert forward_passes(guidance.conjunction([cond, cond])(oracle), None, nfe=10) == 30
  assert forward_passes(guidance.chain(guidance.classifier_free(1.0), guidance.static_threshold())(oracle), None, nfe=10) == 20


def product(count=4096):
  """N(-1, 1) and N(1, 1) as classes of the unconditional N(0, 4): the true product over the unconditional has variance 4/7."""
  process = processes.edm(sigma_min=0.01, sigma_max=20.0)
  parts = {0: (-1.0, 1.0), 1: (1.0, 1.0), -1: (0.0, 4.0)}

  def posterior_mean(params, x, t, cond):
    del params
    label, m = cond["label"], process.marginal(t)
    mean = sum(jnp.where(label == key, value[0], 0.0) for key, value in parts.items()).astype(x.dtype)[:, None]
    variance = sum(jnp.where(label == key, value[1], 0.0) for key, value in parts.items()).astype(x.dtype)[:, None]
    return mean + variance / (variance + m.sigma[:, None] ** 2) * (x - mean)
  denoiser = denoisers.from_function(posterior_mean, process, denoisers.x0())
  both = guidance.conjunction([{"label": 0}, {"label": 1}])(denoiser)
  keys = jax.random.split(jax.random.key(0), count)
  return process, both, process.sample_prior(jax.random.key(1), (count, 1)), keys


def test_the_product_is_right_with_correctors_and_too_narrow_without():
  """The flow alone ends at 0.243 in place of 4/7 = 0.571 (linear, so its variance is exact up to sampling and steps).

  Of 4,096 samples a variance is off by less than 9% with 99.99% confidence (4 standard errors of 2.2%).
  """
  process, both, x, keys = product()
  flow = solvers.sample(both, solvers.build("dpmpp_2m", process, 40), x)
  assert abs(float(jnp.var(flow)) / 0.243 - 1.0) < 0.12
  grid = solvers.grids.karras(process, 40)
  corrected = solvers.predictor_corrector(process, grid, predictor=solvers.ddim, corrector=solvers.annealed, snr=0.4, n_corrector=5)
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
  np.testing.assert_allclose(guided, target + 2.0 * (1.0 - probability)[:, None] * (target - reference), rtol=1e-4, atol=1e-5)


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


@pytest.mark.slow
def test_rare_components_become_common_under_minority_guidance():
  """Six components of weights 1/21 to 6/21: the rarest two score above the two most common, and guidance raises the share of the two rarest from 14% past 40%."""
  process = processes.edm(sigma_max=20.0)
  angle = 2 * np.pi * np.arange(6) / 6
  means, weights = 2.0 * np.stack([np.cos(angle), np.sin(angle)], 1), np.arange(1, 7) / 21
  oracle = oracles.gaussian_mixture(process, weights, means, 0.04)
  data = oracle.sample(jax.random.key(0), 2000)
  scores = np.asarray(guidance.minority_score(oracle, data, 2.0, jax.random.split(jax.random.key(1), 2000), draws=16))
  component = np.asarray(jnp.argmax(oracle.responsibilities(data, jnp.full(2000, 1e-3)), axis=1))
  averages = [scores[component == k].mean() for k in range(6)]
  assert min(averages[:2]) > max(averages[4:])
  rare = lambda oracle, x, t, cond: jnp.log(jnp.sum(oracle.responsibilities(x, t)[:, :2], axis=1))
  x = process.sample_prior(jax.random.key(2), (1000, 2))
  table = solvers.build("dpmpp_2m", process, 20)
  share = lambda denoiser: float(jnp.mean(jnp.argmax(oracle.responsibilities(solvers.sample(denoiser, table, x), jnp.full(1000, 1e-2)), axis=1) < 2))
  assert abs(share(oracle) - 3 / 21) < 0.05 and share(guidance.classifier(rare, oracle, 3.5)(oracle)) > 0.4


@pytest.mark.parametrize("make,error,words", [
    (lambda: guidance.dynamic_threshold(1.5), ValueError, "share of a sample's entries"),
    (lambda: guidance.static_threshold(0.0), ValueError, "positive"),
    (lambda: guidance.conjunction([]), ValueError, "at least one condition"),
    (lambda: guidance.conjunction([{"label": 1}], (1.0, 2.0)), ValueError, "a weight for each"),
    (lambda: guidance.disjunction([{"label": 1}], 3.0), TypeError, "log_weights is a function"),
    (lambda: guidance.classifier(2.0), TypeError, "log_prob is a function"),
    (lambda: guidance.gradient_free(None, 1.0), TypeError, "classify is a function"),
    (lambda: guidance.experts(processes.edm(), [2.0, 1.0], lambda *a: 0), ValueError, "ascending"),
    (lambda: guidance.autoguidance(mixture("ve"), 1.0)(mixture("edm")), ValueError, "must share one"),
    (lambda: guidance.gradient_free(lambda p, x: x, 1.0)(mixture())(*points()[:2]), ValueError, "target class"),
    (lambda: guidance.conjunction([{"label": jnp.zeros(3, jnp.int32)}])(mixture())(*points()[:2]), ValueError, "3 rows and the batch has 5"),
    (lambda: guidance.classifier(lambda params, x, t, cond: x, None)(mixture())(*points()), ValueError, "one number per example"),
    (lambda: guidance.minority_bins(np.zeros(3), 4), ValueError, "2 to 3 bins"),
])
def test_mistakes_are_named(make, error, words):
  with pytest.raises(error, match=words):
    make()
