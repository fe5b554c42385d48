"""A table as text for a person."""

from typing import Any

import jax
import numpy as np


def describe(table: Any, rows: int = 12) -> str:
  """A table as text, one line a row.

  If there are many rows, only the first and last ones are shown. Of per-sample tables, the first is shown.
  """
  leaf = lambda name: np.asarray(getattr(table, name), np.float64)
  if table.t.ndim == 2:
    first = jax.tree.map(lambda x: np.asarray(x)[0], table)
    return f"{table.t.shape[0]} grids, of which the first:\n{describe(first, rows)}"
  m, noises = table.A.shape[-1], table.noise
  slots = [f"S{k}" for k in range(m)]
  draws = ["z", "z'"][:noises]
  order = f"order {table.order}" if table.order is not None else "no order claimed"
  plural = lambda count, noun: f"{count or 'no'} {noun}" + ("" if count < 2 else "s")
  of = f" (process {table.about.process_name})" if table.about.process_name else ""
  lines = [
    f"{table.name or 'table'}: {order}, {plural(table.cost, 'evaluation')}, asks for {table.view},"
    f" {plural(m, 'slot')}, {plural(noises, 'noise')}{of}"
  ]
  start = [f"{s} <- {_sum(c, ['x', *draws])}" for s, c in zip(slots, leaf("start"))]
  if start != ["S0 <- x"] + [f"{s} <- 0" for s in slots[1:]]:
    lines.append("start  " + "; ".join(start))
  times = [f"{value:.4g}" for value in leaf("t")]
  width = max(map(len, times))
  number = len(str(table.num_steps - 1))
  weights = np.concatenate([leaf("A"), leaf("B")[..., None], leaf("C")], axis=-1)
  for i in range(table.num_steps):
    if table.num_steps > rows and rows // 2 <= i < table.num_steps - rows // 2:
      if i == rows // 2:
        lines.append(f"... {table.num_steps - 2 * (rows // 2)} more rows ...")
      continue
    parts = [f"{s} <- {_sum(c, [*slots, 'E', *draws])}" for s, c in zip(slots, weights[i])]
    kept = _sum((leaf("g")[i], leaf("h")[i]), ("u", "D"))
    point = _sum(leaf("w")[i], slots)
    parts = ([] if kept == "D" else [f"E = {kept}"]) + parts
    parts = ([] if point == "S0" else [f"u = {point}"]) + parts
    lines.append(f"row {i:<{number}}  t={times[i]:<{width}}   " + "; ".join(parts))
  lines.append(f"output{'':<{number - 1}} t={times[-1]:<{width}}   {_sum(leaf('w')[-1], slots)}")
  return "\n".join(lines)


def _sum(coefficients, names):
  """'0.5 S0 - E' from (0.5, -1) and (S0, E)."""
  text = ""
  for c, name in zip(coefficients, names):
    if c == 0:
      continue
    size = "" if abs(c) == 1 else f"{abs(c):.5g} "
    sign = (" - " if c < 0 else " + ") if text else ("-" if c < 0 else "")
    text += f"{sign}{size}{name}"
  return text or "0"
