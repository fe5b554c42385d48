"""Denoising diffusion restoration.

Each spectral component of x follows y as closely as its noise level allows.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import struct
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from diffusion.processes.base import AnyArray, GaussianProcess, Number, expand
from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished
from diffusion.solvers.grid_nodes import nodes
from diffusion.tasks.measurement import Measurement
from diffusion.tasks.spectrum import Spectrum, spectrum


@struct.dataclass
class Ddrm(OnGrid):
  """A solver; see `ddrm`."""

  process: GaussianProcess
  spectrum: Spectrum
  y: jax.Array
  eta: Number
  eta_b: Number
  t: AnyArray  # [N + 1]
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("x0", "eps")

  def begin(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
    """x: [B, ...] itself, once its measurement fits."""
    del keys
    self.spectrum.measurement.check(x.shape, self.y.shape)
    return x

  def ask(self, state: jax.Array, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at level i."""
    return state, self.time(i, state), self.views

  def tell(
    self, state: jax.Array, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> jax.Array:
    """One step in the spectral space."""
    t, x0, eps = self.time(i + 1, state), prediction.x0, prediction.eps
    m = self.process.marginal(t)
    level = expand(m.noise_to_signal, x0)  # sigma/alpha at the end of the step
    z = randomness.normal(keys, i + 1, 0, state)
    own = self.spectrum.into(x0)
    eta, eta_b = (jnp.asarray(value, state.dtype) for value in (self.eta, self.eta_b))
    gap = self.spectrum.known(self.y.astype(state.dtype)) - own
    # Where nothing is measured: DDIM with eta.
    free = x0 + level * (jnp.sqrt(1 - eta**2) * eps + eta * z)
    # Where y is less noisy than the level: y itself, mixed with x0, and noise up to the level. Where it is
    # noisier: towards y.
    level, z = expand(m.noise_to_signal, own), self.spectrum.into(z)
    noise = jnp.asarray(self.spectrum.noise, state.dtype)
    clear = own + eta_b * gap + jnp.sqrt(jnp.maximum(level**2 - (noise * eta_b) ** 2, 0.0)) * z
    faint = own + level * (
      jnp.sqrt(1 - eta**2) * gap / jnp.maximum(noise, jnp.finfo(state.dtype).tiny) + eta * z
    )
    measured = jnp.where(level >= noise, clear, faint)
    x = expand(m.alpha, x0) * (free + self.spectrum.back(measured - self.spectrum.into(free)))
    return finished(post_step, x, t, keys, i + 1, prediction)

  def end(self, state: jax.Array) -> jax.Array:
    """The newest x: [B, ...]."""
    return state


def ddrm(
  process: GaussianProcess,
  grid: npt.ArrayLike,
  measurement: Measurement,
  y: ArrayLike,
  *,
  eta: Number = 0.85,
  eta_b: Number = 1.0,
  dtype: DTypeLike = np.float32,
) -> Ddrm:
  """DDRM in the spectral space of a linear operator (arXiv:2201.11793, eqs. 7 and 8).

  Along each singular vector that is measured, with singular value s: y / s where its noise is below the
  process's, and leaning towards it where it is above; the others follow DDIM with `eta`. Deterministic in
  nothing but its settings: samples are spread less than the posterior where the data have modes of their own.

  Args:
    process: the Gaussian process.
    grid: [n + 1] decreasing times.
    measurement: a linear one. Without a gram its matrix is decomposed here, see `spectrum`.
    y: [B, *measured].
    eta, eta_b: the paper's defaults; leaves.
    dtype: of the times.

  Raises:
    ValueError: a measurement that is not linear or too large to decompose, a bad grid, or an eta outside of
      [0, 1].

  >>> from diffusion import oracles, processes, solvers, tasks
  >>> prior = oracles.gaussian(processes.edm(), [0.0, 0.0], [1.0, 1.0])
  >>> edm, y = prior.process, jnp.array([[3.0, 0.0]])
  >>> exact = tasks.ddrm(edm, solvers.grids.karras(edm, 10, clean=True), tasks.inpainting([1, 0]), y)
  >>> import jax
  >>> noise, keys = edm.sample_prior(jax.random.key(0), (1, 2)), jax.random.split(jax.random.key(1), 1)
  >>> x = solvers.sample(prior, exact, noise, keys=keys)
  >>> float(x[0, 0])
  3.0
  """
  found = spectrum(measurement, "ddrm")
  for name, value in (("eta", eta), ("eta_b", eta_b)):
    if not isinstance(value, Tracer) and not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
      raise ValueError(f"ddrm takes {name} from 0 to 1, got {value}")
  grid = np.asarray(grid, np.float64)
  if grid.ndim != 1:
    raise ValueError(f"ddrm takes one grid for all samples, got shape {grid.shape}")
  nodes(process, grid, dtype)
  return Ddrm(process, found, jnp.asarray(y), eta, eta_b, grid.astype(dtype), About("ddrm", None, process))
