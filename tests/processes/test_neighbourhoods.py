"""Neighbourhoods: moves, their inverses and what is refused, by enumeration of every state."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes import neighbourhoods

STAR = [[1, 2, 3], [0, -1, -1], [0, -1, -1], [0, 2, -1]]
CASES = {
  "cycle": neighbourhoods.cycle(5),
  "grid": neighbourhoods.grid([3, 4], (1, -1), wrap=False),
  "wrapped": neighbourhoods.grid([3, 4], (1,)),
  "jumps": neighbourhoods.grid([3, 3], (1, 2)),
  "flips": neighbourhoods.bit_flips((2, 2)),
  "graph": neighbourhoods.graph(STAR),
}


def states(of):
  return np.array(list(itertools.product(*map(range, of.sizes))), np.int32).reshape(-1, *of.shape)


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name in ("grid", "graph") else pytest.mark.slow) for name in CASES]
)
def test_reverse_neighbours_are_all_states_that_have_it_as_a_neighbour(name):
  of = CASES[name]
  x = states(of)
  key = lambda state: tuple(np.ravel(state).tolist())
  picked = np.tile(np.arange(of.num_reverse)[::-1][:2], (len(x), 1)).astype(
    np.int32
  )  # a part of the reverse neighbours, in any order
  there, back, some, degrees = jax.tree.map(
    np.asarray,
    jax.jit(
      lambda x: (
        of.neighbours(x),
        of.reverse_neighbours(x),
        of.reverse_neighbours(x, jnp.asarray(picked)),
        of.degree(x),
      )
    )(x),
  )
  forward = sorted(
    (key(a), n, key(b)) for a, row, exists in zip(x, *there) for n, b in enumerate(row) if exists[n]
  )
  before, slot, exists = back
  backward = sorted(
    (key(b), slot[i, r], key(a)) for i, a in enumerate(x) for r, b in enumerate(before[i]) if exists[i, r]
  )
  assert forward == backward and len(forward) == len(set(forward))
  degree = [sum(key(a) in (one, two) for one, _, two in forward) for a in x]
  np.testing.assert_array_equal(degrees, degree)
  for part, whole in zip(some, back):
    np.testing.assert_array_equal(part, whole[:, picked[0]])


def test_the_order_of_moves_is_coordinates_then_steps():
  neighbours = lambda name, x: jax.jit(CASES[name].neighbours)(np.array(x, np.int32))
  y, exists = neighbours("grid", [[0, 2]])
  assert y[0].tolist() == [[1, 2], [0, 2], [0, 3], [0, 1]] and exists[0].tolist() == [True, False, True, True]
  assert neighbours("flips", [[[0, 0], [0, 0]]])[0][0].reshape(4, 4).tolist() == np.eye(4, dtype=int).tolist()
  y, exists = neighbours("graph", [[3], [2]])
  assert y[:, :, 0].tolist() == [[0, 2, 3], [0, 2, 2]] and exists.tolist() == [
    [True, True, False],
    [True, False, False],
  ]


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: neighbourhoods.graph([[1], [0], [3], [2]]), "no moves lead from 0 to 2"),
    (
      lambda: neighbourhoods.graph([[1], [2]]),
      "node 1 lists the neighbour 2, but there are the nodes 0 to 1",
    ),
    (lambda: neighbourhoods.graph([[1, 1], [0, -1]]), "0 has the neighbour 1 twice"),
    (lambda: neighbourhoods.graph([[0], [0]]), "0 is its own neighbour"),
    (lambda: neighbourhoods.graph([[1.0], [0.0]]), "whole numbers"),
    (lambda: neighbourhoods.graph([1, 0]), "fill short rows up with -1"),
    (lambda: neighbourhoods.grid([3, 2], (1, -1)), "of two values, the step 1 is the step -1"),
    (lambda: neighbourhoods.grid([4], (2,)), "is not connected"),
    (lambda: neighbourhoods.grid([4], (4,)), "its own neighbour"),
    (lambda: neighbourhoods.grid([4], ()), r"steps such as \(1,\)"),
    (lambda: neighbourhoods.cycle(1), "two or more values"),
    (lambda: neighbourhoods.cycle(16).neighbours(jnp.zeros((3, 2), jnp.int32)), r"of shape \[B, 1\]"),
    (lambda: neighbourhoods.cycle(16).neighbours(jnp.zeros((3, 1))), "takes whole numbers"),
  ],
)
def test_what_is_no_neighbourhood_raises_a_sentence(build, words):
  with pytest.raises(ValueError, match=words):
    build()
