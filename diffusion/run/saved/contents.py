"""What a run of this library holds, in the same terms as files that others wrote."""

import os

from diffusion import weights
from diffusion.run.saved import checkpoints, workdir as workdirs


def read(path: str, step: int | None = None) -> weights.Contents:
  """`weights.read`, which also takes the folder of a run: the newest undamaged checkpoint of it.

  Its arrays have the names that `diffusion.run.saved.weights` lists: 'params.model.first.kernel'.
  `notes["config"]` is the run's config, `notes["metadata"]` its step and data position.

  Args:
    path: the folder of a run, or what `weights.read` takes.
    step: of a run's checkpoint; None for the newest that is undamaged.
  Raises:
    UserError: as `weights.read` and `checkpoints.choose`.
  """
  chosen = None
  if os.path.isdir(workdirs.checkpoints(path)):
    chosen = checkpoints.choose(workdirs.checkpoints(path), step)
  if chosen is None:
    return weights.read(path)
  found = weights.read(chosen)
  return weights.Contents(
    found.path,
    found.format,
    found.arrays,
    {**found.notes, "metadata": checkpoints.read_meta(chosen)},
    found.batch,
  )
