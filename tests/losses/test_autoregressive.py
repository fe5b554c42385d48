"""Autoregressive score matching with its exact derivative and by denoising.

One expectation, and its limits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, processes
from losses import gaussian_family as family

PROCESS = processes.vp_cosine()


def test_both_forms_have_one_expectation_value_and_gradient(x64):
  """Exactly: in the Gaussian family the quadrature over x0 and eps has no error."""
  own = family.params(family.ELSEWHERE, jnp.float64)

  def expected(objective):
    draw = family.quadrature(objective, PROCESS, 0.3)
    value = lambda p: jnp.mean(objective(family.bound(PROCESS, p), draw).interior)
    value, slope = jax.jit(jax.value_and_grad(value))(own)
    assert float(slope["matrix"][0, 1]) == 0.0  # what the first conditional does not see
    return [float(value), *np.asarray(slope["offset"]), *np.asarray(slope["matrix"]).ravel()]

  exact, denoising = (
    losses.autoregressive_score_matching(PROCESS),
    losses.autoregressive_denoising_score_matching(PROCESS),
  )
  np.testing.assert_allclose(expected(exact), expected(denoising), rtol=1e-9, atol=1e-12)


def test_on_clean_data_the_value_is_the_divergence_up_to_a_constant(x64):
  """sum_d E [s_d^2 + 2 s_d'] = sum_d E (s_d - s_d of the data)^2 - 1 / (variance of x_d given x_<d), with
  points that have exact moments."""
  covariance, mean = np.asarray(family.COVARIANCE), np.asarray(family.MEAN)
  signs = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
  root = np.linalg.cholesky(covariance)
  x = mean + signs @ root.T
  gain, rate, shift = 0.9, np.array([1.5, 2.5]), np.array([0.1, -0.4])
  # s_d = rate_d (shift_d + gain x_1 [d = 2] - x_d)
  context = lambda own, x, t, cond=None: jnp.stack(
    [jnp.full_like(x[:, 0], own[0]), own[1] + gain * x[:, 0]], 1
  )[..., None]
  head = lambda own, x, t, cond: jnp.asarray(rate)[None] * (cond["context"][..., 0] - x)
  roles = losses.roles(model=denoisers.from_functions(context=context, head=head))(
    {"model": jnp.asarray(shift), "loss": {}}, {}
  )
  objective = losses.autoregressive_score_matching()
  draw = objective.draw(jax.random.key(0), {"x": jnp.asarray(x)}, jnp.zeros(4), {})
  value = float(jnp.mean(jax.jit(lambda draw: objective(roles, draw).interior)(draw)))
  model = rate * (np.stack([np.full(4, shift[0]), shift[1] + gain * x[:, 0]], 1) - x)
  of_data = -signs / np.diag(root)
  np.testing.assert_allclose(
    value, np.mean(np.sum((model - of_data) ** 2, 1)) - np.sum(np.diag(root) ** -2), rtol=1e-10
  )


@pytest.mark.slow
def test_of_one_dimension_it_is_score_matching_row_by_row():
  """With D = 1 the conditional is the density: both forms equal their joint counterparts, whose score is not
  linear."""
  process = processes.edm()
  context = lambda own, x, t, cond=None: jnp.broadcast_to(t[:, None, None], (*x.shape, 1))
  head = lambda own, x, t, cond: -jnp.tanh(own * x) / (1.0 + cond["context"][..., 0])
  score = lambda own, x, t, cond=None: -jnp.tanh(own * x) / (1.0 + t[:, None])
  roles = losses.roles(model=denoisers.from_functions(context=context, head=head, score=score))(
    {"model": 1.7, "loss": {}}, {}
  )
  batch, t = {"x": jnp.linspace(-1.0, 1.0, 8)[:, None]}, jnp.linspace(0.1, 2.0, 8)
  one, joint = losses.autoregressive_score_matching(process), losses.score_matching(process)
  draw = one.draw(jax.random.key(0), batch, t, {})
  values = jax.jit(lambda draw: [objective(roles, draw).interior for objective in (one, joint)])(draw)
  np.testing.assert_allclose(*values, rtol=1e-5)
  sigma = process.marginal(t).sigma[:, None]
  x_t = process.corrupt(draw.x0, draw.noise, t)
  expected = jnp.sum((sigma * score(1.7, x_t, t) + draw.noise) ** 2, 1)
  found = losses.autoregressive_denoising_score_matching(process)(roles, draw).interior
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_values_are_finite_where_there_is_no_noise():
  process = processes.rectified_flow()
  roles = losses.roles(
    model=denoisers.from_functions(
      context=lambda own, x, t, cond=None: jnp.zeros((*x.shape, 1)),
      head=lambda own, x, t, cond: -jnp.tanh(own * x),
    )
  )({"model": 1.0, "loss": {}}, {})
  for objective in (
    losses.autoregressive_score_matching(process),
    losses.autoregressive_denoising_score_matching(process),
  ):
    draw = objective.draw(jax.random.key(0), {"x": jnp.ones((2, 3))}, jnp.array([0.0, 1.0]), {})
    assert np.all(np.isfinite(objective(roles, draw).interior))


def evaluated(context, head):
  """Shapes alone: what is wrong is said while tracing."""
  roles = losses.roles(model=denoisers.from_functions(context=context, head=head))(
    {"model": 1.0, "loss": {}}, {}
  )
  objective = losses.autoregressive_score_matching()
  draw = objective.draw(jax.random.key(0), {"x": jnp.ones((2, 3))}, jnp.zeros(2), {})
  return jax.eval_shape(lambda draw: objective(roles, draw), draw)


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: losses.autoregressive_score_matching(3.0), "process=None; got float"),
    (lambda: losses.autoregressive_denoising_score_matching(None), "take autoregressive_score_matching"),
    (lambda: losses.autoregressive_denoising_score_matching(3.0), "got float"),
    (
      lambda: losses.chain(
        losses.autoregressive_score_matching(),
        losses.at_times(roles=losses.roles(model=denoisers.from_functions(score=jnp.sin))),
      ),
      "needs 'context' of the role 'model'",
    ),
    (
      lambda: losses.autoregressive_score_matching().draw(
        jax.random.key(0), jnp.ones((2, 2)), jnp.ones(2), {}
      ),
      "a dict with 'x'",
    ),
    (lambda: evaluated(lambda own, x, t, cond: x, lambda own, x, t, cond: x), "one vector a coordinate"),
    (
      lambda: evaluated(lambda own, x, t, cond: x[..., None], lambda own, x, t, cond: cond["context"]),
      "drop the axis of the context",
    ),
  ],
)
def test_mistakes_raise_a_sentence(build, words):
  with pytest.raises(ValueError, match=words):
    build()
