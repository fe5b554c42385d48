"""A finite categorical distribution whose coordinates are masked.

Sources: arXiv:2107.03006, appendix A.2.2; arXiv:2406.07524.

What is not masked is known, so the posterior of the others does not depend on time: it is the data's own,
given what is seen. The joint table is small enough to hold, so everything is exact.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.oracles import spectral
from diffusion.oracles.categorical import joint_table
from diffusion.oracles.joint_tables import JointTables
from diffusion.oracles.mixture import host_labels, host_log_weights
from diffusion.processes.masked import Masked


@struct.dataclass
class MaskedCategorical(JointTables):
  """A mixture of categoricals in D coordinates of K values, under masking.

  x: [B, *shape] int, K where masked.

  Every method takes `cond={'label': [B] int}`, which keeps the tables of that class (-1: all), where labels
  were given. Where what is seen has probability zero, its logits are not defined.
  """

  process: Masked
  log_weights: Any  # [M], normalised
  tables: Any  # [M, K, ..., K], each sums to one
  labels: Any = None  # [M] int32 or None

  methods: ClassVar[tuple[str, ...]] = ("energy", "logits", "probabilities", "time_score")

  def log_prob(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """The log-probability log p_t(x) in nats: [B].

    p_t(x) is the product of (1 - alpha) for each mask, alpha for each other and the probability of what is
    seen.
    """
    flat, t = self._check(x, t)
    keep, masks = self.process.clock(t), self._count(flat)
    seen = jnp.log(jnp.sum(self._agreeing(flat, cond).reshape(flat.shape[0], -1), axis=1))
    return seen + _times(masks, jnp.log(keep.noised)) + _times(flat.shape[1] - masks, jnp.log(keep.alpha))

  def time_score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """d/dt log p_t(x), in nats per unit of t: [B]."""
    del cond  # which changes no number here
    flat, t = self._check(x, t)
    keep, masks = self.process.clock(t), self._count(flat)
    return _times(flat.shape[1] - masks, keep.d_alpha / keep.alpha) - _times(
      masks, keep.d_alpha / keep.noised
    )

  def probabilities(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """p(x_0 = k | x_t = x) of each coordinate: [B, *shape, K]."""
    flat, _ = self._check(x, t)
    joint = self._agreeing(flat, cond)
    axes = range(1, joint.ndim)
    each = jnp.stack([jnp.sum(joint, axis=tuple(a for a in axes if a != d)) for d in axes], axis=1)
    each = each / jnp.sum(each, axis=-1, keepdims=True)
    return each.reshape(*x.shape, self.process.num_values)

  def _agreeing(self, flat, cond):
    """p(x_0) where it agrees with what is seen, else 0: [B, K, ..., K]."""
    joint = self._joint(cond, flat.shape[0])
    values = jnp.arange(self.process.num_values, dtype=flat.dtype)[None, :]
    for d in range(flat.shape[1]):
      own = flat[:, d : d + 1]
      fits = (own == values) | (own == self.process.mask)
      shape = [flat.shape[0]] + [-1 if a == d else 1 for a in range(flat.shape[1])]
      joint = jnp.where(fits.reshape(shape), joint, 0.0)
    return joint

  def _count(self, flat):
    """How many coordinates are masked: [B], in the dtype of the tables."""
    return jnp.sum(flat == self.process.mask, axis=1).astype(self.tables.dtype)


def _times(count, rate):
  """count * rate, zero where there is nothing to count even if the rate is infinite."""
  return jnp.where(count > 0, count * jnp.where(count > 0, rate.astype(count.dtype), 0.0), 0.0)


def masked_categorical(
  process: Masked, probs: Any, weights: Any = None, labels: Any = None, dtype: Any = None
) -> MaskedCategorical:
  """The oracle of a small categorical under masking (arXiv:2406.07524).

  Args:
    process: from `processes.masked`, with D coordinates of K values.
    probs: joint probabilities [K, ..., K] of D coordinates, or a list of D vectors for independent ones; with
      `weights` a list of M such tables. None negative, normalised here. The table of every state is held
      for each row
      of a batch: keep it to some thousand states.
    weights: None, or M positive weights of a mixture.
    labels: None, or M integers, the class of each table of a mixture.
    dtype: of its arrays; by default float64 where JAX allows it, else float32.

  Raises:
    ValueError: a table that does not fit the process, a negative probability, weights that are not positive.

  >>> from diffusion import processes
  >>> oracle = masked_categorical(processes.masked(2, (2,)), np.array([[0.4, 0.1], [0.1, 0.4]]))
  >>> np.asarray(oracle.probabilities(jnp.array([[2, 2], [0, 2]]), jnp.full(2, 0.5))).round(2).tolist()
  [[[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.8..., 0.2...]]]
  """
  tables = [joint_table(table) for table in ([probs] if weights is None else probs)]
  wanted = (process.num_values,) * int(np.prod(process.shape))
  for table in tables:
    if table.shape != wanted:
      raise ValueError(
        f"'{process.name}' has {len(wanted)} coordinates of {process.num_values} values, so that probs is a "
        f"table of shape {wanted}, got {table.shape}"
      )
  dtype = dtype or spectral.default_dtype()
  return MaskedCategorical(
    process,
    jnp.asarray(host_log_weights([1.0] if weights is None else weights, len(tables)), dtype),
    jnp.asarray(np.stack(tables), dtype),
    host_labels(labels, len(tables)),
  )
