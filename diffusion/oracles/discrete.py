"""A finite categorical distribution under any discrete process whose coordinates are noised on their own.

The joint table is small enough to hold and each coordinate has its transition matrix, so everything is exact
(arXiv:2107.03006; 2310.16834).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.oracles import spectral
from diffusion.oracles.categorical import joint_table
from diffusion.oracles.joint_tables import JointTables
from diffusion.oracles.mixture import host_labels, host_log_weights


@struct.dataclass
class Discrete(JointTables):
  """See `discrete`. x: [B, *shape] int, D coordinates of at most K values and of S states under noise.

  Every method takes `cond={'label': [B] int}`, which keeps the tables of that class (-1: all), where labels
  were given. At an x of probability zero, views are not defined.
  """

  process: Any
  log_weights: Any  # [M], normalised
  tables: Any  # [M, K_1, ..., K_D], each sums to one
  labels: Any = None  # [M] int32 or None

  @property
  def methods(self) -> tuple[str, ...]:
    """Views that it answers: 'rates' where the process has them."""
    return ("energy", "logits", "probabilities", "ratios", "time_score") + self.process.jumps * ("rates",)

  def law(self, t: jax.Array, cond: Any = None) -> jax.Array:
    """p_t of every state: [B, S, ..., S] for t [B]."""
    law = self._joint(cond, t.shape[0])
    for d, kernel in enumerate(self._kernels(t)):
      law = jnp.moveaxis(law, d + 1, -1)
      law = jnp.einsum("b...i,bij->b...j", law, kernel, precision=spectral.PRECISION)
      law = jnp.moveaxis(law, -1, d + 1)
    return law

  def log_prob(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """log p_t(x) in nats: [B]."""
    flat, t = self._check(x, t)
    likelihoods = self._likelihoods(flat, t)
    return jnp.log(jnp.sum(self._message(0, likelihoods, cond) * likelihoods[0], axis=-1))

  def time_score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """d/dt log p_t(x), in nats per unit of t: [B]."""
    _, t = self._check(x, t)
    return jax.jvp(lambda t: self.log_prob(x, t, cond), (t,), (jnp.ones_like(t),))[1]

  def probabilities(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """p(x_0 = k | x_t = x) of each coordinate: [B, *shape, K]."""
    flat, t = self._check(x, t)
    likelihoods, found = self._likelihoods(flat, t), []
    for d, own in enumerate(likelihoods):
      joint = self._message(d, likelihoods, cond) * own
      found.append(self._padded(joint / jnp.sum(joint, axis=-1, keepdims=True), self.process.num_values))
    return jnp.stack(found, axis=1).reshape(*x.shape, -1)

  def ratios(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """p_t(x with the coordinate set to k) / p_t(x): [B, *shape, S].

    0 for states that noise never turns into the coordinate's own, as in the view of the process.
    """
    flat, t = self._check(x, t)
    likelihoods, kernels, found = self._likelihoods(flat, t), self._kernels(t), []
    for d, (own, kernel) in enumerate(zip(likelihoods, kernels)):
      message = self._message(d, likelihoods, cond)
      there = jnp.einsum("bi,bij->bj", message, kernel, precision=spectral.PRECISION)
      here = jnp.sum(message * own, axis=-1, keepdims=True)
      found.append(self._padded(there / here, self.process.num_states))
    ratios = jnp.stack(found, axis=1).reshape(*x.shape, -1)
    return jnp.where(self.process.sources(x), ratios, 0.0)

  def rates(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """The jump rates of the reverse chain from x to every state of each coordinate: [B, *shape, S]."""
    _, t = self._check(x, t)
    return self.process.posterior_rates(self.probabilities(x, t, cond), x, t)

  def _kernels(self, t):
    """q(x_t | x_0) of each coordinate: D times [B, K_d, states of the coordinate]."""
    found, mask = {}, self.process.mask
    for size in set(self.tables.shape[1:]):
      matrix = self.process.transition(None, t, size).astype(self.tables.dtype)
      own = matrix[:, :size, :size]
      found[size] = own if mask is None else jnp.concatenate([own, matrix[:, :size, mask:]], axis=-1)
    return [found[size] for size in self.tables.shape[1:]]

  def _likelihoods(self, flat, t):
    """q(x_t = x | x_0 = k) of each coordinate: D times [B, K_d]."""
    column = jax.vmap(lambda kernel, state: kernel[:, state])
    return [
      column(kernel, jnp.minimum(flat[:, d], kernel.shape[-1] - 1))
      for d, kernel in enumerate(self._kernels(t))
    ]

  def _message(self, d, likelihoods, cond):
    """The joint probability of x_0 at coordinate d and of what x shows at all others: [B, K_d]."""
    joint = jnp.moveaxis(self._joint(cond, likelihoods[0].shape[0]), d + 1, 1)
    for own in reversed([own for e, own in enumerate(likelihoods) if e != d]):
      joint = jnp.einsum("b...i,bi->b...", joint, own, precision=spectral.PRECISION)
    return joint

  def _padded(self, values, number):
    """Values of a coordinate [B, n] among all: [B, number], 0 where there are none; the mask comes last."""
    size = values.shape[-1] - (number > self.process.num_values)
    blank = jnp.zeros((values.shape[0], number - values.shape[-1]), values.dtype)
    return jnp.concatenate([values[:, :size], blank, values[:, size:]], axis=-1)


def discrete(
  process: Any, probs: Any, weights: Any = None, labels: Any = None, dtype: Any = None
) -> Discrete:
  """The oracle of a small categorical under any discrete process, by its transition matrices.

  Args:
    process: a discrete one of D coordinates, such as `processes.uniform_resample(3, (5,))`.
    probs: joint probabilities [K_1, ..., K_D] of D coordinates, or a list of D vectors for independent ones;
      with `weights` a list of M such tables. None negative, normalised here. The table of every state is held
      for each row of a batch: keep it to some thousand states.
    weights: None, or M positive weights of a mixture.
    labels: None, or M integers, the class of each table of a mixture.
    dtype: of its arrays; by default float64 where JAX allows it, else float32.

  Raises:
    ValueError: a table that does not fit the process, a negative probability, weights that are not positive.

  >>> from diffusion import processes
  >>> oracle = discrete(processes.uniform_resample(2, (2,)), np.array([[0.4, 0.1], [0.1, 0.4]]))
  >>> x, t = jnp.array([[0, 1]]), jnp.array([0.5])
  >>> print(np.asarray(oracle.probabilities(x, t)).round(3)[0])             # of each coordinate
  [[0.618 0.382]
   [0.382 0.618]]
  >>> print(np.asarray(oracle.ratios(x, t)).round(3)[0])                    # to 01 and 11, to 00 and 01
  [[1.    1.353]
   [1.353 1.   ]]
  """
  tables = [joint_table(table) for table in ([probs] if weights is None else probs)]
  wanted = process.value_counts()
  for table in tables:
    if table.shape != wanted:
      raise ValueError(
        f"'{process.name}' has coordinates of {', '.join(map(str, wanted))} values, so that probs is a table "
        f"of shape {wanted}, got {table.shape}"
      )
  dtype = dtype or spectral.default_dtype()
  return Discrete(
    process,
    jnp.asarray(host_log_weights([1.0] if weights is None else weights, len(tables)), dtype),
    jnp.asarray(np.stack(tables), dtype),
    host_labels(labels, len(tables)),
  )
