"""What every family of published models promises, over all of them: a new one is covered by being listed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import published_files
import pytest

from diffusion import processes, solvers, weights
from diffusion.config import factories
from diffusion.weights import contents, families, loading
from diffusion.weights.architectures import edm

ALIKE = {"VPPrecond", "VEPrecond", "iDDPMPrecond", "Transformer2DModel"}
"""Of EDM's classes, and the older name of a DiT: the same code as another that is here."""


def test_every_family_is_here():
  listed = {name.split(" of ")[0] for name in published_files.FILES}
  assert listed | ALIKE == set(families.FAMILIES) and ALIKE & listed == set()
  assert set(edm.PRECONDITIONERS) <= listed | ALIKE


@pytest.mark.parametrize("name", published_files.FILES)
def test_a_run_of_its_sections_takes_its_weights(tmp_path, name):
  """Its description survives JSON, makes the same parts, and its parameters are those that `init` makes."""
  path, told = published_files.FILES[name](tmp_path)
  found = loading.find(path, told)
  description = json.loads(json.dumps(found.description))
  assert description == found.description and found.description["model"] == name.split(" of ")[0]
  sections = json.loads(json.dumps(weights.sections(path, told)))
  made = {key: factories.build(section, where=key) for key, section in sections.items()}
  parts = families.parts(found.description)
  assert made["network"] == parts.network and processes.difference(made["process"], parts.process) == ""
  assert made["denoiser"].kind == parts.parameterization.kind
  assert families.parts(found.description, dtype=jnp.bfloat16).network != parts.network

  x, t = jax.ShapeDtypeStruct((1, *parts.shape), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
  cond = {"label": jax.ShapeDtypeStruct((1,), jnp.int32)} if parts.classes else {}
  cond |= {name: jax.ShapeDtypeStruct((1, 2, 2, 3), jnp.float32) for name in parts.told}
  if description["model"] == "UNet2DConditionModel":
    width = description["config"]["cross_attention_dim"]
    cond = {"text": jax.ShapeDtypeStruct((1, 77, width), jnp.float32)}
  wanted = jax.eval_shape(parts.network.init, jax.random.key(0), x, t, cond)["params"]
  shapes = lambda tree: jax.tree.map(lambda leaf: tuple(leaf.shape), tree)
  assert shapes(found.params()) == shapes(wanted)


NUMBERS = {"DiTTransformer2DModel": ".norm1.emb.", "ddpm": ".sigmas", "ncsnpp": ".sigmas"}
"""Arrays whose numbers tell what a file is, by a part of their names; of all others shapes do."""


@pytest.mark.parametrize("name", published_files.FILES)
def test_no_array_is_read_to_know_what_a_file_is_and_none_is_read_twice(tmp_path, monkeypatch, name):
  path, told = published_files.FILES[name](tmp_path)
  names, load = [], contents.Contents.load

  def counted(self, asked=None, place=None):
    asked = list(self.arrays if asked is None else asked)
    names.extend(asked)
    return load(self, asked, place)

  monkeypatch.setattr(contents.Contents, "load", counted)
  found = loading.find(path, told)
  assert all(NUMBERS.get(found.description["model"], "none") in one for one in names), names
  found.params()
  assert len(names) == len(set(names)) > 10
  used = [one for one in found.contents.arrays if not one.startswith("optimizer.")]
  assert set(names) <= set(used) and (len(names) == len(used) or name in ("EDMPrecond", "Precond"))


@pytest.mark.slow
@pytest.mark.parametrize("name", published_files.FILES)
def test_from_a_file_to_samples(tmp_path, name):
  """In two steps of a solver of the library, told its condition: finite, and another with other noise."""
  path, told = published_files.FILES[name](tmp_path)
  model = weights.load(path, told=told)
  cond = {"label": jnp.zeros(2, jnp.int32)} if model.classes else {}
  cond |= {} if model.text is None else {"text": model.text.encode(["a cat"] * 2)}
  cond |= {name: jnp.zeros((2, 2, 2, 3)) for name in model.parts.told}
  start = model.denoiser.process.prior(jax.random.split(jax.random.key(0), 2), model.shape)
  solver = solvers.build("ddim", model.denoiser.process, 2)
  x = np.asarray(solvers.sample(model.denoiser, solver, start, cond=cond or None))
  assert x.shape == (2, *model.shape) and np.all(np.isfinite(x)) and np.abs(x[0] - x[1]).max() > 1e-3
  assert (model.sampler is None) == bool(model.no_sampler)


def test_the_authors_dit_takes_their_random_steps(tmp_path):
  """250 of 1,000, respaced as theirs, with the learned variance and nothing clipped; a SiT has none here."""
  path, told = published_files.of_dit(tmp_path, "dit")
  model = weights.load(path, told=told)
  assert (model.sampler.name, model.sampler.cost, float(model.sampler.bound)) == (
    "learned_ancestral",
    250,
    np.inf,
  )
  k = np.round(1000 * np.asarray(model.sampler.times, np.float64)[:-1]) - 1
  np.testing.assert_array_equal(k[::-1], np.round(np.arange(250) * 999 / 249))
  assert set(model.sampler.views) <= set(model.denoiser.views) and model.no_sampler == ""
  assert loading.sampler(model.description, model.denoiser.process, 10)[0].cost == 10
  path, told = published_files.of_dit(tmp_path, "sit")
  assert weights.load(path, told=told).sampler is None
