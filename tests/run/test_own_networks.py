"""A Flax NNX module and a plain pair of functions are trained, resumed and sampled from a config."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import own_networks
import pytest
import tiny
from flax import linen as nn, nnx

from diffusion import denoisers, networks, processes, sampling
from diffusion.config.errors import UserError
from diffusion.run import interruption, loop, opening
from diffusion.run.parts import assembly
from diffusion.run.saved import checkpoints

pytestmark = pytest.mark.standard_promotion

SECTIONS = {
  "nnx": dict(factory="networks.from_nnx", module="own_networks.Net", width=16),
  "pair": dict(factory="networks.from_pair", init="own_networks.init", apply="own_networks.apply"),
}


def config_of(name, **training):
  config = tiny.get_config()
  config.network = SECTIONS[name]
  config.training.update(dict(steps=20, checkpoint_every=10, log_every=5, **training))
  return config


@pytest.mark.parametrize("name", [pytest.param("nnx", marks=pytest.mark.slow), "pair"])
def test_it_trains_resumes_bit_for_bit_and_samples(name, tmp_path, monkeypatch):
  whole = loop.train(config_of(name), str(tmp_path / "whole"), quiet=True)
  asked = interruption.Watch.ask
  monkeypatch.setattr(
    interruption.Watch, "ask", lambda self, done: _stop(self) if done == 10 else asked(self, done)
  )
  with pytest.raises(interruption.Stopped):
    loop.train(config_of(name), str(tmp_path / "halves"), quiet=True)
  monkeypatch.undo()
  halves = loop.train(config_of(name), str(tmp_path / "halves"), quiet=True)
  jax.tree.map(np.testing.assert_array_equal, halves.state, whole.state)
  start = jax.tree.leaves(jax.jit(lambda: assembly.init_state(whole.parts))().params["model"])
  moved = [float(jnp.abs(a - b).max()) for a, b in zip(start, jax.tree.leaves(whole.state.params["model"]))]
  assert min(moved) > 0
  losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
  assert losses[-1] < losses[0]

  run = opening.open_run(str(tmp_path / "whole"))
  jax.tree.map(np.testing.assert_array_equal, run.params, whole.state.emas["500"])
  jax.tree.map(
    np.testing.assert_array_equal,
    run.denoiser.collections,
    whole.state.loss_state["collections"].get("model", {}),
  )
  assert bool(run.denoiser.collections) == (name == "nnx")
  denoiser, solver = opening.make_sampler(run)
  found = sampling.generate(denoiser, solver, (2,), 8, labels=lambda index: index % 3, batch=8)
  assert np.isfinite(found.x).all() and found.x.std() > 0


def _stop(watch):
  import signal

  watch.signal = signal.SIGTERM
  return watch.signal


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_another(tmp_path):
  """Lists and NNX states among them."""
  for name in SECTIONS:
    first = loop.train(config_of(name), str(tmp_path / name), quiet=True)
    config = config_of(name, warm_start=str(tmp_path / name))
    config.optimizer.learning_rate = 1e-30
    config.training.steps = 1
    second = loop.train(config, str(tmp_path / f"{name}-on"), quiet=True)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
      second.state.params["model"],
      first.state.emas["500"],
    )


class Plain(nn.Module):
  """The linen twin of `Twin`."""

  @nn.compact
  def __call__(self, x, t, cond=None, train=False):
    h = nn.swish(nn.Dense(8, name="first")(jnp.concatenate([x, t[:, None]], axis=1)))
    h = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(h)
    return nn.Dense(2, name="last")(h)


class Twin(nnx.Module):
  """The same in NNX."""

  def __init__(self, rngs):
    self.first, self.last = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
    self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)

  def __call__(self, x, t, cond=None):
    return self.last(self.norm(nnx.swish(self.first(jnp.concatenate([x, t[:, None]], axis=1)))))


@pytest.mark.parametrize("train", [False, True])
def test_an_nnx_network_is_the_linen_network_of_the_same_weights(train):
  """Outputs, batch statistics and gradients, through the parameterisation."""
  x, t = jax.random.normal(jax.random.key(0), (16, 2)), jnp.linspace(0.1, 2.0, 16)
  linen, twin = networks.Linen(Plain()), networks.from_nnx(Twin)
  params, collections = linen.init(jax.random.key(1), x, t, None)
  shapes = jax.tree.map(jnp.shape, twin.init(jax.random.key(1), x, t, None))
  assert shapes == jax.tree.map(jnp.shape, (params, {"state": collections["batch_stats"]}))

  def of(network, own):
    template = denoisers.from_network(network, processes.edm(), denoisers.edm(data_std=1.0), None, own)

    def value(params):
      answer = template.with_params(params)(x, t, views=("x0",), train=train)
      return jnp.sum(answer.x0**2), answer

    return jax.jit(jax.value_and_grad(value, has_aux=True))(params)

  (one, seen), slope = of(linen, collections)
  (other, found), its = of(twin, {"state": collections["batch_stats"]})
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
  close(one, other)
  jax.tree.map(close, slope, its)
  if train:
    jax.tree.map(close, seen.collections["batch_stats"], found.collections["state"])


def test_dropout_draws_from_the_key_and_rests_in_evaluation():
  network = networks.from_nnx(own_networks.Net, width=16, dropout=0.5)
  x, t = jax.random.normal(jax.random.key(3), (4, 2)), jnp.ones(4)
  params, collections = network.init(jax.random.key(0), x, t, None)
  of = lambda seed, train: network.apply(params, collections, x, t, None, jax.random.key(seed), train)[0]
  np.testing.assert_array_equal(of(1, True), of(1, True))
  assert float(jnp.abs(of(1, True) - of(2, True)).max()) > 1e-3
  np.testing.assert_array_equal(of(1, False), of(2, False))


def test_networks_made_alike_are_one_program():
  one, two = (networks.from_nnx("own_networks.Net", width=16) for _ in range(2))
  assert one == two and hash(one) == hash(two) and one != networks.from_nnx("own_networks.Net", width=8)
  pair = lambda: networks.from_pair("own_networks.init", "own_networks.apply")
  assert pair() == pair() and hash(pair()) == hash(pair())


@pytest.mark.parametrize(
  "section, words",
  [
    (dict(SECTIONS["nnx"], widht=3), "'Net' is called with rngs and widht, width: .*'widht'"),
    (dict(factory="networks.from_nnx", module="own_networks.Ned"), "has no 'Ned' .*did you mean 'Net'"),
    (dict(factory="fractions.Fraction", numerator=3), "Fraction is no network: .*networks.from_nnx"),
    (dict(SECTIONS["pair"], init="own_networks.same_name_twice"), "two arrays .* params.model.enc.w "),
  ],
)
def test_mistakes_are_one_sentence_before_anything_is_compiled(section, words, tmp_path, monkeypatch):
  config = config_of("pair")
  config.network = section
  monkeypatch.setattr(jax.stages.Lowered, "compile", None)
  with pytest.raises(UserError, match=words):
    loop.train(config, str(tmp_path / "run"), quiet=True)
  assert checkpoints.choose(str(tmp_path / "run" / "checkpoints")) is None
