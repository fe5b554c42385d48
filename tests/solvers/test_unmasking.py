"""What solvers of masked tokens keep and count: what was given, calls, order, greedy draws, and mistakes."""

import every_solver
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from discrete_cases import joint_5x3
from every_solver import EVERY, MASK, MASKED

from diffusion import processes, solvers
from diffusion.config.errors import UserError
from diffusion.denoisers.contract import Prediction
from diffusion.run.parts import sampler_config
from diffusion.solvers.unmasking import draw, first

STEPS, BATCH = 4, 8
OF_MASKS = [name for name, case in EVERY.items() if case.start is every_solver.masks]


QUICK = ("first_hitting", "remasking")


@pytest.mark.parametrize(
  "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OF_MASKS]
)
def test_what_is_given_is_never_changed_and_nothing_stays_masked(name):
  """Of states masked in every pattern there is, at every node where the solver has them; one that is given
  in full comes back as it is."""
  case, keys = EVERY[name], jax.random.split(jax.random.key(3), BATCH)
  x = jnp.asarray([[(row >> place) & 1 for place in range(3)] for row in range(BATCH)], jnp.int32)
  x = jnp.where(x == 1, MASK, jnp.arange(BATCH, dtype=jnp.int32)[:, None] % 3)
  given = np.asarray(x) != MASK
  solver = case.build(STEPS)
  if solver.loop == "scan":
    out, nodes = solvers.sample(case.denoiser(), solver, x, keys=keys, trajectory=True)
    for node in np.asarray(nodes):
      np.testing.assert_array_equal(node[given], np.asarray(x)[given])
  else:
    out, calls = solvers.sample(case.denoiser(), solver, x, keys=keys, evaluations=True)
    if name != "cached":  # at its last mask it cannot know that no step is left
      assert np.all(calls <= (~given).sum(axis=1)) and calls[0] == 0
  np.testing.assert_array_equal(np.asarray(out)[given], np.asarray(x)[given])
  assert np.all((np.asarray(out) >= 0) & (np.asarray(out) < MASK))


@pytest.mark.slow
def test_calls_are_as_many_as_masks():
  """First-hitting with two tokens a call takes half the masks, rounded up, sample by sample."""
  case = joint_5x3()
  masks = np.array([0, 1, 2, 3, 4, 5])
  x = jnp.where(jnp.arange(5)[None] < jnp.asarray(masks)[:, None], 3, 1).astype(jnp.int32)
  keys = jax.random.split(jax.random.key(0), 6)
  solver = solvers.first_hitting(case.process, tokens_per_call=2)
  _, calls = solvers.sample(case.denoiser, solver, x, keys=keys, evaluations=True)
  np.testing.assert_array_equal(calls, -(-masks // 2))


@pytest.mark.slow
def test_hitting_times_are_order_statistics():
  """The level at the first call is the largest of n uniform numbers, of which u^(1/n) is one: 20,000 of them
  for n = 5 have the mean n / (n + 1) and the mean of their n-th powers 1/2, within 4.5 standard errors."""
  count, process = 20_000, processes.masked(3, (5,), schedule=processes.cosine_keep())
  solver, keys = solvers.first_hitting(process), jax.random.split(jax.random.key(0), count)
  state = solver.begin(process.prior(keys, (5,)), keys)
  level = np.asarray(state.noised, np.float64)
  assert abs(level.mean() - 5 / 6) < 4.5 * np.sqrt(5 / 252 / count)
  assert abs((level**5).mean() - 0.5) < 4.5 * np.sqrt(1 / 12 / count)
  np.testing.assert_allclose(process.level(np.asarray(solver.ask(state, 0)[1], np.float64)), level, atol=1e-6)


@pytest.mark.parametrize("name", ["masked_ancestral", pytest.param("remasking", marks=pytest.mark.slow)])
def test_a_cache_has_the_same_samples_for_as_many_calls_as_changes(name):
  """Bit for bit; 40 steps take at most one call more than changes."""
  case, count = joint_5x3(), 64
  keys = jax.random.split(jax.random.key(1), count)
  solver = solvers.build(name, case.process, 40)
  plain, nodes = solvers.sample(case.denoiser, solver, case.masks(count), keys=keys, trajectory=True)
  out, calls = solvers.sample(
    case.denoiser, solvers.cached(solver), case.masks(count), keys=keys, evaluations=True
  )
  np.testing.assert_array_equal(out, plain)
  changed = np.any(np.diff(np.asarray(nodes), axis=0) != 0, axis=2)  # [steps, count]
  np.testing.assert_array_equal(calls, changed.sum(axis=0) + ~changed[-1])


@pytest.mark.slow
def test_blocks_go_from_left_to_right():
  """On a grid of one step with blocks of two: after i steps the first 2 i tokens are there and no other."""
  case = joint_5x3()
  inner = solvers.masked_ancestral(case.process, [1.0, 0.0])
  solver = solvers.block_by_block(case.process, inner, block=2)
  keys = jax.random.split(jax.random.key(0), 16)
  _, nodes = solvers.sample(case.denoiser, solver, case.masks(16), keys=keys, trajectory=True)
  assert solver.cost == 3
  for i, node in enumerate(np.asarray(nodes)):
    np.testing.assert_array_equal(node == 3, np.broadcast_to(np.arange(5) >= 2 * i, node.shape))


@pytest.mark.slow
def test_temperature_zero_takes_the_most_probable_and_scores_choose_the_largest():
  log_p = jnp.log(jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(4), (6, 3)), jnp.float32))
  keys = jax.random.split(jax.random.key(0), 6)
  np.testing.assert_array_equal(draw(keys, log_p, 0.0), jnp.argmax(log_p, -1))
  score = jnp.asarray([[0.5, -jnp.inf, 0.5, 2.0]])
  among = jnp.asarray([[True, True, True, False]])
  for count, chosen in ((0, []), (1, [0]), (2, [0, 2]), (3, [0, 1, 2]), (9, [0, 1, 2])):
    found = np.flatnonzero(first(score, among, jnp.asarray([count]))[0])
    assert found.tolist() == chosen


