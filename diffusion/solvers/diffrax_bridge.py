"""The probability flow and the reverse SDE handed to diffrax.

They run with any of its methods and its step-size control. In u = x / sqrt(alpha^2 + sigma^2) and lambda =
log(alpha/sigma), the variables in which general-purpose methods do well on diffusion models, with a = alpha
and s = sigma over the same root and v the v-prediction over it:

  flow         du = -a s v dlambda                                   (arXiv:2011.13456, eq. 13)
  reverse SDE  du = -(s^2 u + 2 a s v) dlambda + sqrt(2) s dW        (eq. 6)

diffrax is imported where it is used: `pip install 'jax-diffusion[adaptive]'`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes import expand
from diffusion.solvers import adaptive, clock, randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import Described


@struct.dataclass
class Diffrax(Described):
  """A run of diffrax, whose loop calls the denoiser: see `diffrax_ode` and `diffrax_sde`.

  diffrax evaluates a vector field from inside its own loops and has no place to stop and ask, so this is the
  one solver that is not asked and told (`contract.SelfDriven`): it calls no post_step and cannot be wrapped.

  Attributes:
    span: from where to where.
    rtol, atol, h_init: tolerances and first step, data.
    method: a diffrax solver, a pytree.
    steps: attempts after which a sample is given up; a part of the program, as diffrax has it.
    random: whether this is the reverse SDE.
    denoise: whether to return the posterior mean at the end.
    about: name and order.
  """

  span: Any
  rtol: Any
  atol: Any
  h_init: Any
  method: Any
  steps: int = struct.field(pytree_node=False)
  random: bool = struct.field(pytree_node=False)
  denoise: bool = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  loop: ClassVar[str] = "own"
  num_steps: ClassVar[None] = None

  @property
  def cost(self) -> None:
    """Steps are sized by their error."""

  @property
  def max_steps(self) -> int:
    """Attempts after which a sample is given up."""
    return self.steps

  @property
  def stochastic(self) -> bool:
    """Whether sampling needs keys."""
    return self.random

  @property
  def views(self) -> tuple[str, ...]:
    """The v-prediction, and the clean data at the ends."""
    return ("v", "x0") if self.denoise or self.span.from_noise else ("v",)

  def run(
    self, denoiser: Any, x: jax.Array, keys: jax.Array | None, cond: Any
  ) -> tuple[jax.Array, jax.Array]:
    """(x [B, ...], NaN where a sample did not arrive; denoiser calls [B]), from x: [B, ...] at t_max."""
    u = _begin(self.span, denoiser, x, cond)
    one = lambda u, key, cond: self._one(denoiser, u, key, cond)
    keys = None if keys is None else randomness.fold(keys, 1, 0)
    # diffrax relies on JAX's standard promotion in places.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
      u, count, arrived = jax.vmap(one)(u, keys, cond)
    place = clock.node(self.span, clock.rows(u, self.span.end))
    x, count = expand(place.norm, u) * u, count + int(self.span.from_noise)
    if self.denoise:
      x, count = _look(denoiser, u, place, cond, "x0"), count + 1
    return jnp.where(expand(arrived, x), x, jnp.nan), count

  def _one(self, denoiser, u, key, cond):
    """One sample, u: [...]; the batch is vmap's."""
    import diffrax
    import lineax

    shape, dtype = u.shape, u.dtype
    cond = jax.tree.map(lambda leaf: leaf[None], cond)
    number = lambda leaf: jnp.asarray(leaf, dtype)
    start, end = number(self.span.start), number(self.span.end)

    def place(at):
      return jax.tree.map(lambda leaf: leaf[0], clock.node(self.span, jnp.asarray(at, dtype)[None]))

    def drift(at, y, args):
      denoiser, cond = args
      here = place(at)
      there = clock.Node(*(leaf[None] for leaf in here))
      v = _look(denoiser, y.reshape(1, *shape), there, cond, "v").reshape(-1) / here.norm
      slope = -here.a * here.s * v
      return 2 * slope - here.s**2 * y if self.random else slope

    terms = diffrax.ODETerm(drift)
    if self.random:
      resolution = (end - start) * 2.0**-14
      path = diffrax.VirtualBrownianTree(
        start,
        end,
        resolution,
        jax.ShapeDtypeStruct((u.size,), dtype),
        key,
        levy_area=diffrax.SpaceTimeLevyArea,
      )
      diffusion = lambda at, y, args: lineax.DiagonalLinearOperator(
        jnp.full_like(y, np.sqrt(2)) * place(at).s
      )
      terms = diffrax.MultiTerm(terms, diffrax.ControlTerm(diffusion, path))
    # For noise diffrax advises against the purely integral control that is its default.
    gains: dict[str, Any] = dict(pcoeff=0.1, icoeff=0.3) if self.random else {}
    control = diffrax.PIDController(rtol=number(self.rtol), atol=number(self.atol), **gains)
    solution = diffrax.diffeqsolve(
      terms,
      self.method,
      start,
      end,
      jnp.minimum(number(self.h_init), end - start),
      u.reshape(-1),
      args=(denoiser, cond),
      stepsize_controller=control,
      max_steps=self.steps,
      saveat=diffrax.SaveAt(t1=True),
      throw=False,
    )
    stages, again = _stages(self.method)
    count = solution.stats["num_steps"] * stages + again
    return (
      solution.ys[0].reshape(shape),  # pyright: ignore[reportOptionalSubscript]  # saved at the end
      count.astype(jnp.int32),
      solution.result == diffrax.RESULTS.successful,
    )

  def __str__(self) -> str:
    tolerances = f"rtol={float(self.rtol):g}, atol={float(self.atol):g}"
    return f"{self.name}: order {self.order}, steps by error ({tolerances})"


