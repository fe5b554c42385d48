"""How far solvers that follow rates and posteriors are from laws that can be listed, at equal network calls.

A measurement is a function (config, seed) -> {metric: value}.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion import oracles, processes, solvers
from diffusion.denoisers import Prediction
from diffusion.denoisers.contract import WithoutParameters
from experiments.discrete.listed_laws import LAWS, draws, floor, total_variation


@struct.dataclass
class Tabulated(WithoutParameters):
  """Every view of a process from p(x_0 | x_t) in a table [L, S^D, D, K], at L times."""

  table: Any
  times: Any
  process: Any

  @property
  def views(self):
    return self.process.views

  def __call__(self, x, t, cond=None, *, views=("logits",), key=None, train=False):
    base = self.process.num_states ** np.arange(x.shape[1])[::-1]
    level = jnp.argmin(jnp.abs(self.times[None, :] - t[:, None]), axis=1)
    found = self.table[level, jnp.sum(x * jnp.asarray(base, x.dtype)[None], axis=1)]
    return Prediction(**self.process.convert("probabilities", found, x, t, views))


def tabulated(process: Any, law: np.ndarray, times: Any) -> Tabulated:
  """The exact denoiser at these times, for a law [K] * D."""
  oracle = oracles.discrete(process, law, dtype=np.float32)
  states = np.indices((process.num_states,) * law.ndim).reshape(law.ndim, -1).T.astype(np.int32)
  at = jax.jit(lambda t: oracle.probabilities(jnp.asarray(states), jnp.full(len(states), t)))
  times = np.asarray(times, np.float32)
  return Tabulated(jnp.stack([at(t) for t in times]), jnp.asarray(times), process)


def process_of(name: str, law: np.ndarray) -> Any:
  """'uniform' or 'masked', over the tokens of a law [K] * D, with the linear schedule."""
  build = {"uniform": processes.uniform_resample, "masked": processes.masked}[name]
  return build(law.shape[0], (law.ndim,), t_min=1e-3)


def measure(config: Any, seed: int) -> dict[str, float]:
  """Total variation of config.count samples less that of exact draws, of solvers of so many calls.

  `order` is that of ancestral steps, from config.calls and four times as many; of the others, the excess over
  that of ancestral steps at config.calls.
  """
  law = LAWS[config.law]()
  process, least, n = process_of(config.process, law), floor(law, config.count), config.calls
  grid = lambda n: np.append(np.linspace(float(process.t_max), 1.0 / n, n), 0.0)

  def excess(build, n, options):
    times = grid(n)
    denoiser = tabulated(process, law, times[:-1])
    if config.process == "masked":  # whose posterior knows no time
      denoiser = denoiser.replace(table=denoiser.table[-1:], times=denoiser.times[-1:])
    found = sampled(denoiser, build(process, times, **options), jax.random.key(seed), config.count)
    return max(total_variation(found, law) - least, 1e-9)

  ancestral = excess(solvers.d3pm_ancestral, n, {})
  found = {
    "ancestral_excess": ancestral,
    "order": float(np.log(ancestral / excess(solvers.d3pm_ancestral, 4 * n, {})) / np.log(4.0)),
    "euler_over_ancestral": excess(solvers.euler_rates, n, {}) / ancestral,
    "leaping_over_ancestral": excess(solvers.tau_leaping, n, {}) / ancestral,
    "flow_over_ancestral": excess(solvers.flow_predictor_corrector, n, {"stochasticity": 1.0}) / ancestral,
  }
  if config.process == "masked":
    for name, build in (("gibbs", solvers.gibbs_corrector), ("informed", solvers.informed_corrector)):
      found[f"{name}_over_ancestral"] = excess(build, n // 2, {"moves": 1}) / ancestral
  return found


def sampled(denoiser: Any, solver: Any, key: jax.Array, count: int) -> jax.Array:
  """Samples [count, D] from the noise at the solver's first time."""
  if denoiser.process.mask is not None:
    return draws(denoiser, solver, key, count)[0]
  start, keys = jax.random.split(key)
  x = denoiser.process.prior(jax.random.split(start, count), denoiser.process.shape)
  return solvers.sample(denoiser, solver, x, keys=jax.random.split(keys, count))
