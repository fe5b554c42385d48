"""Fits a sampler's weights and times to a model: few steps that end where a fine solution ends."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes.comparison import mismatch
from diffusion.solvers import fit_coordinates, gauss_newton
from diffusion.solvers.about import About
from diffusion.solvers.executor import sample
from diffusion.solvers.reference import Reference, reference as solve, rms, split
from diffusion.solvers.table import Table

# Weight of the predictions along the way, robust threshold in medians of the residual (at the first and at
# the last step), share of the steps.
STAGES = ((1.5, 3.0, 30.0, 0.6), (0.5, 3.0, 30.0, 0.2), (0.0, 3.0, 1000.0, 0.2))
DAMPINGS = (0.03, 0.3, 3.0)  # tried at each step, times the last good one
FLAT, PATIENCE = 0.003, 5  # a stage is over when each of its last steps improves by less than this


class Fitted(NamedTuple):
  """A fitted table and how good it is.

  Errors are root mean square over noises and entries, in units of x at the last time.

  Attributes:
    table: the table that is best on the held-out noises: the fitted one, or the start itself.
    improved: whether it is the fitted one.
    start_error: of the start, on held-out noises.
    error: of `table`, on held-out noises.
    start_median, median: medians over the held-out noises of each one's error; a few noises that end in
      another mode rule `error`.
    train_error: of `table`, on the noises of the fit.
    reference_error: of the fine solution itself, as far as known.
    history: held-out errors after each step.
  """

  table: Table
  improved: bool
  start_error: float
  error: float
  start_median: float
  median: float
  train_error: float
  reference_error: float
  history: tuple

  def __str__(self) -> str:
    said = f"{self.table.name}: held-out error {self.error:.3g}, {self.start_error:.3g} before the fit"
    if not self.improved:
      said = (
        f"{self.table.name}: no fit was better on held-out noises than the start, which is kept, with error "
        f"{self.error:.3g}"
      )
    medians = f"medians {self.median:.3g} and {self.start_median:.3g}"
    return f"{said} ({medians}; fine solution {self.reference_error:.2g})"


def fit(
  denoiser: Any,
  table: Any,
  x: Any,
  *,
  cond: Any = None,
  reference: Reference | None = None,
  held_out: int | None = None,
  iterations: int = 40,
  directions: int = 6,
  per_step: int = 512,
  guide: Any = 1.0,
  pull: float = 1e-8,
  batch: int = 256,
  seed: int = 0,
  place: Callable[..., Any] | None = None,
  progress: Callable[..., None] | None = None,
) -> Fitted:
  """Fits a table to the exact probability flow of this very model.

  Of the tables of as many evaluations, the one is sought whose samples are nearest to that flow. All weights
  of past data predictions and all times but the ends are varied, from those of a start, as in
  `fit_coordinates`, so the result is exact wherever the data prediction is constant, as the start is. The
  method is Levenberg-Marquardt's on residuals along few directions a noise (`gauss_newton`), with a robust
  loss: at first medians matter and, at the end, the mean square. Half-way results are judged on noises that
  the fit does not see, and the best one is returned: never one that is worse there than the start.

  A step costs, for each evaluation, one denoiser call for every noise and about 4 + 3 directions for each of
  `per_step` of them, whatever the number of weights; memory goes with `batch`. One program is compiled for
  each (evaluations, batch, shape of x); guidance and parameters are data.

  Args:
    denoiser: a denoiser, guided or not, whose probability flow is to be followed.
    table: where to start: a deterministic table with strictly decreasing times, such as
      `dpmpp_2m(process, grid)`, or a list of such tables with as many evaluations and the same ends, of which
      the best on the noises of the fit is taken. `solvers.fit_starts` is such a list.
    x: [n, ...] starts at the table's first time, for example from process.prior: thousands where they
      are cheap. The mean square is ruled by the few that end in another mode, and it takes many noises to
      meet enough of them.
    cond: None or a dict of arrays with leading axis n.
    reference: the `Reference` of x; by default solved here (`solvers.reference`).
    held_out: how many of the last starts judge only; a quarter by default.
    iterations: Gauss-Newton steps at most.
    directions: derivatives taken for each noise and step.
    per_step: of how many noises a step takes derivatives; more are drawn anew for each step, the worst most
      often.
    guide: scales the weight of the predictions along the way; 0 to fit only ends.
    pull: ridge towards the start.
    batch: noises a call.
    seed: of the random directions.
    place: puts a [batch, ...] array on the devices, for example with a sharding over the mesh.
    progress: None, or called after each step with (steps done, steps at most, best held-out error).

  Returns:
    `Fitted`.

  Raises:
    ValueError: a table that cannot be a start, another process, too few starts, or a fine solution that is
      not finite.

  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.vp_linear()
  >>> denoiser = oracles.gaussian(process, jnp.zeros(1), 0.05 * jnp.eye(1))
  >>> start = solvers.dpmpp_2m(process, solvers.grids.quadratic(process, 4, t_min=0.0))
  >>> x = process.prior(jax.random.split(jax.random.key(0), 64), (1,))
  >>> known = solvers.reference(denoiser, x, steps=160)
  >>> found = solvers.fit(denoiser, start, x, reference=known, iterations=6, guide=0.0)
  >>> found.error < 0.1 * found.start_error, found.table.cost
  (True, 4)
  """
  x = jnp.asarray(x)
  process = jax.tree.map(
    lambda leaf: float(leaf) if np.ndim(leaf) == 0 else np.asarray(leaf), denoiser.process
  )
  tables = list(table) if isinstance(table, (list, tuple)) else [table]
  _check(tables, process, x)
  coordinates = [fit_coordinates.of_table(table, process) for table in tables]
  count = len(x) // 4 if held_out is None else int(held_out)
  if not 1 <= count < len(x):
    raise ValueError(
      f"a fit needs noises to fit and others to judge: got {len(x)} starts of which {count} are held out"
    )
  first, last = (float(tables[0].t[i]) for i in (0, -1))
  known = (
    solve(denoiser, x, first=first, last=last, cond=cond, batch=batch, place=place)
    if reference is None
    else reference
  )
  if np.shape(known.end) != x.shape:
    raise ValueError(
      f"the reference has starts of shape {list(np.shape(known.end))} and x {list(x.shape)}: give the "
      "reference of x"
    )
  if not np.isfinite(known.end).all() or not (known.data is None or np.isfinite(known.data).all()):
    raise ValueError(
      "the fine solution is not finite: look for a denoiser that returns NaN or overflows in the precision "
      "of x"
    )
  data = _Data(
    denoiser, x, cond, known, min(batch, len(x) - count), len(x) - count, place or (lambda array: array)
  )
  stages = [stage for stage in STAGES if stage[0] == 0] if known.data is None or not guide else STAGES
  which = 0
  if len(tables) > 1:
    ends = [
      rms(
        data.sizes(
          fit_coordinates.steps_of(process, each, first, last), 0.0, np.arange(min(data.trained, per_step))
        )[1]
      )
      for each in coordinates
    ]
    which = int(np.argmin(ends))
  table = tables[which]
  search = _Search(data, process, (first, last), coordinates[which], directions, per_step, pull, seed)
  whole, done = sum(stage[3] for stage in stages), 0
  for weight, low, high, share in stages:
    steps = max(1, round(iterations * share / whole))
    search.begin_stage()
    for i in range(steps):
      cut = low * (high / low) ** (i / max(steps - 1, 1))
      search.step(guide * weight, cut, done + i)
      if progress is not None:
        progress(min(done + i + 1, iterations), iterations, search.best_error)
      if search.at_rest():
        break
    done += steps
  about = About(f"fitted {table.name}", None, process)
  fitted = fit_coordinates.to_table(process, search.best, first, last, about, np.asarray(table.t).dtype)
  errors = {name: data.table_errors(which) for name, which in (("start", table), ("fitted", fitted))}
  improved = rms(errors["fitted"][data.judged]) < rms(errors["start"][data.judged])
  held, start = errors["fitted" if improved else "start"], errors["start"]
  return Fitted(
    fitted if improved else table,
    improved,
    rms(start[data.judged]),
    rms(held[data.judged]),
    float(np.median(start[data.judged])),
    float(np.median(held[data.judged])),
    rms(held[: data.trained]),
    known.error,
    tuple(search.history),
  )


def _check(tables, process, x):
  for table in tables:
    if not isinstance(table, Table):
      raise ValueError(
        f"a fit starts from a table, got {type(table).__name__}: take a linear sampler, such as dpmpp_2m, "
        "unipc or deis"
      )
    wrong = mismatch(table.about, process)
    if wrong:
      raise ValueError(f"the table {table.name} {wrong}: build it with denoiser.process")
  alike = {(table.cost, *(np.asarray(table.t)[..., i].tobytes() for i in (0, -1))) for table in tables}
  if len(alike) != 1:
    raise ValueError(
      "the tables to start from need as many evaluations and the same first and last time, and at least one "
      "is needed"
    )
  if x.ndim < 2 or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"x must be a batch of floating point starts [n, ...], got {x.dtype}{list(x.shape)}")


class _Data(NamedTuple):
  """The noises, in batches: the first `trained` are fitted, the others judge."""

  denoiser: Any
  x: Any
  cond: Any
  known: Reference
  batch: int
  trained: int
  place: Any

  @property
  def judged(self) -> slice:
    return slice(self.trained, len(self.x))

  def batches(self, chosen: np.ndarray) -> Any:
    """Batches of chosen noises: (rows that count, x, cond, target).

    The last batch is filled up from the first, so all have one shape.
    """
    known, dtype = self.known, self.x.dtype
    for rows in split(len(chosen), self.batch):
      index = chosen[(rows.start + np.arange(self.batch)) % len(chosen)]
      take = lambda leaf, index=index: self.place(jnp.asarray(leaf)[index])
      x, cond = take(self.x), jax.tree.map(take, self.cond)
      if known.data is None:
        along = (jnp.arange(2, dtype=dtype), jnp.zeros((2, *x.shape), dtype))
      else:
        along = (jnp.asarray(known.clocks, dtype), jnp.asarray(known.data[:, index], dtype))
      yield rows.stop - rows.start, x, cond, (take(jnp.asarray(known.end, dtype)), *along)

  def on_device(self, steps: Any) -> Any:
    with np.errstate(over="ignore"):  # a step too far: its loss is not finite either
      return jax.tree.map(lambda leaf: jnp.asarray(leaf, self.x.dtype), steps)

  def sizes(self, steps: Any, guide: Any, chosen: np.ndarray) -> Any:
    """(residual, error of the sample) of each noise, float64 on the host."""
    parts = []
    for kept, *batch in self.batches(chosen):
      found = gauss_newton.sizes(self.denoiser, self.on_device(steps), *batch, guide)
      parts.append([np.asarray(part, np.float64)[:kept] for part in found])
    return tuple(np.concatenate(part) for part in zip(*parts))

  def table_errors(self, table: Any) -> Any:
    """The error of each noise's sample by the executor itself, float64 on the host."""
    parts = []
    for kept, x, cond, (end, *_) in self.batches(np.arange(len(self.x))):
      off = np.asarray(sample(self.denoiser, table, x, cond=cond), np.float64) - np.asarray(end, np.float64)
      parts.append(np.sqrt(np.mean(off.reshape(len(off), -1) ** 2, axis=1))[:kept])
    return np.concatenate(parts)


