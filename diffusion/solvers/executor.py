"""The only place that calls a denoiser while sampling.

It is one jitted `lax.scan`, and one `lax.while_loop` for solvers that choose their steps as they go.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from diffusion.processes.comparison import mismatch
from diffusion.solvers.contract import PostStep, both
from diffusion.solvers.remat import checkpointed_scan


def sample(
  denoiser: Any,
  solver: Any,
  x: Any,
  *,
  keys: jax.Array | None = None,
  cond: Any = None,
  post_step: PostStep | None = None,
  views: tuple[str, ...] = (),
  trajectory: bool = False,
  evaluations: bool = False,
  remat: bool = False,
) -> Any:
  """Runs a solver from noise to data.

  Everything that changes numbers and not shapes (parameters, guidance scales, coefficients and times, keys,
  classes) is data: one compiled program serves all of it. Floats are kept in float32 (float64 if x is),
  whatever the network computes in.

  Args:
    denoiser: (x, t, cond, views=, train=) -> Prediction, a pytree.
    solver: a `Table` or another `Solver`.
    x: [B, ...] noise at the solver's first time, e.g. from process.prior, or another x to start from:
      floats or whole numbers as the solver takes, one array or a pytree of arrays with one leading axis.
    keys: [B] typed keys, one a sample; may be None for a deterministic solver.
    cond: None or a dict of arrays with leading axis B.
    post_step: None or (x [B, ...], t [B], keys [B] or None, prediction) -> x, called after each finished
      step with the prediction of the evaluation that finished it. A plain function is part of the program, so
      build it once; a `jax.tree_util.Partial` or another pytree has its arrays as data.
    views: what is asked of the denoiser besides the solver's own views, for post_step to see.
    trajectory: whether to return the states as well.
    evaluations: whether to return the denoiser calls of each sample as well, last: solver.cost, or what an
      adaptive solver needed (of a batch of which the largest is how often the network ran).
    remat: for gradients through sampling: whether the way back computes the evaluations again. About 2
      sqrt(num_steps) states of the solver are stored and the activations of one evaluation, where otherwise
      the activations of all are; an evaluation is made three times in place of once.

  Returns:
    x: [B, ...]; with trajectory=True the pair (x, [num_steps + 1, B, ...]), whose last entry is x; with
      evaluations=True [B] int32 follows.

  Raises:
    ValueError, TypeError: keys, x, solver and denoiser that do not fit each other; a trajectory or a
      rematerialised run of an adaptive solver.
    ValueError: a sample that an adaptive solver did not bring to the end. Inside a jit of your own, where
      nothing can be raised, such samples are NaN.

  >>> from diffusion import denoisers, processes, solvers
  >>> process = processes.edm(sigma_min=0.01, sigma_max=10.0)
  >>> unit = lambda params, x, t, cond: x / (1 + t[:, None] ** 2)          # the denoiser of data ~ N(0, 1)
  >>> denoiser = denoisers.from_function(unit, process, denoisers.x0())
  >>> solver = solvers.heun(process, solvers.grids.karras(process, 20))
  >>> x = process.prior(jax.random.split(jax.random.key(0), 3), (2,))
  >>> exact = x / np.float32(np.sqrt((1 + 10.0**2) / (1 + 0.01**2)))
  >>> bool(abs(solvers.sample(denoiser, solver, x) - exact).max() < 0.05)
  True
  """
  x, rows = _as_state(solver, x)
  _check_loop(solver, post_step, views, trajectory, remat)
  _check_keys(solver, rows, keys)
  check_fits(denoiser, solver, rows, post_step)
  # A bare function becomes part of the program; a callable pytree stays data.
  if post_step is not None and jax.tree_util.all_leaves([post_step]):
    post_step = jax.tree_util.Partial(post_step)
  if solver.loop == "scan":
    out = _run(
      denoiser, solver, x, keys, cond, post_step, views=tuple(views), trajectory=trajectory, remat=remat
    )
    if not evaluations:
      return out
    count = jnp.full(rows, solver.cost, jnp.int32)
    return (*out, count) if trajectory else (out, count)
  if solver.loop == "own":
    out, count = _run_own(denoiser, solver, x, keys, cond)
  else:
    out, count = _run_until_done(denoiser, solver, x, keys, cond, post_step, views=tuple(views))
  _check_arrived(solver, count, _finite_rows(out))
  return (out, count) if evaluations else out


@functools.partial(jax.jit, static_argnames=("views", "trajectory", "remat"))
def _run(denoiser, solver, x, keys, cond, post_step, *, views=(), trajectory=False, remat=False):
  def step(state, i):
    state = _evaluation(denoiser, solver, state, i, keys, cond, post_step, views)
    return state, solver.end(state) if trajectory else None

  scan = checkpointed_scan if remat else _scan
  state, states = scan(step, solver.begin(x, keys), solver.num_steps)
  out = solver.end(state)
  if not trajectory:
    return out
  if jax.tree.structure(out) != jax.tree.structure(x):
    raise ValueError(f"{solver.name} returns more than x and keeps no trajectory: leave out trajectory=True")
  return out, jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), x, states)


@functools.partial(jax.jit, static_argnames="views")
def _run_until_done(denoiser, solver, x, keys, cond, post_step, *, views=()):
  def going(carry):
    state, i = carry
    return (i < solver.num_steps) & ~jnp.all(solver.done(state))

  def step(carry):
    state, i = carry
    return _evaluation(denoiser, solver, state, i, keys, cond, post_step, views), i + 1

  carry = (solver.begin(x, keys), jnp.zeros((), jnp.int32))
  state, _ = jax.lax.while_loop(going, step, carry)
  return solver.end(state), solver.evaluations(state)


@jax.jit
def _run_own(denoiser, solver, x, keys, cond):
  return solver.run(denoiser, x, keys, cond)


def _evaluation(denoiser, solver, state, i, keys, cond, post_step, views):
  """The solver's state after evaluation i."""
  u, t, asked = solver.ask(state, i)
  prediction = denoiser(u, t, cond, views=both(asked, views), train=False)
  return solver.tell(state, i, prediction, keys, post_step)


