"""The forms of a symmetric matrix against the matrices that they stand for."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.math import symmetric

RNG = np.random.default_rng(0)
DIAGONAL, FACTORS, V, C = (
  RNG.normal(size=(3, 5)),
  RNG.normal(size=(3, 5, 3)),
  RNG.normal(size=(3, 5)),
  np.array([0.5, 1.0, 2.0]),
)
SIGNS = (1, -1, -1)
OUTER = V[:, :, None] * V[:, None, :]
EYE = np.eye(5)[None]


def low_rank():
  return symmetric.LowRank(jnp.asarray(DIAGONAL), jnp.asarray(FACTORS), SIGNS)


def matrices():
  return np.einsum("bd,de->bde", DIAGONAL, np.eye(5)) + np.einsum(
    "bdr,r,ber->bde", FACTORS, np.array(SIGNS, float), FACTORS
  )


CASES = {
  "full": (lambda: symmetric.Full(jnp.asarray(matrices())), matrices(), lambda m: m),
  "low rank": (low_rank, matrices(), lambda m: m),
  # Of what is added to a diagonal form, only the diagonal is there.
  "diagonal": (
    lambda: symmetric.Diagonal(jnp.asarray(DIAGONAL)),
    np.einsum("bd,de->bde", DIAGONAL, np.eye(5)),
    lambda m: m * EYE,
  ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_form_answers_as_its_matrix(name, x64):
  build, dense, kept = CASES[name]
  form = build()
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
  for changed, expected in [
    (form, dense),
    (form.rescaled(jnp.asarray(C)), C[:, None, None] ** 2 * dense),
    (form.rescaled(3.0), 9.0 * dense),
    (form.plus_identity(jnp.asarray(C)), dense + C[:, None, None] * EYE),
    (form.plus_identity(-2.0), dense - 2.0 * EYE),
    (form.plus_outer(jnp.asarray(V)), dense + kept(OUTER)),
    (form.plus_outer(jnp.asarray(V), -1), dense - kept(OUTER)),
  ]:
    close(changed.dense(), expected)
    close(changed.times(jnp.asarray(V)), np.einsum("bde,be->bd", expected, V))
    close(changed.quadratic(jnp.asarray(V)), np.einsum("bd,bde,be->b", V, expected, V))
    close(changed.trace(), np.trace(expected, axis1=1, axis2=2))
    close(changed.square_norm(), np.sum(expected**2, axis=(1, 2)))
    close(changed.diagonal_entries(), np.einsum("bdd->bd", expected))


def test_the_norm_of_a_difference_of_low_ranks(x64):
  other = symmetric.LowRank(jnp.asarray(V), jnp.asarray(FACTORS[:, :, :2] - 1.0), (1, 1))
  np.testing.assert_allclose(
    low_rank().minus(other).square_norm(), np.sum((matrices() - other.dense()) ** 2, axis=(1, 2)), rtol=1e-12
  )


def test_no_matrix_is_formed_in_low_rank():
  """At D = 2,000,000 a matrix would be 16 TB a row."""
  big = symmetric.LowRank(jnp.ones((1, 2_000_000)), jnp.full((1, 2_000_000, 2), 1e-3), (1, -1))
  grown = big.rescaled(2.0).plus_outer(jnp.zeros((1, 2_000_000))).plus_identity(1.0)
  np.testing.assert_allclose(grown.square_norm(), 25.0 * 2_000_000, rtol=1e-4)


@pytest.mark.parametrize(
  "value,words",
  [
    (np.ones((2, 3, 4)), r"\[B, 3, 3\]"),
    (3.0, "got float"),
    (symmetric.Diagonal(np.ones((2, 4))), "of 4 dimensions, and the data of 3"),
    (symmetric.LowRank(np.ones((2, 3)), np.ones((2, 3, 4)), (1,) * 4), "take rank 3 or less"),
    (symmetric.LowRank(np.ones((2, 3)), np.ones((2, 3, 2)), (1,)), "one sign"),
  ],
)
def test_what_is_no_form_raises_a_sentence(value, words):
  with pytest.raises(ValueError, match=words):
    symmetric.as_symmetric(value, 3)
