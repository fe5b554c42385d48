"""The noise that unnormalised models are compared with.

It is given, or fitted to the data by maximum likelihood.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Draw, Placed
from diffusion.losses.directions import with_directions
from diffusion.math.precision import sum_rows
from diffusion.processes.base import expand


@dataclasses.dataclass(frozen=True)
class Noise:
  """A density to draw from and to evaluate, noised as the data are.

  It is three functions, of parameters that may be {}.

  init(key) -> params; sample(params, z, alpha, sigma) -> x_t like z, from standard normal z [B, ...];
  log_prob(params, x, alpha, sigma) -> [B] in nats. alpha, sigma: [B], one and zero on clean data. `learned`
  says whether the parameters are to be fitted to the data; a flow of the reader's own is three such
  functions.
  """

  init: Callable
  sample: Callable
  log_prob: Callable
  learned: bool = False


def gaussian_noise(mean: Any = 0.0, std: Any = 1.0) -> Noise:
  """A Gaussian guess of the data, N(mean, std^2 I).

  Noised by the process it is N(alpha mean, (alpha^2 std^2 + sigma^2) I).

  mean, std: numbers or arrays shaped like one example. Broader than the data is safe, narrower is not:
  importance weights p/q then have a large or infinite variance. Raises ValueError unless std is positive.

  >>> import jax.numpy as jnp
  >>> float(gaussian_noise(0.0, 2.0).log_prob({}, jnp.zeros((1, 1)), jnp.ones(1), jnp.zeros(1))[0])
  -1.612...
  """
  check_std(std)
  given = {"mean": np.asarray(mean, np.float64), "log_std": np.log(np.asarray(std, np.float64))}
  return _gaussian(lambda key: {}, lambda params: given, learned=False)


def fitted_gaussian_noise(mean: Any = 0.0, std: Any = 1.0) -> Noise:
  """A Gaussian with a learned mean and standard deviation for every dimension.

  They are learned by maximum likelihood in the loss.

  mean, std: where it starts, numbers (one of each is then learned) or arrays shaped like one example. Raises
  ValueError unless std is positive.

  >>> import jax
  >>> fitted_gaussian_noise(np.zeros(3)).init(jax.random.key(0))["mean"].shape
  (3,)
  """
  check_std(std)
  shape = np.broadcast_shapes(np.shape(mean), np.shape(std))
  start = lambda key: {
    "mean": jnp.full(shape, jnp.asarray(mean, jnp.result_type(float))),
    "log_std": jnp.full(shape, jnp.log(jnp.asarray(std, jnp.result_type(float)))),
  }
  return _gaussian(start, lambda params: params, learned=True)


def _gaussian(init, values, *, learned):
  def moments(params, x, alpha, sigma):
    own = values(params)
    shape = (1, *x.shape[1:])
    mean, log_std = (
      jnp.broadcast_to(jnp.asarray(own[name], x.dtype), x.shape[1:]).reshape(shape)
      for name in ("mean", "log_std")
    )
    a, b = expand(alpha.astype(x.dtype), x), expand(sigma.astype(x.dtype), x)
    return a * mean, jnp.square(a) * jnp.exp(2.0 * log_std) + jnp.square(b)

  def sample(params, z, alpha, sigma):
    mean, variance = moments(params, z, alpha, sigma)
    return mean + jnp.sqrt(variance) * z

  def log_prob(params, x, alpha, sigma):
    mean, variance = moments(params, x, alpha, sigma)
    return sum_rows(-0.5 * jnp.square(x - mean) / variance - 0.5 * jnp.log(2.0 * np.pi * variance))

  return Noise(init, sample, log_prob, learned)


def check_std(std: Any) -> None:
  """Raises ValueError unless every standard deviation is positive."""
  if not np.all(np.asarray(std) > 0):
    raise ValueError(f"the standard deviation of the noise is positive, got {std}")


def check_noise(noise: Any, who: str) -> None:
  """Raises TypeError unless it is a `Noise`."""
  if not isinstance(noise, Noise):
    raise TypeError(
      f"{who} takes a noise such as losses.gaussian_noise(0.0, 2.0), got {type(noise).__name__}"
    )


def with_normals(process: Any, who: str, num: int) -> Callable[..., Draw]:
  """The draw of x_t together with normals for the samples of the noise.

  They are targets['normal'] [B, num, ...]. The noise turns them into its samples in `evaluate`.
  """
  inner = with_directions(process, who, "gaussian", num)

  def draw(key, batch, t, state):
    drawn = inner(key, batch, t, state)
    return drawn.replace(targets={"normal": drawn.targets["direction"]})

  return draw


def levels(process: Any, placed: Placed) -> tuple[jax.Array, jax.Array]:
  """(alpha [B], sigma [B]); one and zero on clean data."""
  if process is None:
    one = jnp.ones(placed.x_t.shape[0], placed.x_t.dtype)
    return one, jnp.zeros_like(one)
  m = process.marginal(placed.t)
  return m.alpha, m.sigma