def diffrax_ode(
  process: Any,
  *,
  method: Any = None,
  rtol: float = 1e-3,
  atol: float = 1e-3,
  h_init: float = 0.05,
  t_max: float | None = None,
  t_min: float | None = None,
  denoise: bool = True,
  max_steps: int = 1000,
) -> Diffrax:
  """The probability flow by a Runge-Kutta method of diffrax.

  diffrax controls the step size, and each sample goes at its own pace.

  Args:
    process: the Gaussian process.
    method: an explicit Runge-Kutta method of diffrax with an error estimate; None for `diffrax.Tsit5()`.
    rtol, atol: tolerances for x over sqrt(alpha^2 + sigma^2), a step's root mean square error over a sample.
    h_init: first step in log(alpha/sigma).
    t_max, t_min, denoise: as in `dpm_solver_adaptive`.
    max_steps: attempts after which `sample` raises an error.

  Raises:
    ImportError: diffrax is not installed.
    TypeError: a process without log-SNR, or a method that is not such a one.
    ValueError: a tolerance that is not positive, bad ends.

  >>> from diffusion import processes
  >>> print(diffrax_ode(processes.edm(), rtol=1e-4))
  diffrax_ode(Tsit5): order 5, steps by error (rtol=0.0001, atol=0.001)
  """
  diffrax = _diffrax()
  method = diffrax.Tsit5() if method is None else method
  if not isinstance(method, diffrax.AbstractERK):
    raise TypeError(
      "the flow needs an explicit Runge-Kutta method of diffrax such as diffrax.Tsit5(), got "
      f"{type(method).__name__}"
    )
  return _build(process, method, False, rtol, atol, h_init, t_max, t_min, denoise, max_steps)


def diffrax_sde(
  process: Any,
  *,
  method: Any = None,
  rtol: float = 1e-2,
  atol: float = 1e-2,
  h_init: float = 0.01,
  t_max: float | None = None,
  t_min: float | None = None,
  denoise: bool = True,
  max_steps: int = 4000,
) -> Diffrax:
  """The reverse SDE by a stochastic Runge-Kutta method of diffrax.

  The step-size control and the Brownian tree are diffrax's. The noise does not depend on the state, so
  methods for additive noise apply.

  Args:
    process: the Gaussian process.
    method: a stochastic Runge-Kutta method of diffrax with an error estimate; None for `diffrax.ShARK()`.
    rtol, atol, h_init, t_max, t_min, denoise, max_steps: as in `diffrax_ode`.

  Raises:
    ImportError, TypeError, ValueError: as `diffrax_ode`.
  """
  diffrax = _diffrax()
  method = diffrax.ShARK() if method is None else method
  if not isinstance(method, diffrax.AbstractSRK) or method.tableau.b_error is None:
    raise TypeError(
      "the reverse SDE needs a stochastic Runge-Kutta method of diffrax with an error estimate, "
      "diffrax.ShARK(), SRA1() or SPaRK(),"
      f" got {type(method).__name__}"
    )
  return _build(process, method, True, rtol, atol, h_init, t_max, t_min, denoise, max_steps)


def _build(process, method, random, rtol, atol, h_init, t_max, t_min, denoise, max_steps):
  span = clock.span(process, t_max, t_min)
  adaptive.check_tolerances(rtol, atol, max_steps)
  if not h_init > 0:
    raise ValueError(f"the first step must be positive, got h_init={h_init}")
  order = 1 if random else method.order(None)
  name = f"diffrax_{'sde' if random else 'ode'}({type(method).__name__})"
  return Diffrax(
    span, rtol, atol, h_init, method, int(max_steps), random, denoise, About(name, order, process)
  )


def _begin(span, denoiser, x, cond):
  """u at `span.start` from x: [B, ...] at t_max.

  Where t_max has no signal this takes one evaluation (a DDIM step).
  """
  here = clock.node(span, clock.rows(x, span.start))
  if not span.from_noise:
    return x / expand(here.norm, x)
  t = clock.rows(x, span.t_max)
  seen = denoiser(x, t, cond, views=("x0",), train=False).x0.astype(x.dtype)
  return expand(here.a, x) * seen + expand(here.s / span.process.marginal(t).sigma, x) * x


def _look(denoiser, u, place, cond, view):
  """The denoiser's view at u: one evaluation."""
  found = denoiser(expand(place.norm, u) * u, place.t, cond, views=(view,), train=False)
  return getattr(found, view).astype(u.dtype)


def _stages(method):
  """The numbers of drift evaluations of a method: (of an attempt, besides).

  The last stage of some methods is the first of the next step.
  """
  tableau = method.tableau
  if getattr(tableau, "fsal", False):
    return tableau.num_stages - 1, 1
  return tableau.num_stages if hasattr(tableau, "num_stages") else len(tableau.c) + 1, 0


def _diffrax():
  try:
    import diffrax
  except ImportError as error:
    raise ImportError("diffrax is not installed: pip install 'jax-diffusion[adaptive]'") from error
  return diffrax