def test_remasking_keeps_the_marginal_of_every_node_whatever_sigma_is():
  """From the probabilities of the steps: with m the share of masks before, m (1 - unmask) + (1 - m) remask is
  the level after, for every variant and schedule; and no sigma is above min(1, (1 - alpha_s) / alpha_t)."""
  for schedule in (None, processes.cosine_keep()):
    process = processes.masked(3, (1,), schedule=schedule)
    for how in (
      {},
      dict(rescale=1.0),
      dict(rescale=1.0, cap=0.1),
      dict(rescale=1.0, window=(0.2, 0.6)),
      dict(rescale=1.0, cap=0.3, hold=(0.5, 6)),
    ):
      solver = solvers.remasking(process, process.default_grid(12), **how)
      level = np.asarray(process.level(np.asarray(solver.t, np.float64)))
      before, after = level[:-1], level[1:]
      np.testing.assert_allclose(
        before * (1 - solver.unmask) + (1 - before) * solver.remask, after, rtol=0, atol=1e-6
      )
      assert np.all(solver.remask * (1 - before) <= np.minimum(1 - before, after) + 1e-6)
      assert np.all(solver.remask <= how.get("cap", 1.0))
      assert np.all((solver.unmask >= 0) & (solver.unmask <= 1))
      if "hold" in how:
        assert solver.cost == 18 and np.count_nonzero(solver.remask) == np.count_nonzero(before == after) == 6
      if "window" in how:
        inside = (solver.t[:-1] <= 0.6) & (solver.t[1:] >= 0.2)
        np.testing.assert_array_equal(solver.remask > 0, inside)


@pytest.mark.slow
def test_samples_of_remasking_keep_the_marginal_of_every_node():
  """One coordinate, 20,000 samples: at every node the masked share is the level, and values have the data's
  law; chi-square below 21.1, the 0.9999 quantile with three degrees of freedom."""
  probability, count = np.array([0.2, 0.5, 0.3]), 20_000
  denoiser = every_solver.MaskedOracle(jnp.log(jnp.asarray(probability, jnp.float32)))
  process = processes.masked(MASK, (1,), schedule=processes.cosine_keep())
  solver = solvers.remasking(process, process.default_grid(6), rescale=0.8, cap=0.6, hold=(0.7, 2))
  keys = jax.random.split(jax.random.key(0), count)
  x = process.prior(keys, (1,))
  _, nodes = solvers.sample(denoiser, solver, x, keys=keys, trajectory=True)
  for t, node in zip(solver.t[1:], np.asarray(nodes)[1:, :, 0]):
    level = float(process.level(np.float64(t)))
    wanted = count * np.append((1 - level) * probability, level)
    counts, known = np.bincount(node, minlength=4), wanted > 1e-3
    assert (counts[~known] == 0).all()
    assert np.sum((counts - wanted)[known] ** 2 / wanted[known]) < 21.1, (t, counts, wanted)


