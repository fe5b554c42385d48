"""Likelihood of stored values from a density of model values.

Scaling, dequantisation, bits per dimension.

Stored pixels are whole numbers v and have probabilities; a model gives a density p of model values
x = slope (v + n) + offset, n in [0, 1). With n drawn from any q(n | v) (arXiv:1902.00275, eq. 4 and 12)

  log P(v) = log of the integral over the bin >= E_q [ log p(x) + D log slope - log q(n | v) ].

Uniform noise has log q = 0. Real-valued data take no noise, and the result is a density in their own units,
not a probability. Whole numbers without noise have no bound at all: a density can grow without limit on them.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.likelihood.error_bars import over_draws
from diffusion.likelihood.flow_map import at_least_float32


class Pixels(Protocol):
  """A scaling of whole-numbered values that can be dequantised: `diffusion.data.Scaling`."""

  @property
  def levels(self) -> int: ...

  @property
  def centered(self) -> bool: ...

  @property
  def log_det(self) -> float: ...

  @property
  def bits_offset(self) -> float: ...

  def dequantized(self) -> "Pixels": ...


class RealValues(Protocol):
  """A scaling of real-valued data by a mean and a deviation: `diffusion.data.Standardize`."""

  levels: ClassVar[None]

  @property
  def mean(self) -> float: ...

  @property
  def std(self) -> float: ...

  @property
  def log_det(self) -> float: ...

  @property
  def bits_offset(self) -> float: ...


Proposal: TypeAlias = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""(keys [B], values [B, ...]) -> (noise [B, ...] in [0, 1), log q [B] nats)."""

DEQUANTIZATIONS = ("uniform", "variational", "none")


@struct.dataclass
class ModelValues:
  """What a density model is asked about.

  Attributes:
    x: [B, ...] model values.
    offset: [B] nats to add to log p(x) for the stored values: D log slope - log q.
  """

  x: jax.Array
  offset: jax.Array


