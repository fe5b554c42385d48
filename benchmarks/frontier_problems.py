"""Problems whose denoiser is known in closed form, and the exact end of their probability flow.

With y = x/alpha and rho = sigma/alpha the posterior mean of a Gaussian mixture depends on (y, rho) alone, so
every problem meets both kinds of noise, and other libraries are handed the very function that ours calls."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion import processes, solvers
from diffusion.denoisers import Prediction, WithoutParameters

NOISES = {"vp": processes.vp_linear, "edm": processes.edm}


@struct.dataclass
class Mixture(WithoutParameters):
  """Data sum_k w_k N(m_k, U_k diag(v_k) U_k^T); a denoiser of the given process that answers with x0 and eps.

  Unlike `diffusion.oracles`, which differences before it squares, this expands the squares into matrix
  products: many times faster with the 1797 components of the digits, and as good in float64 where no variance
  is small.
  """

  process: Any
  log_weights: Any  # [K]
  means: Any  # [K, D]
  variances: Any  # one number for all, or [K, D] along the columns of basis
  basis: Any = None  # None, or [K, D, D]

  views = ("x0", "eps")

  def clean(self, y, rho):
    """E[x0 | x0 + rho eps = y]: y [B, D], rho [B] -> [B, D]."""
    if self.basis is None:
      total = (self.variances + rho**2)[:, None]
      square = jnp.sum(y**2, axis=1)[:, None] + jnp.sum(self.means**2, axis=1)[None, :] - 2 * y @ self.means.T
      weights = jax.nn.softmax(self.log_weights[None, :] - 0.5 * square / total, axis=1)
      mean = weights @ self.means
      return mean + self.variances / total * (y - mean)
    count, size = self.means.shape
    columns = jnp.moveaxis(self.basis, 0, 1).reshape(size, count * size)
    precision = 1 / (self.variances[None, :, :] + (rho**2)[:, None, None])
    centred = (y @ columns).reshape(-1, count, size) - jnp.einsum("kd,kde->ke", self.means, self.basis)[
      None, :, :
    ]
    # Few logarithms, of products: 64 variances of at most 2.4e4 stay below float64's limit, 4 of them below
    # float32's.
    parts = precision.reshape(
      -1,
      count,
      1 if precision.dtype == np.float64 else size // 4,
      size if precision.dtype == np.float64 else 4,
    )
    log_normal = 0.5 * (
      jnp.sum(jnp.log(jnp.prod(parts, axis=3)), axis=2) - jnp.sum(centred**2 * precision, axis=2)
    )
    weights = jax.nn.softmax(self.log_weights[None, :] + log_normal, axis=1)
    pulled = weights[:, :, None] * self.variances[None, :, :] * precision * centred
    return weights @ self.means + pulled.reshape(-1, count * size) @ columns.T

  def __call__(self, x, t, cond=None, *, views=("x0", "eps"), key=None, train=False):
    del cond, key, train
    m = self.process.marginal(t)
    alpha, sigma = m.alpha[:, None], m.sigma[:, None]
    x0 = self.clean(x / alpha, m.sigma / m.alpha)
    return Prediction(**{name: x0 if name == "x0" else (x - alpha * x0) / sigma for name in views})

  def draw(self, seed, n):
    """Samples of the data: [n, D], on the host."""
    rng = np.random.default_rng(seed)
    which = rng.choice(len(self.log_weights), n, p=np.exp(np.asarray(self.log_weights)))
    offset = rng.normal(size=(n, self.means.shape[1])) * np.sqrt(
      np.broadcast_to(self.variances, self.means.shape)[which]
    )
    if self.basis is not None:
      offset = np.einsum("nde,ne->nd", np.asarray(self.basis)[which], offset)
    return np.asarray(self.means)[which] + offset


def ring(process):
  """Six Gaussians of std 0.25 on a circle of radius 2 in the plane, with weights 1 to 6."""
  angle = 2 * np.pi * np.arange(6) / 6
  weights = np.arange(1, 7) / 21
  return Mixture(
    process, np.log(weights), 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.float64(0.25**2)
  )


def ill_conditioned(process, count=10, size=64):
  """Ten Gaussians in 64 dimensions, each with standard deviations from 0.05 to 1 along axes of its own
  (condition number 400)."""
  rng = np.random.default_rng(0)
  basis = np.stack([np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(count)])
  stds = np.stack([rng.permutation(np.geomspace(0.05, 1.0, size)) for _ in range(count)])
  weights = np.arange(1, count + 1) / (count * (count + 1) / 2)
  return Mixture(process, np.log(weights), rng.normal(size=(count, size)), stds**2, basis)


def digits(process):
  """The 1797 pictures of scikit-learn's 8 x 8 digits in [-1, 1], each a Gaussian of std 0.1 in 64
  dimensions."""
  from sklearn import datasets

  pictures = datasets.load_digits().data / 8.0 - 1.0
  return Mixture(process, np.full(len(pictures), -np.log(len(pictures))), pictures, np.float64(0.1**2))


PROBLEMS = {"ring2d": ring, "gmm64": ill_conditioned, "digits": digits}


@struct.dataclass
class Case:
  """A problem under one noise, the common starts and the exact answers.

  Attributes:
    problem, noise: their names.
    denoiser: the exact denoiser, float64.
    x: [B, D] starts at t_max.
    exact: [B, D] where the probability flow takes them at sigma = 0.
    error: RMSE between `exact` and the same with half as many steps.
  """

  problem: str = struct.field(pytree_node=False)
  noise: str = struct.field(pytree_node=False)
  denoiser: Any
  x: Any
  exact: Any
  error: float


def smooth_grid(process, n):
  """n steps from t_max to sigma = 0 that are even in asinh(rho / 0.05): logarithmic at high noise, even in
  rho near the data."""
  top = float(process.marginal(process.t_max).noise_to_signal)
  rho = 0.05 * np.sinh(np.linspace(np.arcsinh(top / 0.05), 0.0, n + 1))
  times = process.t_of_log_snr(-2 * np.log(np.where(rho > 0, rho, 1.0)))
  return np.concatenate([[float(process.t_max)], times[1:-1], [0.0]])


def exact_end(denoiser, x, steps):
  """Adams-Bashforth of order 4 in rho from t_max to sigma = 0: [B, D]."""
  process = denoiser.process
  return np.asarray(
    solvers.sample(denoiser, solvers.lms(process, smooth_grid(process, steps), dtype=np.float64), x)
  )


def case(problem, noise, starts, steps=2000, seed=1):
  """A `Case`; needs x64."""
  denoiser = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), PROBLEMS[problem](NOISES[noise]()))
  x = np.random.default_rng(seed).normal(size=(starts, denoiser.means.shape[1])) * float(
    denoiser.process.prior_std
  )
  fine, coarse = (exact_end(denoiser, x, n) for n in (steps, steps // 2))
  return Case(problem, noise, denoiser, x, fine, rmse(fine, coarse))


def rmse(x, exact):
  """Root mean square over samples and dimensions; inf where a method has blown up."""
  with np.errstate(over="ignore", invalid="ignore"):
    value = float(np.sqrt(np.mean((np.asarray(x, np.float64) - exact) ** 2)))
  return value if np.isfinite(value) else float("inf")


def median_error(x, exact):
  """The median over samples of each one's root mean square over dimensions."""
  with np.errstate(over="ignore", invalid="ignore"):
    value = float(np.median(np.sqrt(np.mean((np.asarray(x, np.float64) - exact) ** 2, axis=1))))
  return value if np.isfinite(value) else float("inf")


@functools.partial(jax.jit, static_argnames=())
def clean(denoiser, y, rho):
  """The denoiser in (y, rho), compiled: y [B, D], rho a number -> [B, D]."""
  return denoiser.clean(y, jnp.broadcast_to(rho, y.shape[:1]))
