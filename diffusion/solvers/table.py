"""A sampler as a table of numbers: one network evaluation is one row.

Row i acts on a stack S of m state vectors and on u, the point of the next evaluation:

    D   = denoiser(u_i, t_i)            the only network call of the row
    E   = g_i u_i + h_i D               what the row keeps
    S  <- A_i S + B_i E + C_i z         z: up to two standard normal noises
    u_i+1 = w_i+1 . S                   the next point; after the last row, the output

and it begins with S = start . (x, z), u_0 = w_0 . S. The number of slots m, the number of noises and the
view that the network is asked for are the program; every coefficient is data, which can be printed,
saved, searched over and fitted. State is kept in units of x_t itself (not of x_t / alpha), so a table can
start where alpha = 0 and end where sigma = 0.

How the known linear samplers become rows (H: kept evaluations, newest first):

  DDIM, Euler, ancestral        m = 1: (x). Noise: one column of C.
  DEIS tAB/rhoAB-r, LMS, iPNDM  m = 1 + r: (x, H). x <- Psi x + sum C_j E_j; A shifts H. Kept: eps.
  PNDM                          the Runge-Kutta start is four rows a step at repeated or middle times, with a
                                slot for the anchor and one for the running sum; history is pushed on the
                                first of the four.
  DPM-Solver 1..3, ++ 2S, RK    m = 1 + stages: anchor and stage evaluations; w (or slot 0) gives the stage
                                point.
  Heun                          m = 2: (x, half step), two rows a step, the last step one row.
  DPM-Solver++ 2M, 3M (+ SDE)   m = 2, 3: (x, H); C for the SDE forms.
  UniPC                         m = 2 + order: (x_pred, x_corr carried over the step but for its D, H). The
                                corrector of node i is linear in E_i, the row's own evaluation, so both come
                                out of one row.
  SA-Solver                     the same stack; predictor and corrector share the noise by both slots having
                                the same column of C (or take the second noise for independent ones).
  EDM churn                     the last row of a step adds the next step's noise to its output. Row times are
                                the raised noise levels. (Noise before the first row would be the noise column
                                of `start`.)
  HB momentum                   one more slot: vel <- (1-b) vel + b u; v <- v + d_rho vel. GHVB: H holds
                                velocities.
  restart                       rows whose C carries x up again: times of rows need not decrease, only grids
                                must.
  exponential RK, order 3       as RK: stiff-order weights are numbers.
  annealed Langevin             rows that repeat a level.
  mixed views, orders (USF)     g_i, h_i turn one view into another per row; a smaller order has zeros. A
                                skipped first evaluation is a `start` that already holds the guess.
  fitted tables                 every leaf is differentiable through `sample`.

What is not linear in what was seen (adaptive steps, Langevin steps sized by norms, times chosen from the
state) implements `begin`, `ask`, `tell` and `end` itself: see predictor_corrector.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from diffusion.processes import expand
from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished, layout, row_at
from diffusion.solvers.denoising import denoised_leaves
from diffusion.solvers.describe import describe


@struct.dataclass
class State:
  """What a table carries from row to row: x [B, ...], where it evaluates next, and the stack of m such x."""

  x: Any
  stack: tuple


@struct.dataclass
class Table(OnGrid):
  """A linear sampler; see the head of this file. [...] is () for a shared grid and [B] for one grid a sample.

  Attributes:
    t: [..., N+1] times of the rows and, last, of the output.
    g, h: [..., N].
    A: [..., N, m, m];  B: [..., N, m];  C: [..., N, m, noises].
    w: [..., N+1, m] evaluation points; the last is the output.
    start: [..., m, 1 + noises].
    hook: [..., N, m] how a change that post_step makes to the point is written into the slots; all zero at
      rows that do not finish a step.
    view: the field of the denoiser's prediction that is asked for.
    about: name, order and process.
  """

  t: Any
  g: Any
  h: Any
  A: Any
  B: Any
  C: Any
  w: Any
  start: Any
  hook: Any
  view: str = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  @property
  def noise(self) -> int:
    """Number of noises a row draws."""
    return self.C.shape[-1]

  @property
  def stochastic(self) -> bool:
    """Whether sampling needs keys."""
    return self.noise > 0

  @property
  def views(self) -> tuple[str, ...]:
    """The one view that is asked for."""
    return (self.view,)

  def begin(self, x: Any, keys: jax.Array | None) -> State:
    """The state before the first row, from x: [B, ...] at the first time."""
    _, dtype = layout(x)
    start = jnp.asarray(self.start, dtype)
    noise = [randomness.normal(keys, 0, j, x) for j in range(self.noise)]
    stack = tuple(_combine(start[..., k, :], (x, *noise)) for k in range(start.shape[-2]))
    return State(_combine(row_at(self.w, 0, 1, dtype), stack), stack)

  def ask(self, state: State, i: Any) -> tuple[Any, jax.Array, tuple[str, ...]]:
    """Row i (traced): the point, its time [B], the view."""
    return state.x, self.time(i, state.x), self.views

  def tell(
    self, state: State, i: Any, prediction: Any, keys: jax.Array | None, post_step: PostStep | None = None
  ) -> State:
    """The state after row i.

    Args:
      state: `State`.
      i: row number, may be traced.
      prediction: the denoiser's at the row's point.
      keys: [B] typed keys; may be None without noise.
      post_step: `PostStep` or None; called at each row, and what it does kept where a step is finished.
    """
    x, stack = state.x, state.stack
    _, dtype = layout(x)
    row = lambda leaf, tail, j=i: row_at(leaf, j, tail, dtype)
    seen = jax.tree.map(lambda view, x: view.astype(x.dtype), getattr(prediction, self.view), x)
    g, h = row(self.g, 0), row(self.h, 0)
    kept = jax.tree.map(lambda x, seen: _times(g, x) + _times(h, seen), x, seen)
    noise = tuple(randomness.normal(keys, i + 1, j, x) for j in range(self.noise))
    weights = jnp.concatenate([row(self.A, 2), row(self.B, 1)[..., None], row(self.C, 2)], axis=-1)
    stack = tuple(_combine(weights[..., k, :], (*stack, kept, *noise)) for k in range(len(stack)))
    point = row(self.w, 1, i + 1)
    x = _combine(point, stack)
    if post_step is not None:
      hook = row(self.hook, 1)
      moved = finished(post_step, x, self.time(i + 1, x), keys, i + 1, prediction)
      shift = jax.tree.map(jnp.subtract, moved, x)
      written = lambda k: lambda slot, change: slot + _times(hook[..., k], change)
      stack = tuple(jax.tree.map(written(k), slot, shift) for k, slot in enumerate(stack))
      ends = jnp.sum(point * hook, axis=-1) != 0
      keep = lambda new, old: jnp.where(expand(ends, old) if ends.ndim else ends, new, old)
      x = jax.tree.map(keep, moved, x)
    return State(x, stack)

  def end(self, state: State) -> Any:
    """The newest point: after the last row, the sample [B, ...]."""
    return state.x

  def denoised(self, process: Any) -> "Table":
    """With a last row that returns the posterior mean: see `with_denoising`."""
    return self.replace(**denoised_leaves(self, process))

  def __str__(self) -> str:
    return describe(self)


def _times(coefficient: jax.Array, x: jax.Array) -> jax.Array:
  """A number, or one number a sample, times an array x: [B, ...]."""
  coefficient = coefficient.astype(x.dtype)
  return coefficient * x if coefficient.ndim == 0 else expand(coefficient, x) * x


def _combine(weights: jax.Array, parts: tuple) -> Any:
  """sum_k weights[..., k] parts[k], elementwise, of arrays or pytrees [B, ...].

  A matrix product would lose digits on accelerators.
  """

  def total(*arrays):
    found = _times(weights[..., 0], arrays[0])
    for k in range(1, len(arrays)):
      found = found + _times(weights[..., k], arrays[k])
    return found

  return jax.tree.map(total, *parts)


def build(
  t: Any,
  A: Any,
  B: Any,
  C: Any = (),
  *,
  g: Any = 0.0,
  h: Any = 1.0,
  w: Any = None,
  start: Any = None,
  hook: Any = None,
  view: str = "x0",
  about: About = About(),
  dtype: Any = np.float32,
  xp: Any = np,
) -> Table:
  """A `Table` from nested lists of coefficients.

  Each innermost entry is a number or an array [..., N]; in `start`, a number. Left out, the point of
  evaluation, the start and the hook are slot 0.

  Args:
    t: [..., N+1] times of the rows and of the output.
    A: m lists of m entries, one list a slot that is written.
    B: m entries.
    C: m lists of one entry a noise.
    g, h: one entry each.
    w: m entries, each [..., N+1].
    start: m lists of 1 + noises entries.
    hook: m entries.
    view: 'x0', 'eps', 'score', 'v' or 'velocity'.
    about: name, order and process.
    dtype: precision at run time.
    xp: numpy or jax.numpy.

  Raises:
    ValueError: a coefficient that is not finite.

  A new sampler: Euler in sigma, dx/dsigma = (x - D) / sigma.

  >>> from diffusion import processes
  >>> sigma = np.array([2.0, 1.0, 0.0])
  >>> ratio = sigma[1:] / sigma[:-1]
  >>> print(build(sigma, A=[[ratio]], B=[1 - ratio], about=About("my_euler", 1, processes.edm())))
  my_euler: order 1, 2 evaluations, asks for x0, 1 slot, no noise (process edm)
  row 0  t=2   S0 <- 0.5 S0 + 0.5 E
  row 1  t=1   S0 <- E
  output t=0   S0
  """
  t = xp.asarray(t)
  rows, nodes, m = t.shape[:-1] + (t.shape[-1] - 1,), t.shape, len(B)
  first = [1.0] + [0.0] * (m - 1)
  noises = len(C[0]) if C else 0
  start = [[e] + [0.0] * noises for e in first] if start is None else start

  def stack(entries, shape):
    if isinstance(entries, (list, tuple)):
      return xp.stack([stack(e, shape) for e in entries], axis=len(shape))
    return xp.broadcast_to(xp.asarray(entries, dtype=np.float64), shape)

  leaves = dict(
    t=t,
    g=stack(g, rows),
    h=stack(h, rows),
    A=stack(A, rows),
    B=stack(B, rows),
    C=stack(C, rows) if C else xp.zeros(rows + (m, 0)),
    w=stack(first if w is None else w, nodes),
    start=stack(start, t.shape[:-1]),
    hook=stack(first if hook is None else hook, rows),
  )
  leaves = {name: leaf.astype(dtype) for name, leaf in leaves.items()}
  for name, leaf in leaves.items():
    if not isinstance(leaf, Tracer) and not np.isfinite(leaf).all():
      raise ValueError(
        f"{about.name}: the coefficients {name} are not finite on this grid ({np.asarray(t).tolist()}):"
        " move its ends away from alpha = 0 and sigma = 0"
      )
  return Table(**leaves, view=view, about=about)