@pytest.mark.parametrize("name", solvers.UNMASKING)
def test_a_config_names_them_without_steps(name):
  """`config.sampler` with the solver's name alone, options of it, and the error for steps."""
  built = sampler_config.solver(dict(solver=name), MASKED)
  assert built.name.startswith(name) and built.loop == "until_done"
  if name == "first_hitting":
    section = dict(solver=name, options=dict(tokens_per_call=3))
    assert sampler_config.solver(section, MASKED).num_steps == 1
    with pytest.raises(UserError, match="chooses its own steps, got 20"):
      sampler_config.solver(dict(solver=name, steps=20), MASKED)


def test_mistakes_are_named():
  edm, p, grid = processes.edm(), MASKED, [1.0, 0.5, 0.0]
  for build, says in (
    (lambda: solvers.first_hitting(edm), "first_hitting takes out masks, and 'edm' ends in 'normal'"),
    (lambda: solvers.first_hitting(p, tokens_per_call=0), "at least 1, got 0"),
    (lambda: solvers.first_hitting(p, temperature=-1.0), "a temperature is at least 0"),
    (lambda: solvers.entropy_bound(p, bound=-0.1), "in nats and at least 0, got -0.1"),
    (lambda: solvers.confidence_threshold(p, threshold=1.1), "at most 1, got 1.1"),
    (lambda: solvers.confidence_unmasking(edm, grid), "ends in 'normal'"),
    (lambda: solvers.confidence_unmasking(p, grid[::-1]), "strictly decrease"),
    (lambda: solvers.confidence_unmasking(p, grid, confidence="sure"), "choose one of drawn, highest"),
    (lambda: solvers.confidence_unmasking(p, grid, noise=-1.0), "noise in the confidence is at least 0"),
    (lambda: solvers.path_planning(p, grid, planner="bert"), "choose one of self, random"),
    (lambda: solvers.path_planning(p, grid, eta=-1.0), "eta is at least 0"),
    (lambda: solvers.remasking(p, grid, rescale=2.0), "rescale is within"),
    (lambda: solvers.remasking(p, grid, window=(0.5, 0.5)), "low < high"),
    (lambda: solvers.remasking(p, grid, hold=(0.2, 3)), "the time to hold at lies within the grid"),
    (lambda: solvers.remasking(p, grid, hold=(0.6, 0)), "a whole number of steps"),
    (lambda: solvers.block_by_block(p, block=0), "at least 1, got 0"),
    (lambda: solvers.cached(solvers.first_hitting(p)), "makes no call that changes nothing"),
    (lambda: solvers.build("first_hitting", p, 5), "chooses its own steps, got 5 of them"),
    (lambda: solvers.build("first_hitting", p, tolerance=0.1), "first_hitting has no tolerance"),
    (lambda: solvers.build("remasking", processes.uniform_resample(3, (2,)), 4), "ends in 'uniform'"),
  ):
    with pytest.raises(ValueError, match=says):
      build()
  assert float(solvers.build("entropy_bound", p, tolerance=0.25).bound) == 0.25
  keys = jax.random.split(jax.random.key(0), 2)
  for solver in (solvers.first_hitting(p), solvers.entropy_bound(p), solvers.block_by_block(p, block=2)):
    with pytest.raises(ValueError, match=r"built for states of shape \(3,\), got \(4,\)"):
      solvers.sample(every_solver.masked(), solver, jnp.full((2, 4), MASK), keys=keys)


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_call_is_made_when_the_process_would_take_out_its_first_mask(tokens):
  """The probability of the mask at call c is the (c k + 1)-th largest of D uniform numbers, whatever k is.

  That is Beta(D - c k, c k + 1); Kolmogorov's test of 2,000 rows, at 1 in 10,000.
  """
  size, rows = 8, 2000
  process = processes.masked(2, (size,), t_min=0.0)
  solver = solvers.first_hitting(process, tokens_per_call=tokens)
  keys = jax.random.split(jax.random.key(7), rows)
  even = Prediction(logits=jnp.zeros((rows, size, 2)))
  state, tell = solver.begin(process.prior(keys, (size,)), keys), jax.jit(solver.tell)
  for call in range(-(-size // tokens)):
    law = scipy.stats.beta(size - call * tokens, call * tokens + 1)
    assert scipy.stats.kstest(np.asarray(state.noised, np.float64), law.cdf).pvalue > 1e-4, call
    state = tell(state, call, even, keys)
  assert bool(solver.done(state).all())
