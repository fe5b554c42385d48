"""DDIM with a clipped x0 beside the noise as it was predicted, which is linear in neither."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes import expand
from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished, layout, row_at
from diffusion.solvers.diffusers.levels import Levels


@struct.dataclass
class ClippedDDIM(OnGrid):
  """x' = a' clip(x0) + sqrt(s'^2 - d^2) eps + d z, as diffusers' DDIM steps with `clip_sample`.

  eps is the network's, not that of the clipped x0, so neither a table nor a denoiser that clips has this
  step.

  Attributes:
    t: [N+1] times.
    signal, noise, fresh: [N] the factors of clip(x0), eps and z.
    bound: of |x0|.
    stochastic: whether z is drawn.
    about: name, order and process.
  """

  t: Any
  signal: Any
  noise: Any
  fresh: Any
  bound: Any
  stochastic: bool = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  views: ClassVar[tuple[str, ...]] = ("x0", "eps")

  def begin(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
    """x: [B, ...] itself."""
    del keys
    return x

  def ask(self, state: jax.Array, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at node i."""
    return state, self.time(i, state), self.views

  def tell(
    self,
    state: jax.Array,
    i: Any,
    prediction: Any,
    keys: jax.Array | None,
    post_step: PostStep | None = None,
  ) -> jax.Array:
    """x at node i + 1."""
    x, (_, dtype) = state, layout(state)
    row = lambda leaf: expand(row_at(leaf, i, 0, dtype), x)
    bound = jnp.asarray(self.bound, dtype)
    x0, eps = jnp.clip(prediction.x0.astype(x.dtype), -bound, bound), prediction.eps.astype(x.dtype)
    x = row(self.signal) * x0 + row(self.noise) * eps
    if self.stochastic:
      x = x + row(self.fresh) * randomness.normal(keys, i + 1, 0, x)
    return finished(post_step, x, self.time(i + 1, x), keys, i + 1, prediction)

  def end(self, state: jax.Array) -> jax.Array:
    """The newest x: [B, ...]."""
    return state

  def __str__(self) -> str:
    return (
      f"{self.name}: {self.cost} evaluations, x0 within {float(self.bound):g} ({self.about.process_name})"
    )


def clipped_ddim(n: Levels, name: str, eta: float, bound: float, dtype: Any) -> ClippedDDIM:
  """The solver of these levels; eta is the share of the ancestral noise."""
  fresh = ddim_noise(n, eta)
  array = lambda values: np.asarray(values, dtype)
  about = About(name, 1, n.process)
  noise = np.sqrt(n.s1**2 - fresh**2)
  return ClippedDDIM(array(n.t), array(n.a1), array(noise), array(fresh), array(bound), eta > 0, about)


def ddim_noise(n: Levels, eta: float) -> np.ndarray:
  """d = eta (s'/s) sqrt(1 - a^2/a'^2): [N] (arXiv:2010.02502, eq. 16)."""
  return eta * n.s1 / n.s[:-1] * np.sqrt(np.maximum(1 - (n.a[:-1] / n.a1) ** 2, 0))
