"""What the measurements of concrete score matching rest on.

Laws that sum to one, fair draws, floors, distances.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes import neighbourhoods
from experiments.concrete import breast_cancer, drawn_digits, known_laws


def test_laws_sum_to_one_and_blocks_keep_the_sum():
  for p in (known_laws.histogram(16), known_laws.ring(32), known_laws.ring(91)):
    assert p.min() > 0.0
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-12)
  coarse = known_laws.blocks(known_laws.ring(32), 8)
  np.testing.assert_allclose(coarse, known_laws.ring(32).reshape(8, 4, 8, 4).sum((1, 3)), rtol=1e-12)
  np.testing.assert_allclose(known_laws.blocks(known_laws.ring(91), 8).sum(), 1.0, rtol=1e-12)


def test_draws_have_the_law_and_the_floor_is_their_distance():
  """Of 64 states: Pearson's statistic of 50,000 draws (63 degrees, above 125 once in 10^5), and the mean
  distance of 30 sets of 2,000."""
  p, n = known_laws.blocks(known_laws.ring(32), 8), 2000
  draw = jax.jit(known_laws.sampler(p, 50_000))
  counts = 50_000 * known_laws.counted(draw(jax.random.key(0))["x"], p.shape)
  # The rarest cells, expected less than five times, as one.
  rare = 50_000 * p < 5
  groups = [(counts[~rare], 50_000 * p[~rare]), (counts[rare].sum(), 50_000 * p[rare].sum())]
  assert sum(np.sum((seen - expected) ** 2 / np.maximum(expected, 1.0)) for seen, expected in groups) < 125.0
  distances = [
    known_laws.total_variation(known_laws.counted(draw(jax.random.key(i))["x"][:n], p.shape), p)
    for i in range(30)
  ]
  np.testing.assert_allclose(np.mean(distances), known_laws.floor(p, n), rtol=0.1)


def test_tables_are_read_where_they_were_written():
  of = neighbourhoods.grid([3, 4])
  value = jax.tree_util.Partial(
    lambda x, t, cond=None: jnp.stack([(10 * x[:, 0] + x[:, 1]).astype(t.dtype), t], axis=1)
  )
  tables = known_laws.tabulated(value, of.sizes, [0.25, 0.5]).reshape(2, 3, 4, 2)
  x = jnp.array([[2, 3], [0, 1]], jnp.int32)
  np.testing.assert_allclose(known_laws.look_up(tables, x, jnp.array([1.0, 0.0])), [[23.0, 0.5], [1.0, 0.25]])


def test_the_nearest_image_is_counted_in_pixels():
  rng = np.random.default_rng(0)
  a, b = (rng.integers(0, 2, (n, 4, 4, 1)).astype(np.uint8) for n in (5, 7))
  expected = [min(int(np.sum(x != y)) for y in b) for x in a]
  np.testing.assert_array_equal(drawn_digits.nearest(a, b), expected)


@pytest.mark.parametrize("t", [0.1, 0.7])
def test_the_alternatives_are_laws(t):
  """Both sum to one; of columns that are independent in the rows themselves they are the same law."""
  train = np.array([[a, b] for a in (0, 1, 1, 2) for b in (0, 0, 1, 2)])
  every = np.array(list(np.ndindex(3, 3)))
  smoothed, independent = breast_cancer.alternatives(train, every, 3, t)
  np.testing.assert_allclose([np.exp(smoothed).sum(), np.exp(independent).sum()], 1.0, rtol=1e-12)
  np.testing.assert_allclose(smoothed, independent, rtol=1e-10)
  smoothed, independent = breast_cancer.alternatives(np.array([[0, 0], [1, 1]]), every, 3, t)
  assert np.all(smoothed[[0, 4]] > independent[[0, 4]]) and np.all(smoothed[[1, 3]] < independent[[1, 3]])
