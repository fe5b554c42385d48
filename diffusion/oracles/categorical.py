"""A finite categorical distribution whose coordinates are resampled uniformly.

Sources: arXiv:2211.00802; arXiv:2107.03006.

Under the uniform-resample kernel each coordinate, on its own, is replaced with probability b by a uniform
draw of its K
values: it stays with probability 1 - b + b/K and becomes each other value with probability b/K. The joint
table is small enough to hold, so everything is exact.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.oracles import spectral
from diffusion.oracles.oracle import Oracle
from diffusion.processes.keeping import KeepSchedule, linear_keep
from diffusion.processes.resample import UniformResample, uniform_resample


@struct.dataclass
class UniformResampleCategorical(Oracle):
  """A categorical in D coordinates under the uniform-resample kernel.

  x: [B, D] int, t: [B] in [0, 1].

  K is the number of values, the largest one where coordinates differ; an output over values of a coordinate
  with fewer holds -inf (logits) or 0 (ratios) in the places that do not exist. Where p_t(x) = 0, at b = 0
  only, logits and ratios at x are not defined.
  """

  probs: Any  # [K_1, ..., K_D], sums to one
  schedule: KeepSchedule  # times -> alpha = 1 - b

  methods: ClassVar[tuple[str, ...]] = ("energy", "logits", "probabilities", "ratios", "time_score")

  @property
  def sizes(self) -> tuple[int, ...]:
    """Number of values of each coordinate."""
    return self.probs.shape

  @property
  def process(self) -> UniformResample:
    """The process of the same kernel and schedule."""
    return uniform_resample(np.array(self.sizes), schedule=self.schedule)

  def table(self, t: jax.Array) -> jax.Array:
    """p_t of every state: [B, K_1, ..., K_D]."""
    b = self.schedule(jnp.asarray(t)).noised
    return self._diffuse(self._start(b), b, range(len(self.sizes)))

  def log_prob(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """log p_t(x) in nats: [B]."""
    x, t = self._check(x, t)
    return jnp.log(self._look_up(self.table(t), x))

  def time_score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """d/dt log p_t(x), in nats per unit of t: [B].

    The slope of the kernel in b is "uniform minus stay" on one coordinate and the kernel on the others,
    summed.
    """
    x, t = self._check(x, t)
    keep = self.schedule(t)
    b, rate = keep.noised, -keep.d_alpha
    start, axes = self._start(b), range(len(self.sizes))
    slope = 0.0
    for d in axes:
      changed = jnp.mean(start, axis=d + 1, keepdims=True) - start
      slope = slope + self._diffuse(changed, b, [e for e in axes if e != d])
    return rate * self._look_up(slope, x) / self._look_up(self.table(t), x)

  def ratios(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Ratios p_t(y) / p_t(x) for every y that differs from x in one coordinate at most: [B, D, K].

    Entry (d, k) sets x_d = k. These are the ratios of the reverse jump rates to the forward ones
    (arXiv:2310.16834, eq. 4).
    """
    spectral.check_no_condition(cond)
    x, t = self._check(x, t)
    table = self.table(t)
    values = [self._along(table, x, d) for d in range(len(self.sizes))]
    return jnp.stack([self._pad(v, 0.0) for v in values], axis=1) / self._look_up(table, x)[:, None, None]

  def concrete(self, x: jax.Array, t: jax.Array) -> jax.Array:
    """The concrete score p_t(y) / p_t(x) - 1 of every one-coordinate neighbour: [B, D, K].

    Source: arXiv:2211.00802, eq. 2. Entry (d, k) is the neighbour with x_d = k, so the cycle's neighbour
    x_d + 1 is entry (d, (x_d + 1) mod K).
    """
    exists = jnp.arange(max(self.sizes))[None, :] < jnp.array(self.sizes)[:, None]
    return jnp.where(exists[None], self.ratios(x, t) - 1.0, 0.0)

  def log_posterior(self, x: jax.Array, t: jax.Array) -> jax.Array:
    """log p(x_0 | x_t = x) of every clean state: [B, K_1, ..., K_D]."""
    x, t = self._check(x, t)
    b = self.schedule(t).noised
    log_joint = jnp.log(self._start(b))
    for d, size in enumerate(self.sizes):
      shape = [-1 if a == d + 1 else 1 for a in range(log_joint.ndim)]
      shape[0] = x.shape[0]
      log_joint = log_joint + self._log_kernel(x[:, d], b, size).reshape(shape)
    axes = tuple(range(1, log_joint.ndim))
    return log_joint - jax.scipy.special.logsumexp(log_joint, axis=axes, keepdims=True)

  def logits(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Logits of p(x_0 = k | x_t = x) of each coordinate, normalised: [B, D, K]."""
    spectral.check_no_condition(cond)
    log_posterior = self.log_posterior(x, t)
    axes = range(1, log_posterior.ndim)
    logits = [
      jax.scipy.special.logsumexp(log_posterior, axis=tuple(a for a in axes if a != d + 1))
      for d in range(len(self.sizes))
    ]
    return jnp.stack([self._pad(value, -jnp.inf) for value in logits], axis=1)

  def probabilities(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """p(x_0 = k | x_t = x) of each coordinate: [B, D, K]."""
    return jnp.exp(self.logits(x, t, cond))

  def log_kernel(self, x: jax.Array, x0: jax.Array, t: jax.Array) -> jax.Array:
    """log q(x_t = x | x_0) in nats, summed over coordinates: [B]."""
    x, t = self._check(x, t)
    b = self.schedule(t).noised
    log_q = jnp.zeros_like(b)
    for d, size in enumerate(self.sizes):
      log_q = log_q + jnp.take_along_axis(self._log_kernel(x0[:, d], b, size), x[:, d : d + 1], axis=1)[:, 0]
    return log_q

  def perturb(self, key: jax.Array, x0: jax.Array, t: jax.Array) -> jax.Array:
    """A draw of x_t given x_0: [B, D] int; row i depends on (key, i) alone."""
    x0, t = self._check(x0, t)
    b, sizes = self.schedule(t).noised, jnp.array(self.sizes)
    again, value = spectral.sample_keys(key, x0.shape[0], 2)
    resampled = jax.vmap(lambda k, b: jax.random.uniform(k, sizes.shape, b.dtype) < b)(again, b)
    uniform = jax.vmap(lambda k: jax.random.randint(k, sizes.shape, 0, sizes, x0.dtype))(value)
    return jnp.where(resampled, uniform, x0)

  def sample(self, key: jax.Array, n: int, t: Any = None) -> jax.Array:
    """Draws of x_t, or of the data for t None: [n, D] int32.

    t is a number or [n]. Sample i depends on (key, i) alone.
    """
    clean, noise = jax.random.split(key)
    (keys,) = spectral.sample_keys(clean, n, 1)
    flat = jax.vmap(lambda k: jax.random.categorical(k, jnp.log(self.probs.reshape(-1))))(keys)
    x0 = jnp.stack(jnp.unravel_index(flat, self.sizes), axis=1).astype(jnp.int32)
    return (
      x0 if t is None else self.perturb(noise, x0, jnp.broadcast_to(jnp.asarray(t, self.probs.dtype), (n,)))
    )

  def _start(self, b):
    return jnp.broadcast_to(self.probs[None], (b.shape[0], *self.sizes))

  def _diffuse(self, table, b, axes):
    """The kernel on the given coordinates: (1 - b) p + b mean(p), every term of one sign."""
    b = b.reshape(b.shape + (1,) * len(self.sizes))
    for d in axes:
      table = (1.0 - b) * table + b * jnp.mean(table, axis=d + 1, keepdims=True)
    return table

  def _log_kernel(self, value, b, size):
    """log q between `value` [B] and each value of one coordinate, symmetric: [B, K_d]."""
    same = value[:, None] == jnp.arange(size, dtype=value.dtype)[None, :]
    return jnp.where(same, jnp.log1p(b / size - b)[:, None], jnp.log(b / size)[:, None])

  def _look_up(self, table, x):
    return jax.vmap(lambda p, row: p[tuple(row)])(table, x)

  def _along(self, table, x, d):
    """The table at x with coordinate d free: [B, K_d]."""
    return jax.vmap(
      lambda p, row: p[tuple(slice(None) if e == d else row[e] for e in range(len(self.sizes)))]
    )(table, x)

  def _pad(self, values, fill):
    return jnp.pad(values, ((0, 0), (0, max(self.sizes) - values.shape[1])), constant_values=fill)

  def _check(self, x, t):
    x, t = jnp.asarray(x), jnp.asarray(t)
    if x.ndim != 2 or x.shape[1] != len(self.sizes) or not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError(
        f"x must be integers [B, {len(self.sizes)}], one column a coordinate, got shape {x.shape} of "
        f"{x.dtype}"
      )
    if t.shape != x.shape[:1]:
      raise ValueError(
        f"t has shape {t.shape} and x has shape {x.shape}: give one time for each row, for example "
        f"jnp.full(({x.shape[0]},), t)"
      )
    return x, t


def uniform_resample_categorical(
  probs: Any, schedule: KeepSchedule | None = None, dtype: Any = None
) -> UniformResampleCategorical:
  """The oracle of a small categorical under the uniform-resample kernel (arXiv:2211.00802).

  Args:
    probs: [K_1, ..., K_D] joint probabilities of D coordinates, or a list of D vectors for independent ones;
      none negative, normalised here. The table of every state is held for each row of a batch: keep it to
      some thousand states.
    schedule: of alpha = 1 - b, such as `processes.linear_keep()`, the default, where t is b itself.
    dtype: of its arrays; by default float64 where JAX allows it, else float32.

  Raises:
    ValueError: a negative probability, a coordinate with fewer than two values, or a table of more than 10^6
      states.

  >>> oracle = uniform_resample_categorical([0.7, 0.2, 0.1])
  >>> x, b = jnp.array([[0], [0]]), jnp.array([0.0, 1.0])
  >>> print(np.exp(oracle.logits(x, b))[:, 0].round(2))      # certain without noise, the data's own at b = 1
  [[1.  0.  0. ]
   [0.7 0.2 0.1]]
  """
  joint = joint_table(probs)
  return UniformResampleCategorical(
    jnp.asarray(joint, dtype or spectral.default_dtype()), linear_keep() if schedule is None else schedule
  )


def joint_table(probs: Any) -> np.ndarray:
  """Joint probabilities [K_1, ..., K_D] in float64, normalised, from a table or a list of D vectors.

  Raises ValueError for a negative probability, a coordinate with fewer than two values, or more than 10^6
  states.
  """
  if isinstance(probs, (list, tuple)) and np.ndim(probs[0]) == 1:
    vectors = [np.asarray(p, np.float64) for p in probs]
    joint = np.ones(())
    for vector in vectors:
      joint = np.multiply.outer(joint, vector)
  else:
    joint = np.asarray(probs, np.float64)
  if joint.ndim == 0 or min(joint.shape) < 2:
    raise ValueError(f"every coordinate needs two or more values, got a table of shape {joint.shape}")
  if joint.size > 10**6:
    raise ValueError(
      f"the table has {joint.size} states and is held for each row of a batch: 10^6 is the most"
    )
  if not np.all(joint >= 0) or not 0 < joint.sum() < np.inf:
    raise ValueError("probs must hold numbers that are not negative and not all zero")
  return joint / joint.sum()
