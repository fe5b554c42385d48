"""Solvers of every kind, each with a denoiser and starts, for the laws that all of them keep."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion import oracles, processes, solvers, tasks
from diffusion.denoisers.contract import WithoutParameters, Wrapper

PROCESS = processes.vp_linear()
EVENT, CATEGORIES, MASK = 3, 3, 3
MASKED = processes.masked(CATEGORIES, (EVENT,))
UNIFORM = processes.uniform_resample(CATEGORIES, (EVENT,), schedule=processes.log_linear_keep())
traces, calls = [], []


@struct.dataclass
class Counted(Wrapper):
  """A denoiser that says when it is traced and when it runs."""

  inner: Any

  def __call__(self, x, t, cond=None, *, views=("x0", "eps"), key=None, train=False):
    traces.append(jax.tree.map(jnp.shape, x))
    jax.debug.callback(lambda: calls.append(1))
    return self.inner(x, t, cond, views=views)


class Logits(NamedTuple):
  """A prediction of categories."""

  logits: Any


@struct.dataclass
class MaskedOracle(WithoutParameters):
  """The posterior of each coordinate given those that are not masked, of a joint law [K] * D of whole
  numbers."""

  log_prob: Any
  process = None

  def __call__(self, x, t, cond=None, *, views=("logits",), key=None, train=False):
    """logits: [B, D, K]; x: [B, D], MASK where masked."""
    assert views == ("logits",)
    dim, size = self.log_prob.ndim, self.log_prob.shape[0]
    states = jnp.asarray(list(itertools.product(range(size), repeat=dim)))  # [S, D]
    fits = jnp.all((x[:, None] == states[None]) | (x[:, None] == MASK), axis=-1)  # [B, S]
    weight = jnp.where(fits, self.log_prob.reshape(-1)[None], -jnp.inf)
    of_value = states.T[:, :, None] == jnp.arange(size)[None, None]  # [D, S, K]
    terms = jnp.where(of_value[None], weight[:, None, :, None], -jnp.inf)
    return Logits(jax.nn.logsumexp(terms, axis=2))


def gaussian(scale=1.0):
  """A mixture on `PROCESS`; another scale is another set of parameters."""
  means = scale * np.array([[-1.0, 0.2, 0.5], [0.8, -0.5, 0.0]])
  return Counted(oracles.gaussian_mixture(PROCESS, [0.3, 0.7], means, [0.05, 0.2]))


def masked(scale=1.0):
  """A joint law of three whole numbers."""
  raw = np.random.default_rng(0).normal(size=(CATEGORIES,) * EVENT)
  return Counted(
    MaskedOracle(jnp.asarray(jax.nn.log_softmax(scale * raw.ravel()).reshape(raw.shape), jnp.float32))
  )


def tokens(process):
  """scale -> the exact denoiser of a joint law of three whole numbers under any discrete process."""

  def build(scale=1.0):
    raw = np.random.default_rng(0).normal(size=(CATEGORIES,) * EVENT)
    return Counted(oracles.discrete(process, np.exp(3.0 * scale * raw), dtype=np.float32))

  return build


def noise(keys):
  """[B, 3] draws of the prior."""
  return jax.vmap(lambda key: jax.random.normal(key, (EVENT,)))(keys)


def masks(keys):
  """[B, 3] whole numbers, masked but for some first coordinates."""
  first = jax.vmap(lambda key: jax.random.randint(key, (), 0, CATEGORIES + 1))(keys)
  return jnp.full((keys.shape[0], EVENT), MASK, jnp.int32).at[:, 0].set(first.astype(jnp.int32))


def values(keys):
  """[B, 3] whole numbers, uniform."""
  return UNIFORM.prior(keys, UNIFORM.shape)


@dataclasses.dataclass(frozen=True)
class Case:
  """build: steps -> solver; denoiser: scale -> denoiser; start: keys [B] -> x [B, ...]."""

  build: Callable[[int], Any]
  denoiser: Callable[..., Any] = gaussian
  start: Callable[..., Any] = noise


def grid(n):
  return solvers.grids.quadratic(PROCESS, n)


SEEN = tasks.inpainting([1, 0, 0], noise=0.3)
# One y for all samples, since rows may be taken in any order.
MEASURED = jnp.broadcast_to(jnp.array([0.5, 0.0, 0.0]), (8, EVENT))
CURVED = tasks.measurement(lambda params, x: jnp.tanh(x[:, :1]), (EVENT,), noise=0.3)

EVERY = {
  **{name: Case(lambda n, name=name: solvers.build(name, PROCESS, n)) for name in solvers.SOLVERS},
  "dpm_solver_adaptive": Case(lambda n: solvers.dpm_solver_adaptive(PROCESS, max_steps=50 * n)),
  "dpm_solver_adaptive(12, eps)": Case(
    lambda n: solvers.dpm_solver_adaptive(PROCESS, order=2, prediction="eps", max_steps=50 * n, denoise=False)
  ),
  "adaptive_sde": Case(lambda n: solvers.adaptive_sde(PROCESS, max_steps=100 * n)),
  "corrector alone": Case(
    lambda n: solvers.predictor_corrector(
      PROCESS, grid(n), predictor=None, corrector=solvers.annealed, n_corrector=2
    )
  ),
  "recovery_langevin": Case(
    lambda n: solvers.recovery_langevin(PROCESS, np.linspace(0.7, 0.1, n), steps_per_level=3)
  ),
  "time_shift": Case(lambda n: solvers.time_shift(PROCESS, grid(n), window=0.04, cutoff=0.2)),
  "daps": Case(lambda n: tasks.daps(PROCESS, grid(n), SEEN, MEASURED)),
  "daps, not linear": Case(lambda n: tasks.daps(PROCESS, grid(n), CURVED, MEASURED[:, :1], moves=3)),
  "ddrm": Case(lambda n: tasks.ddrm(PROCESS, grid(n), SEEN, MEASURED)),
  "watched": Case(lambda n: tasks.watched(solvers.build("dpmpp_2m", PROCESS, n), 3)),
  **{
    name: Case(lambda n, name=name: solvers.build(name, MASKED, n), masked, masks)
    for name in ("masked_ancestral", "remasking", "confidence_unmasking", "path_planning")
  },
  **{
    name: Case(lambda n, name=name: solvers.build(name, MASKED), masked, masks) for name in solvers.UNMASKING
  },
  **{
    name: Case(lambda n, name=name: solvers.build(name, MASKED, n), masked, masks)
    for name in ("gibbs_corrector", "informed_corrector")
  },
  **{
    name: Case(lambda n, name=name: solvers.build(name, UNIFORM, n), tokens(UNIFORM), values)
    for name in ("euler_rates", "annealed_metropolis")
  },
  "tau_leaping, ordinal": Case(
    lambda n: solvers.tau_leaping(UNIFORM, UNIFORM.default_grid(n), ordinal=True), tokens(UNIFORM), values
  ),
  **{
    name: Case(lambda n, name=name: solvers.build(name, MASKED, n), tokens(MASKED), masks)
    for name in ("d3pm_ancestral", "tau_leaping", "flow_predictor_corrector")
  },
  "cached": Case(
    lambda n: solvers.cached(solvers.masked_ancestral(MASKED, MASKED.default_grid(n))), masked, masks
  ),
  "block_by_block, on a grid": Case(
    lambda n: solvers.block_by_block(
      MASKED, solvers.confidence_unmasking(MASKED, MASKED.default_grid(n)), block=2
    ),
    masked,
    masks,
  ),
}
