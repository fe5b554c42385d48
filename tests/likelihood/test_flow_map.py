"""Encoding and decoding against the exact flow of Gaussian data, and the round trip."""

import numpy as np
import pytest
from likelihood_cases import EVERY_PROCESS, case, draws, flow, shifted, shifted_twice

from diffusion import likelihood


@pytest.mark.parametrize("name", sorted(EVERY_PROCESS))
def test_round_trip_and_exact_latents(name, x64):
  """x -> z -> x returns within 1e-3, and z is the closed-form flow within 1e-3 prior deviations."""
  process, first, last, forward, backward = case(name)
  x = draws()
  z = likelihood.encode(shifted_twice(process), x, steps=forward)
  latent = (
    np.abs(np.asarray(z) - np.asarray(flow(shifted(process), x, first, last))).max() / process.prior_std
  )
  back = np.abs(np.asarray(likelihood.decode(shifted_twice(process), z, steps=backward)) - x).max()
  print(f"{name}: latents off by {latent:.1e}, round trip by {back:.1e}")
  assert latent < 1e-3 and back < 1e-3


def test_orders(x64):
  """Latents have order 4. A step back undoes the leading error of an even order, so the round trip has order
  5."""
  latent, back = [], []
  for num_steps in (24, 48):
    process, first, last, forward, backward = case("vp_linear", num_steps)
    x = draws()
    z = likelihood.encode(shifted_twice(process), x, steps=forward)
    latent.append(np.abs(np.asarray(z) - np.asarray(flow(shifted(process), x, first, last))).max())
    back.append(np.abs(np.asarray(likelihood.decode(shifted_twice(process), z, steps=backward)) - x).max())
  orders = np.log2(latent[0] / latent[1]), np.log2(back[0] / back[1])
  print("orders of latents and round trip: {:.2f}, {:.2f}".format(*orders))
  assert 3.6 < orders[0] < 4.6
  assert 4.5 < orders[1] < 5.5


def test_two_models_of_the_same_data_encode_alike(x64):
  """Data and process decide the latents, not the network: one Gaussian and a mixture of it with itself
  agree."""
  process, _, _, forward, _ = case("vp_linear")
  one = likelihood.encode(shifted(process), draws(), steps=forward)
  other = likelihood.encode(shifted_twice(process), draws(), steps=forward)
  np.testing.assert_allclose(one, other, rtol=1e-9)
