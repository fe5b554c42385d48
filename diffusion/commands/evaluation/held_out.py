"""Loss and likelihood of held-out data."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import likelihood
from diffusion.data import Standardize, order
from diffusion.run.parts import assembly, codec

# Held-out examples that the loss and the likelihood are measured on, unless config.evaluation.held_out says
# otherwise; drawn where there are more.
MOST_HELD_OUT = 512
# Passes over the held-out data, each with its own times and noise, that the held-out loss is averaged over.
LOSS_PASSES = 16
# Evaluations of each record that the bound of a discrete process is averaged over; a masked model of no more
# values than that is read in order too, for its exact likelihood.
BOUND_DRAWS = 64
# Records of one evaluation of a model that says each value given those before it.
IN_ORDER_ROWS = 256


def chosen(held: Mapping[str, np.ndarray], most: int = MOST_HELD_OUT, seed: int = 0) -> dict[str, np.ndarray]:
  """At most `most` of some records, drawn by the seed where there are more; all of them keep their order."""
  rows = order.subset(len(held["x"]), most, seed)
  return {name: array[rows] for name, array in held.items()}


def model_batch(run: Any, held: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Held-out records as the batch that a loss takes, with fixed dequantisation noise.

  Under a codec x is what the model sees.
  """
  dataset, x = run.parts.dataset, np.asarray(held["x"])
  noise = np.random.default_rng(0).random(x.shape) if dataset.scaling.uses_noise else None
  batch = jax.tree.map(jnp.asarray, dataset.encode(held, noise))
  return codec.encoded(run.parts.codec, run.codec_params, batch, jax.random.key(0))


def held_out_loss(
  run: Any, held: Mapping[str, np.ndarray], most: int = MOST_HELD_OUT, seed: int = 0
) -> float:
  """The training loss on held-out data, averaged over several draws of times and noise.

  With the averaged weights and the network in evaluation mode (no dropout); the loss itself, its condition
  dropout included, is that of training.

  Args:
    run: of `open_run`.
    held: held-out records, stored values.
    most, seed: how many of them to take, and the seed that draws them.
  """
  player = assembly.model_player(run.parts)
  batch = model_batch(run, chosen(held, most, seed))
  params, state = run.loss_inputs(player)

  @jax.jit
  def value(params, state, batch, passes):
    one = lambda number: player.loss(
      params, state, jnp.int32(0), jax.random.fold_in(jax.random.key(1), number), batch, train=False
    )[0]
    return jnp.mean(jax.lax.map(one, passes))

  return float(value(params, state, batch, jnp.arange(LOSS_PASSES)))


def held_out_likelihood(
  run: Any, held: Mapping[str, np.ndarray], most: int = MOST_HELD_OUT, seed: int = 0
) -> dict[str, Any]:
  """The likelihood of held-out data, or a bound of it, by the kind of data.

  For pixels it is bits_per_dim (uniform dequantisation) and for real-valued data nats_per_dim, both by the
  probability flow. For whole numbers on a discrete process it is bits_per_dim_bound, an upper bound by
  `masked_elbo` or `categorical_elbo`; of a masked model of few values bits_per_dim_in_order too, exactly that
  of filling them in from first to last; and of a model that says each value given those before it
  bits_per_dim, exactly. Of text they are bits_per_character or bits_per_token, and so on.

  One Rademacher probe and one draw of noise an example; the error is over examples. A model of pixels trained
  without dequantisation has this likelihood too, but was not trained for it: `dequantized_in_training` says
  which it is. Of a conditional model it is that of x given its condition.

  Args:
    run: of `open_run`.
    held: held-out records, stored values.
    most, seed: how many of them to take, and the seed that draws them.

  Raises:
    ValueError: fewer than two records, or a model without a density (see `why_none`).
  """
  why = why_none(run)
  if why:
    raise ValueError(why)
  dataset, held = run.parts.dataset, chosen(held, most, seed)
  if len(held["x"]) < 2:
    raise ValueError(f"a mean with its error needs two held-out records, and there are {len(held['x'])}")
  if _in_order(run):
    return _next_token(run, held)
  if run.parts.process.kind == "discrete":
    return _discrete_bound(run, held)
  scaling, size = dataset.scaling, int(np.prod(dataset.shape))
  name, pixels = scaling.likelihood, scaling.likelihood == "bits_per_dim"
  cond = dataset.encode(held).get("cond")
  if cond and np.any(np.asarray(cond.get("label", 0)) < 0) and not run.objective.drops_condition:
    raise ValueError("the records have no class, and the model never saw one without")
  cond = cond and {key: jnp.asarray(array) for key, array in cond.items()}

  def log_prob(x, keys):
    own, params = run.parts.codec, run.codec_params
    z = x if own is None else own.encode(params, x, keys)
    nats = likelihood.log_likelihood(
      run.denoiser, z, cond=cond, keys=keys, num_steps=24, divergence="rademacher"
    )[0]
    return nats if own is None else nats + own.log_det(params, x)

  # Real numbers are standardised on the host, where an offset costs no digits.
  values = jnp.asarray(held["x"] if pixels else scaling.to_model(held["x"]))
  nats, _ = likelihood.log_likelihood_of_values(
    log_prob,
    values,
    scaling if pixels else Standardize(),
    dequantization="uniform" if pixels else "none",
    keys=jax.random.split(jax.random.key(2), values.shape[0]),
  )
  if pixels:
    found = np.asarray(likelihood.bits_per_dim(nats, dataset.shape))
  else:
    found = -np.asarray(nats) / size - scaling.log_det
  result = {name: float(found.mean()), f"{name}_error": float(found.std(ddof=1) / np.sqrt(len(found)))}
  return result | ({"dequantized_in_training": scaling.uses_noise} if pixels else {})


