"""How rare a sample is to a model: the minority score, and the target of minority guidance."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.denoisers import Denoiser


def minority_score(
  denoiser: Denoiser,
  x0: jax.Array,
  t: Any,
  keys: jax.Array,
  *,
  draws: int = 5,
  cond: Any = None,
  distance: Callable[..., jax.Array] | None = None,
) -> jax.Array:
  """The minority score, [B]: larger where the model expects something else.

  It is E d(x0, x0_hat(x_t)) over noise at time t (arXiv:2301.12334, eq. 8).

  A denoiser pulls what is rare towards what is common, so the distance grows with rarity. Classified into
  bins by `minority_bins` and learned by a noise-conditional classifier, it is what `guidance.classifier`
  steers towards.

  Args:
    denoiser: a denoiser.
    x0: [B, ...] data in the units of the model.
    t: one time; the noise of about six tenths of a schedule is what the authors use.
    keys: [B] typed keys, one a row.
    draws: of the noise, for each row.
    cond: a condition [B].
    distance: (x0, x0_hat) -> [B]; by default the mean squared difference.

  >>> from diffusion import oracles, processes
  >>> data = oracles.gaussian_mixture(processes.edm(), [0.9, 0.1], [[-1.0], [1.0]], 0.01)
  >>> x0, keys = jnp.array([[-1.0], [1.0]]), jax.random.split(jax.random.key(0), 2)
  >>> common, rare = minority_score(data, x0, 2.0, keys, draws=64)
  >>> bool(rare > 10 * common)
  True
  """
  if distance is None:
    distance = lambda a, b: jnp.mean(jnp.square(a - b).reshape(a.shape[0], -1), axis=1)
  times = jnp.full(x0.shape[0], t, x0.dtype)

  def one(number):
    eps = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), x0.shape[1:], x0.dtype))(
      keys
    )
    return distance(x0, denoiser(denoiser.process.corrupt(x0, eps, times), times, cond, views=("x0",)).x0)

  return jnp.mean(jax.lax.map(one, jnp.arange(draws)), axis=0)


def minority_bins(scores: Any, count: int = 100) -> np.ndarray:
  """Minority bins of equal share by the quantiles of the scores: int32 [N].

  They go from 0 (most common) to count - 1 (rarest). Scores are [N]; the bins are on the host.

  Raises:
    ValueError: more bins than scores, or fewer than two.

  >>> minority_bins(np.array([0.3, 0.1, 0.2, 0.9]), 2).tolist()
  [1, 0, 0, 1]
  """
  scores = np.asarray(scores, np.float64)
  if not 2 <= count <= len(scores):
    raise ValueError(f"{len(scores)} scores can be sorted into 2 to {len(scores)} bins, got {count}")
  rank = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
  return (rank * count // len(scores)).astype(np.int32)
