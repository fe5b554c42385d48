"""Second- and third-order denoising score matching.

Against Tweedie's formulas on atoms, and what their variance reduction does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, oracles, processes
from diffusion.math import symmetric

PROCESS = processes.vp_cosine()
POINTS = np.array([[0.3, -1.0], [1.2, 0.4], [-0.8, 0.1]])
TIMES = np.array([0.2, 0.6])


def noised_atoms():
  """(draw, weights, t): at each of two x_t, every atom that x_t may have come from, with its posterior
  probability."""
  oracle = oracles.atoms(PROCESS, POINTS)
  t = jnp.asarray(TIMES)
  x = jnp.array([[0.1, 0.2], [-0.4, 0.5]])
  m = PROCESS.marginal(t)
  square = jnp.sum((x[:, None] - m.alpha[:, None, None] * POINTS[None]) ** 2, -1)
  weights = jax.nn.softmax(-0.5 * square / m.sigma[:, None] ** 2, axis=1)
  repeated = lambda a: jnp.repeat(a, 3, axis=0)
  x0 = jnp.tile(jnp.asarray(POINTS), (2, 1))
  eps = (repeated(x) - repeated(m.alpha)[:, None] * x0) / repeated(m.sigma)[:, None]
  return oracle, losses.Draw(t=repeated(t), x0=x0, noise=eps), weights.reshape(-1), x


def derivatives_of(oracle):
  """(x, t) -> the score, and its first and second derivatives in x by automatic differentiation."""
  score = lambda x, t: oracle.score(x[None], t[None])[0]
  second = jax.jacfwd(score)
  return jax.vmap(lambda x, t: (score(x, t), second(x, t), jax.jacfwd(second)(x, t)))


def test_the_minimisers_are_the_derivatives_of_log_p(x64):
  """At each x_t the posterior mean of the residual vanishes: the loss is at rest in s2, and in s3, at the
  truth alone."""
  oracle, draw, weights, x = noised_atoms()
  t = jnp.asarray(TIMES)
  truth = dict(zip(("score", "hessian", "third_derivative"), jax.jit(derivatives_of(oracle))(x, t)))
  np.testing.assert_allclose(truth["hessian"], oracle.hessian(x, t), atol=1e-10)
  for objective, name in [
    (losses.second_order_score_matching(PROCESS, variance_reduced=False), "hessian"),
    (losses.second_order_score_matching(PROCESS, variance_reduced=False, residual=True), "hessian"),
    (losses.third_order_score_matching(PROCESS), "third_derivative"),
  ]:

    def expected(shift, objective=objective, name=name):
      given = {**truth, name: truth[name] + shift}
      constant = lambda key: lambda _, x, t, cond: jnp.repeat(given[key], 3, axis=0)
      roles = losses.roles(model=denoisers.from_functions(**{key: constant(key) for key in given}))
      return jnp.sum(weights * objective(roles({"model": {}, "loss": {}}, {}), draw).interior)

    gradient = jax.jit(jax.grad(expected))
    assert np.abs(gradient(jnp.zeros_like(truth[name]))).max() < 1e-11
    assert np.abs(gradient(jnp.full_like(truth[name], 0.1))).max() > 1e-3
  # The third cumulant of x0 given x_t is sigma^6 s3 / alpha^3.
  m, found = PROCESS.marginal(t), truth["third_derivative"]
  w = weights.reshape(2, 3)
  centred = POINTS[None] - jnp.einsum("bk,kd->bd", w, POINTS)[:, None]
  cumulant = jnp.einsum("bk,bki,bkj,bkl->bijl", w, centred, centred, centred)
  np.testing.assert_allclose((m.sigma**6 / m.alpha**3)[:, None, None, None] * found, cumulant, atol=1e-12)


def smooth(own, x, t, cond=None):
  """A score of nothing in particular."""
  return own * jnp.sin(x @ jnp.asarray([[1.0, 0.4], [-0.3, 0.8]], x.dtype)) + 0.1 * t[:, None]


def factors_of(own, x):
  return (own * jnp.cos(x), jnp.stack([jnp.sin(x + own), jnp.tanh(x[:, ::-1])], -1), (1, -1))


FORMS = {
  "low rank": lambda own, x, t, cond=None: symmetric.LowRank(*factors_of(own, x)),
  "full": lambda own, x, t, cond=None: symmetric.LowRank(*factors_of(own, x)).dense(),
  "diagonal": lambda own, x, t, cond=None: symmetric.Diagonal(
    symmetric.LowRank(*factors_of(own, x)).diagonal_entries()
  ),
}


def bound(form, own=0.7):
  return losses.roles(model=denoisers.from_functions(score=smooth, hessian=FORMS[form]))(
    {"model": jnp.asarray(own), "loss": {}}, {}
  )


@functools.cache
def standard_normal(count=24):
  """Nodes and weights of a fine quadrature over two normals."""
  nodes, masses = np.polynomial.hermite_e.hermegauss(count)
  grid = lambda v: np.stack(np.meshgrid(v, v, indexing="ij"), -1).reshape(-1, 2)
  return grid(nodes), np.prod(grid(masses / masses.sum()), -1)


def over_noise(t=0.3):
  """A draw of one example whose rows are the nodes of the noise, and their weights."""
  eps, weights = standard_normal()
  eps, x0, t = jnp.asarray(eps), jnp.tile(jnp.array([[0.4, -0.9]]), (len(eps), 1)), jnp.full(len(eps), t)
  return losses.Draw(t=t, x0=x0, noise=eps), jnp.asarray(weights)


def test_an_error_of_the_score_biases_the_hessian_as_stated(x64):
  """By d d^T from the residuals, by -(s d^T + d s^T + d d^T) from the noise: there the posterior mean of the
  error vanishes."""
  oracle, draw, weights, x = noised_atoms()
  t, d = jnp.asarray(TIMES), jnp.array([[0.5, -0.3]])
  score, hessian = oracle.score(x, t), oracle.hessian(x, t)
  outer = lambda a, b: a[:, :, None] * b[:, None, :]
  for residual, bias in ((True, outer(d, d)), (False, -(outer(score, d) + outer(d, score) + outer(d, d)))):
    objective = losses.second_order_score_matching(
      PROCESS, variance_reduced=False, residual=residual, frozen_score=True
    )

    def expected(shift, objective=objective):
      roles = losses.roles(
        model=denoisers.from_functions(
          score=lambda _, x, t, cond=None: jnp.repeat(score + d, 3, axis=0),
          hessian=lambda _, x, t, cond=None: jnp.repeat(hessian + shift, 3, axis=0),
        )
      )
      return jnp.sum(weights * objective(roles({"model": {}, "loss": {}}, {}), draw).interior)

    assert np.abs(jax.jit(jax.grad(expected))(jnp.broadcast_to(bias, hessian.shape))).max() < 1e-11


@pytest.mark.parametrize(
  "form,residual",
  [
    ("low rank", False),
    ("low rank", True),
    ("diagonal", False),
    *(
      pytest.param(*rest, marks=pytest.mark.slow)
      for rest in (("full", False), ("full", True), ("diagonal", True))
    ),
  ],
)
def test_variance_reduction_leaves_the_expectation(form, residual, x64):
  """For every x0, over the noise: value and gradient, by a quadrature that is exact to 1e-10 on these
  fields."""
  draw, weights = over_noise()
  values = []
  for reduced in (False, True):
    objective = losses.second_order_score_matching(PROCESS, variance_reduced=reduced, residual=residual)
    roles = lambda own: losses.roles(model=denoisers.from_functions(score=smooth, hessian=FORMS[form]))(
      {"model": own, "loss": {}}, {}
    )
    mean = lambda own, objective=objective: jnp.sum(weights * objective(roles(own), draw).interior)
    values.append(jax.jit(jax.value_and_grad(mean))(jnp.asarray(0.7)))
  np.testing.assert_allclose(values[0], values[1], rtol=1e-9)
  assert abs(float(values[0][1])) > 1e-2


def test_first_order_variance_reduction_leaves_the_expectation(x64):
  template = denoisers.from_function(
    lambda own, x, t, cond: smooth(own, x, t), PROCESS, denoisers.score(), jnp.zeros(())
  )
  draw, weights = over_noise()
  roles = losses.roles(model=template)({"model": jnp.asarray(0.7), "loss": {}}, {})
  one, other = (
    losses.denoising_score_matching(PROCESS, target, variance_reduced=reduced)(roles, draw)
    for target, reduced in (("eps", False), ("x0", True))
  )
  np.testing.assert_allclose(jnp.sum(weights * one.interior), jnp.sum(weights * other.interior), rtol=1e-10)
  np.testing.assert_allclose(
    jnp.sum(weights * one.metrics["eps_mse"]), jnp.sum(weights * other.metrics["eps_mse"]), rtol=1e-10
  )


def test_the_noise_of_the_gradient_falls_by_the_order_that_is_stated(x64):
  """Over the draws of z, a gradient's standard deviation in units of its own scale: constant plain, of order
  sigma (first order) and of order sigma (second order) reduced; observed orders within 0.1 from sigma 0.02 to
  0.01."""
  process = processes.edm()
  eps, weights = standard_normal()
  eps, x0, weights = jnp.asarray(eps), jnp.tile(jnp.array([[0.4, -0.9]]), (len(eps), 1)), jnp.asarray(weights)
  template = denoisers.from_function(
    lambda own, x, t, cond: smooth(own, x, t), process, denoisers.score(), jnp.zeros(())
  )

  @functools.partial(jax.jit, static_argnums=0)
  def spread(objective, level):
    """The standard deviation over the noise of d value / d own, over sigma^k, the scale of the k-th order's
    derivative."""
    t = jnp.full(len(eps), level)
    draw = losses.Draw(t=t, x0=x0, noise=eps)
    roles = lambda own: losses.roles(model=denoisers.extend(template, hessian=FORMS["low rank"]))(
      {"model": own, "loss": {}}, {}
    )
    slope = jax.jacfwd(lambda own: objective(roles(own), draw).interior)(jnp.asarray(0.7))
    return jnp.sqrt(jnp.sum(weights * jnp.square(slope - jnp.sum(weights * slope))))

  orders = {}
  for name, objective in {
    "1": losses.denoising_score_matching(process),
    "1 reduced": losses.denoising_score_matching(process, variance_reduced=True),
    "2": losses.second_order_score_matching(process, variance_reduced=False, frozen_score=True),
    "2 reduced": losses.second_order_score_matching(process, frozen_score=True),
    "residual": losses.second_order_score_matching(process, variance_reduced=False, residual=True),
    "residual reduced": losses.second_order_score_matching(process, residual=True),
  }.items():
    orders[name] = float(
      jnp.log2(spread(objective, jnp.asarray(0.02)) / spread(objective, jnp.asarray(0.01)))
    )
  # d value / d own is sigma^k d s_k times the residual, whose noise is of order one in the plain forms.
  for name, order in {
    "1": 1.0,
    "1 reduced": 2.0,
    "2": 2.0,
    "2 reduced": 4.0,
    "residual": 2.0,
    "residual reduced": 4.0,
  }.items():
    assert abs(orders[name] - order) < 0.1, orders


def test_low_rank_is_full_and_diagonal_is_its_diagonal(x64):
  draw, _ = over_noise()
  for reduced in (False, True):
    objective = losses.second_order_score_matching(PROCESS, variance_reduced=reduced)
    value = {
      form: np.asarray(jax.jit(lambda draw, form=form: objective(bound(form), draw).interior)(draw))
      for form in FORMS
    }
    np.testing.assert_allclose(value["low rank"], value["full"], rtol=1e-9, atol=1e-9)
  # The definition of the diagonal one, entry by entry.
  sigma, x_t = PROCESS.marginal(draw.t).sigma[:, None], PROCESS.corrupt(draw.x0, draw.noise, draw.t)
  entries = (
    sigma**2 * (FORMS["diagonal"](0.7, x_t, draw.t).diagonal + smooth(0.7, x_t, draw.t) ** 2)
    + 1
    - draw.noise**2
  )
  objective = losses.second_order_score_matching(PROCESS, rank=0, variance_reduced=False)
  np.testing.assert_allclose(objective(bound("diagonal"), draw).interior, np.sum(entries**2, 1), rtol=1e-10)


def test_a_frozen_score_learns_nothing_and_a_teacher_is_used():
  draw, _ = over_noise()
  draw = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), draw)
  hessian = lambda own, x, t, cond=None: symmetric.Diagonal(own["two"] * x)

  def gradient(**arguments):
    objective = losses.second_order_score_matching(PROCESS, **arguments)

    def value(own):
      roles = losses.roles(
        model=denoisers.from_functions(
          score=lambda own, x, t, cond=None: smooth(own["one"], x, t), hessian=hessian
        ),
        teacher=denoisers.from_functions(score=smooth),
      )
      return jnp.mean(objective(roles({"model": own, "teacher": own["one"], "loss": {}}, {}), draw).interior)

    return jax.jit(jax.grad(value))({"one": jnp.float32(0.7), "two": jnp.float32(0.2)})

  joint, frozen, teacher = gradient(), gradient(frozen_score=True), gradient(score_role="teacher")
  assert abs(joint["one"]) > 1e-3 and frozen["one"] == 0.0 and teacher["one"] == 0.0
  np.testing.assert_allclose([frozen["two"], teacher["two"]], joint["two"], rtol=1e-5)


def test_the_transform_adds_to_the_same_draw_and_takes_a_weight_of_time():
  dsm = losses.denoising_score_matching(PROCESS)
  alone = losses.second_order_score_matching(PROCESS)
  template = denoisers.from_function(
    lambda own, x, t, cond: smooth(own, x, t), PROCESS, denoisers.score(), jnp.zeros(())
  )
  roles = losses.roles(model=denoisers.extend(template, hessian=FORMS["low rank"]))(
    {"model": jnp.float32(0.7), "loss": {}}, {}
  )
  draw = dsm.draw(jax.random.key(0), {"x": jnp.ones((4, 2))}, jnp.array([0.1, 0.3, 0.5, 0.9]), {})
  evaluate = lambda objective: jax.jit(lambda draw: objective(roles, draw))(draw)
  first, second = evaluate(dsm).interior, evaluate(alone).interior
  for weight, factor in ((0.5, 0.5), (losses.snr(-1.0), losses.snr(-1.0)(PROCESS, draw.t))):
    both = evaluate(losses.chain(dsm, losses.second_order(rank=2, weight=weight)))
    np.testing.assert_allclose(both.interior, first + factor * second, rtol=1e-5)
    np.testing.assert_allclose(both.metrics["second_order"], second, rtol=1e-5)


def closed(objective, hessian=FORMS["low rank"], size=2):
  """The loss of a batch, traced and no more."""
  roles = losses.roles(
    model=denoisers.from_functions(
      score=smooth, hessian=hessian, third_derivative=lambda own, x, t, cond=None: x
    )
  )
  loss = losses.chain(objective, losses.at_times(roles=roles))
  params, state = loss.init(jax.random.key(0))
  return jax.eval_shape(
    lambda: loss({"model": 1.0, "loss": params}, state, 0, jax.random.key(0), {"x": jnp.ones((4, size))})
  )


@pytest.mark.parametrize(
  "build,words",
  [
    (
      lambda: losses.second_order_score_matching(None),
      "whose process is none: a Hessian is learned from Gaussian noise",
    ),
    (
      lambda: losses.second_order()(losses.time_score_matching(processes.linear())),
      "does not fit time_score_matching",
    ),
    (lambda: losses.third_order()(losses.score_matching()), "does not fit score_matching"),
    (lambda: losses.second_order_score_matching(PROCESS, rank=-1), "0 or more"),
    (
      lambda: losses.second_order(weight=lambda process, t: jnp.sum(t))(losses.score_matching(PROCESS)),
      "a weight is a function",
    ),
    (
      lambda: losses.chain(
        losses.score_matching(PROCESS),
        losses.second_order(),
        losses.at_times(roles=losses.roles(model=denoisers.from_functions(score=smooth))),
      ),
      "second_order needs 'hessian' of the role 'model'",
    ),
    (lambda: closed(losses.second_order_score_matching(PROCESS, rank=3)), "above the 2 dimensions"),
    (lambda: closed(losses.second_order_score_matching(PROCESS, rank=1)), "returned rank 2"),
    (lambda: closed(losses.second_order_score_matching(PROCESS, rank=0)), "returned rank 2"),
    (
      lambda: closed(losses.second_order_score_matching(PROCESS), lambda own, x, t, cond=None: x),
      r"\[B, 2, 2\]",
    ),
    (
      lambda: closed(losses.second_order()(losses.add(*[losses.score_matching(PROCESS)] * 2))),
      "the objective's draw has none",
    ),
    (lambda: closed(losses.third_order_score_matching(PROCESS)), "third_derivative returned shape"),
    (
      lambda: closed(
        losses.third_order_score_matching(PROCESS), lambda own, x, t, cond=None: symmetric.Diagonal(x), 40
      ),
      "above 32",
    ),
  ],
)
def test_mistakes_raise_a_sentence_before_compiling(build, words):
  with pytest.raises(ValueError, match=words):
    build()
