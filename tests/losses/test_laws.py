"""The laws of the loss algebra, for every listed objective, transform and process."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion import denoisers, losses, processes
from losses import gaussian_family as family

SIZE = 16
OBJECTIVES = list(losses.OBJECTIVES)
TRANSFORMS = list(losses.TRANSFORMS)
# Transforms that raise on an objective whose derivation contains the weight.
WEIGHTS = ("uncertainty", "weight_by_min_snr")
# Close relatives of listed ones, which repeat their laws, and what takes long to compile: slow.
RELATIVES = (
  "sliced_score_matching",
  "finite_difference_sliced_score_matching_of_score",
  "denoising_score_matching_variance_reduced",
  "second_order_score_matching",
  "third_order_score_matching",
  "third_order",
  "recovery_likelihood",
  "autoregressive_denoising_score_matching",
  "distillation_velocity",
  "progressive_distillation_double_step",
)


def case(objective, name, default=True):
  """A parameter of a test, in the default suite or not."""
  return pytest.param(
    objective, name, marks=() if default and objective not in RELATIVES else pytest.mark.slow
  )


QUICK = [name for name in TRANSFORMS if name not in RELATIVES]
EACH_TRANSFORM = [
  pytest.param(name, marks=pytest.mark.slow if name in RELATIVES else ()) for name in TRANSFORMS
]
# Every objective and every process at least once, where the full product would only repeat itself.
ROTATION = [case(OBJECTIVES[i % len(OBJECTIVES)], name) for i, name in enumerate(processes.PROCESSES)]
ROTATION += [
  case(name, "vp_cosine", i % 2 == 0) for i, name in enumerate(OBJECTIVES[len(processes.PROCESSES) :])
]
# The views of a denoiser meet each process in their own way: half of the pairs by default, every view and
# every process among them. Whatever only takes its sigma runs on one, and on all when slow.
PRODUCT = [
  case(
    objective,
    name,
    (objective.startswith("denoising") and (i + j) % 2 == 0) or (i + j) % len(processes.PROCESSES) == 0,
  )
  for i, objective in enumerate(OBJECTIVES)
  for j, name in enumerate(processes.PROCESSES)
]
# A law that no process has a part in: each objective on one of them, on all when slow.
ONE_EACH = [
  case(objective, name, (i + j) % len(processes.PROCESSES) == 0)
  for i, objective in enumerate(OBJECTIVES)
  for j, name in enumerate(processes.PROCESSES)
]
# Whose gradient is not affine in the field's parameters: the minimiser is checked by their own tests, the
# zero gradient here.
NOT_QUADRATIC = ("noise_contrastive_estimation", "compositional_likelihood", "recovery_likelihood")
# Whose minimiser is two steps of the teacher at once and no oracle: checked by their own tests, with the
# order of the difference.
OF_FINITE_STEPS = ("progressive_distillation", "progressive_distillation_double_step")


def make(objective_name, process_name, *transforms):
  process = processes.PROCESSES[process_name]()
  return losses.chain(losses.OBJECTIVES[objective_name](process), *transforms), process


def interior_times(process, n=SIZE, dtype=jnp.float32):
  """Times spread over the levels that training meets, in log-SNR, away from both ends."""
  ends = np.clip(process.log_snr(np.array([process.t_min, process.t_max])), -8.0, 8.0)
  return jnp.asarray(process.t_of_log_snr(np.linspace(ends[0], ends[1], n)), dtype)


def evaluated(
  objective, process, own, *, key=jax.random.key(3), dtype=jnp.float32, rows=None, loss_params=None
):
  """interior + boundary [B] at one draw, whose rows may be permuted or repeated."""
  state = objective.init(jax.random.key(0))[1]
  initial = objective.init(jax.random.key(0))[0]
  draw = objective.draw(key, family.batch(SIZE, dtype), interior_times(process, dtype=dtype), state)
  if rows is not None:
    draw = jax.tree.map(lambda leaf: leaf[rows] if leaf.ndim else leaf, draw)
  roles = family.bound(process, own, objective)
  loss_params = initial if loss_params is None else loss_params

  def value(draw):
    terms = objective(roles, draw, loss_params, state)
    return terms.interior + terms.boundary

  return jax.jit(value)(draw)


def value_and_gradient(objective, process, own):
  return jax.jit(jax.value_and_grad(lambda p: jnp.mean(evaluated(objective, process, p))))(own)


# 1. Composition and linearity.


@pytest.mark.parametrize("name", EACH_TRANSFORM)
def test_chain_is_associative_and_has_an_identity(name):
  one, two = losses.TRANSFORMS[name](), losses.weight_by(losses.edm(0.5))
  own = family.params(family.ELSEWHERE)
  base, process = make("denoising_score_matching_eps", "vp_linear")
  shapes = [
    losses.chain(base, one, two),
    losses.chain(losses.chain(base, one), two),
    losses.chain(base, losses.compose(one, two)),
    losses.chain(base, losses.identity(), one, losses.compose(), two, losses.identity()),
  ]
  values = [evaluated(objective, process, own) for objective in shapes]
  for value in values[1:]:
    np.testing.assert_array_equal(values[0], value)


EACH_OTHER = [
  pytest.param(*pair.values, marks=[*pair.marks, pytest.mark.slow]) if i % 2 else pair
  for i, pair in enumerate(ROTATION)
]
"""Every second pair in the default tier, for laws that do not look into an objective."""


@pytest.mark.parametrize("objective,process_name", EACH_OTHER)
def test_linear_combination_is_linear_in_value_and_gradient(objective, process_name):
  first, process = make(objective, process_name)
  second = losses.chain(losses.denoising_score_matching(process), losses.weight_by(losses.sigmoid(1.0)))
  own = family.params(family.ELSEWHERE)
  total = losses.add(losses.chain(first, losses.scale(2.0)), losses.chain(second, losses.scale(-0.5)))
  both = [value_and_gradient(part, process, own) for part in (first, second)]
  expected = jax.tree.map(lambda a, b: 2.0 * a - 0.5 * b, *both)
  chex.assert_trees_all_close(value_and_gradient(total, process, own), expected, rtol=2e-5, atol=1e-5)


# 2. Rows are independent at a fixed draw.


@pytest.mark.parametrize("transform", EACH_TRANSFORM)
def test_rows_do_not_meet_under_a_transform(transform):
  check_rows(*make("denoising_score_matching_x0", "vp_cosine", losses.TRANSFORMS[transform]()))


@pytest.mark.parametrize("objective,process_name", ONE_EACH)
def test_rows_do_not_meet(objective, process_name):
  check_rows(*make(objective, process_name))


def check_rows(objective, process):
  own = family.params(family.ELSEWHERE)
  whole = evaluated(objective, process, own)
  order = np.random.default_rng(0).permutation(SIZE)
  padded = np.concatenate([np.arange(SIZE), np.full(8, 5)])
  permuted = evaluated(objective, process, own, rows=order)
  longer = evaluated(objective, process, own, rows=padded)
  np.testing.assert_allclose(permuted, whole[order], rtol=1e-5 if objective.coupled else 1e-6)
  if objective.coupled:
    assert np.abs(longer[:SIZE] - whole).max() > 1e-4
  else:
    np.testing.assert_allclose(longer[:SIZE], whole, rtol=1e-6)


@pytest.mark.parametrize("transform", EACH_TRANSFORM)
def test_the_draw_of_a_row_depends_on_key_and_index_alone(transform):
  objective, process = make("denoising_score_matching_eps", "edm", losses.TRANSFORMS[transform]())
  state = objective.init(jax.random.key(0))[1]
  t, data, key = interior_times(process), family.batch(SIZE), jax.random.key(2)
  whole = objective.draw(key, data, t, state)
  rows = np.array([9, 2, 5])
  part = objective.draw(
    key, {**jax.tree.map(lambda a: a[rows], data), "index": jnp.asarray(rows)}, t[rows], state
  )
  whole, part = (objective.place({}, draw) for draw in (whole, part))
  for name in ("x_t", "noise", "cond", "keys"):
    chex.assert_trees_all_equal(getattr(part, name), jax.tree.map(lambda a: a[rows], getattr(whole, name)))


# 3. Importance sampling of times.


@pytest.mark.parametrize(
  "name,process_name",
  [
    *((name, "vp_linear") for name in losses.TIME_SAMPLERS if name != "ladder_times"),
    ("log_normal_sigma", "ve"),
    ("importance", "rectified_flow"),
    pytest.param("log_normal_sigma", "vp_cosine", marks=pytest.mark.slow),
    pytest.param("importance", "subvp", marks=pytest.mark.slow),
  ],
)
def test_reweighted_times_leave_the_expectation(name, process_name):
  """Two-sided z-test of uniform against reweighted times, 4.5 standard errors (7e-6 a case, 7e-5 in all)."""
  base, process = make("denoising_score_matching_eps", process_name)
  low, high = process.t_min, 0.99
  samplers = {
    "uniform_times": losses.uniform_times(low, high),
    "low_discrepancy": losses.low_discrepancy(losses.uniform_times(low, high)),
    "log_normal_sigma": losses.log_normal_sigma(0.0, 3.0, process, low, high),
    "logit_normal": losses.logit_normal(0.0, 1.5, low, high),
    "importance": losses.importance(losses.likelihood(), process, low, high),
  }
  own, size = family.params(family.ELSEWHERE), 8192

  @functools.partial(jax.jit, static_argnums=0)
  def draws(loss, key):
    loss_params, state = loss.init(key)
    values, _ = loss.per_example({"model": own, "loss": loss_params}, state, 0, key, family.batch(size))
    return values

  closing = functools.partial(losses.at_times, roles=family.roles(process))
  plain = np.asarray(
    draws(losses.chain(base, closing(samplers["uniform_times"])), jax.random.key(0)), np.float64
  )
  other = losses.chain(base, closing(samplers[name], reweight=True))
  other = np.asarray(draws(other, jax.random.key(1)), np.float64)
  error = np.sqrt(plain.var() / size + other.var() / size)
  assert abs(plain.mean() - other.mean()) < 4.5 * error


@pytest.mark.parametrize("process_name", processes.PROCESSES)
def test_importance_times_cancel_their_own_weight(process_name):
  """Weight over density is the weight's mean at every time, so likelihood weighting has no variance of its
  own."""
  process = processes.PROCESSES[process_name]()
  high = 0.99 * process.t_max
  sampler = losses.importance(losses.likelihood(), process, t_max=high)
  t = jnp.linspace(float(sampler.t_min), float(sampler.t_max), 999)[1:-1]
  ratio = losses.likelihood()(process, t) / jnp.exp(sampler.log_density(t))
  integral = process.log_snr(np.array(process.t_min)) - process.log_snr(np.array(high))  # of -d lambda/dt
  np.testing.assert_allclose(ratio, integral, rtol=2e-3)


# 4. The oracle is where the loss is least.


@pytest.mark.parametrize(
  "objective,process_name", [one for one in PRODUCT if one.values[0] not in NOT_QUADRATIC + OF_FINITE_STEPS]
)
def test_the_minimiser_in_a_linear_family_is_the_oracle(objective, process_name, x64):
  """Exact: the loss is of degree two in (x0, eps), and the draw is a quadrature of degree three, in
  float64."""
  objective, process = make(objective, process_name)
  oracle = family.params(dtype=jnp.float64)
  flat, unflatten = ravel_pytree(oracle)
  state = objective.init(jax.random.key(0))[1]

  # The gradient is affine: unit steps from the oracle give its slope exactly.
  basis = family.visible(objective)
  points = jnp.concatenate([jnp.zeros((1, flat.size)), jnp.asarray(basis)])

  def expected(vector, draw, weights):
    terms = objective(family.bound(process, unflatten(vector), objective), draw, state=state)
    return jnp.sum(weights * (terms.interior + terms.boundary))

  slopes = jax.jit(jax.vmap(jax.grad(expected), in_axes=(0, None, None)))
  curvature = jax.jit(jax.hessian(expected))
  for draw, weights in family.expectations(objective, process, interior_times(process, 5, jnp.float64)[1:4]):
    gradients = np.asarray(slopes(points, draw, weights)) @ basis.T
    at_oracle, hessian = gradients[0], gradients[1:] - gradients[0]
    if family.high_order(objective):  # of higher degree in the family: a minimum in its neighbourhood
      hessian = basis @ curvature(points[0], draw, weights) @ basis.T
    scale = np.abs(hessian).max()
    assert np.linalg.eigvalsh(hessian).min() > 1e-6 * scale
    assert np.abs(at_oracle).max() < 1e-9 * scale
    assert np.abs(np.linalg.solve(hessian, at_oracle)).max() < 1e-7


@pytest.mark.parametrize(
  "name,transform",
  [
    *(pytest.param("denoising_score_matching_v", *one.values, marks=one.marks) for one in EACH_TRANSFORM),
    *((name, "identity") for name in NOT_QUADRATIC),
  ],
)
def test_the_gradient_at_the_oracle_is_zero_in_expectation(name, transform):
  """Each component of the gradient of the model within 4.5 standard errors (4e-5 for the six of a case)."""
  objective, process = make(name, "subvp", losses.TRANSFORMS[transform]())
  # Ratios of densities have heavy tails off the oracle where there is next to no noise.
  times = losses.uniform_times(0.3 if name in NOT_QUADRATIC else None, None)
  loss = losses.chain(objective, losses.at_times(times, roles=family.roles(process)))
  loss_params, state = loss.init(jax.random.key(0))

  @jax.jit
  def gradients(own):
    def values(p):
      return loss.per_example(
        {"model": p, "loss": loss_params}, state, 0, jax.random.key(4), family.batch(4096)
      )[0]

    return jax.jacfwd(values)(own)

  for leaf in jax.tree.leaves(gradients(family.params())):
    leaf = np.asarray(leaf, np.float64).reshape(4096, -1)
    assert np.all(np.abs(leaf.mean(0)) < 4.5 * leaf.std(0) / 64.0)
  # The same test sees a field that is not the oracle's.
  off = np.asarray(gradients(family.params(family.ELSEWHERE))["offset"], np.float64)
  assert np.any(np.abs(off.mean(0)) > 10 * off.std(0) / 64.0)


@pytest.mark.parametrize("process_name", processes.PROCESSES)
def test_the_value_is_in_eps_units_whatever_the_target(process_name, x64):
  process = processes.PROCESSES[process_name]()
  own = family.params(family.ELSEWHERE, jnp.float64)
  draw = family.quadrature(
    losses.denoising_score_matching(process), process, interior_times(process, 5, jnp.float64)[2]
  )
  x_t = process.corrupt(draw.x0, draw.noise, draw.t)
  prediction = family.bound(process, own)["model"](x_t, draw.t)
  expected = jnp.sum((prediction.eps - draw.noise) ** 2, -1)
  for target in ("eps", "x0", "score", "v", "velocity"):
    objective = losses.denoising_score_matching(process, target=target)
    terms = objective(family.bound(process, own), draw)
    np.testing.assert_allclose(terms.interior, expected, rtol=1e-9)


# 5. The same value however it is computed.


@pytest.mark.parametrize("objective,process_name", PRODUCT)
def test_single_precision_agrees_with_double(objective, process_name, x64):
  """5e-4 relative to 1 + value: an x0 residual times alpha/sigma keeps what float32 left of x0."""
  objective, process = make(objective, process_name)
  loss_params, state = objective.init(jax.random.key(0))
  draw = objective.draw(jax.random.key(3), family.batch(SIZE), interior_times(process), state)
  widen = lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
  values = []
  for drawn, dtype in ((draw, jnp.float32), (jax.tree.map(widen, draw), jnp.float64)):
    # x_t is placed in this precision: its rounding is the data's, not the loss's.
    roles = family.bound(process, family.params(family.ELSEWHERE, dtype), objective)
    terms = jax.jit(lambda drawn, roles=roles: objective(roles, drawn, loss_params, state))(drawn)
    values.append(np.asarray(terms.interior, np.float64))
    assert terms.interior.dtype == dtype
  np.testing.assert_array_less(np.abs(values[0] - values[1]), 5e-4 * (1.0 + np.abs(values[1])))


def closed(objective_name, process_name, transform="identity"):
  objective, process = make(objective_name, process_name, losses.TRANSFORMS[transform]())
  loss = losses.chain(
    objective, losses.at_times(losses.low_discrepancy(), roles=family.roles(process, objective))
  )
  loss_params, state = loss.init(jax.random.key(0))
  return loss, family.parameters(objective, family.params(family.ELSEWHERE), loss_params), state


@pytest.mark.parametrize(
  "transform,objective,process_name",
  [
    *(
      pytest.param(QUICK[i % len(QUICK)], *pair.values, marks=pair.marks) for i, pair in enumerate(EACH_OTHER)
    ),
    pytest.param("third_order", "denoising_score_matching_eps", "vp_linear", marks=pytest.mark.slow),
  ],
)
def test_jit_grad_and_eight_devices_give_one_value(transform, objective, process_name):
  if losses.OBJECTIVES[objective](processes.PROCESSES[process_name]()).takes_weight and transform in WEIGHTS:
    transform = "identity"
  loss, params, state = closed(objective, process_name, transform)
  data, key, step = family.batch(SIZE), jax.random.key(5), jnp.int32(7)
  plain, (_, metrics) = loss(params, state, step, key, data)
  mesh = Mesh(np.array(jax.devices()), ("data",))
  spread = jax.device_put(data, NamedSharding(mesh, PartitionSpec("data")))
  compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (one, (_, one_metrics)), one_gradient = compiled(params, state, step, key, data)
  (many, _), many_gradient = compiled(params, state, step, key, spread)
  np.testing.assert_allclose([one, many, metrics["loss"]], plain, rtol=2e-5)
  chex.assert_trees_all_close(one_metrics, metrics, rtol=2e-5, atol=1e-6)
  chex.assert_trees_all_close(one_gradient, many_gradient, rtol=2e-5, atol=2e-5)


def test_values_inside_a_users_vmap_shard_map_and_pmap():
  loss, params, state = closed("denoising_score_matching_x0", "vp_linear", "condition_dropout")
  data, key, step = family.batch(SIZE), jax.random.key(5), 3
  t = loss.sample_times(step, key, data)
  data["index"] = jnp.arange(SIZE)
  plain = jax.jit(lambda k: loss(params, state, step, k, data)[0])
  rows = lambda part, t: loss.per_example(params, state, step, key, part, t=t)[0]

  keys = jax.random.split(key, 3)
  mapped = jax.jit(jax.vmap(lambda k: loss(params, state, step, k, data)[0]))(keys)
  looped = jnp.stack([plain(k) for k in keys])
  np.testing.assert_allclose(mapped, looped, rtol=1e-5)

  mesh = Mesh(np.array(jax.devices()), ("data",))
  spec = PartitionSpec("data")
  sharded = jax.jit(
    jax.shard_map(
      lambda part, t: jax.lax.pmean(jnp.mean(rows(part, t)), "data"),
      mesh=mesh,
      in_specs=(spec, spec),
      out_specs=PartitionSpec(),
    )
  )(data, t)
  np.testing.assert_allclose(sharded, plain(key), rtol=1e-5)

  split = jax.tree.map(lambda a: a.reshape(8, -1, *a.shape[1:]), (data, t))
  parallel = jax.pmap(lambda part, t: jax.lax.pmean(jnp.mean(rows(part, t)), "data"), axis_name="data")(
    *split
  )
  np.testing.assert_allclose(parallel, jnp.full(8, plain(key)), rtol=1e-5)


def test_a_new_step_or_key_gives_new_noise_and_does_not_trace_again():
  loss, params, state = closed("denoising_score_matching_eps", "vp_linear")
  traces = []

  @jax.jit
  def value(step, key):
    traces.append(1)
    return loss(params, state, step, key, family.batch(SIZE))[0]

  values = {float(value(step, jax.random.key(seed))) for step in range(3) for seed in range(2)}
  assert len(values) == 6 and len(traces) == 1


# 6. What does not fit raises when it is built.


def dsm():
  return losses.denoising_score_matching(processes.vp_linear())


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: losses.chain(dsm(), losses.at_times()), "roles=losses.roles"),
    (
      lambda: losses.chain(dsm(), losses.at_times(roles=losses.roles(ema=family.denoiser(processes.edm())))),
      "denoising_score_matching needs 'eps' of the role 'model'",
    ),
    (
      lambda: losses.chain(
        dsm(), losses.at_times(roles=losses.roles(model=denoisers.from_functions(energy=jnp.sin)))
      ),
      "which answers only ['energy', 'score']",
    ),
    (
      lambda: losses.chain(
        dsm(), losses.at_times(roles=losses.roles(model=denoisers.from_functions(denoising=jnp.sin)))
      ),
      "which answers only ['denoising']",
    ),
    (lambda: losses.roles(loss=family.denoiser(processes.edm())), "not a role"),
    (
      lambda: losses.chain(dsm().replace(takes_weight=True), losses.weight_by(losses.uniform())),
      "pass weight=...",
    ),
    (
      lambda: losses.chain(dsm().replace(takes_weight=True), losses.uncertainty()),
      "contains the time weight",
    ),
    (lambda: losses.chain(dsm().replace(process=None), losses.weight_by(losses.snr(1.0))), "do not fit"),
    (lambda: losses.chain(dsm().replace(process=None), losses.uncertainty()), "has none"),
    (lambda: losses.chain(dsm(), losses.weight_by(lambda process, t: jnp.mean(t))), "returned ()"),
    (
      lambda: losses.chain(
        dsm(),
        losses.at_times(losses.ladder_times(10), roles=family.roles(processes.vp_linear()), reweight=True),
      ),
      "ladder",
    ),
    (
      lambda: losses.chain(
        dsm().replace(process=None), losses.at_times(roles=family.roles(processes.vp_linear()))
      ),
      "no process",
    ),
    (lambda: losses.importance(losses.likelihood(), processes.rectified_flow()), "finite and not negative"),
    (lambda: losses.denoising_score_matching(processes.edm(), "noise"), "no target 'noise'"),
    (lambda: losses.denoising_score_matching(None), "Gaussian process"),
    (lambda: losses.condition_dropout(1.5), "between 0 and 1"),
    (lambda: losses.random_guidance(4.0, 1.0), "0 <= low < high"),
    (lambda: losses.random_guidance(2.0, 2.0), "0 <= low < high"),
    (lambda: losses.random_guidance(-1.0, 1.0), "0 <= low < high"),
    (
      lambda: losses.chain(
        losses.distillation(processes.edm()), losses.at_times(roles=family.roles(processes.edm()))
      ),
      "distillation needs 'x0' of the role 'teacher'",
    ),
    (lambda: losses.distillation(processes.edm(), "noise"), "no target 'noise'"),
    (lambda: losses.distillation(None), "Gaussian process"),
    (
      lambda: losses.progressive_distillation(processes.edm(), [4.0, 2.0, 1.0, 0.0]),
      "an even number of steps, got 3",
    ),
    (
      lambda: losses.progressive_distillation(processes.edm(), [4.0, 2.0, 1.0], grid=[4.0, 2.0, 1.0]),
      "has 1 steps",
    ),
    (
      lambda: losses.progressive_distillation(
        processes.edm(), [4.0, 2.0, 1.0], "double_step", grid=[4.0, 1.0]
      ),
      "the teacher grid itself",
    ),
    (lambda: losses.progressive_distillation(processes.edm(), [1.0, 2.0, 4.0]), "strictly decreases"),
    (lambda: losses.progressive_distillation(processes.vp_cosine(), [1.5, 1.0, 0.5]), "only the first node"),
    (
      lambda: losses.progressive_distillation(processes.edm(), [2.0, 1.0, 0.0], "heun"),
      "one of the samplers ddim, double_step",
    ),
    (lambda: losses.min_snr(0.0), "gamma > 0"),
    (lambda: losses.uniform_times(1.0, 0.0), "larger t_max"),
    (lambda: losses.uniform_times().sample(jax.random.key(0), 3), "no interval"),
  ],
)
def test_misfits_raise_a_sentence_at_build_time(build, words):
  with pytest.raises(ValueError) as caught:
    build()
  assert words in str(caught.value)


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: losses.chain(losses.scale(2.0), losses.scale(2.0)), "starts with an Objective"),
    (lambda: losses.chain(dsm(), dsm()), "add(a, b)"),
    (
      lambda: losses.chain(dsm(), losses.at_times(roles=family.roles(processes.edm())), losses.scale(2.0)),
      "last",
    ),
    (lambda: losses.chain(dsm(), 2.0), "a transform is a function"),
    (lambda: losses.add(dsm(), 2.0), "add takes objectives"),
    (lambda: losses.roles(model=jnp.sin), "naming what each computes"),
    (
      lambda: losses.chain(dsm(), losses.at_times(0.5, roles=family.roles(processes.edm()))),
      "time sampler",
    ),
  ],
)
def test_wrong_kinds_raise_a_sentence_at_build_time(build, words):
  with pytest.raises(TypeError) as caught:
    build()
  assert words in str(caught.value)


def test_bad_batches_and_parameters_raise_a_sentence():
  data, key = family.batch(4), jax.random.key(0)
  loss, params, state = closed("distillation", "vp_linear", "random_guidance")
  with pytest.raises(ValueError, match="guidance without a conditional model"):
    loss(params, state, 0, key, {"x": data["x"]})
  loss, params, state = closed("denoising_score_matching_eps", "vp_linear", "condition_dropout")
  for bad, words in (
    ({"x": data["x"]}, "conditional batch"),
    ({"x": data["x"], "cond": {"l": jnp.ones(3)}}, "sizes"),
  ):
    with pytest.raises(ValueError, match=words):
      loss(params, state, 0, key, bad)
  template = denoisers.from_function(lambda own, x, t, cond: own * x, processes.vp_linear(), denoisers.eps())
  bare = losses.chain(dsm(), losses.at_times(roles=losses.roles(model=template)))
  with pytest.raises(ValueError, match="role 'model' has none of its own"):
    bare({"loss": {}}, bare.init(key)[1], 0, key, data)
  summed = dataclasses.replace(
    loss, objective=loss.objective.replace(evaluate=lambda *everything: losses.terms(jnp.zeros(())))
  )
  with pytest.raises(ValueError, match="one number per example"):
    summed(params, state, 0, key, data)
