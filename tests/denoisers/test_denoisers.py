"""The conversion table against its definition, for every kind of network, every view and every process."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn, nnx

from diffusion import denoisers, networks, processes
from diffusion.processes import views

VIEWS = ("x0", "eps", "score", "v", "velocity")
FACTORIES = {kind: getattr(denoisers, kind) for kind in views.KINDS}


def truth(process, t, x0, eps):
  """All views of one (x0, eps) pair by definition."""
  m = jax.tree.map(lambda c: processes.expand(c, x0), process.marginal(t))
  return {
    "x0": x0,
    "eps": eps,
    "score": -eps / m.sigma,
    "v": m.alpha * eps - m.sigma * x0,
    "velocity": m.d_alpha * x0 + m.d_sigma * eps,
  }


def raw_output(kind, process, t, x, x0, eps, data_std=0.5):
  """What a perfect network of this kind returns, from the definitions in its paper."""
  m = jax.tree.map(lambda c: processes.expand(c, x0), process.marginal(t))
  if kind == "scaled_score":
    return -eps
  if kind == "edm":
    rho = m.sigma / m.alpha
    c_skip = data_std**2 / (rho**2 + data_std**2)
    c_out = rho * data_std / jnp.sqrt(rho**2 + data_std**2)
    return (x0 - c_skip * x / m.alpha) / c_out
  return truth(process, t, x0, eps)[kind]


@pytest.mark.parametrize("kind", views.KINDS)
@pytest.mark.parametrize("name", sorted(processes.PROCESSES))
def test_every_view_of_every_kind(kind, name, x64):
  process = processes.PROCESSES[name]()
  t = jnp.asarray([0.002, 0.3, 5.0, 70.0]) if name == "edm" else jnp.asarray([0.002, 0.3, 0.7, 0.98])
  x0 = jax.random.normal(jax.random.key(0), (4, 3, 2), jnp.float64)
  eps = jax.random.normal(jax.random.key(1), (4, 3, 2), jnp.float64)
  x = process.corrupt(x0, eps, t)
  output = raw_output(kind, process, t, x, x0, eps)
  denoiser = denoisers.from_function(lambda params, x, t, cond: params, process, FACTORIES[kind](), output)
  prediction = denoiser(x, t, views=VIEWS)
  for view, expected in truth(process, t, x0, eps).items():
    np.testing.assert_allclose(getattr(prediction, view), expected, rtol=1e-8, atol=1e-8, err_msg=view)


def test_edm_feeds_unit_variance_and_log_sigma_over_four(x64):
  """c_in and c_noise of arXiv:2206.00364, table 1."""
  seen = {}

  def network(params, x, t, cond):
    seen.update(x=x, t=t)
    return x

  sigma = jnp.asarray([0.01, 1.0, 50.0])
  x = jnp.ones((3, 2))
  denoisers.from_function(network, processes.edm(), denoisers.edm(data_std=0.5))(x, sigma)
  np.testing.assert_allclose(seen["x"][:, 0], 1 / np.sqrt(np.asarray(sigma) ** 2 + 0.25), rtol=1e-12)
  np.testing.assert_allclose(seen["t"], np.log(np.asarray(sigma)) / 4, rtol=1e-12)


@pytest.mark.parametrize(
  "kind, name, t",
  [
    ("x0", "rectified_flow", 1.0),
    ("x0", "vp_cosine", 1.0),
    ("v", "vp_cosine", 1.0),
    ("v", "vp_cosine", 0.0),
    ("velocity", "rectified_flow", 1.0),
    ("velocity", "rectified_flow", 0.0),
    ("edm", "rectified_flow", 1.0),
    ("edm", "rectified_flow", 0.0),
    ("edm", "edm", 0.0),
    ("eps", "edm", 0.0),
  ],
)
def test_ends_without_signal_or_without_noise_are_finite(kind, name, t):
  process = processes.PROCESSES[name]()
  denoiser = denoisers.from_function(
    lambda params, x, t, cond: 0.3 * x + 0.01 * processes.expand(t, x), process, FACTORIES[kind]()
  )
  prediction = denoiser(jnp.ones((2, 3)), jnp.full((2,), t))
  assert np.all(np.isfinite(prediction.x0)) and np.all(np.isfinite(prediction.eps))


def test_float32_keeps_its_digits_at_both_ends():
  """A network that is right to rounding gives x0 to about 1e-6 at low noise and eps to 1e-6 at high noise."""
  for name, low, high in (("edm", 2e-3, 80.0), ("vp_linear", 1e-3, 1.0)):
    process = processes.PROCESSES[name]()
    t = jnp.asarray([low, high], jnp.float32)
    x0 = jax.random.normal(jax.random.key(0), (2, 500))
    eps = jax.random.normal(jax.random.key(1), (2, 500))
    x = process.corrupt(x0, eps, t)
    output = raw_output("edm", process, t, x, x0, eps)
    prediction = denoisers.from_function(lambda params, x, t, cond: params, process, denoisers.edm(), output)(
      x, t
    )
    np.testing.assert_allclose(prediction.x0[0], x0[0], atol=3e-6)
    np.testing.assert_allclose(prediction.eps[1], eps[1], atol=3e-6)


class BatchStatistics(nn.Module):
  """A network with a mutable collection and dropout."""

  @nn.compact
  def __call__(self, x, t, cond=None, train=False):
    mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(x.shape[1:], jnp.float32))
    if train:
      mean.value = 0.9 * mean.value + 0.1 * x.mean(0)
    return nn.Dense(x.shape[-1])(nn.Dropout(0.5, deterministic=not train)(x))


def test_linen_collections_and_dropout():
  module, process = BatchStatistics(), processes.edm()
  x, t = jnp.ones((3, 4)), jnp.ones(3)
  variables = module.init(jax.random.key(0), x, t)
  denoiser = denoisers.from_flax(
    module, process, denoisers.x0(), variables["params"], {"batch_stats": variables["batch_stats"]}
  )
  evaluated = denoiser(x, t)
  assert evaluated.collections is None
  trained = denoiser(x, t, key=jax.random.key(1), train=True)
  np.testing.assert_allclose(trained.collections["batch_stats"]["mean"], 0.1, rtol=1e-6)
  other = denoiser(x, t, key=jax.random.key(2), train=True)
  assert not np.allclose(trained.x0, other.x0)
  np.testing.assert_array_equal(evaluated.x0, denoiser(x, t).x0)


class Centred(nn.Module):
  """The energy |x - mean|^2 / 2 about a running mean, which is no parameter."""

  views = ("energy",)

  def setup(self):
    self.mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(2, jnp.float32))
    self.scale = self.param("scale", nn.initializers.ones, ())

  def __call__(self, x, t, cond=None, train=False):
    return self.scale * (self.mean.value[None] - x)

  def energy(self, x, t, cond=None):
    return 0.5 * self.scale * jnp.sum((x - self.mean.value[None]) ** 2, axis=1)


class CentredTwin(nnx.Module):
  """The same in NNX."""

  views = ("energy",)

  def __init__(self, *, rngs):
    self.mean, self.scale = nnx.BatchStat(jnp.zeros(2)), nnx.Param(jnp.ones(()))

  def __call__(self, x, t, cond=None):
    return self.scale[...] * (self.mean[...][None] - x)

  def energy(self, x, t, cond=None):
    return 0.5 * self.scale[...] * jnp.sum((x - self.mean[...][None]) ** 2, axis=1)


@pytest.mark.parametrize("network", [networks.Linen(Centred()), networks.from_nnx(CentredTwin)])
@pytest.mark.parametrize("parameterization", [None, denoisers.score()])
def test_a_method_of_a_network_reads_its_collections(network, parameterization):
  x, t = jnp.asarray([[1.0, 2.0], [0.0, -1.0]]), jnp.ones(2)
  params, collections = network.init(jax.random.key(0), x, t, None)
  collections = jax.tree.map(lambda leaf: leaf + jnp.asarray([3.0, 5.0]), collections)
  denoiser = denoisers.from_network(
    network, processes.edm(), parameterization, params, collections, network.views
  )
  found = jax.jit(lambda d: d(x, t, views=("energy", "score")).views)(denoiser)
  np.testing.assert_allclose(found["energy"], [0.5 * (4.0 + 9.0), 0.5 * (9.0 + 36.0)], rtol=1e-6)
  np.testing.assert_allclose(found["score"], [[2.0, 3.0], [3.0, 6.0]], rtol=1e-6)
  elsewhere = denoiser.with_params(params, jax.tree.map(jnp.zeros_like, collections))
  np.testing.assert_allclose(elsewhere(x, t, views=("energy",)).energy, [2.5, 0.5], rtol=1e-6)


def test_new_parameters_and_rebuilt_denoisers_do_not_retrace():
  traces = []

  @jax.jit
  def call(denoiser, x, t):
    traces.append(1)
    return denoiser(x, t).x0

  x, t = jnp.ones((3, 4)), jnp.ones(3)
  for seed in range(3):
    # A module that is built anew compares equal to the first one.
    denoiser = denoisers.from_flax(
      _Wrapped(4), processes.edm(), denoisers.edm(), _Wrapped(4).init(jax.random.key(seed), x, t)["params"]
    )
    call(denoiser, x, t)
  assert len(traces) == 1


class _Wrapped(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x, t, cond=None, train=False):
    return nn.Dense(self.width)(x)


def test_nnx_module_as_a_pure_function():
  """Any pure function of (params, x, t, cond) is a denoiser; here one made of a Flax NNX module."""

  graph, state = nnx.split(nnx.Linear(4, 4, rngs=nnx.Rngs(0)))

  def apply(params, x, t, cond):
    return nnx.merge(graph, params)(x)

  denoiser = denoisers.from_function(apply, processes.rectified_flow(), denoisers.velocity(), state)
  x, t = jnp.ones((2, 4)), jnp.full((2,), 0.5)
  expected = nnx.merge(graph, state)(x)
  np.testing.assert_allclose(
    jax.jit(lambda d: d(x, t, views=("velocity",)).velocity)(denoiser), expected, rtol=1e-6
  )


def test_errors_name_what_is_allowed():
  denoiser = denoisers.from_function(lambda params, x, t, cond: x, processes.edm(), denoisers.x0())
  with pytest.raises(ValueError, match="unknown view 'noise'.*eps"):
    denoiser(jnp.ones((2, 3)), jnp.ones(2), views=("noise",))
  with pytest.raises(ValueError, match="one time for each row"):
    denoiser(jnp.ones((2, 3)), jnp.ones(()))
  with pytest.raises(ValueError, match="log_sigma"):
    denoisers.eps(time_input="sigma")
  with pytest.raises(ValueError, match="positive"):
    denoisers.edm(data_std=0.0)


def test_a_prediction_is_an_open_record():
  prediction = denoisers.Prediction(x0=jnp.ones(2), logits=jnp.zeros(3), collections={"counts": jnp.ones(())})
  assert set(prediction) == {"x0", "logits"} and "eps" not in prediction
  leaves, tree = jax.tree.flatten(prediction)
  again = jax.tree.unflatten(tree, leaves)
  for other in (again, copy.deepcopy(prediction), pickle.loads(pickle.dumps(prediction))):
    np.testing.assert_array_equal(other.logits, prediction["logits"])
    assert set(other.collections) == {"counts"}
  assert set(prediction.only(("x0",))) == {"x0"} and set(prediction.replace(eps=1.0)) == {
    "x0",
    "logits",
    "eps",
  }
  with pytest.raises(AttributeError, match=r"holds logits, x0 and no 'eps'.*views=\('eps',\)"):
    _ = prediction.eps
  # The order in which views were asked for is no part of the structure.
  assert jax.tree.structure(denoisers.Prediction(a=1, b=2)) == jax.tree.structure(
    denoisers.Prediction(b=2, a=1)
  )


def test_further_views_come_from_functions_of_the_same_parameters():
  process = processes.edm()
  plain = denoisers.from_function(lambda a, x, t, cond: a * x, process, denoisers.x0(), jnp.float32(0.5))
  energy = lambda a, x, t, cond: a * jnp.sum(x**2, axis=1)
  both = denoisers.extend(plain, energy=energy)
  x, t = jnp.ones((2, 3)), jnp.ones(2)
  moved = both.with_params(jnp.float32(2.0))(x, t, views=("energy", "x0"))
  np.testing.assert_allclose([moved.energy[0], moved.x0[0, 0]], [6.0, 2.0])
  # A function takes the place of the denoiser's own view, and the network is not asked at all.
  assert float(denoisers.extend(plain, x0=lambda a, x, t, cond: 7.0 * x)(x, t, views=("x0",)).x0[0, 0]) == 7.0


def test_several_networks_answer_as_one():
  line = lambda a, x, t, cond: a * x
  members = dict(
    first=denoisers.from_functions(jnp.float32(2.0), score=line, energy=line),
    second=denoisers.from_functions(jnp.float32(3.0), energy=line, hessian=line),
  )
  both, x, t = denoisers.together(**members), jnp.ones((1, 1)), jnp.ones(1)
  found = both(x, t, views=("hessian", "energy", "score"))
  assert [float(found[view][0, 0]) for view in ("score", "energy", "hessian")] == [2.0, 2.0, 3.0]
  gradient = jax.grad(lambda params: jnp.sum(both.with_params(params)(x, t, views=("hessian",)).hessian))
  assert jax.tree.map(float, gradient(both.params)) == {"first": 0.0, "second": 1.0}
  with pytest.raises(ValueError, match="'second' is missing"):
    both.with_params({"first": jnp.ones(())})
  with pytest.raises(ValueError, match="at least one denoiser"):
    denoisers.together()


def test_functions_alone_are_a_denoiser_and_an_energy_has_a_score():
  bowl = denoisers.from_functions(
    jnp.float32(3.0), energy=lambda k, x, t, cond: 0.5 * k * jnp.sum(x**2, axis=1)
  )
  x, t = jnp.asarray([[1.0, -2.0]]), jnp.zeros(1)
  assert bowl.views == ("energy", "score") and bowl.process is None
  np.testing.assert_allclose(bowl(x, t, views=("score",)).score, -3.0 * x)
  ask = denoisers.function_of(bowl, "energy")
  traces = []

  @jax.jit
  def value(function):
    traces.append(1)
    return function(x, t)

  values = [value(denoisers.function_of(one, "energy")) for one in (bowl, bowl.with_params(jnp.float32(6.0)))]
  np.testing.assert_allclose([float(v[0]) for v in values], [7.5, 15.0])
  assert len(traces) == 1 and float(ask(x, t)[0]) == 7.5
  with pytest.raises(ValueError, match="unknown view 'hessian': ask for some of energy, score"):
    denoisers.function_of(bowl, "hessian")
  with pytest.raises(ValueError, match="at least one view"):
    denoisers.from_functions()
  with pytest.raises(TypeError, match="'energy' is a function"):
    denoisers.from_functions(energy=3.0)
