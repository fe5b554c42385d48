"""What people read of a solver and no program depends on: name, order, the process it was built for."""

import dataclasses
from typing import Any

from diffusion.processes import comparison


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class About:
  """Name, order and process of a solver; all are equal, so a name never recompiles.

  Attributes:
    name: with the arguments that matter, e.g. 'ddim(eta=0.5)'.
    order: observed order of convergence (weak order if there is noise); None if it has no such order.
    process_name: name of the process that the coefficients belong to; '' for any.
    levels: some of that process's numbers (`comparison.levels`), which `sample` compares with the
      denoiser's.

  >>> from diffusion import processes
  >>> About("my_euler", 1, processes.edm()).process_name
  'edm'
  """

  name: str
  order: int | None
  process_name: str
  levels: dict[str, tuple[float, ...]]

  def __init__(
    self,
    name: str = "",
    order: int | None = None,
    process: Any = None,
    *,
    levels: dict[str, tuple[float, ...]] | None = None,
  ):
    """From a process itself.

    Args:
      name, order: as the attributes.
      process: the process of the coefficients, or None for a solver that belongs to any.
      levels: None; or what `comparison.levels` once said of a process of which only the name is left, as
        in a file. `process` is then that name.

    Raises:
      TypeError: the name of a process in its place, with which no number could be compared.
    """
    if levels is None and isinstance(process, str):
      raise TypeError(
        f"About takes the process itself, got its name {process!r}, which says nothing of its numbers: write"
        " About(name, order, process)"
      )
    known = levels is not None
    fields = dict(
      name=name,
      order=order,
      process_name=(process or "") if known else ("" if process is None else process.name),
      levels=levels if known else comparison.levels(process),
    )
    for field, value in fields.items():
      object.__setattr__(self, field, value)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, About)

  def __hash__(self) -> int:
    return hash(About)
