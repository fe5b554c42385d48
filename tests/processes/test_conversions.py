"""What discrete processes know of one another's views: round trips, and the formulas of each paper."""

import jax
import jax.numpy as jnp
import numpy as np
import process_cases as cases
import pytest

from diffusion import oracles, processes
from diffusion.processes import neighbourhoods

DISCRETE = [name for name in cases.NAMES if name not in cases.CONTINUOUS]


@pytest.mark.parametrize("name", cases.params(DISCRETE))
def test_every_pair_that_follows_leads_there_and_back(name, x64):
  """A view made a network's output of its own kind gives back what it was made of."""
  case = cases.cases()[name]
  process, t, x = case.process, cases.times(case)[1], jnp.asarray(cases.states(case))
  rows = jnp.full(len(x), t)
  exact = jnp.asarray(cases.exact_views(case, t)["probabilities"])

  @jax.jit
  def around(exact):
    first = process.convert("probabilities", exact, x, rows, process.views_of("probabilities"))
    return first, {
      (kind, back): process.convert(kind, first[kind], x, rows, (back,))[back]
      for kind in first
      for back in process.views_of(kind)
    }

  first, found = around(exact)
  assert set(first) == set(process.views_of("logits"))
  assert all((kind, kind) in found for kind in first)
  for (kind, back), value in found.items():
    np.testing.assert_allclose(value, first[back], rtol=1e-8, atol=1e-10, err_msg=f"{kind} -> {back}")


@pytest.mark.parametrize("name", cases.params([n for n in DISCRETE if cases.cases()[n].process.jumps]))
def test_rates_are_the_slope_of_the_posterior(name, x64):
  """p(x_t-h = k | x_t) = h rate_k + O(h^2), Richardson's extrapolation of two steps."""
  case = cases.cases()[name]
  process, t, x = case.process, cases.times(case)[1], jnp.asarray(cases.states(case))
  rows, h = jnp.full(len(x), t), 1e-5
  exact = jnp.asarray(cases.exact_views(case, t)["probabilities"])
  rates = process.posterior_rates(exact, x, rows)
  slope = lambda h: process.posterior(exact, x, rows - h, rows) / h
  found = np.where(jax.nn.one_hot(x, process.num_states), 0.0, 2 * slope(h) - slope(2 * h))
  np.testing.assert_allclose(found, rates, rtol=1e-6, atol=1e-6)


def test_formulas_of_masks_as_the_papers_write_them(x64):
  """SEDD's absorbing ratio alpha / (1 - alpha) p; the velocity -alpha' / (1 - alpha) (p - [mask]) of discrete
  flow matching; D3PM's posterior ((alpha_s - alpha_t) p + (1 - alpha_s) [mask]) / (1 - alpha_t)."""
  process = processes.masked(3, (2,), schedule=processes.polynomial_keep(2.0))
  x, p = jnp.array([[3, 1]]), jnp.array([[[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]]])
  t, s = 0.4, 0.3
  alpha, earlier, slope = (1 - t) ** 2, (1 - s) ** 2, -2 * (1 - t)
  found = process.convert("probabilities", p, x, jnp.full(1, t), process.views)
  own = np.array([0.5, 0.3, 0.2])
  np.testing.assert_allclose(found["ratios"][0, 0], [*(alpha / (1 - alpha) * own), 1.0], rtol=1e-12)
  np.testing.assert_allclose(found["rates"][0, 0], [*(-slope / (1 - alpha) * own), 0.0], rtol=1e-12)
  np.testing.assert_array_equal(found["rates"][0, 1], 0.0)
  posterior = process.posterior(p, x, jnp.full(1, s), jnp.full(1, t))
  wanted = [*((earlier - alpha) * own / (1 - alpha)), (1 - earlier) / (1 - alpha)]
  np.testing.assert_allclose(posterior[0, 0], wanted, rtol=1e-12)
  np.testing.assert_allclose(posterior[0, 1], [0, 1, 0, 0], atol=1e-12)


def test_a_concrete_score_is_some_of_the_ratios(x64):
  """Of uniform noise, against the oracle; back from a neighbourhood that leads everywhere, all of them."""
  oracle = oracles.uniform_resample_categorical(cases.SQUARE)
  x = jnp.asarray(cases.states(cases.cases()["uniform_and_walk"]), jnp.int32)
  t = jnp.full(len(x), 0.4)
  ratios, every = oracle.ratios(x, t), oracle.concrete(x, t)
  around = neighbourhoods.grid([3, 3])
  found = processes.concrete_score(around, ratios, x)
  wanted = jnp.take_along_axis(every, ((x + 1) % 3)[..., None], axis=-1)[..., 0]
  np.testing.assert_allclose(found, wanted, rtol=1e-12)
  back, told = processes.neighbour_ratios(around, found, x)
  assert told.sum() == 2 * x.size
  np.testing.assert_allclose(jnp.where(told, ratios, 0.0), back, rtol=1e-12)
  whole = neighbourhoods.grid([3, 3], (1, 2))
  back, told = processes.neighbour_ratios(whole, processes.concrete_score(whole, ratios, x), x)
  assert told.all()
  np.testing.assert_allclose(back, ratios, rtol=1e-12)
  # A line has ends: there is no move out of it.
  line = neighbourhoods.grid([3, 3], wrap=False)
  ends = processes.concrete_score(line, ratios, x)
  np.testing.assert_array_equal(ends == 0.0, x == 2)


def test_data_that_do_not_fit_are_refused():
  for call, words in (
    (lambda: processes.check_tokens(processes.masked(3, (2,)), [[0, 3]]), "3, which is the mask"),
    (lambda: processes.check_tokens(processes.masked(3, (2,)), [[0, -1]]), "the value -1 in row 0"),
    (
      lambda: processes.check_tokens(processes.uniform_resample([3, 2]), [[2, 1], [0, 2]]),
      "value 2 in row 1",
    ),
    (lambda: processes.check_tokens(processes.masked(3, (2,)), [[0.5, 1.0]]), "whole numbers"),
    (lambda: processes.check_tokens(processes.masked(3, (2,)), [[0, 1, 2]]), "of shape"),
  ):
    with pytest.raises(ValueError, match=words):
      call()
