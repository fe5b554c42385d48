"""The likelihood that an evaluation reports of whole numbers, of models that are exact."""

import types

import numpy as np
import pytest

from diffusion import data, oracles, processes
from diffusion.commands.evaluation import held_out

LAW = np.random.default_rng(0).dirichlet(np.full(9, 1.0)).reshape(3, 3)
ENTROPY = -np.sum(LAW * np.log2(LAW)) / 2


def run(denoiser):
  scaling = data.scaling.Categories(3)
  dataset = types.SimpleNamespace(encode=lambda held: dict(held), shape=(2,), scaling=scaling)
  return types.SimpleNamespace(
    parts=types.SimpleNamespace(process=denoiser.process, dataset=dataset), denoiser=denoiser
  )


def records(n=512):
  flat = np.random.default_rng(1).choice(9, n, p=LAW.reshape(-1))
  return {"x": np.stack(np.unravel_index(flat, (3, 3)), 1).astype(np.int32)}


@pytest.mark.parametrize("name", ["masked", "uniform"])
def test_an_exact_model_has_the_entropy_in_bits_within_its_own_error(name):
  """4.5 of the standard errors that are reported (7e-6 each), and what t_min costs under uniform noise."""
  build = {"masked": processes.masked, "uniform": processes.uniform_resample}[name]
  opened = run(oracles.discrete(build(3, (2,)), LAW))
  assert held_out.why_none(opened) == "" and held_out.name_of_likelihood(opened) == "bits_per_dim_bound"
  found = held_out.held_out_likelihood(opened, records())
  names = ["bits_per_dim_bound"] + ["bits_per_dim_in_order"] * (name == "masked")
  assert sorted(found) == sorted(names + [f"{one}_error" for one in names])
  for one in names:
    assert 0 < found[f"{one}_error"] < 0.05
    assert abs(found[one] - ENTROPY) < 4.5 * found[f"{one}_error"] + 1e-2 * (name == "uniform")


def test_a_model_without_jump_rates_says_so():
  opened = run(oracles.discrete(processes.discretised_gaussian(3, (2,)), LAW))
  with pytest.raises(ValueError, match="takes jump rates, and this model of 'discretised_gaussian'"):
    held_out.held_out_likelihood(opened, records())