@jax.jit
def uniform_noise(keys: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Uniform dequantisation noise in [0, 1) of float32 (or wider) and its log-density, which is 0.

  Args:
    keys: [B] typed keys; row i depends on keys[i] alone.
    values: [B, ...] stored values.

  Returns:
    (noise [B, ...], log q [B] nats).
  """
  dtype = values.dtype if values.dtype == np.float64 else jnp.float32
  noise = jax.vmap(lambda key: jax.random.uniform(key, values.shape[1:], dtype))(keys)
  return noise, jnp.zeros(values.shape[:1], dtype)


def dequantize(
  values: jax.Array,
  scaling: Pixels | RealValues,
  *,
  dequantization: str,
  keys: jax.Array | None = None,
  proposal: Proposal | None = None,
) -> ModelValues:
  """Stored values to model values, with what their log-density needs to become a log-likelihood.

  Args:
    values: [B, ...] stored values: whole numbers 0 .. levels - 1, or real numbers.
    scaling: `diffusion.data.Scaling` for pixels, `diffusion.data.Standardize` for real-valued data.
    dequantization: 'uniform' or 'variational' for pixels, 'none' for real-valued data. It is never guessed.
    keys: [B] typed keys for the noise.
    proposal: for 'variational': (keys [B], values [B, ...]) -> (noise [B, ...] in [0, 1), log q [B] nats).

  Raises:
    ValueError: a dequantisation that does not fit the data, a missing proposal, or missing keys.

  >>> from diffusion.data import Scaling, Standardize
  >>> keys = jax.random.split(jax.random.key(0), 1)
  >>> pixels = dequantize(jnp.array([[0, 255]]), Scaling(256), dequantization="uniform", keys=keys)
  >>> bool((abs(pixels.x) <= 1).all()), (pixels.offset / (2 * np.log(2).item())).tolist()
  (True, [-7.0])
  >>> dequantize(jnp.array([[3.0]]), Standardize(mean=1.0, std=2.0), dequantization="none").x.tolist()
  [[1.0]]
  """
  _check(scaling, dequantization, keys, proposal, values.shape)
  values = at_least_float32(values)
  size = int(np.prod(values.shape[1:]))
  if dequantization == "none":
    real = cast(RealValues, scaling)
    return ModelValues(
      (values - real.mean) / real.std, jnp.full(values.shape[:1], size * real.log_det, values.dtype)
    )
  draw = uniform_noise if proposal is None else proposal
  noise, log_q = draw(cast(jax.Array, keys), values)  # pixels without keys were refused above
  pixels = cast(Pixels, scaling).dequantized()
  low = -1.0 if pixels.centered else 0.0
  return _affine(values, noise, log_q, (1.0 - low) / pixels.levels, low, size * pixels.log_det)


def log_likelihood_of_values(
  log_prob: Callable[[jax.Array, jax.Array | None], jax.Array],
  values: jax.Array,
  scaling: Pixels | RealValues,
  *,
  dequantization: str,
  keys: jax.Array | None = None,
  proposal: Proposal | None = None,
  draws: int = 1,
) -> tuple[jax.Array, jax.Array]:
  """Log-likelihood of stored values under any density of model values: nats in the units of the data.

  Args:
    log_prob: (x [B, ...], keys [B]) -> [B] nats of model values, for example
      `lambda x, keys: log_likelihood(denoiser, x, keys=keys, divergence="rademacher")[0]`.
    values, scaling, dequantization, proposal: as for `dequantize`.
    keys: [B] typed keys for the dequantisation noise and for log_prob; needed unless nothing is drawn.
    draws: independent draws of noise and probes an example.

  Returns:
    ([B] nats, [B] standard error over the draws, NaN for one). For pixels the mean is a lower bound of log
    P(values).

  >>> from diffusion.data import Scaling
  >>> flat = lambda x, keys: jnp.full(x.shape[:1], -x[0].size * np.log(2).item())      # uniform on [-1, 1]
  >>> keys = jax.random.split(jax.random.key(0), 3)
  >>> v, how = jnp.zeros((3, 4)), "uniform"
  >>> nats, _ = log_likelihood_of_values(flat, v, Scaling(16), dequantization=how, keys=keys)
  >>> bits_per_dim(nats, (4,)).round(4).tolist()
  [4.0, 4.0, 4.0]
  """
  _check(scaling, dequantization, keys, proposal, values.shape)
  results = []
  for draw in range(draws):
    noise_keys, model_keys = (None, None) if keys is None else _split(keys, draw)
    model = dequantize(values, scaling, dequantization=dequantization, keys=noise_keys, proposal=proposal)
    results.append(log_prob(model.x, model_keys) + model.offset)
  return over_draws(jnp.stack(results))


def bits_per_dim(
  log_prob: jax.Array, shape: Sequence[int], scaling: Pixels | RealValues | None = None
) -> jax.Array:
  """Bits per dimension from nats.

  Args:
    log_prob: [B] nats: of stored values, as `log_likelihood_of_values` returns them, or of model values if a
      scaling is given.
    shape: shape of one example.
    scaling: None, or the `diffusion.data.Scaling` with dequantisation that made the model values.

  Returns:
    [B] bits/dim (arXiv:1511.01844, section 3.1).
  """
  offset = 0.0 if scaling is None else scaling.bits_offset
  return -log_prob / (np.prod(shape).item() * np.log(2).item()) + offset


@jax.jit
def _affine(values, noise, log_q, slope, low, log_det):
  return ModelValues(slope * (values + noise) + low, log_det - log_q)


@jax.jit
def _split(keys, draw):
  """Keys of one draw by purpose: ([B], [B])."""
  one = lambda key, purpose: jax.random.fold_in(jax.random.fold_in(key, draw), purpose)
  return tuple(jax.vmap(lambda key, p=p: one(key, p))(keys) for p in range(2))


def _check(scaling, dequantization, keys, proposal, shape):
  if dequantization not in DEQUANTIZATIONS:
    raise ValueError(f"dequantization={dequantization!r} is unknown: choose {', '.join(DEQUANTIZATIONS)}")
  pixels = scaling.levels is not None
  if pixels and dequantization == "none":
    raise ValueError(
      "dequantization='none' is for real-valued data: on whole numbers a density can grow without bound."
      " Use 'uniform' or 'variational', or a bound with `level_decoder`"
    )
  if not pixels and dequantization != "none":
    raise ValueError(
      f"dequantization={dequantization!r} is for pixels with levels: real-valued data take 'none'"
    )
  if (dequantization == "variational") != (proposal is not None):
    raise ValueError(
      "dequantization='variational' takes its noise from proposal=(keys, values) -> (noise, log_q); the "
      "others take none"
    )
  if pixels and (keys is None or keys.shape != shape[:1]):
    raise ValueError(
      f"dequantization={dequantization!r} draws noise: give keys=jax.random.split(jax.random.key(0), "
      f"{shape[0]})"
    )
