"""One jitted `lax.scan` that runs every solver, and one `lax.while_loop` for those that choose their steps as
they go."""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.solvers import belonging


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


class AdaptiveSolver(Protocol):
  """A solver whose number of steps is each sample's own: `adaptive` is true, and `done` and `finish` take the
  place of `output`.

  A sample that is done keeps its state while the others go on. max_steps is data; nfe is None.
  """

  adaptive: bool
  max_steps: Any
  stochastic: bool

  def init(self, denoiser, x, keys, cond=None) -> Any:
    """State from x: [B, ...] at the start and keys: [B]."""

  def step(self, denoiser, state, i, keys, cond=None, post_step=None) -> Any:
    """The state after attempt i (traced) of the samples that are not done."""

  def done(self, state):
    """Which samples need no more steps: [B] bool."""

  def finish(self, denoiser, state, cond=None):
    """(x [B, ...], NaN where a sample did not arrive; denoiser calls of each sample [B] int32)."""


def sample(denoiser, solver, x, *, keys=None, cond=None, post_step=None, trajectory=False, evaluations=False):
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
    post_step: None or (x [B, ...], t [B], keys [B]) -> x, called after each finished update. A plain function
      is part of the program, so build it once; a `jax.tree_util.Partial` or another pytree has its arrays as
      data.
    trajectory: whether to return the states as well.
    evaluations: whether to return the denoiser calls of each sample as well, last: solver.nfe, or what an
      adaptive solver needed (of a batch of which the largest is how often the network ran).

  Returns:
    x: [B, ...]; with trajectory=True the pair (x, [num_steps + 1, B, ...]), whose last entry is x; with
      evaluations=True
    [B] int32 follows.

  Raises:
    ValueError, TypeError: keys, x, solver and denoiser that do not fit each other, a trajectory of an
      adaptive solver.
    ValueError: a sample that an adaptive solver did not bring to the end. Inside a jit of your own, where
      nothing can be raised, such samples are NaN.

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
  adaptive = getattr(solver, "adaptive", False)
  if adaptive and trajectory:
    raise ValueError(
      "an adaptive solver has no trajectory, because each sample has its own steps: leave out "
      "trajectory=True, or use a"
      " table on a fixed grid"
    )
  _check_keys(solver, x, keys)
  _check_fits(denoiser, solver, x)
  _check_post_step(post_step, denoiser)
  # A bare function becomes part of the program; a callable pytree stays data.
  if post_step is not None and jax.tree_util.all_leaves([post_step]):
    post_step = jax.tree_util.Partial(post_step)
  if adaptive:
    out, count, arrived = _run_adaptive(denoiser, solver, x, keys, cond, post_step)
    _check_arrived(solver, count, arrived)
    return (out, count) if evaluations else out
  out = _run(denoiser, solver, x, keys, cond, post_step, trajectory=trajectory)
  if not evaluations:
    return out
  count = jnp.full(x.shape[:1], solver.nfe, jnp.int32)
  return (*out, count) if trajectory else (out, count)


@functools.partial(jax.jit, static_argnames="trajectory")
def _run(denoiser, solver, x, keys, cond, post_step, *, trajectory):
  def body(state, i):
    state = solver.step(denoiser, state, i, keys, cond, post_step)
    return state, solver.output(state) if trajectory else None

  state = solver.init(denoiser, x, keys, cond)
  state, states = jax.lax.scan(body, state, jnp.arange(solver.num_steps))
  out = solver.output(state)
  return (out, jnp.concatenate([x[None], states])) if trajectory else out


@jax.jit
def _run_adaptive(denoiser, solver, x, keys, cond, post_step):
  def going(carry):
    state, i = carry
    return (i < solver.max_steps) & ~jnp.all(solver.done(state))

  def body(carry):
    state, i = carry
    return solver.step(denoiser, state, i, keys, cond, post_step), i + 1

  state = solver.init(denoiser, x, keys, cond)
  state, _ = jax.lax.while_loop(going, body, (state, jnp.zeros((), jnp.int32)))
  out, count = solver.finish(denoiser, state, cond)
  return out, count, jnp.all(jnp.isfinite(out.reshape(out.shape[0], -1)), axis=-1)


def _check_arrived(solver, count, arrived):
  if isinstance(arrived, jax.core.Tracer) or bool(jnp.all(arrived)):
    return
  lost = np.flatnonzero(~np.asarray(arrived))
  raise ValueError(
    f"{solver.name}: {lost.size} of {arrived.shape[0]} samples did not reach the end, the first of them "
    f"sample {lost[0]} after"
    f" {int(count[lost[0]])} evaluations (max_steps={int(solver.max_steps)}): raise max_steps, or the "
    "tolerances if they are near"
    " the precision of the state, or look for a denoiser that returns NaN"
  )


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
  """What can be seen before compiling: the batch, the process, and a network that does not exist at alpha =
  0."""
  table = getattr(solver, "table", solver)
  times = getattr(table, "t", None)
  if times is None:
    _check_process(solver, denoiser)
    return
  if times.ndim == 2 and times.shape[0] != x.shape[0]:
    raise ValueError(
      f"the solver has {times.shape[0]} grids and x has {x.shape[0]} rows: give one grid a row, or one for "
      "all"
    )
  process = getattr(denoiser, "process", None)
  _check_process(table, denoiser)
  if denoiser.needs_signal and getattr(table, "view", "x0") not in ("eps", "score"):
    leaves = jax.tree.leaves((times, process))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
      return
    alpha = process.marginal(np.asarray(times, np.float64)[..., :-1]).alpha
    if not np.all(np.asarray(alpha) > 0):
      raise ValueError(
        "the grid starts where there is no signal (alpha = 0), where a score or a noise says nothing of the data, "
        "and this denoiser predicts one or changes the score by guidance: start the grid at an earlier time, or use "
        "an x0, v or velocity network and guidance that is linear"
      )


def _check_process(solver, denoiser):
  wrong = belonging.difference(getattr(solver, "about", None), getattr(denoiser, "process", None))
  if wrong:
    raise ValueError(f"the solver {wrong}: build the solver with denoiser.process")


def _check_post_step(post_step, denoiser):
  wrong = belonging.difference(getattr(post_step, "about", None), getattr(denoiser, "process", None))
  if wrong:
    raise ValueError(f"the post_step {wrong}: build it with denoiser.process")
