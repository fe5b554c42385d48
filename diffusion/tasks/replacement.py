"""Known parts put back at every step: Score SDE's imputation for any linear measurement, as a `post_step` that every solver calls."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffusion.processes.base import expand
from diffusion.tasks.measurement import Measurement


@struct.dataclass
class Replacement:
  """(x, t, keys) -> x whose measured part is a fresh forward sample of y; see `replacement`."""

  process: Any
  measurement: Measurement
  y: Any

  def __call__(self, x, t, keys):
    m = self.process.marginal(t)
    y = self.y.astype(x.dtype)
    target = expand(m.alpha, y).astype(x.dtype) * y
    if keys is not None:
      z = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)
      target = target + expand(m.sigma, y).astype(x.dtype) * self.measurement(z)
    gap = target - self.measurement(x)
    return x + self.measurement.adjoint(self.measurement.solve(jnp.ones_like(t), gap)).astype(x.dtype)


def replacement(process, measurement, y) -> Replacement:
  """After every update, what y measures of x is replaced by alpha y + sigma A z (arXiv:2011.13456, section 5 and appendix I).

  For inpainting this is imputation, for `colorization` the method of Score SDE, for any other linear operator a projection on
  the measurement at that noise level (no gradient through the network, unlike MCG). With noise in y its part stays as
  measured. The unknown part is only told by the network's own coupling, so samples are not those of the posterior.
  Operators without a gram are undone as far as their noise allows, by (A A^T + noise^2)^-1: directions that they hardly
  measure would otherwise be filled with noise.

  Args:
    process: of the denoiser.
    measurement: a linear one; with a gram its noise is not used.
    y: [B, *measured].

  Returns:
    A `post_step` for `solvers.sample`. Without keys (a deterministic solver called without them) no fresh noise is
    drawn, and the known part is alpha y.

  Raises:
    ValueError: a measurement that is not linear.

  >>> from diffusion import processes, tasks
  >>> put_back = tasks.replacement(processes.edm(), tasks.inpainting([1, 0]), jnp.array([[3.0, 0.0]]))
  >>> put_back(jnp.array([[1.0, 2.0]]), jnp.zeros(1), None).tolist()
  [[3.0, 2.0]]
  """
  measurement.check_linear("replacement")
  measurement = measurement if measurement.gram is None else measurement.replace(noise=0.0)
  return Replacement(process, measurement, jnp.asarray(y))
