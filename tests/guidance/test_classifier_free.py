"""Classifier-free guidance where the answer is known: Gaussian classes, intervals, chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, guidance, processes

VIEWS = ("x0", "eps", "score", "v", "velocity")


def class_denoiser(process):
  """Exact denoiser of p(x | label) = N(label, 0.3^2); label -1 is N(-1, 0.3^2) and stands for 'no class'."""

  def posterior_mean(params, x, t, cond):
    m = process.marginal(t)
    mean = cond["label"].astype(x.dtype)
    variance = m.alpha**2 * 0.09 + m.sigma**2
    gain = processes.expand(m.alpha * 0.09 / variance, x)
    return processes.expand(mean, x) + gain * (x - processes.expand(m.alpha * mean, x))

  return denoisers.from_function(posterior_mean, process, denoisers.x0())


@pytest.mark.parametrize("name", sorted(processes.PROCESSES))
def test_guided_score_is_the_extrapolated_score(name, x64):
  """grad log of p_c^(1+w) p_u^(-w) is (1+w) score_c - w score_u; every view agrees with x0 by the table."""
  process = processes.PROCESSES[name]()
  denoiser, w = class_denoiser(process), 1.5
  t = jnp.asarray([0.05, 0.4, 0.8])
  x = jax.random.normal(jax.random.key(0), (3, 2), jnp.float64)
  cond = {"label": jnp.asarray([0, 2, 5])}
  guided = guidance.classifier_free(w)(denoiser)(x, t, cond, views=VIEWS)
  m = jax.tree.map(lambda c: processes.expand(c, x), process.marginal(t))
  variance = m.alpha**2 * 0.09 + m.sigma**2
  score = lambda mean: -(x - m.alpha * mean) / variance
  expected = (1 + w) * score(processes.expand(cond["label"].astype(x.dtype), x)) - w * score(-1.0)
  np.testing.assert_allclose(guided.score, expected, rtol=1e-7, atol=1e-8)
  # The other views are views of the same prediction.
  np.testing.assert_allclose(m.alpha * guided.x0 + m.sigma * guided.eps, x, rtol=1e-7, atol=1e-8)
  np.testing.assert_allclose(guided.eps, -m.sigma * expected, rtol=1e-7, atol=1e-8)
  np.testing.assert_allclose(guided.v, m.alpha * guided.eps - m.sigma * guided.x0, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(
    guided.velocity, m.d_alpha * guided.x0 + m.d_sigma * guided.eps, rtol=1e-6, atol=1e-6
  )


def test_limits_of_the_weight():
  denoiser = class_denoiser(processes.edm())
  x, t, cond = jnp.ones((2, 3)), jnp.ones(2), {"label": jnp.asarray([1, 4])}
  plain = denoiser(x, t, cond).x0
  null = denoiser(x, t, denoisers.null_condition(cond)).x0
  np.testing.assert_allclose(guidance.classifier_free(0.0)(denoiser)(x, t, cond).x0, plain, rtol=1e-6)
  np.testing.assert_allclose(guidance.classifier_free(-1.0)(denoiser)(x, t, cond).x0, null, rtol=1e-6)


@pytest.mark.parametrize("name", ["edm", "vp_linear"])
def test_interval_switches_guidance_per_sample(name):
  """An interval is of sigma/alpha, whatever the process: on a variance-preserving one sigma itself never
  leaves (0, 1)."""
  process = processes.PROCESSES[name]()
  denoiser = class_denoiser(process)
  levels = np.array([0.29, 0.31, 1.0, 4.9, 5.1, 9.0])
  x, cond = jnp.ones((6, 2)), {"label": jnp.full(6, 3)}
  t = jnp.asarray(process.t_of_log_snr(-2.0 * np.log(levels)), jnp.float32)
  guided = guidance.classifier_free(2.0, interval=(0.3, 5.0))(denoiser)(x, t, cond).x0
  everywhere = guidance.classifier_free(2.0)(denoiser)(x, t, cond).x0
  plain = denoiser(x, t, cond).x0
  for row, level in enumerate(levels):
    np.testing.assert_array_equal(guided[row], (everywhere if 0.3 <= level <= 5.0 else plain)[row])
    assert np.abs(everywhere[row] - plain[row]).max() > 1e-2


def test_one_weight_a_sample():
  denoiser = class_denoiser(processes.edm())
  x, t, cond = jnp.ones((2, 3)), jnp.ones(2), {"label": jnp.asarray([1, 4])}
  both = guidance.classifier_free(jnp.asarray([0.5, 3.0]))(denoiser)(x, t, cond).x0
  for i, w in enumerate((0.5, 3.0)):
    np.testing.assert_allclose(both[i], guidance.classifier_free(w)(denoiser)(x, t, cond).x0[i], rtol=1e-6)


def test_two_guidances_in_a_chain_multiply():
  """Guiding a guided denoiser by w2 after w1 gives 1 + w = (1 + w1)(1 + w2), because the null stays where it
  is."""
  denoiser = class_denoiser(processes.edm())
  x, t, cond = jnp.ones((2, 3)), jnp.ones(2), {"label": jnp.asarray([1, 4])}
  chained = guidance.chain(guidance.classifier_free(0.5), guidance.classifier_free(1.0))(denoiser)(
    x, t, cond
  ).x0
  np.testing.assert_allclose(chained, guidance.classifier_free(2.0)(denoiser)(x, t, cond).x0, rtol=1e-5)
  np.testing.assert_array_equal(guidance.chain()(denoiser)(x, t, cond).x0, denoiser(x, t, cond).x0)


def test_weight_is_a_leaf():
  traces = []
  denoiser = class_denoiser(processes.edm())

  @jax.jit
  def call(denoiser, x, t, cond):
    traces.append(1)
    return denoiser(x, t, cond).x0

  for w in (0.0, 0.7, 2.0):
    call(
      guidance.classifier_free(w, interval=(0.1, 3.0 + w))(denoiser),
      jnp.ones((2, 3)),
      jnp.ones(2),
      {"label": jnp.asarray([1, 4])},
    )
  assert len(traces) == 1


def test_errors():
  denoiser = class_denoiser(processes.edm())
  with pytest.raises(ValueError, match="needs a condition"):
    guidance.classifier_free(1.0)(denoiser)(jnp.ones((2, 3)), jnp.ones(2))
  with pytest.raises(ValueError, match="low < high"):
    guidance.classifier_free(1.0, interval=(2.0, 1.0))


def forward_with_cfg(network, x, t, label, scale, guided=3):
  """The authors' function of DiT and SiT, of their batch: the conditional half, then that of no class."""
  both = network(jnp.concatenate([x, x]), jnp.concatenate([t, t]), jnp.concatenate([label, 0 * label - 1]))
  (some, other), (rest, _) = (jnp.split(part, 2) for part in (both[..., :guided], both[..., guided:]))
  return jnp.concatenate([other + scale * (some - other), rest], axis=-1)


