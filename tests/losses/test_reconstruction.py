"""Reconstruction: its value in closed form, and its minimiser for linear maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, networks

COVARIANCE = np.diag([4.0, 1.0, 0.25])


def linear():
  """x [B, 3] -> z [B, 2] -> x."""
  return denoisers.from_functions(
    latent=lambda p, x, t, cond: x @ p["encoder"], reconstruction=lambda p, z, t, cond: z @ p["decoder"]
  )


def loss(objective, denoiser):
  roles = losses.roles(model=denoiser)
  return losses.chain(objective, losses.at_times(losses.uniform_times(0.0, 1.0), roles=roles))


def value(objective, params, x, key=jax.random.key(0)):
  closed = loss(objective, linear())
  own, state = closed.init(key)
  return closed({"model": params, "loss": own}, state, 0, key, {"x": x})


def exact_data():
  """Six points whose second moment is COVARIANCE exactly."""
  root = np.sqrt(3.0) * np.sqrt(np.diag(COVARIANCE))
  return jnp.asarray(np.concatenate([np.diag(root), -np.diag(root)]), jnp.float32)


def test_the_best_linear_reconstruction_is_that_of_the_first_principal_components():
  """Its error is the sum of the other eigenvalues, by dimension, and its gradient is zero."""
  first = jnp.eye(3)[:, :2]
  params = {"encoder": first, "decoder": first.T}
  objective = losses.reconstruction(kl=0.0, noise=0.0)
  found, (_, metrics) = value(objective, params, exact_data())
  np.testing.assert_allclose([found, metrics["reconstruction_mse"]], 0.25 / 3, rtol=1e-6)
  np.testing.assert_allclose(metrics["latent_square"], (4.0 + 1.0) / 2, rtol=1e-6)
  gradient = jax.grad(lambda p: value(objective, p, exact_data())[0])(params)
  for leaf in jax.tree.leaves(gradient):
    np.testing.assert_allclose(leaf, 0.0, atol=1e-6)
  other = jax.tree.map(lambda leaf: leaf + 0.05, params)
  assert value(objective, other, exact_data())[0] > found


def test_noise_and_pull_have_their_closed_forms():
  """E |D(E x + s e) - x|^2 = |D E x - x|^2 + s^2 |D|^2 for linear maps, and the KL of one normal from
  another."""
  params = {"encoder": 0.5 * jnp.eye(3)[:, :2], "decoder": 1.5 * jnp.eye(3)[:, :2].T}
  x, s, kl, repeats = exact_data(), 0.3, 0.2, 4000
  objective = losses.reconstruction(kl=kl, noise=s)
  found, (_, metrics) = value(objective, params, jnp.tile(x, (repeats, 1)))
  error = (0.25**2 * 5.0 + 0.25) / 3 + s**2 * 2 * 1.5**2 / 3
  # 24,000 examples: the error of a mean whose terms deviate by less than 0.6.
  np.testing.assert_allclose(metrics["reconstruction_mse"], error, atol=4.5 * 0.6 / np.sqrt(6 * repeats))
  pull = 0.5 * (0.25 * 5.0 / 2 + s**2 - 1.0 - np.log(s**2))
  np.testing.assert_allclose(found - metrics["reconstruction_mse"], kl * pull, rtol=1e-4)


def test_rows_do_not_meet_and_the_network_answers_both_views():
  net = networks.AutoEncoder(shape=(2, 2, 1), latent_shape=(3,), width=8, depth=1)
  x = jax.random.normal(jax.random.key(1), (4, 2, 2, 1))
  params = net.init(jax.random.key(0), x, jnp.zeros(4))["params"]
  denoiser = denoisers.from_flax(net, None, None, None, methods=net.views)
  closed = loss(losses.reconstruction(), denoiser)
  own, state = closed.init(jax.random.key(2))
  of = lambda rows: closed.per_example(
    {"model": params, "loss": own},
    state,
    0,
    jax.random.key(3),
    {"x": x[rows], "index": jnp.asarray(rows)},
    t=jnp.zeros(len(rows)),
  )[0]
  np.testing.assert_allclose(of(np.array([3, 1])), of(np.arange(4))[np.array([3, 1])], rtol=1e-5)
  z = net.apply({"params": params}, x, method="encode")
  np.testing.assert_allclose(
    net.apply({"params": params}, z, method="decode"),
    net.apply({"params": params}, x, jnp.zeros(4)),
    rtol=1e-6,
  )


def test_what_makes_no_sense_is_refused():
  with pytest.raises(ValueError, match="knows no process"):
    losses.reconstruction("edm")
  with pytest.raises(ValueError, match="0 and more"):
    losses.reconstruction(kl=-1.0)
  net = networks.AutoEncoder(shape=(2, 2, 1), latent_shape=(3,), width=8, depth=1)
  with pytest.raises(ValueError, match="set its shape and latent_shape"):
    net.init(jax.random.key(0), jnp.ones((1, 3, 2, 1)), jnp.zeros(1))
