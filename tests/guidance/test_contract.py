"""What every denoiser transform keeps.

Views of one prediction, rows that do not meet, a neutral setting, and no second trace.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guidance_cases import EACH_PROCESS, VIEWS, class_logits, mixture, points, posterior

from diffusion import guidance
from diffusion.processes import expand


def clean_logits(params, x0):
  return -jnp.sum(jnp.square(x0[:, None, :] - params[None, :, :]), axis=-1)


# Each with one number to change, and the number at which the transform does nothing to the conditional
# prediction (None: there is none).
TRANSFORMS = {
  "classifier_free": (lambda oracle, w: guidance.classifier_free(w), 0.0),
  "classifier_free, negative": (lambda oracle, w: guidance.classifier_free(w, negative={"label": 2}), 0.0),
  "classifier_free, interval": (lambda oracle, w: guidance.classifier_free(w, interval=(0.1, 2.0)), 0.0),
  "by_condition, learned": (
    lambda oracle, w: guidance.chain(guidance.by_condition(), guidance.learned(w)),
    0.0,
  ),
  "autoguidance": (lambda oracle, w: guidance.autoguidance(oracle.replace(means=1.1 * oracle.means), w), 0.0),
  "classifier": (lambda oracle, w: guidance.classifier(posterior, oracle, w), 0.0),
  "gradient_free": (lambda oracle, w: guidance.gradient_free(clean_logits, w, oracle.means[:3]), 0.0),
  "conjunction": (lambda oracle, w: guidance.conjunction([{"label": 1}, {"label": 2}], (w, -0.5 * w)), None),
  "disjunction": (
    lambda oracle, w: guidance.disjunction(
      [{"label": 0}, {"label": 1}], class_logits, oracle.replace(means=w * oracle.means)
    ),
    None,
  ),
  "epsilon_scaling": (lambda oracle, w: guidance.epsilon_scaling(1.0 + 0.05 * w), 0.0),
  "static_threshold": (lambda oracle, w: guidance.static_threshold(0.4 + w), 1e6),
  "dynamic_threshold": (lambda oracle, w: guidance.dynamic_threshold(0.9, 0.2 + w), 1e6),
}
ALL = pytest.mark.parametrize("name", TRANSFORMS)


@functools.partial(jax.jit, static_argnames="views")
def call(denoiser, x, t, cond, views=VIEWS):
  return denoiser(x, t, cond, views=views)


@ALL
@EACH_PROCESS
def test_views_are_of_one_prediction(name, process, x64):
  oracle = mixture(process)
  denoiser = TRANSFORMS[name][0](oracle, 1.3)(oracle)
  x, t, cond = points(jnp.float64)
  p, m = call(denoiser, x, t, cond), jax.tree.map(lambda leaf: expand(leaf, x), denoiser.process.marginal(t))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
  close(m.alpha * p.x0 + m.sigma * p.eps, x)
  close(p.eps, -m.sigma * p.score)
  close(p.v, m.alpha * p.eps - m.sigma * p.x0)
  close(p.velocity, m.d_alpha * p.x0 + m.d_sigma * p.eps)
  alone = call(denoiser, x, t, cond, views=("eps",))
  close(alone.eps, p.eps)
  assert set(alone) == {"eps"}


@ALL
def test_rows_do_not_meet_and_numbers_do_not_retrace(name):
  make, neutral = TRANSFORMS[name]
  oracle = mixture()
  x, t, cond = points()
  traces = []

  @jax.jit
  def traced(denoiser, x, t, cond):
    traces.append(1)
    return denoiser(x, t, cond).x0

  whole = traced(make(oracle, 1.3)(oracle), x, t, cond)
  order = np.array([3, 1, 4, 0, 2])
  permuted = traced(make(oracle, 1.3)(oracle), x[order], t[order], {"label": cond["label"][order]})
  np.testing.assert_allclose(permuted, whole[order], rtol=1e-5, atol=1e-6)
  other = traced(make(oracle, 0.2)(oracle), x, t, cond)
  assert len(traces) == 1 and np.abs(other - whole).max() > 1e-3
  if neutral is not None:
    np.testing.assert_allclose(
      traced(make(oracle, neutral)(oracle), x, t, cond), oracle(x, t, cond).x0, rtol=1e-4, atol=1e-5
    )


def test_a_weight_of_each_sample_is_that_weight_for_all():
  oracle = mixture()
  x, t, cond = points()
  each = guidance.by_condition()(oracle)(
    x, t, {**cond, "guidance": jnp.asarray([0.0, 0.3, 1.0, 4.0, 1.3])}
  ).x0
  for row, w in enumerate((0.0, 0.3, 1.0, 4.0, 1.3)):
    np.testing.assert_allclose(
      each[row], guidance.classifier_free(w)(oracle)(x, t, cond).x0[row], rtol=1e-5, atol=1e-6
    )
  for bad, words in (
    (None, "guidance without a conditional model"),
    ({"guidance": t}, "guidance without a conditional model"),
    (cond, "add 'guidance'"),
  ):
    with pytest.raises(ValueError, match=words):
      guidance.by_condition()(oracle)(x, t, bad)
  with pytest.raises(ValueError, match="has a weight 'guidance' of its own"):
    guidance.learned(1.0)(guidance.by_condition()(oracle))(x, t, {**cond, "guidance": t})
