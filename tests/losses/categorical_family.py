"""Whole numbers in closed form.

With the tabular family of concrete scores that holds the true one at the origin.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, losses, processes

SIZES = (3, 2)
STATES = np.array(list(itertools.product(*map(range, SIZES))), np.int32)
JOINT = np.random.default_rng(1).dirichlet(np.full(6, 2.0)).reshape(SIZES)


def neighbourhood():
  """x_1 + 1, x_1 - 1 without wrap, and the flip of x_2: three neighbours, of which some states lack one."""
  return processes.neighbourhoods.build(
    np.array(SIZES), lambda size: [[1, 2, -1], [-1, 0, 1]] if size == 3 else [[1, 0]], "tiny"
  )


def process(name):
  """The listed discrete process on these states, or None."""
  options = {"discretised_gaussian": dict(wrap=False, sigma_min=0.6)}.get(name, {})
  return None if name == "none" else processes.DISCRETE[name](np.array(SIZES), **options)


def kernels(of, t, dtype):
  """q(value | x_0) of each coordinate: a list of [B, K_0, K]."""
  found = []
  for size in SIZES:
    if of is None:
      found.append(jnp.broadcast_to(jnp.eye(size, dtype=dtype)[None], (t.shape[0], size, size)))
      continue
    clean, value = (
      jnp.asarray(a.reshape(-1), jnp.int32)
      for a in np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    )
    spread = lambda a: jnp.broadcast_to(a[None], (t.shape[0], size * size))
    weight = of.ratio(
      spread(clean), jnp.zeros_like(spread(clean)), spread(value), np.full(size * size, size), t
    )
    weight = weight.reshape(-1, size, size).astype(dtype)
    found.append(weight / jnp.sum(weight, axis=2, keepdims=True))
  return found


def table(of, t, dtype=jnp.float32):
  """p_t of every state: [B, 3, 2]."""
  first, second = kernels(of, t, dtype)
  return jnp.einsum("ij,bik,bjl->bkl", jnp.asarray(JOINT, dtype), first, second, precision="highest")


def concrete(of):
  """The true concrete score of p_t at parameters zero, plus a number for each state and neighbour: [B, 3]."""

  def function(own, x, t, cond=None):
    del cond
    dtype, rows = own["table"].dtype, jnp.arange(x.shape[0])
    p = table(of, t, dtype)
    y, _ = neighbourhood().neighbours(x)
    ratios = p[rows[:, None], y[:, :, 0], y[:, :, 1]] / p[rows, x[:, 0], x[:, 1]][:, None]
    return ratios - 1.0 + own["table"][x[:, 0], x[:, 1]]

  return function


def params(seed=None, dtype=jnp.float32):
  """The family's parameters: the truth, or somewhere else."""
  values = np.zeros((*SIZES, 3)) if seed is None else np.random.default_rng(seed).normal(size=(*SIZES, 3))
  return {"table": jnp.asarray(values, dtype)}


def roles(of):
  """The family as the role 'model'."""
  return losses.roles(model=denoisers.from_functions(concrete_score=concrete(of)))


def bound(of, own):
  """{role: denoiser} at the family's parameters."""
  return roles(of)({"model": own}, {})


def batch(size, seed=0):
  """A sample of the data, with labels."""
  generator = np.random.default_rng(seed)
  x = STATES[generator.choice(6, size, p=JOINT.reshape(-1))]
  return {"x": jnp.asarray(x), "cond": {"label": jnp.asarray(generator.integers(0, 5, size), jnp.int32)}}


def expectation(objective, of, t):
  """A placed draw and its rows' weights: every clean state, noised state and choice of reverse neighbours, at
  time t."""
  total = neighbourhood().num_reverse
  rows = np.array(list(itertools.product(range(6), range(6), range(total))))
  x0, x_t = jnp.asarray(STATES[rows[:, 0]]), jnp.asarray(STATES[rows[:, 1]])
  times = jnp.full((len(rows),), t)
  first, second = kernels(of, times, jnp.float64)
  every = jnp.arange(len(rows))
  weights = (
    jnp.asarray(JOINT.reshape(-1)[rows[:, 0]])
    * first[every, x0[:, 0], x_t[:, 0]]
    * second[every, x0[:, 1], x_t[:, 1]]
    / total
  )
  draw = objective.draw(jax.random.key(0), {"x": x0}, times, {})
  targets = {"reverse": jnp.asarray(rows[:, 2:], jnp.int32)} if draw.targets else {}
  return losses.placed_at(draw.replace(targets=targets), x_t), weights
