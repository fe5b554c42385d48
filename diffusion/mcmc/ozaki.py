"""Langevin dynamics by Ozaki's rule: exact where the target is Gaussian, from its score and its Hessian."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer

from diffusion.math.symmetric import PRECISION, Diagonal, as_symmetric
from diffusion.mcmc.langevin import Position, noise
from diffusion.mcmc.target import as_data, check_step_size


@struct.dataclass
class Ozaki:
  """See `ozaki`."""

  score: Any
  hessian: Any
  step_size: Any
  growth: Any

  def init(self, x: jax.Array) -> Position:
    """The chains at x: [C, ...]."""
    return Position(x)

  def step(self, state: Any, keys: jax.Array) -> tuple[Any, dict]:
    """One step of every chain; info: `guarded` [C], the share of eigenvalues that were cut."""
    x = state.x
    flat = lambda a: a.reshape(a.shape[0], -1)
    size, score, z = self.step_size.astype(x.dtype), flat(self.score(x)), flat(noise(keys, x))
    hessian = as_symmetric(self.hessian(x), score.shape[1], "the Hessian of ozaki")
    if isinstance(hessian, Diagonal):
      drift, spread, cut = factors(hessian.diagonal, size, self.growth)
      move = drift * score + spread * z
    else:
      eigenvalues, basis = jnp.linalg.eigh(hessian.dense())
      drift, spread, cut = factors(eigenvalues, size, self.growth)
      into = lambda v: jnp.einsum("bde,bd->be", basis, v, precision=PRECISION)
      move = jnp.einsum("bde,be->bd", basis, drift * into(score) + spread * into(z), precision=PRECISION)
    return Position(x + move.reshape(x.shape)), {"guarded": jnp.mean(cut.astype(jnp.float32), axis=1)}


def ozaki(
  score: Callable[..., Any], hessian: Callable[..., Any], step_size: Any, *, growth: float = 1.0
) -> Ozaki:
  """Langevin dynamics by Ozaki's rule (arXiv:2111.04726).

    x <- x + M score + Sigma^(1/2) z,  M = (e^(h H / 2) - I) H^-1,  Sigma = (e^(h H) - I) H^-1

  h is the step size of `langevin`, which this is at first order in h. It solves dx = (score at x + H (y - x))
  dy / 2 + dw exactly, so a Gaussian target is stationary at any step size.

  Args:
    score: x [C, ...] -> [C, ...].
    hessian: x [C, ...] -> the Hessian of the log-density: [C, D, D], or a form of `math.symmetric`. A
      `Diagonal` costs nothing beyond it; the others are taken dense, with one eigendecomposition a chain and
      step.
    step_size: positive, data of the program.
    growth: the guard. Where the target is not log-concave an eigenvalue l is positive and the step grows as
      e^(h l / 2): h l is cut at this.

  Raises ValueError for a step size or a growth that is not positive, TypeError for what can not be called.

  >>> from diffusion import mcmc
  >>> kernel = mcmc.ozaki(lambda x: -x, lambda x: Diagonal(-jnp.ones_like(x)), 50.0)
  >>> x = mcmc.run(kernel, jnp.full((1000, 1), 9.0), jax.random.key(0), 1).x  # so long a step is a new draw
  >>> bool(abs(x.mean()) < 0.15 and abs(x.std() - 1.0) < 0.1)
  True
  """
  if not isinstance(growth, Tracer) and not growth > 0:
    raise ValueError(
      f"ozaki cuts step_size times eigenvalue at growth > 0 (1.0 is the default), got {growth}"
    )
  return Ozaki(
    as_data(score, "ozaki"),
    as_data(hessian, "ozaki"),
    check_step_size(step_size, "ozaki"),
    jnp.asarray(growth, jnp.result_type(float)),
  )


def factors(eigenvalues: Any, step_size: Any, growth: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The factors of drift and noise for the eigenvalues l.

  (drift (e^(h l / 2) - 1) / l, spread sqrt((e^(h l) - 1) / l), whether l was cut), each like l.
  """
  rate = step_size * eigenvalues
  cut = rate > growth.astype(rate.dtype)
  rate = jnp.minimum(rate, growth.astype(rate.dtype))
  return 0.5 * step_size * relative(0.5 * rate), jnp.sqrt(step_size * relative(rate)), cut


def relative(u: Any) -> jax.Array:
  """(e^u - 1) / u, one at zero.

  >>> relative(jnp.array([0.0, 1e-6, -100.0])).round(4).tolist()
  [1.0, 1.0, 0.009999999776482582]
  """
  small = jnp.abs(u) < 1e-4
  safe = jnp.where(small, 1.0, u)
  return jnp.where(small, 1.0 + 0.5 * u + u * u / 6.0, jnp.expm1(safe) / safe)
