"""Batches over eight devices, new parameters, and everything inside one jit: same numbers, one trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from likelihood_cases import draws, keys

from diffusion import denoisers, likelihood, processes
from diffusion.run import sharding

ROWS = 16
traces = []


def network(params, x, t, cond):
  """x0 = tanh(x W + t b + label): one trace is one entry in `traces`."""
  traces.append(x.shape)
  return jnp.tanh(
    x @ params["w"] + t[:, None] * params["b"] + cond["label"].astype(x.dtype)[:, None] * params["c"]
  )


def denoiser(seed=0):
  rng = np.random.default_rng(seed)
  params = {
    name: rng.normal(size=shape).astype(np.float32)
    for name, shape in (("w", (2, 2)), ("b", (1, 2)), ("c", (1, 2)))
  }
  return denoisers.from_function(network, processes.vp_linear(), denoisers.x0(), params)


def probability_flow(model, x, cond, keys):
  steps = likelihood.flow_steps(processes.vp_linear(), 4)
  return likelihood.log_likelihood(
    model, x, cond=cond, keys=keys, steps=steps, divergence="rademacher", probes=2
  )


def latents(model, x, cond, keys):
  del keys
  return (likelihood.encode(model, x, cond=cond, steps=likelihood.flow_steps(processes.vp_linear(), 4)),)


def bound(model, x, cond, keys):
  found = likelihood.continuous_elbo(model, x, cond=cond, keys=keys, num_times=4, draws=2)
  return found.total, found.error, found.prior


@pytest.mark.parametrize("fn", [probability_flow, latents, bound])
def test_eight_devices_give_the_same_rows(fn):
  x, cond, row_keys = (
    draws(ROWS).astype(np.float32),
    {"label": np.arange(ROWS, dtype=np.int32) % 3},
    keys(ROWS),
  )
  alone = fn(denoiser(), x, cond, row_keys)
  rows = sharding.batch_sharding(sharding.make_mesh())
  split = fn(denoiser(), *jax.device_put((x, cond, row_keys), rows))
  for one, eight in zip(alone, split, strict=True):
    assert len(eight.sharding.device_set) == 8
    assert eight.addressable_shards[0].data.shape[0] == ROWS // 8
    np.testing.assert_allclose(one, eight, rtol=2e-5, atol=2e-5)
  # New parameters are new data: nothing is traced again, and the answer changes.
  seen = len(traces)
  other = fn(denoiser(1), x, cond, row_keys)
  assert len(traces) == seen
  assert np.abs(np.asarray(other[0]) - np.asarray(alone[0])).max() > 1e-3


def test_steps_made_outside_run_inside_a_jit_over_the_denoiser():
  x, cond, row_keys = draws(ROWS).astype(np.float32), {"label": np.zeros(ROWS, np.int32)}, keys(ROWS)
  inside = jax.jit(probability_flow)(denoiser(), x, cond, row_keys)
  outside = probability_flow(denoiser(), x, cond, row_keys)
  for one, other in zip(inside, outside, strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)
