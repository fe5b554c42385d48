"""The module with a score and a Hessian.

Its forms, its scale, and that every parameter learns from the start.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import networks
from diffusion.math import symmetric
from diffusion.networks.second_order import halves


def net(form="low_rank", **changes):
  return networks.SecondOrder(
    networks.MLP(width=8, depth=1), form, **{"rank": 3, "width": 8, "depth": 1, **changes}
  )


X, T = jax.random.normal(jax.random.key(0), (4, 3, 1, 2)), jnp.array([-1.0, 0.0, 0.5, 2.0])


@pytest.mark.parametrize(
  "form,kind",
  [
    ("low_rank", symmetric.LowRank),
    pytest.param("diagonal", symmetric.Diagonal, marks=pytest.mark.slow),
    pytest.param("full", symmetric.Full, marks=pytest.mark.slow),
  ],
)
def test_forms_are_symmetric_and_every_parameter_is_reached_from_the_start(form, kind):
  module = net(form)
  params = jax.jit(module.init)(jax.random.key(1), X, T)["params"]

  @jax.jit
  def gradient(params):
    def value(params):
      hessian = module.apply({"params": params}, X, T, method="hessian")
      score = module.apply({"params": params}, X, T, method="score")
      off = jnp.arange(36.0).reshape(1, 6, 6) / 36.0
      return jnp.sum(jnp.square(hessian.dense() - off)) + jnp.sum(jnp.square(score - 1.0))

    return jax.grad(value)(params), module.apply({"params": params}, X, T, method="hessian")

  slopes, hessian = gradient(params)
  assert isinstance(hessian, kind) and hessian.dimension == 6
  np.testing.assert_allclose(hessian.dense(), jnp.swapaxes(hessian.dense(), 1, 2), atol=1e-6)
  for name in ("curvature", "network"):
    last = (
      {"low_rank": ("diagonal", "factors"), "diagonal": ("diagonal",), "full": ("matrix",)}[form]
      if name == "curvature"
      else ("last",)
    )
    for layer in last:
      assert np.abs(slopes[name][layer]["kernel"]).max() > 1e-5, (name, layer)


@pytest.mark.slow
def test_the_scale_of_the_hessian_is_that_of_the_score_squared():
  module = net()
  params = jax.jit(module.init)(jax.random.key(1), X, T)["params"]
  params["network"]["last"]["kernel"] = jnp.ones_like(params["network"]["last"]["kernel"])
  scaled = jax.tree.map(lambda leaf: leaf, params)
  scaled["log_scale"] = {**params["log_scale"], "bias": jnp.full((1,), np.log(3.0), jnp.float32)}
  call = lambda p, name: module.apply({"params": p}, X, T, method=name)
  np.testing.assert_allclose(call(scaled, "score"), 3.0 * call(params, "score"), rtol=1e-5)
  np.testing.assert_allclose(
    call(scaled, "hessian").dense(), 9.0 * call(params, "hessian").dense(), rtol=1e-4, atol=1e-7
  )
  np.testing.assert_array_equal(module.apply({"params": params}, X, T), call(params, "score"))


def test_signs_are_shared_out():
  assert [halves(n) for n in range(4)] == [(), (1,), (1, -1), (1, 1, -1)]


@pytest.mark.parametrize(
  "changes,words",
  [
    (dict(rank=7), "rank 7, above the 6 dimensions"),
    (dict(form="dense"), "choose one of low_rank, diagonal, full"),
  ],
)
def test_mistakes_raise_a_sentence_when_it_is_initialised(changes, words):
  with pytest.raises(ValueError, match=words):
    jax.eval_shape(net(**changes).init, jax.random.key(0), X, T)


@pytest.mark.slow
@pytest.mark.standard_promotion
@pytest.mark.parametrize("form", ["low_rank", "diagonal", "full"])
def test_the_config_trains_both_by_the_names_of_their_methods(form, monkeypatch):
  import pathlib

  from diffusion.config import loading
  from diffusion.config.errors import UserError
  from diffusion.run.parts import assembly

  root = pathlib.Path(__file__).parents[2]
  monkeypatch.syspath_prepend(str(root))
  sizes = [
    ("network.network.width", "8"),
    ("network.width", "8"),
    ("data.size", "64"),
    ("data.held_out_size", "8"),
  ]
  config = loading.load(f"{root}/configs/high_order/toy2d.py:{form}", sizes)
  parts = assembly.assemble(config)
  params = jax.jit(lambda: assembly.init_network(parts, parts.network, jax.random.key(1)))()[0]
  loss = assembly.loss(parts)
  loss_params, state = loss.init(jax.random.key(0))
  batch = {"x": jax.random.normal(jax.random.key(0), (64, 2))}
  value = lambda params: loss({"model": params, "loss": loss_params}, state, 0, jax.random.key(2), batch)
  (_, (_, metrics)), slopes = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
  assert {"eps_mse", "second_order"} <= set(metrics)
  for part in ("curvature", "network"):
    assert sum(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(slopes[part])) > 1e-6
  with config.unlocked():
    config.denoiser = {"factory": "denoisers.eps"}
  with pytest.raises(UserError, match="whose method score gives the score: set factory='denoisers.score'"):
    assembly.loss(assembly.assemble(config))