def test_some_channels_are_guided_as_dit_and_sit_have_it():
  """Of eps and of velocity; the other views agree with the network's, and a variance is its own."""
  draw = np.random.default_rng(0)
  table, matrix = (jnp.asarray(draw.normal(size=size), jnp.float32) for size in ((4, 8), (4, 8)))

  def network(x, t, label):
    return jnp.tanh(
      jnp.matmul(x, matrix, precision="highest") + table[label][:, None, None, :] * t[:, None, None, None]
    )

  x, t = jnp.asarray(draw.normal(size=(2, 3, 3, 4)), jnp.float32), jnp.asarray([0.4, 0.7])
  label = jnp.asarray([2, 0])
  fn = lambda params, x, t, cond: network(x, t, cond["label"])
  double = denoisers.from_function(fn, processes.ddpm_ladder(), denoisers.with_variance(denoisers.eps()))
  guided = guidance.classifier_free(3.0, channels=3)(double)
  ask = jax.jit(lambda guided, views: guided(x, t, {"label": label}, views=views), static_argnums=1)
  cfg = jax.jit(forward_with_cfg, static_argnums=(0, 4))
  found, wanted = ask(guided, ("eps", "x0", "variance_fraction")), cfg(network, x, t, label, 4.0)
  np.testing.assert_allclose(found.eps, wanted[..., :4], rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(found.variance_fraction, 0.5 * (1 + wanted[..., 4:]), rtol=1e-5, atol=1e-6)
  of_eps = double.process.convert("eps", found.eps, x, t, ("x0",))["x0"]
  np.testing.assert_allclose(found.x0, of_eps, rtol=1e-4, atol=1e-4)

  half = lambda x, t, label: network(x, t, label)[..., :4]
  flow = denoisers.from_function(
    lambda params, x, t, cond: half(x, t, cond["label"]), processes.rectified_flow(), denoisers.velocity()
  )
  found = ask(guidance.classifier_free(0.5, channels=3)(flow), ("velocity",)).velocity
  np.testing.assert_allclose(found, cfg(half, x, t, label, 1.5), rtol=1e-5, atol=1e-5)


def test_channels_that_are_not_there_are_named():
  with pytest.raises(ValueError, match="channels=0"):
    guidance.classifier_free(1.0, channels=0)
  model = denoisers.from_function(lambda p, x, t, c: x, processes.edm(), denoisers.x0())
  with pytest.raises(ValueError, match="first 3 channels of x with 2"):
    guidance.classifier_free(1.0, channels=3)(model)(
      jnp.ones((1, 2)), jnp.ones(1), {"label": jnp.zeros(1, int)}
    )
