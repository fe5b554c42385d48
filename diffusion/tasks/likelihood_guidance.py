"""Posterior sampling by a likelihood added to the score: DPS for any measurement, PiGDM for linear ones."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer
from jax.typing import ArrayLike

from diffusion.denoisers import Prediction, check_views
from diffusion.guidance.shift import GaussianWrapper, shifted, with_view
from diffusion.math.precision import sum_rows
from diffusion.processes.base import GaussianProcess, Number, expand
from diffusion.tasks.measurement import Measurement


@struct.dataclass
class LikelihoodGuidance(GaussianWrapper):
  """A denoiser of p(x | y) at each noise level, approximately; see `dps` and `pigdm`.

  Attributes:
    inner: of the prior.
    measurement, y: what was measured, [B, *measured].
    scale: factor of the likelihood's score.
    data_variance: variance of the data that decides the spread of x0 given x_t, or None: no spread.
    through_operator: whether the spread goes through a linear operator (PiGDM), or widens the noise of y
      (DPS).
    normalized: whether the noise of y is at least the root mean square of what is left of it (DPS).
  """

  inner: Any
  measurement: Measurement
  y: jax.Array
  scale: Number
  data_variance: Number | None = None
  through_operator: bool = struct.field(pytree_node=False, default=False)
  normalized: bool = struct.field(pytree_node=False, default=False)

  @property
  def needs_signal(self) -> bool:
    """Yes: it changes the score, of which x0 knows nothing where there is no signal."""
    return True

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("x0", "eps"),
    key: jax.Array | None = None,
    train: bool = False,
  ) -> Prediction:
    """As a denoiser; row i sees y[i]."""
    check_views(views, self.views)
    self.measurement.check(x.shape, self.y.shape)

    def forward(x):
      prediction = self.inner(x, t, cond, views=with_view(views, "x0"), key=key, train=train)
      return prediction.x0, prediction

    x0, back, prediction = jax.vjp(forward, x, has_aux=True)
    y = self.y.astype(x.dtype)
    spread = None if self.data_variance is None else posterior_spread(self.process, t, self.data_variance)
    if self.through_operator:
      width = cast(jax.Array, spread)  # which goes through an operator where there is one
      pull = self.measurement.adjoint(self.measurement.solve(width, y - self.measurement(x0)))
    else:
      noise = jnp.asarray(self.measurement.noise, y.dtype)
      wider = self.measurement
      if self.normalized:
        left = sum_rows(jnp.square(y - self.measurement(x0))) / self.measurement.count(y)
        wider = dataclasses.replace(wider, noise=expand(jnp.sqrt(jnp.maximum(noise**2, left)), y))
      elif spread is not None:
        wider = dataclasses.replace(
          wider, noise=expand(jnp.sqrt(noise**2 + spread.astype(y.dtype) * self.measurement.steepness(x0)), y)
        )
      pull = jax.grad(lambda x0: jnp.sum(wider.log_likelihood(y, x0)))(x0)
    scale = jnp.asarray(self.scale, x.dtype)
    return shifted(self.process, prediction, t, "score", scale * back(pull.astype(x0.dtype))[0]).only(views)


def data_variance(data_std: Number) -> Number:
  """The square of a standard deviation above nought; ValueError for another."""
  if not isinstance(data_std, Tracer) and not np.all(np.asarray(data_std) > 0):
    raise ValueError(
      f"data_std is the standard deviation of the data in the units of the model, above 0, got {data_std}"
    )
  return data_std**2


def posterior_spread(process: GaussianProcess, t: jax.Array, data_variance: Number) -> jax.Array:
  """Variance of x0 given x_t of data N(m, v I): v sigma^2 / (alpha^2 v + sigma^2), [B]."""
  m = process.marginal(t)
  v = jnp.asarray(data_variance, t.dtype)
  return v * m.sigma**2 / (m.alpha**2 * v + m.sigma**2)


def dps(
  measurement: Measurement,
  y: ArrayLike,
  scale: Number = 1.0,
  data_std: Number | None = None,
  normalized: bool = False,
) -> Callable[[Any], LikelihoodGuidance]:
  """DPS: guidance by the likelihood of any differentiable measurement (arXiv:2209.14687, eq. 11).

  The guided score is score + scale grad_x log p(y | x0_hat(x_t)).

  The posterior mean stands for x0, as if x_t told it exactly. At high noise levels that likelihood is far too
  sharp, and so stiff where the noise of y is small that few steps diverge. With a data_std the noise of y is
  widened by the spread that x0 has given x_t for data N(m, data_std^2 I), times the operator's largest
  squared singular value there: stable with any number of steps, and where A A^T = c times the identity
  exactly `pigdm`.

  The paper's algorithm divides its step by the norm of the residual r = y - A(x0_hat), and moves so far a
  step, however many there are. `normalized` is what that is where a solver has steps of its own: the noise of
  y is taken to be at least the residual's root mean square, as if it were not known, so the pull is m r /
  |r|^2 and has no stiffness while y is far. It needs no data_std.

  Without either, a step from sigma/alpha = rho to rho' changes the residual of data of variance v by a factor
  of about 1 - (1 - rho'/rho) v / (4 noise^2) at rho^2 = v: below -1, and so unstable, where steps are longer
  than 8 noise^2 / v in log rho.

  Args:
    measurement: with a noise above zero, unless a data_std is given.
    y: [B, *measured], one a sample.
    scale: factor; changing it does not recompile.
    data_std: standard deviation of the data in the units of the model, or None for the paper's likelihood.
    normalized: whether the residual itself says how wide the likelihood is, at least.

  Raises:
    ValueError: a likelihood without a width, or with two; a data_std of nought or less.

  >>> from diffusion import oracles, processes, tasks
  >>> prior = oracles.gaussian(processes.edm(), [0.0, 0.0], [1.0, 1.0])
  >>> first = tasks.inpainting([1, 0], noise=0.5)
  >>> guided = tasks.dps(first, jnp.array([[1.0, 0.0]]))(prior)
  >>> x0 = guided(jnp.zeros((1, 2)), jnp.full(1, 0.1)).x0
  >>> bool(x0[0, 0] > 0), float(x0[0, 1])
  (True, 0.0)
  """
  if (
    data_std is None
    and not isinstance(measurement.noise, Tracer)
    and not np.all(np.asarray(measurement.noise) > 0)
  ):
    raise ValueError(
      "dps needs a measurement with noise above zero, which is the width of the likelihood: give it one, "
      "such as "
      "noise=0.05, or give data_std"
    )
  if data_std is not None and normalized:
    raise ValueError(
      f"data_std={data_std} and normalized=True each say how wide the likelihood is: give one of them"
    )
  variance = None if data_std is None else data_variance(data_std)
  return lambda denoiser: LikelihoodGuidance(
    denoiser, measurement, jnp.asarray(y), scale, variance, False, bool(normalized)
  )


def pigdm(
  measurement: Measurement, y: ArrayLike, data_std: Number = 1.0, scale: Number = 1.0
) -> Callable[[Any], LikelihoodGuidance]:
  """PiGDM: guidance by the likelihood of a linear measurement (Song et al., ICLR 2023, eq. 7).

  The guided score is score + J^T A^T (r^2 A A^T + noise^2)^-1 (y - A x0_hat), with J the denoiser's
  Jacobian.

  r^2 is the variance of x0 given x_t as it is for data N(m, data_std^2 I), for which this is exact. Data of
  several modes have another, so their posterior is approximated.

  Args:
    measurement: a linear one, with or without noise.
    y: [B, *measured].
    data_std: standard deviation of the data in the units of the model.
    scale: factor; 1 is the formula.

  Raises:
    ValueError: a measurement that is not linear, or a data_std of nought or less.

  >>> from diffusion import oracles, processes, tasks
  >>> prior = oracles.gaussian(processes.edm(), [0.0, 0.0], [1.0, 1.0])
  >>> guided = tasks.pigdm(tasks.inpainting([1, 0], noise=1.0), jnp.array([[1.0, 0.0]]))(prior)
  >>> x, t = jnp.zeros((1, 2)), jnp.full(1, 1e3)
  >>> guided(x, t).x0.round(3).tolist()  # the posterior mean, with next to no x_t
  [[0.5, 0.0]]
  """
  measurement.check_linear("pigdm")
  variance = data_variance(data_std)
  return lambda denoiser: LikelihoodGuidance(denoiser, measurement, jnp.asarray(y), scale, variance, True)
