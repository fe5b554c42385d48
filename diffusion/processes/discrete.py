"""What processes of whole numbers share where each coordinate is noised on its own among its own values."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.math.precision import at_least_single
from diffusion.processes.base import expand
from diffusion.processes.contract import check_steps
from diffusion.processes.views import check_kind

# kind of output -> the views that follow from it.
FOLLOWS = {
  "logits": ("logits", "probabilities", "ratios"),
  "probabilities": ("logits", "probabilities", "ratios"),
  "ratios": ("ratios",),
  "concrete_score": ("concrete_score",),
}


class CoordinateNoise:
  """The base of processes under which each coordinate takes another of its own values, uniform at the end.

  With K the largest number of values, the views of x_t [B, ...] are

  - logits [B, ..., K]: log p(x_0 = k | x_t) of each coordinate, normalised, -inf for values that do not
    exist;
  - probabilities [B, ..., K]: the same without the logarithm;
  - ratios [B, ..., K]: p_t(y) / p_t(x_t) for y that is x_t with the coordinate set to k (arXiv:2310.16834,
    eq. 4);
  - concrete_score [B, N]: p_t(neighbour) / p_t(x_t) - 1 of a neighbourhood (arXiv:2211.00802), which
    follows from nothing but itself here, for a process has no neighbourhood.

  A subclass has `sizes`, `shape`, `ratio` and `posterior_ratios`.
  """

  name: str
  t_max: Any
  sizes: tuple[int, ...]
  shape: tuple[int, ...]
  corrupt: Callable[..., jax.Array]
  posterior_ratios: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

  kind: ClassVar[str] = "discrete"
  ends: ClassVar[tuple[str, str]] = ("data", "uniform")
  views: ClassVar[tuple[str, ...]] = ("logits", "probabilities", "ratios", "concrete_score")

  @property
  def num_values(self) -> int:
    """K, the largest number of values of a coordinate."""
    return max(self.sizes)

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform states [B, *shape] int32, row i from keys[i] alone.

    Raises ValueError for a shape of another state.
    """
    check_state_shape(self, shape)
    sizes = jnp.asarray(np.reshape(self.sizes, self.shape), jnp.int32)
    return jax.vmap(lambda key: jax.random.randint(key, self.shape, 0, sizes))(keys)

  def targets(self, x0: jax.Array, noise: Any, t: jax.Array, x1: None = None) -> dict[str, jax.Array]:
    """'probabilities', the indicator of x_0, and 'ratios', those of the kernel q(. | x_0): each [B, ..., K].

    Their means given x_t are the exact views. Logits regress on nothing: they are learned by cross-entropy.
    """
    clean = jax.nn.one_hot(x0, self.num_values, dtype=at_least_single(t.dtype))
    return {
      "probabilities": clean,
      "ratios": self.posterior_ratios(clean, self.corrupt(x0, noise, t, x1), t),
    }

  def views_of(self, kind: str) -> tuple[str, ...]:
    """The views that follow from an output of one kind.

    Logits or probabilities give logits, probabilities and ratios. Ratios and concrete scores give themselves
    alone. Raises ValueError for another kind.
    """
    check_kind(self, kind, tuple(FOLLOWS))
    return FOLLOWS[kind]

  def convert(
    self,
    kind: str,
    output: jax.Array,
    x_t: jax.Array,
    t: jax.Array,
    views: tuple[str, ...],
    data_std: Any = 1.0,
  ) -> dict[str, jax.Array]:
    """Views of x_t from the raw output of a network.

    Args:
      kind: 'logits' or 'probabilities' [B, ..., K], not necessarily normalised; 'ratios' or 'concrete_score'.
      output: as `kind` says.
      x_t: [B, ...] int.
      t: [B].
      views: which to give.
      data_std: takes no part.

    Returns:
      {view: array}, in at least float32. Raises ValueError for an output over another number of values.
    """
    del data_std
    output = output.astype(at_least_single(output.dtype))
    if kind in ("ratios", "concrete_score"):
      return dict.fromkeys(views, output)
    check_outputs(self, output, x_t)
    log_p = output if kind == "logits" else jnp.log(output)
    log_p = jax.nn.log_softmax(jnp.where(self.exists, log_p, -jnp.inf), axis=-1)
    found = {"logits": log_p}
    if "probabilities" in views or "ratios" in views:
      found["probabilities"] = jnp.exp(log_p)
    if "ratios" in views:
      found["ratios"] = self.posterior_ratios(found["probabilities"], x_t, t.astype(log_p.dtype))
    return {view: found[view] for view in views}

  def default_grid(self, n: int) -> np.ndarray:
    """n + 1 times in equal steps from t_max to the data at t = 0.

    Raises ValueError for n below 1.

    >>> from diffusion import processes
    >>> processes.uniform_resample(3).default_grid(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    check_steps(n)
    return np.linspace(float(self.t_max), 0.0, n + 1)

  @property
  def exists(self) -> jax.Array:
    """Whether a coordinate has a value: [1, ..., K] bool."""
    sizes = np.reshape(self.sizes, self.shape)
    return jnp.asarray((np.arange(self.num_values) < sizes[..., None])[None])


def check_state_shape(process: Any, shape: tuple[int, ...]) -> None:
  """Raises ValueError unless the shape is that of one state of the process."""
  if tuple(shape) != process.shape:
    raise ValueError(
      f"'{process.name}' has states of shape {process.shape}, got the shape {tuple(shape)} of one sample: "
      "give its own"
    )


def check_outputs(process: Any, output: jax.Array, x_t: jax.Array) -> None:
  """Raises ValueError unless an output is over the values of each coordinate: [B, ..., K]."""
  wanted = (*x_t.shape, process.num_values)
  if output.shape != wanted:
    raise ValueError(
      f"'{process.name}' takes outputs over {process.num_values} values a coordinate, of shape {wanted}, got "
      f"{output.shape}: give the network as many outputs"
    )


def coordinates(value: Any, x: jax.Array) -> Any:
  """One number a sample, [B], so that it multiplies an output over values, [B, ..., K] for x: [B, ...].

  >>> coordinates(jnp.ones(3), jnp.ones((3, 8, 2))).shape
  (3, 1, 1, 1)
  """
  return expand(value, x)[..., None]


def each_value(process: Any, x: jax.Array) -> jax.Array:
  """The values 0..K-1 along a new last axis, to compare with x [B, ...]: [1, ..., 1, K] of its dtype."""
  return jnp.arange(process.num_values, dtype=x.dtype).reshape((1,) * x.ndim + (-1,))
