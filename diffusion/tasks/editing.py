"""SDEdit: a guide (strokes, a composite) noised to a level t0 and denoised, inside a mask or everywhere."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.core import Tracer
from jax.typing import ArrayLike

from diffusion import solvers
from diffusion.processes.base import GaussianProcess, expand
from diffusion.tasks.operators import inpainting
from diffusion.tasks.replacement import replacement


class Edited(NamedTuple):
  """x: [B, ...] edited data; evaluations: denoiser calls of each."""

  x: jax.Array
  evaluations: int


def edit(
  denoiser: Any,
  solver: Any,
  guide: ArrayLike,
  keys: jax.Array,
  *,
  mask: npt.ArrayLike | None = None,
  repeats: int = 1,
  cond: Mapping[str, jax.Array] | None = None,
) -> Edited:
  """SDEdit: the guide noised, and solved to data (arXiv:2108.01073, algorithms 1 to 3).

  It is noised to the solver's first time t0, and all this is done `repeats` times.

  A later start (more noise) is more realistic and less faithful. Pixels outside the mask are noised guide all
  along the way, and at the end exactly the guide.

  Args:
    denoiser: of the data that the result should look like.
    solver: a table whose grid starts at t0, for instance `solvers.build("ancestral", process, n, grid=...)`;
      see `start_at`.
    guide: [B, ...] in units of the model.
    keys: [B] typed keys.
    mask: [*event] or [B, *event], 1 where the guide may change; None for everywhere.
    repeats: how often, each time from the result of the time before.
    cond: a condition [B].

  Raises:
    ValueError: a mask of another size, or with other values than 0 and 1; keys for another number of guides,
      or guides of whole numbers; fewer than one repeat.

  >>> from diffusion import oracles, processes
  >>> process = processes.edm()
  >>> data = oracles.gaussian_mixture(process, None, [[-1.0, 0.0], [1.0, 0.0]], 1e-3)
  >>> guide, keys = jnp.array([[0.6, 0.5]]), jax.random.split(jax.random.key(0), 1)
  >>> edited = edit(data, start_at(process, 0.3, 10), guide, keys, mask=np.array([0, 1]))
  >>> bool(edited.x[0, 0] == guide[0, 0]), bool(abs(edited.x[0, 1]) < 0.15), edited.evaluations
  (True, True, 10)
  """
  if repeats < 1:
    raise ValueError(f"repeats is how often the guide is noised and denoised, 1 or more, got {repeats}")
  guide = jnp.asarray(guide)
  if not jnp.issubdtype(guide.dtype, jnp.floating):
    raise ValueError(
      f"the guide is data in the units of the model, of floating point, got {guide.dtype}: scale it as the "
      "model's data"
    )
  if keys.shape != guide.shape[:1]:
    raise ValueError(
      f"edit takes one key a guide, got {list(keys.shape)} of them for {guide.shape[0]} guides"
    )
  start = jnp.broadcast_to(jnp.asarray(solver.times, guide.dtype)[..., 0], guide.shape[:1])
  keep = None if mask is None else _kept(mask, guide)
  put_back = (
    None if keep is None else replacement(denoiser.process, inpainting(np.ones(guide.shape[1:])), guide)
  )
  if keep is not None:
    put_back = jax.tree_util.Partial(_outside, put_back, keep)
  m = denoiser.process.marginal(start)
  x = guide
  for number in range(repeats):
    own = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
    noise_keys, solver_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 2))(own), 1, 0)
    z = jax.vmap(lambda key: jax.random.normal(key, guide.shape[1:], guide.dtype))(noise_keys)
    noised = expand(m.alpha, x).astype(x.dtype) * x + expand(m.sigma, x).astype(x.dtype) * z
    solved = solvers.sample(denoiser, solver, noised, keys=solver_keys, cond=cond, post_step=put_back)
    x = cast(jax.Array, solved)  # nothing but the samples was asked for
    x = x if keep is None else jnp.where(keep > 0, guide, x)
  return Edited(x, repeats * solver.cost)


def start_at(
  process: GaussianProcess,
  t0: float,
  n: int,
  *,
  solver: str = "dpmpp_2m_sde",
  grid: str = "log_snr",
  **options: Any,
) -> Any:
  """A solver of n steps from t0 down to clean data, for `edit`.

  It has one more evaluation on a process that keeps noise at t = 0.

  Args:
    process: the Gaussian process.
    t0: time of the process where it starts; on EDM this is sigma.
    n: steps.
    solver: a name of `solvers.SOLVERS`; stochastic ones follow the paper.
    grid: a name of `solvers.GRIDS`.
    **options: of the solver's builder.

  Raises:
    ValueError: a t0 outside of the process.

  >>> from diffusion import processes
  >>> start_at(processes.vp_cosine(), 0.5, 8).t[0].item()
  0.5
  """
  if not process.t_min < t0 <= process.t_max:
    raise ValueError(f"t0={t0} is not a time of the process between {process.t_min:g} and {process.t_max:g}")
  clean = not float(process.marginal(0.0).sigma) > 0
  times = solvers.GRIDS[grid](process, n, t_max=t0, clean=clean)
  built = solvers.build(solver, process, n, grid=np.asarray(times), **options)
  return built if clean else solvers.with_denoising(built, process)


def sweep(
  denoiser: Any,
  guide: ArrayLike,
  keys: jax.Array,
  levels: Sequence[float],
  *,
  steps: int = 40,
  solver: str = "dpmpp_2m_sde",
  mask: npt.ArrayLike | None = None,
  repeats: int = 1,
  cond: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
  """The guide edited from several noise levels: [S, B, ...].

  Each level has the same noise, so that what differs is what the level does.

  Args:
    denoiser, guide, keys, mask, repeats, cond: as for `edit`.
    levels: [S] values of sigma/alpha at which to start; one program serves them all.
    steps, solver: as for `start_at`.

  Returns:
    [S, B, ...].

  Raises:
    ValueError: a level that the process does not have, and what `edit` raises.

  >>> from diffusion import oracles, processes
  >>> data = oracles.gaussian(processes.edm(), [0.0], [1.0])
  >>> guide, keys = jnp.full((64, 1), 5.0), jax.random.split(jax.random.key(0), 64)
  >>> found = sweep(data, guide, keys, [0.01, 100.0 ** 0.5], steps=20)
  >>> found.mean((1, 2)).round(0).tolist()  # next to no noise keeps the guide, much of it forgets
  [5.0, 0.0]
  """
  process = denoiser.process
  times = [float(process.t_of_log_snr(-2.0 * np.log(level))) for level in levels]
  return jnp.stack(
    [
      edit(
        denoiser,
        start_at(process, t0, steps, solver=solver),
        guide,
        keys,
        mask=mask,
        repeats=repeats,
        cond=cond,
      ).x
      for t0 in times
    ]
  )


def recommended(levels: npt.ArrayLike, distances: npt.ArrayLike, at_zero: float, share: float = 0.9) -> float:
  """The least noise level at which editing is worth it.

  It is the smallest level whose results come `share` of the way from the guide's distance to the best one.

  Args:
    levels: [S] noise levels, ascending.
    distances: [S] of the results from real data, any measure of realism that is small for real data.
    at_zero: that of the guides themselves.
    share: of the way.

  Raises:
    ValueError: lists of two lengths, levels that do not ascend, or no level that is more realistic than the
      guide.

  >>> recommended([0.1, 0.5, 1.0, 2.0], [9.0, 3.0, 1.5, 1.0], at_zero=11.0)
  1.0
  """
  levels, distances = np.asarray(levels, np.float64), np.asarray(distances, np.float64)
  if levels.shape != distances.shape or levels.ndim != 1 or np.any(np.diff(levels) <= 0):
    raise ValueError(
      f"give levels that ascend and a distance for each, got {levels.tolist()} and {distances.tolist()}"
    )
  if not distances.min() < at_zero:
    raise ValueError(
      f"no level is more realistic than the guide itself, at {at_zero:g}: {distances.tolist()}"
    )
  return float(levels[np.argmax(at_zero - distances >= share * (at_zero - distances.min()))])


def _kept(mask, guide):
  """1 where the guide stays, broadcast over the batch."""
  mask = mask if isinstance(mask, Tracer) else np.asarray(mask)
  if mask.shape not in (guide.shape, guide.shape[1:]):
    raise ValueError(
      f"the mask has shape {list(mask.shape)} and the guide {list(guide.shape)}: give one mask "
      f"{list(guide.shape[1:])} for all, or one each"
    )
  if not isinstance(mask, Tracer) and not np.all((mask == 0) | (mask == 1)):
    raise ValueError("a mask is 1 where the guide may change and 0 where it stays; this one has other values")
  return jnp.broadcast_to(1 - jnp.asarray(mask, guide.dtype), guide.shape)


def _outside(put_back, keep, x, t, keys, prediction):
  return jnp.where(keep > 0, put_back(x, t, keys, prediction), x)
