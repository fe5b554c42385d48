"""config.sampler.guidance as a list of sections: as by hand, and mistakes named before training."""

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from diffusion import guidance
from diffusion.config import loading
from diffusion.config.errors import UserError
from diffusion.run.parts import assembly, checks, sampler_config

FREE = dict(factory="guidance.classifier_free", weight=0.5)


def parts_of(**sampler):
  config = loading.load("configs/digits.py")
  config.network.width, config.network.depth = 16, 1
  with config.unlocked():
    config.sampler = ml_collections.ConfigDict(dict(solver="ddim", steps=4, **sampler))
  return assembly.assemble(config)


def guided(parts):
  denoiser = assembly.denoiser(parts, jax.jit(lambda: assembly.init_state(parts).params["model"])())
  objective = assembly.model_player(parts).loss.objective
  return sampler_config.guide(objective, parts.dataset, parts.config.sampler)(denoiser), denoiser


def test_a_list_is_the_chain_that_one_writes_by_hand():
  sections = [FREE | dict(interval=(0.1, 5.0)), dict(factory="guidance.static_threshold", bound=0.2)]
  found, denoiser = guided(parts_of(guidance=sections))
  by_hand = guidance.chain(guidance.classifier_free(0.5, (0.1, 5.0)), guidance.static_threshold(0.2))(
    denoiser
  )
  chex.assert_trees_all_equal_structs(found, by_hand)
  x, t = jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.array([0.05, 1.0, 20.0])
  ask = lambda one: one(x, t, {"label": jnp.arange(3)}, views=("x0",)).x0
  np.testing.assert_array_equal(ask(found), ask(by_hand))
  np.testing.assert_allclose(np.abs(ask(found)).max(), 0.2, rtol=1e-6)  # it was wider
  assert np.abs(ask(denoiser)).max() > 0.3


def test_a_weight_is_a_list_of_one_section():
  chex.assert_trees_all_equal(guided(parts_of(guidance=0.5))[0], guided(parts_of(guidance=[FREE]))[0])


@pytest.mark.parametrize(
  ("sampler", "says"),
  [
    (dict(guidance=[dict(factory="guidance.clasifier_free")]), "classifier_free"),
    (dict(guidance=[dict(factory="guidance.classifier_free", wieght=1.0)]), "weight"),
    (dict(guidance=[FREE], interval=(0.1, 1.0)), "give the interval to its sections"),
    (dict(guidance="strong"), "guidance is a number"),
  ],
)
def test_mistakes_are_named_before_training(sampler, says):
  with pytest.raises(UserError, match=says):
    checks.check(parts_of(**sampler))


def test_a_run_without_condition_dropout_has_no_unconditional_model_to_guide_by():
  parts = parts_of(guidance=[FREE])
  parts.config.loss.condition_dropout = 0.0
  with pytest.raises(UserError, match="condition_dropout=0.1"):
    checks.check(parts)