def _scan(step, state, num_steps):
  return jax.lax.scan(step, state, jnp.arange(num_steps))


def _as_state(solver: Any, x: Any) -> tuple[Any, int]:
  """A state of the solver: (x as arrays of at least float32, number of rows).

  Raises TypeError or ValueError for what is no state of the solver.
  """
  x = jax.tree.map(jnp.asarray, x)
  leaves = jax.tree.leaves(x)
  if not leaves or any(leaf.ndim < 1 for leaf in leaves) or len({leaf.shape[0] for leaf in leaves}) > 1:
    raise TypeError(
      f"x is arrays with one leading axis [B, ...], got {', '.join(map(_shown, leaves)) or 'none'}"
    )
  wrong = [leaf for leaf in leaves if not jnp.issubdtype(leaf.dtype, solver.acts_on)]
  if wrong:
    kind = "floating-point numbers" if solver.acts_on is np.floating else "whole numbers"
    raise TypeError(f"{solver.name or 'the solver'} takes {kind} x [B, ...], got {_shown(wrong[0])}")
  small = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4
  return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if small(leaf) else leaf, x), leaves[0].shape[0]


def _shown(leaf: Any) -> str:
  return f"{leaf.dtype}{list(leaf.shape)}"


def _finite_rows(x: Any) -> jax.Array:
  """Which rows are finite everywhere: [B]."""
  finite = [jnp.all(jnp.isfinite(leaf.reshape(leaf.shape[0], -1)), axis=-1) for leaf in jax.tree.leaves(x)]
  return functools.reduce(jnp.logical_and, finite)


def _check_arrived(solver: Any, count: jax.Array, arrived: jax.Array) -> None:
  if isinstance(arrived, Tracer) or bool(jnp.all(arrived)):
    return
  lost = np.flatnonzero(~np.asarray(arrived))
  raise ValueError(
    f"{solver.name}: {lost.size} of {arrived.shape[0]} samples did not reach the end, the first of them "
    f"sample {lost[0]} after {int(count[lost[0]])} evaluations (max_steps={int(solver.max_steps)}): raise "
    "max_steps, or the tolerances if they are near the precision of the state, or look for a denoiser that "
    "returns NaN"
  )


def _check_loop(solver: Any, post_step: Any, views: tuple, trajectory: bool, remat: bool) -> None:
  """Raises ValueError for what the solver's loop cannot do."""
  if solver.loop != "scan" and trajectory:
    raise ValueError(
      "an adaptive solver has no trajectory, because each sample has its own steps: leave out "
      "trajectory=True, or use a table on a fixed grid"
    )
  if solver.loop != "scan" and remat:
    raise ValueError(
      f"{solver.name} sizes its steps as it goes and has no gradient backwards: leave out remat=True, or use "
      "a table on a fixed grid"
    )
  if solver.loop == "own" and (post_step is not None or views):
    raise ValueError(
      f"{solver.name} runs in a loop of its own and calls no post_step: use dpm_solver_adaptive, "
      "adaptive_sde or a table"
    )


def _check_keys(solver: Any, rows: int, keys: Any) -> None:
  if keys is None:
    if solver.stochastic:
      raise ValueError(
        "this solver draws noise: give keys, one a sample, for example"
        f" keys=jax.random.split(jax.random.key(0), {rows})"
      )
    return
  if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != (rows,):
    raise ValueError(
      f"keys must be {rows} typed keys, one a sample, got {keys.dtype}{list(keys.shape)}:"
      f" use jax.random.split(jax.random.key(seed), {rows})"
    )


def check_fits(denoiser: Any, solver: Any, rows: int | None = None, post_step: Any = None) -> None:
  """Checks what can be seen before compiling.

  That is the batch, the process, and a network that does not exist at alpha = 0.

  Args:
    denoiser, solver, post_step: as `sample` takes them.
    rows: of the batch; None where it is open, and a grid for each sample fits none.

  Raises ValueError.
  """
  process: Any = denoiser.process
  wrong = mismatch(solver.about, process)
  if wrong:
    raise ValueError(f"the solver {wrong}: build the solver with denoiser.process")
  # A bare function says of no process that it was built for it.
  wrong = mismatch(getattr(post_step, "about", None), process)
  if wrong:
    raise ValueError(f"the post_step {wrong}: build it with denoiser.process")
  times = solver.times
  if times is None:
    return
  if times.ndim == 2 and times.shape[0] != rows:
    raise ValueError(
      f"the solver has {times.shape[0]} grids and x has {rows} rows: give one grid a row, or one for all"
    )
  if set(solver.views) <= {"eps", "score"} or not denoiser.needs_signal or process.kind != "gaussian":
    return
  if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((times, process))):
    return
  alpha = process.marginal(np.asarray(times, np.float64)[..., :-1]).alpha
  if not np.all(np.asarray(alpha) > 0):
    raise ValueError(
      "the grid starts where there is no signal (alpha = 0), where a score or a noise says nothing of the "
      "data, and this denoiser is made of one: start the grid at an earlier time, or use a network that "
      "predicts x0, v or the velocity, with no guidance that changes the score"
    )
