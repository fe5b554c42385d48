"""One jitted `lax.scan` that runs every solver."""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Solver(Protocol):
  """What the executor runs: a pytree with these methods. A `Table` is one.

  num_steps and stochastic are static; nfe is the exact number of denoiser calls per sample. post_step is None
  or (x [B, ...], t [B], keys [B]) -> x, which the solver calls wherever it has finished an update.
  """

  num_steps: int
  nfe: int
  stochastic: bool

  def init(self, denoiser, x, keys, cond=None) -> Any:
    """State from x: [B, ...] at the first time of the grid and keys: [B]."""

  def step(self, denoiser, state, i, keys, cond=None, post_step=None) -> Any:
    """The state after step i (traced)."""

  def output(self, state):
    """The newest x: [B, ...]."""


def sample(denoiser, solver, x, *, keys=None, cond=None, post_step=None, trajectory=False):
  """Runs a solver from noise to data.

  Everything that changes numbers and not shapes (parameters, guidance scales, coefficients and times, keys,
  classes) is data: one compiled program serves all of it. The state is kept in float32 (float64 if x is),
  whatever the network computes in.

  Args:
    denoiser: (x, t, cond, views=) -> Prediction, a pytree.
    solver: a `Table` or another solver.
    x: [B, ...] noise at the solver's first time, e.g. from process.sample_prior.
    keys: [B] typed keys, one a sample; may be None for a deterministic solver.
    cond: None or a dict of arrays with leading axis B.
    post_step: None or (x [B, ...], t [B], keys [B]) -> x, called after each finished update. A plain function is
      part of the program, so build it once; a `jax.tree_util.Partial` or another pytree has its arrays as data.
    trajectory: whether to return the states as well.

  Returns:
    x: [B, ...]; with trajectory=True the pair (x, [num_steps + 1, B, ...]), whose last entry is x.

  Raises:
    ValueError, TypeError: keys, x, solver and denoiser that do not fit each other.

  >>> from diffusion import denoisers, processes, solvers
  >>> process = processes.edm(sigma_min=0.01, sigma_max=10.0)
  >>> unit = lambda params, x, t, cond: x / (1 + t[:, None] ** 2)          # the denoiser of data ~ N(0, 1)
  >>> denoiser = denoisers.from_function(unit, process, denoisers.x0())
  >>> solver = solvers.heun(process, solvers.grids.karras(process, 20))
  >>> x = process.sample_prior(jax.random.key(0), (3, 2))
  >>> exact = x / np.float32(np.sqrt((1 + 10.0**2) / (1 + 0.01**2)))
  >>> bool(abs(solvers.sample(denoiser, solver, x) - exact).max() < 0.05)
  True
  """
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating) or x.ndim < 1:
    raise TypeError(f"x must be floating-point noise [B, ...], got {x.dtype}{list(x.shape)}")
  x = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
  _check_keys(solver, x, keys)
  _check_fits(denoiser, solver, x)
  # A bare function becomes part of the program; a callable pytree stays data.
  if post_step is not None and jax.tree_util.all_leaves([post_step]):
    post_step = jax.tree_util.Partial(post_step)
  return _run(denoiser, solver, x, keys, cond, post_step, trajectory=trajectory)


@functools.partial(jax.jit, static_argnames="trajectory")
def _run(denoiser, solver, x, keys, cond, post_step, *, trajectory):
  def body(state, i):
    state = solver.step(denoiser, state, i, keys, cond, post_step)
    return state, solver.output(state) if trajectory else None

  state = solver.init(denoiser, x, keys, cond)
  state, states = jax.lax.scan(body, state, jnp.arange(solver.num_steps))
  out = solver.output(state)
  return (out, jnp.concatenate([x[None], states])) if trajectory else out


def _check_keys(solver, x, keys):
  if keys is None:
    if solver.stochastic:
      raise ValueError(
          "this solver draws noise: give keys, one a sample, for example"
          f" keys=jax.random.split(jax.random.key(0), {x.shape[0]})"
      )
    return
  if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != x.shape[:1]:
    raise ValueError(
        f"keys must be {x.shape[0]} typed keys, one a sample, got {keys.dtype}{list(keys.shape)}:"
        f" use jax.random.split(jax.random.key(seed), {x.shape[0]})"
    )


def _check_fits(denoiser, solver, x):
  """What can be seen before compiling: the batch, the process, and a network that does not exist at alpha = 0."""
  table = getattr(solver, "table", solver)
  times = getattr(table, "t", None)
  if times is None:
    return
  if times.ndim == 2 and times.shape[0] != x.shape[0]:
    raise ValueError(f"the solver has {times.shape[0]} grids and x has {x.shape[0]} rows: give one grid a row, or one for all")
  process = getattr(denoiser, "process", None)
  about = getattr(table, "about", None)
  if about is not None and about.process and getattr(process, "name", "") and about.process != process.name:
    raise ValueError(
        f"the solver was built for the process {about.process!r} and the denoiser belongs to {process.name!r}:"
        " build the solver with denoiser.process"
    )
  network = denoiser
  while not hasattr(network, "parameterization") and hasattr(network, "denoiser"):
    network = network.denoiser  # below guidance
  kind = getattr(getattr(network, "parameterization", None), "kind", None)
  if kind in ("eps", "score", "scaled_score") and table.view not in ("eps", "score"):
    leaves = jax.tree.leaves((times, process))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
      return
    alpha = process.marginal(np.asarray(times, np.float64)[..., :-1]).alpha
    if not np.all(np.asarray(alpha) > 0):
      raise ValueError(
          f"the grid starts where there is no signal (alpha = 0), where a network that predicts {kind} says nothing of"
          " the data: start the grid at an earlier time, or use an x0, v or velocity network"
      )