class _Search:
  """The state of a fit: where it is, its damping, and the best on held-out noises."""

  def __init__(self, data, process, ends, coordinates, directions, per_step, pull, seed):
    self.data, self.process, self.ends, self.directions, self.per_step, self.pull = (
      data,
      process,
      ends,
      directions,
      per_step,
      pull,
    )
    self.key, self.rng = jax.random.key(seed), np.random.default_rng(seed)
    n = len(coordinates.gaps)
    self.n = n
    # The first gap follows from the others, and row i has seen i evaluations before its own.
    self.free = np.concatenate(
      [np.arange(n) > 0, (np.arange(n - 1)[None, :] < np.arange(n)[:, None]).ravel()]
    )
    self.origin = np.concatenate([coordinates.gaps, coordinates.differences.ravel()])
    self.at, self.best_at = self.origin.copy(), self.origin.copy()
    self.best_error = rms(self._held(self.at))
    self.history, self.known_size = [self.best_error], None
    self.begin_stage()

  def begin_stage(self) -> None:
    self.damping, self.scale, self.gains = 1e-2, 0.0, []

  @property
  def best(self) -> Any:
    return self._coordinates(self.best_at)

  def _coordinates(self, flat):
    return fit_coordinates.Coordinates(flat[: self.n], flat[self.n :].reshape(self.n, self.n - 1))

  def _steps(self, flat):
    return fit_coordinates.steps_of(self.process, self._coordinates(flat), *self.ends)

  def _held(self, flat):
    return self.data.sizes(self._steps(flat), 0.0, np.arange(self.data.trained, len(self.data.x)))[1]

  def step(self, guide: Any, cut: Any, number: Any) -> None:
    """One Gauss-Newton step with the best of a few dampings.

    The loss is 2 c^2 (sqrt(1 + r^2/c^2) - 1), c = cut medians.
    """
    data, everyone = self.data, np.arange(self.data.trained)
    steps, by = fit_coordinates.with_derivatives(self.process, self._coordinates(self.at), *self.ends)
    by = by[:, self.free]
    if self.known_size is None or self.known_size[0] != guide:
      self.known_size = guide, data.sizes(steps, guide, everyone)[0]
    size = self.known_size[1]
    c = max(cut * np.median(size), 1e-12)
    loss = lambda size: 2 * c**2 * (np.sqrt(1 + (size / c) ** 2) - 1)
    softened = (1 + (size / c) ** 2) ** -0.25
    chosen, counts = self._draw(softened * size)
    rows, residual = [], []
    for part, (kept, *batch) in enumerate(data.batches(chosen)):
      key = jax.random.fold_in(jax.random.fold_in(self.key, number), part)
      found = gauss_newton.derivatives(
        data.denoiser, data.on_device(steps), *batch, guide, key, directions=self.directions
      )
      residual.append(np.asarray(found[0], np.float64)[:, :kept])
      rows.append(np.asarray(found[1], np.float64)[:, :kept] @ by)
    weight = softened[chosen] * np.sqrt(counts / len(everyone))
    rows = (np.concatenate(rows, axis=1) * weight[None, :, None]).reshape(-1, by.shape[1])
    residual = (np.concatenate(residual, axis=1) * weight[None, :]).ravel()
    self.scale = np.maximum(np.sqrt(np.sum(rows**2, axis=0)), 0.5 * self.scale)
    tried = []
    for factor in DAMPINGS:
      there = self.at.copy()
      there[self.free] += gauss_newton.damped_step(
        rows,
        residual,
        self.scale + 1e-12,
        self.damping * factor,
        self.pull,
        (self.at - self.origin)[self.free],
      )
      after = float(np.mean(counts * loss(data.sizes(self._steps(there), guide, chosen)[0])))
      tried.append((after if np.isfinite(after) else np.inf, self.damping * factor, there))
    _, damping, there = min(tried, key=lambda one: one[0])
    moved = data.sizes(self._steps(there), guide, everyone)[0]
    before, after = float(np.mean(loss(size))), float(np.mean(loss(moved)))
    gained = after < before  # not if after is not finite
    self.gains.append(1 - after / before if gained else 0.0)
    if gained:
      self.at, self.damping, self.known_size = there, max(damping, 1e-9), (guide, moved)
      error = rms(self._held(there))
      self.history.append(error)
      if error < self.best_error:
        self.best_error, self.best_at = error, there
    else:
      self.damping *= 10

  def _draw(self, pull):
    """The noises of a step: (noises, for how many each stands).

    They are all noises, or `per_step` by systematic sampling, more likely the more they pull.
    """
    count = len(pull)
    if count <= self.per_step:
      return np.arange(count), np.ones(count)
    share = 0.5 * pull**2 / max(np.sum(pull**2), 1e-300) + 0.5 / count
    marks = (np.arange(self.per_step) + self.rng.random()) / self.per_step
    chosen = np.minimum(np.searchsorted(np.cumsum(share), marks), count - 1)
    return chosen, 1 / (self.per_step * share[chosen])

  def at_rest(self) -> bool:
    """Whether the last steps hardly gained."""
    return len(self.gains) >= PATIENCE and max(self.gains[-PATIENCE:]) < FLAT
