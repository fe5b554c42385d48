"""What solvers of masked tokens draw, against the law of the data where they are exact, and against the law
that listing all states gives where they are not.

Total variation of 20,000 draws; chance alone takes exact draws above floor + margin once in 10,000 times.
"""

import jax
import numpy as np
import pytest
from discrete_cases import CASES, floor, hidden_markov_8, joint_5x3, margin, total_variation
from discrete_kernels import chain

from diffusion import solvers

COUNT = 20_000


def draws(case, solver, count=COUNT, seed=0):
  keys = jax.random.split(jax.random.key(seed), count)
  return solvers.sample(case.denoiser, solver, case.masks(count), keys=keys, evaluations=True)


def one_a_step(case):
  return case.process.default_grid(case.size)


# name -> case -> a solver that has the law of the data itself.
EXACT = {
  "first_hitting": lambda case: solvers.first_hitting(case.process),
  "entropy_bound": lambda case: solvers.entropy_bound(case.process, bound=0.0),
  "confidence_threshold": lambda case: solvers.confidence_threshold(case.process, threshold=1.0),
  "path_planning": lambda case: solvers.path_planning(
    case.process, one_a_step(case), planner="random", eta=0.0
  ),
  "block_by_block": lambda case: solvers.block_by_block(case.process, block=2),
  "block_by_block, one": lambda case: solvers.block_by_block(
    case.process, solvers.masked_ancestral(case.process, [1.0, 0.0]), block=1
  ),
  **{
    f"confidence_unmasking, {rule}": lambda case, rule=rule: solvers.confidence_unmasking(
      case.process, one_a_step(case), confidence=rule
    )
    for rule in ("highest", "margin", "entropy", "random")
  },
}
QUICK = (("first_hitting", "joint_5x3"), ("entropy_bound", "hidden_markov_8"))


@pytest.mark.parametrize(
  "name,law",
  [
    pytest.param(name, law, marks=() if (name, law) in QUICK else pytest.mark.slow)
    for name in EXACT
    for law in CASES
  ],
)
def test_samples_have_the_law_of_the_data(name, law):
  """One mask a call, at a place that does not depend on what was drawn: D calls and no step error."""
  case = CASES[law]()
  out, calls = draws(case, EXACT[name](case))
  assert total_variation(out, case.law) < floor(case.law, COUNT) + margin(COUNT)
  assert int(calls.max()) <= case.size


def remasked(chain, solver):
  """The law of remasking: its probabilities from arXiv:2503.00307, eqs. 6 and 7, and not from the solver."""
  levels, kernels = np.asarray(solver.t, np.float64), []
  for sigma, before, after in zip(np.asarray(solver.remask, np.float64), levels, levels[1:]):
    a, b = 1 - before, 1 - after  # alpha_t and alpha_s of the linear schedule
    assert sigma <= min(1.0, (1 - b) / a if a else 1.0) + 1e-6
    kernels.append(chain.jumps((b - (1 - sigma) * a) / (1 - a), sigma))
  return chain.run(kernels)


# name -> (a solver that makes a step error on the joint law, its law by listing the states)
WITH_ERROR = {
  "first_hitting, two a call": (
    lambda p: solvers.first_hitting(p, tokens_per_call=2),
    lambda chain, solver: chain.run([chain.random_places(2)] * 3),
  ),
  "masked_ancestral": (
    lambda p: solvers.masked_ancestral(p, p.default_grid(5)),
    lambda chain, solver: chain.run(chain.jumps(1 / (5 - i)) for i in range(5)),
  ),
  "cached": (
    lambda p: solvers.cached(solvers.masked_ancestral(p, p.default_grid(7))),
    lambda chain, solver: chain.run(chain.jumps(1 / (7 - i)) for i in range(7)),
  ),
  "remasking": (
    lambda p: solvers.remasking(p, p.default_grid(6), rescale=0.7, cap=0.4, hold=(0.4, 3)),
    remasked,
  ),
  "path_planning": (
    lambda p: solvers.path_planning(p, p.default_grid(5), planner="random", eta=1.0),
    lambda chain, solver: chain.run(chain.kept_places(i + 1) for i in range(5)),
  ),
  "entropy_bound": (
    lambda p: solvers.entropy_bound(p, bound=1.05),
    lambda chain, solver: chain.run([chain.places(chain.within_bound(1.05))] * 5),
  ),
  "confidence_unmasking, drawn": (
    lambda p: solvers.confidence_unmasking(p, p.default_grid(5)),
    lambda chain, solver: chain.run([chain.surest_draw()] * 5),
  ),
  "path_planning, self": (
    lambda p: solvers.path_planning(p, p.default_grid(5), eta=0.0),
    lambda chain, solver: chain.run([chain.surest_draw()] * 5),
  ),
}


