"""What is unlike the data of a model: by its log-likelihood, or by how typical that is."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from diffusion.likelihood import Steps, flow_steps, log_likelihood


class Scored(NamedTuple):
  """score: [B], higher is less like the data; evaluations: network calls of each example."""

  score: jax.Array
  evaluations: int


def surprise(
  denoiser: Any,
  x: jax.Array,
  *,
  cond: Mapping[str, jax.Array] | None = None,
  keys: jax.Array | None = None,
  num_steps: int = 64,
  steps: Steps | None = None,
  divergence: str = "exact",
  probes: int = 1,
  t_min: float | None = None,
) -> Scored:
  """-log p(x) in nats under the probability flow.

  To x may also stand features of the data: a generative model of a classifier's penultimate features, made
  without labels, finds the examples that the classifier gets wrong as well as those that are none of its data
  (arXiv:2010.02364). Of raw images a low score is no proof of belonging, since flat images have high density
  under models of structured ones: see `atypicality`.

  Args:
    denoiser: of the data that are usual.
    x: [B, ...] in units of the model.
    cond, keys, num_steps, steps, divergence, probes, t_min: as in `likelihood.log_likelihood`.

  Raises:
    ValueError: as there.

  >>> from diffusion import oracles, processes
  >>> usual = oracles.gaussian(processes.edm(), [0.0, 0.0], [1.0, 1.0])
  >>> found = surprise(usual, jnp.array([[0.1, 0.0], [4.0, 0.0]]), num_steps=16)
  >>> bool(found.score[1] > found.score[0] + 7.0), found.evaluations
  (True, 64)
  """
  if steps is None:
    steps = flow_steps(denoiser.process, num_steps, t_min=t_min, dtype=jnp.result_type(x, jnp.float32))
  value, _ = log_likelihood(
    denoiser, x, cond=cond, keys=keys, steps=steps, divergence=divergence, probes=probes
  )
  return Scored(-value, steps.t.shape[0])


def atypicality(score: jax.Array, reference: ArrayLike) -> jax.Array:
  """The atypicality |score - mean of the reference| of each example (arXiv:1906.02994).

  It says how far a log-likelihood is from what usual data have, on either side.

  In many dimensions data lie where the density is typical and not where it is highest, and something far
  simpler than the data has a density that is too high.

  Args:
    score: [B], such as `surprise`.
    reference: [M] the same of held-out usual data, at least ten.

  Raises:
    ValueError: too small a reference.

  >>> atypicality(jnp.array([1.0, 5.0]), jnp.array([4.0, 6.0] * 5)).tolist()
  [4.0, 0.0]
  """
  reference = jnp.asarray(reference)
  if reference.ndim != 1 or reference.shape[0] < 10:
    raise ValueError(
      "the reference is a list of scores of usual data, ten at least, and has shape "
      f"{list(reference.shape)}: the mean of fewer says little"
    )
  return jnp.abs(score - jnp.mean(reference))
