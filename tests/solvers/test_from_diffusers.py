"""Scheduler configs of diffusers: their times, sigmas and steps, against what diffusers 0.42 did, recorded by
`make_diffusers_recorded.py`; and what is said of their faults."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from make_diffusers_recorded import CASES, FILE, LOGITS, MEANS, STDS, answer, posterior_mean

from diffusion import denoisers, guidance, oracles, processes, solvers
from diffusion.solvers.diffusers.levels import betas_of
from diffusion.solvers.diffusers.options import DEFAULTS, read
from diffusion.solvers.diffusers.schedule import levels_of

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def _recorded():
  with np.load(FILE) as file:
    values, shapes = file["values"], json.loads(str(file["shapes"]))
  ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
  return {
    key: part.reshape(shape) for (key, shape), part in zip(shapes.items(), np.split(values, ends[:-1]))
  }


RECORDED = _recorded()


def config(scheduler, **options):
  return {"_class_name": f"{scheduler}Scheduler"} | options


def built(name, dtype):
  """(config, process, table) of a recorded case."""
  cls, options, steps, call = CASES[name]
  given = {"_class_name": cls} | options
  arguments = {key: value for key, value in call.items() if key != "begin"}
  return given, *solvers.from_diffusers(given, steps, dtype=dtype, **arguments)


def states_of(table, process, x, noise):
  """All points of a table [N+1, B, D] by its definition, in float64, on the mixture of the recorded cases."""
  g, h, A, B, C, w, start = (np.asarray(leaf, np.float64) for leaf in
    (table.g, table.h, table.A, table.B, table.C, table.w, table.start))
  slots = start[:, 0, None, None] * x
  states = [np.tensordot(w[0], slots, 1)]
  for i in range(len(g)):
    marginal = process.marginal(table.t[i])
    said = answer(table.view, states[-1], float(marginal.alpha), float(marginal.sigma))
    kept = g[i] * states[-1] + h[i] * said
    fresh = C[i].sum(axis=-1)[:, None, None] * noise[i]
    slots = np.tensordot(A[i], slots, 1) + B[i][:, None, None] * kept + fresh
    states.append(np.tensordot(w[i + 1], slots, 1))
  return np.array(states)


@pytest.mark.parametrize("name", CASES)
def test_times_sigmas_and_trajectories_are_those_of_diffusers(name):
  """Against diffusers run in float64, to rounding: 1e-11 of a state's size; sigmas and timesteps likewise. Its own
  float32 run has the same up to its rounding: sigmas within 3e-4 of relative error (the product of 1,000 factors, and
  1 - abar at the first rung), timesteps within one where float32 decides which whole number a timestep is cut to."""
  cls, options, steps, call = CASES[name]
  given, process, table = built(name, np.float64)
  found = levels_of(cls, read(given, {})[1], steps, call.get("mu"))
  fed, sigma = found.fed, found.sigma
  if "Heun" in cls:  # two evaluations a step but for the last
    fed = np.append(fed[:1], np.repeat(fed[1:], 2))
    sigma = np.concatenate([sigma[:1], np.repeat(sigma[1:-1], 2), sigma[-1:]])
  of = lambda key: RECORDED[f"{name}|{key}"]
  np.testing.assert_allclose(fed, of("timesteps"), rtol=1e-11, atol=1e-9)
  if of("sigmas").size:
    # With log-linear sigmas there is one more, which no step reaches.
    np.testing.assert_allclose(sigma, of("sigmas")[: len(sigma)], rtol=1e-11)
    np.testing.assert_allclose(sigma, of("float32 sigmas")[: len(sigma)], rtol=3e-4)
  cut = options.get("use_exponential_sigmas") or options.get("use_beta_sigmas") or "karras" in name
  np.testing.assert_allclose(fed, of("float32 timesteps"), rtol=1e-6, atol=1.0 if cut else 2e-4)

  states = states_of(table, process, RECORDED["noise"][0] * float(process.prior_std), RECORDED["noise"][1:])
  assert len(states) == table.cost + 1 and np.isfinite(states).all()
  size = np.abs(of("states")).max(axis=(1, 2), keepdims=True)
  np.testing.assert_allclose(states / size, of("states") / size, rtol=0, atol=1e-11)


# One of each rule without noise, on the library's own oracle and through its own executor.
SAMPLED = [
  "DDIM linspace, v", "PNDM with the start", "EulerDiscrete karras", "EulerDiscrete trailing, zero snr, v",
  "HeunDiscrete karras, v", "LMSDiscrete linspace", "DPMSolverMultistep order 3, karras, 20 steps",
  "DPMSolverMultistep flow", "DPMSolverSinglestep order 3", "UniPCMultistep order 3, trailing, v",
  "DEISMultistep order 3", "EDMDPMSolverMultistep default", "FlowMatchEulerDiscrete shift",
]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_sampling_with_the_oracle_of_the_library_gives_the_same(name):
  """In float32 by `solvers.sample`, from a draw of the process's prior: 1e-5 of the size of a sample."""
  _, process, table = built(name, np.float32)
  denoiser = oracles.mixture(process, MEANS, np.array(STDS)[:, None] * np.ones_like(MEANS), np.exp(LOGITS))
  x = jnp.asarray(RECORDED["noise"][0] * float(process.prior_std), jnp.float32)
  out = solvers.sample(denoiser, table, x)
  expected = RECORDED[f"{name}|states"][-1]
  np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
