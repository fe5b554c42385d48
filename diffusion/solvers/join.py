"""Tables run one after the other, with or without noise put back between them."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.table import Table


def join(tables: list[Table], about: About, jumps: Any = None) -> Table:
  """One table that runs several, each from where the last ended: x <- ratio x + noise z in between.

  What a table remembers is lost where the next begins, so a multistep solver warms up again.

  Args:
    tables: tables of one view and dtype that share grids or have as many; the end of each is, without a jump,
      the first time of the next.
    about: name, order and process of the whole.
    jumps: None, or for each table but the first a pair (ratio, noise), numbers or [...].

  Raises:
    ValueError: tables of different views, or with noise in their start.

  >>> from diffusion import processes, solvers
  >>> from diffusion.solvers import About
  >>> process = processes.edm()
  >>> head = solvers.heun(process, np.array([4.0, 2.0]))
  >>> tail = solvers.ddim(process, np.array([2.0, 1.0, 0.0]))
  >>> print(join([head, tail], About("heun, then ddim", 1, process)))
  heun, then ddim: order 1, 4 evaluations, asks for x0, 2 slots, no noise (process edm)
  row 0  t=4   S0 <- 0.5 S0 + 0.5 E; S1 <- 0.75 S0 + 0.25 E
  row 1  t=2   S0 <- -0.5 S0 + S1 + 0.5 E; S1 <- 0
  row 2  t=2   S0 <- 0.5 S0 + 0.5 E; S1 <- 0
  row 3  t=1   S0 <- E; S1 <- 0
  output t=0   S0
  """
  if len({table.view for table in tables}) != 1:
    raise ValueError(f"tables that are joined ask for one view, got {[table.view for table in tables]}")
  jumps = [(1.0, 0.0)] * (len(tables) - 1) if jumps is None else jumps
  random = any(np.any(noise) for _, noise in jumps)
  m = max(table.A.shape[-1] for table in tables)
  noises = max(int(random), *(table.noise for table in tables))
  joined = widen(tables[0], m, noises)
  for table, (ratio, noise) in zip(tables[1:], jumps):
    joined = _append(joined, widen(table, m, noises), np.asarray(ratio), np.asarray(noise))
  return joined.replace(about=about)


def widen(table: Table, slots: int, noises: int) -> Table:
  """The same sampler with more slots, which stay zero, and more noises, which are not used."""
  s, z = slots - table.A.shape[-1], noises - table.noise
  wide = lambda leaf, *more: np.pad(
    np.asarray(leaf), [(0, 0)] * (leaf.ndim - len(more)) + [(0, size) for size in more]
  )
  return table.replace(
    A=wide(table.A, s, s),
    B=wide(table.B, s),
    C=wide(table.C, s, z),
    w=wide(table.w, s),
    start=wide(table.start, s, z),
    hook=wide(table.hook, s),
  )


def _append(first, second, ratio, noise):
  """The last row of `first` also does what `second` starts with."""
  if np.any(second.start[..., 1:]):
    raise ValueError(f"{second.name} draws noise before its first row and can only come first")
  dtype = first.A.dtype
  begin = second.start[..., 0].astype(np.float64)
  into = begin[..., :, None] * first.w[..., -1, None, :].astype(np.float64) * ratio[..., None, None]
  last = lambda leaf, change: np.concatenate(
    [leaf[..., :-1, :, :], change(leaf[..., -1:, :, :])], axis=-3
  ).astype(dtype)
  through = lambda leaf: into[..., None, :, :] @ leaf.astype(np.float64)
  C = last(first.C, through)
  if np.any(noise):
    C[..., -1, :, 0] = np.sign(begin) * np.hypot(C[..., -1, :, 0], begin * noise[..., None])
  both = lambda name, axis: np.concatenate([getattr(first, name), getattr(second, name)], axis=axis)
  hook = np.concatenate([first.hook[..., :-1, :], begin[..., None, :].astype(dtype)], axis=-2)
  return second.replace(
    t=np.concatenate([first.t[..., :-1], second.t], axis=-1),
    g=both("g", -1),
    h=both("h", -1),
    A=np.concatenate([last(first.A, through), second.A], axis=-3),
    B=np.concatenate([last(first.B[..., None], through)[..., 0], second.B], axis=-2),
    C=np.concatenate([C, second.C], axis=-3),
    w=np.concatenate([first.w[..., :-1, :], second.w], axis=-2),
    start=first.start,
    hook=np.concatenate([hook, second.hook], axis=-2),
  )
