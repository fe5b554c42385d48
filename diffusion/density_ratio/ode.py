"""The ratio by an ODE solver with error control, as the paper evaluates it."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.density_ratio.quadrature_nodes import interval
from diffusion.math.precision import at_least_single
from diffusion.processes.base import GaussianProcess
from diffusion.processes.paths import Path, as_path


@struct.dataclass
class Integral:
  """value: [B] nats; evaluations: [] calls of the time score."""

  value: jax.Array
  evaluations: jax.Array


def log_ratio_ode(
  time_score: Callable[[jax.Array, jax.Array, Any], jax.Array],
  path: Path | GaussianProcess,
  x: jax.Array,
  *,
  rtol: float = 1e-6,
  atol: float = 1e-6,
  max_steps: int = 4096,
  cond: Any = None,
) -> Integral:
  """The log ratio log p_1(x) - log p_0(x) by an adaptive ODE solver, Dormand-Prince 5(4).

  It is the solution of dy/dt = s(x, t) at fixed x (arXiv:2111.11010, section 4.3).

  The step is sized by the largest error of the batch. Needs diffrax: `pip install 'jax-diffusion[adaptive]'`.

  Args:
    time_score: (x, t, cond) -> [B].
    path: a path or a Gaussian process.
    x: [B, ...]; in float32 tolerances below 1e-6 can not be met.
    rtol, atol: relative and absolute tolerance.
    max_steps: attempts after which it raises.
    cond: handed to the time score.

  Raises:
    ValueError: tolerances below what the precision of x has.
  """
  import diffrax

  path = as_path(path, "log_ratio_ode")
  low, high = interval(path)
  dtype = at_least_single(x.dtype)
  least = 8.0 * float(jnp.finfo(dtype).eps)
  if not (rtol >= least and atol >= least):
    raise ValueError(
      f"rtol={rtol} and atol={atol} ask for more than {jnp.dtype(dtype).name} has: raise them to "
      f"{least:.1e}, or give x "
      "in float64"
    )

  def slope(t, y, args):
    del args
    return time_score(x, jnp.full_like(y, t), cond).astype(dtype)

  solution = diffrax.diffeqsolve(
    diffrax.ODETerm(slope),
    diffrax.Dopri5(),
    low,
    high,
    None,
    jnp.zeros(x.shape[:1], dtype),
    max_steps=max_steps,
    stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol, norm=lambda y: jnp.max(jnp.abs(y))),
  )
  # Six new stages a step: the seventh is the next one's first.
  values = cast(jax.Array, solution.ys)[0]  # saved at the end, as diffrax does where nothing else is asked
  return Integral(values, 6 * solution.stats["num_steps"] + 1)