def _discrete_bound(run, held):
  """The bound of a discrete process, with its error over records; of few masked values, in order too."""
  batch, shape = jax.tree.map(jnp.asarray, run.parts.dataset.encode(held)), run.parts.dataset.shape
  x, cond, name = batch["x"], batch.get("cond"), name_of_likelihood(run)
  keys = jax.random.split(jax.random.key(2), len(x))
  if run.parts.process.ends[1] != "mask":
    bound = likelihood.categorical_elbo(run.denoiser, x, keys=keys, cond=cond, num_times=BOUND_DRAWS)
    return _in_bits(run, bound.total, name)
  nats = likelihood.masked_elbo(run.denoiser, x, keys=keys, cond=cond, draws=BOUND_DRAWS)
  found = _in_bits(run, nats, name)
  if np.prod(shape) <= BOUND_DRAWS:
    nats = likelihood.log_prob_in_order(run.denoiser, x, cond=cond)
    found |= _in_bits(run, nats, name.removesuffix("_bound") + "_in_order")
  return found


def _next_token(run, held):
  """The exact likelihood of a model that says each value given those before it."""
  batch, found = jax.tree.map(jnp.asarray, run.parts.dataset.encode(held)), []
  for first in range(0, len(batch["x"]), IN_ORDER_ROWS):
    rows = jax.tree.map(lambda leaf, first=first: leaf[first : first + IN_ORDER_ROWS], batch)
    found.append(likelihood.next_token_log_likelihood(run.denoiser, rows["x"], rows.get("cond")))
  return _in_bits(run, jnp.concatenate(found), name_of_likelihood(run))


def _in_bits(run, nats, name):
  """Bits a value under a name, with the error over records."""
  found = likelihood.measured(nats, run.parts.dataset.shape, "bits/dim")
  return {name: found.value, f"{name}_error": found.error}


def _in_order(run):
  """Whether a run's model says each value given those before it."""
  return "next_logits" in run.denoiser.views


def has_likelihood(run: Any) -> bool:
  """Whether a run may have a likelihood: one that learned a denoiser, or each value given those before it."""
  return run.parts.parameterization is not None or _in_order(run)


def name_of_likelihood(run: Any) -> str:
  """What metrics.json calls the likelihood of a run."""
  unit = run.parts.dataset.scaling.unit
  if _in_order(run):
    return f"bits_per_{unit}"
  if run.parts.process.kind == "discrete":
    return f"bits_per_{unit}_bound"
  return run.parts.dataset.scaling.likelihood or "likelihood"


def why_none(run: Any) -> str:
  """Why there is no likelihood of a run, in a sentence; '' where there is one.

  The probability flow needs a Gaussian process, and a denoiser at all times and without guidance; the bound
  of a process with masks asks for no more than the logits, and that of another discrete process for jump
  rates, which follow from logits.
  """
  process = run.parts.process
  if _in_order(run) or process.ends[1] == "mask":
    return ""
  if process.kind == "discrete":
    if "rates" in run.denoiser.views:
      return ""
    return (
      f"the bound of whole numbers takes jump rates, and this model of '{process.name}' answers only "
      f"{', '.join(run.denoiser.views)}"
    )
  if not run.parts.dataset.scaling.likelihood:
    return "a density says nothing of whole numbers that are categories"
  if process.ends == ("data", "data"):
    return f"'{process.name}' runs between two data sets, and the density of the second is not known"
  if process.kind != "gaussian":
    return f"the probability flow is followed on Gaussian processes, and '{process.name}' is {process.kind}"
  if run.parts.codec is not None and run.parts.codec.log_det is None:
    return (
      "the codec has no log_det: its decoder is not the inverse of its encoder, so a density of latents is "
      "none of the data"
    )
  if not run.objective.denoises:
    return "a student of few steps is no denoiser at every time, as the probability flow needs"
  learned = run.objective.conditions.get("guidance")
  if learned and learned[0]:
    return f"the run has learned guidance from {learned[0]:g} on, and a guided denoiser has no density"
  return ""
