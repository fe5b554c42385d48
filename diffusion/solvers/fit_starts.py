"""Good samplers to start a fit from: the multistep methods on the spacings that serve few steps."""

from typing import Any

import numpy as np

from diffusion.solvers import grids
from diffusion.solvers.deis import deis, lms
from diffusion.solvers.dpmpp import dpmpp_2m, dpmpp_3m
from diffusion.solvers.pndm import ipndm
from diffusion.solvers.unipc import unipc


def fit_starts(process: Any, n: int, dtype: Any = np.float32) -> list:
  """Deterministic multistep tables of n evaluations, each on each of several grids; `fit` takes such a list.

  They end in clean data where the process does.

  Args:
    process: the Gaussian process.
    n: number of evaluations, at least 2.
    dtype: as in `ddim`.

  >>> from diffusion import processes
  >>> {table.cost for table in fit_starts(processes.edm(), 5)}
  {5}
  """
  clean = float(process.marginal(0.0).sigma) == 0
  ends: dict[str, Any] = dict(t_min=0.0) if clean else {}
  spacings = [grids.vp_time(process, n, power=power, **ends) for power in (1.5, 2.0, 2.5, 3.0)]
  spacings += [grids.asinh(process, n, **ends), grids.karras(process, n, clean=clean)]
  if clean:
    for level in (
      0.03,
      0.1,
    ):  # one denoising from a noise level above EDM's last is often better at few steps
      low = float(process.t_of_log_snr(-2 * np.log(level)))
      spacings.append(grids.karras(process, n, t_min=low, clean=True))
  # Methods of an order that so many steps can have.
  builders = [
    (dpmpp_2m, {}),
    (dpmpp_3m, {}),
    (ipndm, dict(order=min(n, 4))),
    (deis, dict(r=min(n, 4) - 1)),
    (lms, dict(order=min(n, 4))),
    (unipc, dict(order=2)),
  ]
  builders += [(unipc, {})] if n > 2 else []
  return [
    builder(process, grid, dtype=dtype, **options)
    for builder, options in builders
    if n > 2 or builder is not dpmpp_3m
    for grid in spacings
  ]
