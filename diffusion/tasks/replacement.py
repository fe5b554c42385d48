"""Replacement of known parts at every step.

Score SDE's imputation for any linear measurement, as a `post_step` that every solver calls.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from diffusion.processes.base import GaussianProcess, expand
from diffusion.solvers.about import About
from diffusion.tasks.measurement import Measurement
from diffusion.tasks.spectrum import Spectrum, spectrum

PostStep: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]
"""(x [B, ...], t [B], keys [B] or None) -> x, after every update of a solver."""


@struct.dataclass
class Replacement:
  """A post_step: x whose measured part is a forward sample of what y tells of it; see `replacement`."""

  process: GaussianProcess
  spectrum: Spectrum
  y: jax.Array
  about: About = struct.field(pytree_node=False)

  def __call__(self, x: jax.Array, t: jax.Array, keys: jax.Array | None, prediction: Any) -> jax.Array:
    """x: [B, *event] with its measured part put back, whatever was predicted."""
    del prediction
    self.spectrum.measurement.check(x.shape, self.y.shape)
    m, own = self.process.marginal(t), self.spectrum.into(x)
    alpha, sigma = (expand(leaf, own).astype(x.dtype) for leaf in (m.alpha, m.sigma))
    noise = alpha * jnp.asarray(self.spectrum.noise, x.dtype)
    told = alpha * self.spectrum.known(self.y.astype(x.dtype))
    if keys is not None:
      z = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)
      told = told + jnp.sqrt(jnp.maximum(jnp.square(sigma) - jnp.square(noise), 0.0)) * self.spectrum.into(z)
    return x + self.spectrum.back(jnp.where(sigma >= noise, told - own, 0.0)).astype(x.dtype)


def replacement(process: GaussianProcess, measurement: Measurement, y: ArrayLike) -> Replacement:
  """The replacement method (arXiv:2011.13456, section 5 and appendix I).

  After every update, what y tells of x is replaced by a forward sample of it. For inpainting this is
  imputation, for `colorization` the method of Score SDE, for any other linear operator the same along its
  singular vectors (no gradient through the network, unlike MCG). Noise in y counts as noise that the
  process has added already: a direction measured with noise n is alpha y + sqrt(sigma^2 - alpha^2 n^2) z as
  long as the process is noisier than y, and is left to the denoiser afterwards. Where what y says of some
  directions tells nothing of the others, as for isotropic Gaussian data, a stochastic solver in small steps
  therefore samples the posterior; a deterministic one spreads too little. Everywhere else the unknown part
  is only told by the network's own coupling, and samples are not those of the posterior.

  Args:
    process: of the denoiser.
    measurement: a linear one. Without a gram its matrix is decomposed here, see `spectrum`.
    y: [B, *measured].

  Returns:
    A `post_step` for `solvers.sample`. Without keys (a deterministic solver called without them) no fresh
    noise is drawn, and the known part is alpha y.

  Raises:
    ValueError: a measurement that is not linear, or too large to decompose.

  >>> from diffusion import processes, tasks
  >>> put_back = tasks.replacement(processes.edm(), tasks.inpainting([1, 0]), jnp.array([[3.0, 0.0]]))
  >>> put_back(jnp.array([[1.0, 2.0]]), jnp.zeros(1), None, None).tolist()
  [[3.0, 2.0]]
  """
  return Replacement(
    process, spectrum(measurement, "replacement"), jnp.asarray(y), About("replacement", None, process)
  )