@pytest.mark.parametrize(
  "name",
  [
    name if name in ("first_hitting, two a call", "remasking") else pytest.param(name, marks=pytest.mark.slow)
    for name in WITH_ERROR
  ],
)
def test_samples_have_the_law_that_listing_the_states_gives(name):
  """And that law is far from the data's: the same draws against it are beyond floor and margin."""
  case, (build, law_of) = joint_5x3(), WITH_ERROR[name]
  solver = build(case.process)
  law = law_of(chain(joint_5x3), solver)
  out, _ = draws(case, solver)
  assert total_variation(out, law) < floor(law, COUNT) + margin(COUNT)
  assert total_variation(out, case.law) > floor(case.law, COUNT) + margin(COUNT)


def order(errors, steps):
  """Minus the slope of log error against log steps."""
  return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.slow
def test_the_order_of_ancestral_steps_and_of_remasking():
  """By listing the states: 1 without remasking and with a sigma as small as a step; 1/2 where sigma is a
  fixed part of its largest."""
  listed, p, steps = chain(joint_5x3), joint_5x3().process, (12, 24, 48)
  error = lambda n, **how: listed.distance(remasked(listed, solvers.remasking(p, p.default_grid(n), **how)))
  errors = {
    "ancestral": [error(n, rescale=0.0) for n in steps],
    "cap": [error(n, rescale=1.0, cap=1 / n) for n in steps],
    "rescale": [error(n, rescale=0.5) for n in steps],
  }
  assert abs(order(errors["ancestral"], steps) - 1) < 0.05, errors
  assert abs(order(errors["cap"], steps) - 1) < 0.15, errors
  assert abs(order(errors["rescale"], steps) - 0.5) < 0.1, errors
  # What is lost by masking again of an exact posterior, at equal calls.
  assert all(a < b < c for a, b, c in zip(*errors.values())), errors


def test_tokens_per_call_and_the_entropy_bound_trade_error_for_calls():
  """By listing the states: the error grows with the tokens of a call from 0 at one; and the divergence of
  entropy-bounded draws is at most the bound times the calls."""
  listed = chain(joint_5x3)
  errors = [listed.distance(listed.run([listed.random_places(k)] * -(-5 // k))) for k in (1, 2, 3, 4, 5)]
  assert errors[0] < 1e-6 and all(np.diff(errors) > 0.05), errors
  independent = np.einsum("a,b,c,d,e->abcde", *listed.posterior[-1])
  assert abs(errors[-1] - listed.distance(independent)) < 1e-9
  for bound in (0.0, 0.5, 1.05, 2.0, 9.0):
    chosen = listed.within_bound(bound)
    kernel, calls, now = listed.places(chosen), 0.0, np.zeros(len(listed.states))
    now[-1] = 1.0
    # The calls of a run along the law of the data: it takes the places that a state gives, whatever is there.
    for _ in range(5):
      calls += now[listed.masked.any(axis=1)].sum()
      now = now @ kernel
    law = listed.run([kernel] * 5)
    divergence = float((listed.law * np.log(listed.law / law)).sum())
    assert -1e-6 < divergence <= bound * calls + 1e-6, (bound, divergence, calls)


def test_the_surest_draws_are_not_the_data():
  """One mask a step by the probability of what was drawn, on both laws: most of the variety is lost."""
  assert chain(joint_5x3).distance(chain(joint_5x3).run([chain(joint_5x3).surest_draw()] * 5)) > 0.6


@pytest.mark.slow
def test_first_hitting_takes_half_the_calls_of_ancestral_steps_at_equal_distance():
  """At 2 D calls ancestral steps are still beyond floor and margin of 200,000 draws on both laws; first
  hitting is within at D. With a cache they make at most D + 1 calls, and have the same samples."""
  count = 200_000
  for law in (joint_5x3, hidden_markov_8):
    case = law()
    limit = floor(case.law, count) + margin(count)
    out, calls = draws(case, solvers.first_hitting(case.process), count)
    assert int(calls.max()) == case.size and total_variation(out, case.law) < limit
    grid = case.process.default_grid(2 * case.size)
    twice, _ = draws(case, solvers.masked_ancestral(case.process, grid), count)
    assert total_variation(twice, case.law) > limit
