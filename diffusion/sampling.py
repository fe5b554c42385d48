"""From a denoiser and a solver to samples, where sample i depends on (seed, i) alone.

Sampling always runs at `batch` rows: the last batch is filled with further indices and cut. A batch of
another size compiles other matrix products, so equal rows agree bit for bit at one batch size on a CPU
and to rounding across batch sizes and device counts.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffusion import solvers
from diffusion.config.errors import UserError


class Samples(NamedTuple):
  """Samples and what they cost.

  Attributes:
    x: [num, ...] samples in the units of the model.
    labels: [num] int classes, or None.
    cond: all that the model was told, [num, ...] by name, the labels among them; None for nothing.
    nfe: denoiser calls for each sample; their mean where a solver sizes each sample's steps by itself.
    forward_passes: network evaluations for each sample; twice nfe under classifier-free guidance.
    trajectory: [K, num, ...] states from noise to sample, or None.
    evaluations: [num] denoiser calls of each sample, all nfe unless a solver sizes each sample's steps by
      itself.
  """

  x: np.ndarray
  labels: np.ndarray | None
  nfe: int | float
  forward_passes: int | float
  trajectory: np.ndarray | None = None
  evaluations: np.ndarray | None = None
  cond: Any = None


def _keys(key, indices):
  """Keys of the starts and of the solver, [B] each, from (key of the sequence, index)."""
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
  return jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 2))(keys), 1, 0)


@jax.jit
def solver_keys(seed: ArrayLike, indices: jax.Array) -> jax.Array:
  """The solver's keys [B], as `draw_noise` gives them: for samples that start from something given."""
  return keys_of(jax.random.key(seed), indices)


@jax.jit
def keys_of(key: jax.Array, indices: jax.Array) -> jax.Array:
  """`solver_keys` of the sequence that a typed key defines, as in `noise_of`."""
  return _keys(key, indices)[1]


@functools.partial(jax.jit, static_argnames=("shape",))
def draw_noise(
  process: Any, seed: ArrayLike, indices: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """What the prior draws to start from [B, ...] and solver keys [B], each from (seed, index)."""
  return noise_of(process, jax.random.key(seed), indices, shape)


@functools.partial(jax.jit, static_argnames=("shape",))
def noise_of(
  process: Any, key: jax.Array, indices: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """`draw_noise` of the sequence that a typed key defines; that of a seed is `jax.random.key(seed)`.

  >>> from diffusion import processes
  >>> process, indices = processes.edm(), jnp.arange(2, dtype=jnp.int32)
  >>> noise, keys = noise_of(process, jax.random.key(5), indices, (3,))
  >>> bool((noise == draw_noise(process, 5, indices, (3,))[0]).all()), keys.shape
  (True, (2,))
  """
  noise_keys, keys = _keys(key, indices)
  return process.prior(noise_keys, shape), keys


def generate(
  denoiser: Any,
  solver: Any,
  shape: Sequence[int],
  num: int,
  *,
  seed: int = 0,
  first: int = 0,
  labels: Callable[[np.ndarray], Any] | None = None,
  cond: Callable[[np.ndarray], Mapping[str, Any]] | None = None,
  starts: Callable[[np.ndarray], ArrayLike] | None = None,
  batch: int = 64,
  place: Callable[[Any], jax.Array] | None = None,
  trajectory: bool = False,
  progress: Callable[[int], Any] | None = None,
) -> Samples:
  """Draws samples `first` to `first + num - 1` of the endless sequence that a seed defines.

  Args:
    denoiser: a denoiser, guided or not.
    solver: a table or any solver of `diffusion.solvers`.
    shape: shape of one sample, for example (8, 8, 1).
    num: how many samples.
    seed: which sequence.
    first: index of the first sample.
    labels: None for a model without classes; else a function from indices [n] to int classes [n].
    cond: None, or a function from indices [n] to what else the model is told, dict(name=[n, ...]) in model
      values; a `label` in it gives way to `labels`.
    starts: None to start from the prior of the process; or a function from indices [n] to what samples start
      from, [n, ...] in model values, for a process whose second end is data.
    batch: rows a call; sampling is padded to it.
    place: puts a [batch, ...] array on the devices, for example with a sharding over the mesh.
    trajectory: whether to keep every state as well.
    progress: called with the number of finished samples after each batch.

  Returns:
    `Samples` on the host.

  Raises:
    ValueError: num or batch is not positive.
    UserError: a sample that is not finite.

  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.edm()
  >>> denoiser = oracles.gaussian(process, jnp.zeros(2), jnp.eye(2))
  >>> solver = solvers.build("heun", process, 8)
  >>> all_of_them = generate(denoiser, solver, (2,), 5, batch=4).x
  >>> some = generate(denoiser, solver, (2,), 2, first=3, batch=4).x
  >>> bool((all_of_them[3:] == some).all())
  True
  """
  if num < 1 or batch < 1:
    raise ValueError(f"num={num} and batch={batch} must both be at least 1")
  place = place or (lambda array: array)
  kept, kept_cond, kept_states, calls = [], [], [], []
  for start in range(0, num, batch):
    indices = first + start + np.arange(batch)
    index = place(jnp.asarray(indices, jnp.int32))
    if starts is None:
      begun, keys = draw_noise(denoiser.process, seed, index, tuple(shape))
    else:
      begun, keys = place(jnp.asarray(starts(indices))), solver_keys(seed, index)
    told = dict(cond(indices)) if cond is not None else {}
    told |= {"label": np.asarray(labels(indices), np.int32)} if labels is not None else {}
    kept_cond.append(told)
    x, *states, count = solvers.sample(
      denoiser,
      solver,
      begun,
      keys=keys,
      cond={name: place(jnp.asarray(array)) for name, array in told.items()} or None,
      trajectory=trajectory,
      evaluations=True,
    )
    kept.append(np.asarray(x))
    calls.append(np.asarray(count))
    kept_states.extend(np.asarray(part) for part in states)
    _check_finite(kept[-1][: num - start], first + start, seed, solver)
    if progress is not None:
      progress(min(batch, num - start))
  evaluations = np.concatenate(calls)[:num]
  nfe = float(np.mean(evaluations)) if solver.cost is None else solver.cost
  told = {name: np.concatenate([part[name] for part in kept_cond])[:num] for name in kept_cond[0]}
  return Samples(
    np.concatenate(kept)[:num],
    told.get("label"),
    nfe,
    nfe * denoiser.cost,
    np.concatenate(kept_states, axis=1)[:, :num] if kept_states else None,
    evaluations,
    told or None,
  )


def _check_finite(x, first, seed, solver):
  bad = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
  if bad.any():
    raise UserError(
      f"{bad.sum()} of {len(x)} samples are not finite, the first of them sample "
      f"{first + int(np.argmax(bad))} of seed {seed}"
      f" ({getattr(solver, 'name', type(solver).__name__)}): take more steps or a solver of lower order, "
      "less guidance, or a"
      " checkpoint from before the network itself returned NaN"
    )
