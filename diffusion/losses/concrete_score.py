"""Concrete score matching: ratios of the probabilities of neighbouring states.

They are learned without any normaliser.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Draw, Objective, example_keys, split_keys, terms
from diffusion.math.precision import at_least_single
from diffusion.processes.neighbourhoods import Neighbourhood


def concrete_score_matching(
  process: Any, neighbourhood: Neighbourhood, *, num_reverse: int | None = None
) -> Objective:
  """Concrete score matching: the squared error of the concrete score, up to a constant.

  The concrete score is c_p(x)_i = p(x_{n_i}) / p(x) - 1 (arXiv:2211.00802, section 4).

  Summed by parts over neighbours, the sums over the states y of which x is a neighbour, the i-th:

      sum_i (c(x)_i^2 + 2 c(x)_i) - 2 sum_{(y, i): y_{n_i} = x} c(y)_i

  whose expectation at the true score is minus its own mean square. It takes 1 + R calls of the model an
  example, R being the number of reverse neighbours; with num_reverse=m it takes 1 + m, by m of these at
  random without repetition. The estimate is unbiased, and only what differs between x and its reverse
  neighbours is left to chance.

  Args:
    process: a discrete process such as `processes.uniform_resample(...)`, whose x_t is then the data; or None
      for the data as they are, where every state must have some probability: a state that never occurs next
      to one that does has a ratio without bound.
    neighbourhood: from `processes.neighbourhoods`.
    num_reverse: m, from 1 to R; all of them where None.

  batch: a dict with 'x' [B, ...] int and, if conditional, 'cond'. View needed:
  'concrete_score', [B, N]. Raises ValueError for what is no discrete process or neighbourhood, or does not
  fit.

  >>> from diffusion import losses, processes
  >>> objective = losses.concrete_score_matching(None, processes.neighbourhoods.cycle(16))
  >>> sorted(objective.needs["model"])
  ['concrete_score']
  """
  name = "concrete_score_matching"
  check(process, neighbourhood, name)
  total = neighbourhood.num_reverse
  if num_reverse is not None and not (isinstance(num_reverse, int) and 1 <= num_reverse <= total):
    raise ValueError(
      f"{name} takes num_reverse=1 to {total} of the reverse neighbours of {neighbourhood.name}, or None for "
      f"all; got {num_reverse!r}"
    )
  inner = corrupted(process, neighbourhood, name)

  def draw(key, batch, t, state):
    drawn = inner(key, batch, t, state)
    if num_reverse is None:
      return drawn
    own, keys = split_keys(drawn.keys, 2)
    pick = lambda key: jax.random.permutation(key, total)[:num_reverse]
    return drawn.replace(keys=keys, targets={"reverse": jax.vmap(pick)(own)})

  def evaluate(roles, placed, params, state, clock):
    x, picked = placed.x_t, placed.targets.get("reverse")
    before, slot, exists = neighbourhood.reverse_neighbours(x, picked)
    # One call of the model for the state and its reverse neighbours: rows of an example stand together.
    rows = jnp.concatenate([x[:, None], before], axis=1)
    count = rows.shape[1]
    t, cond = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), (placed.t, placed.cond))
    values = concrete_of(roles, rows.reshape(-1, *x.shape[1:]), t, cond, neighbourhood, name).reshape(
      *rows.shape[:2], -1
    )
    here = jnp.where(neighbourhood.values(x)[1], values[:, 0], 0.0)
    there = jnp.where(exists, jnp.take_along_axis(values[:, 1:], slot[:, :, None], axis=2)[:, :, 0], 0.0)
    incoming = jnp.sum(there, axis=1)
    if picked is not None:
      # Of the sum over all R, what is known from the call at x is taken exactly; the chosen ones stand for
      # the rest.
      control = lambda slot, exists: jnp.where(exists, jnp.take_along_axis(here, slot, axis=1), 0.0)
      every = jnp.broadcast_to(jnp.asarray(neighbourhood.slot, slot.dtype)[None], (x.shape[0], total))
      known = jnp.sum(control(every, neighbourhood.reverse_values(x)[1]), axis=1)
      incoming = known + (total / picked.shape[1]) * jnp.sum(there - control(slot, exists), axis=1)
    square = jnp.sum(jnp.square(here), axis=1)
    return terms(square + 2.0 * (jnp.sum(here, axis=1) - incoming), metrics={"square": square})

  return Objective(
    name=name, draw=draw, evaluate=evaluate, process=process, needs={"model": {"concrete_score": name}}
  )


def denoising_concrete_score_matching(process: Any, neighbourhood: Neighbourhood) -> Objective:
  """Denoising concrete score matching: the concrete score's squared error against the kernel's ratio.

  The score is that of x_t, and the ratio that of its kernel (arXiv:2211.00802, section 4.3):

      sum_i (c(x_t)_i - [q(x_{t, n_i} | x_0) / q(x_t | x_0) - 1])^2

  One call of the model an example; the minimiser is the concrete score of p_t, since the posterior mean of
  the kernel's ratios is the ratio of p_t. Times drawn over an interval train all noise levels at once. Under
  resampling the targets are of order s/m, which grows without bound as the noise vanishes: chain
  `weight_by(balanced())`, which is m/s there, and keep t_min away from 0.

  Args:
    process: a discrete process: `processes.uniform_resample`, `processes.discretised_gaussian`, or any object
      with their methods.
    neighbourhood: from `processes.neighbourhoods`; a missing neighbour asks nothing of the model's output.

  batch: a dict with 'x' [B, ...] int and, if conditional, 'cond'. View needed:
  'concrete_score', [B, N]. Raises ValueError for what is no discrete process or neighbourhood, or does not
  fit.

  >>> from diffusion import losses, processes
  >>> neighbourhood = processes.neighbourhoods.bit_flips((8, 8, 1))
  >>> losses.denoising_concrete_score_matching(processes.uniform_resample(2, (8, 8, 1)), neighbourhood).name
  'denoising_concrete_score_matching'
  """
  name = "denoising_concrete_score_matching"
  if process is None:
    raise ValueError(
      f"{name} needs the noise of a discrete process such as processes.uniform_resample(...): on clean data "
      "take "
      "concrete_score_matching(None, neighbourhood)"
    )
  check(process, neighbourhood, name)

  def evaluate(roles, placed, params, state, clock):
    target, exists = kernel_concrete(process, neighbourhood, placed.x0, placed.x_t, placed.t)
    predicted = concrete_of(roles, placed.x_t, placed.t, placed.cond, neighbourhood, name)
    square = jnp.sum(jnp.where(exists, jnp.square(predicted - target.astype(predicted.dtype)), 0.0), axis=1)
    return terms(square, metrics={"concrete_mse": square / neighbourhood.num_neighbours})

  return Objective(
    name=name,
    draw=corrupted(process, neighbourhood, name),
    evaluate=evaluate,
    process=process,
    needs={"model": {"concrete_score": name}},
  )


def balanced() -> Callable[[Any, Any], Any]:
  """The weight under which every noise level pulls alike.

  See `balance` of each process. Under resampling with little noise it is m/s. There a target is s/m with
  probability of order m, so that its mean square is of order s/m; and it is next to nothing where the noise
  is nearly all.

  >>> from diffusion import processes
  >>> print(np.asarray(balanced()(processes.uniform_resample(2), jnp.array([0.01, 0.5, 1.0]))).round(4))
  [5.1e-03 7.5e-01 1.0e+02]
  """
  return lambda process, t: process.balance(t)


def kernel_concrete(
  process: Any, neighbourhood: Neighbourhood, x0: jax.Array, x_t: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(q(x_{t, n_i} | x_0) / q(x_t | x_0) - 1 [B, N], which neighbours exist [B, N])."""
  values, exists = neighbourhood.values(x_t)
  place = np.asarray(neighbourhood.coordinate)
  clean, old = neighbourhood.flat(x0)[:, place], neighbourhood.flat(x_t)[:, place]
  return process.ratio(clean, old, values, np.asarray(neighbourhood.sizes)[place], t) - 1.0, exists


def corrupted(process: Any, neighbourhood: Neighbourhood, who: str) -> Callable[..., Draw]:
  """draw(key, batch, t, state) of the data and the noise of the process, if any."""

  def draw(key, batch, t, state):
    del state
    if not isinstance(batch, dict) or "x" not in batch:
      raise ValueError(
        f"{who} takes a batch that is a dict with 'x' [B, ...], got "
        f"{sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
      )
    x0 = batch["x"]
    neighbourhood.flat(x0)  # whole numbers of the right shape, or an error
    network_key, key = jax.random.split(key)
    noise_keys, keys = split_keys(example_keys(key, batch), 2)
    noise = None if process is None else process.noise(noise_keys, x0)
    return Draw(t=t, x0=x0, noise=noise, cond=batch.get("cond"), keys=keys, key=network_key)

  return draw


def concrete_of(
  roles: Mapping[str, Any], x: jax.Array, t: jax.Array, cond: Any, neighbourhood: Neighbourhood, who: str
) -> jax.Array:
  """The model's concrete score [B, N], in at least float32. Raises ValueError for another shape."""
  value = roles["model"](x, t, cond, views=("concrete_score",)).concrete_score
  wanted = (x.shape[0], neighbourhood.num_neighbours)
  if value.shape != wanted:
    raise ValueError(
      f"{who}: concrete_score returned shape {value.shape}; {neighbourhood.name} has {wanted[1]} neighbours, "
      f"so it is {wanted}"
    )
  return value.astype(at_least_single(value.dtype))


def check(process: Any, neighbourhood: Neighbourhood, who: str) -> None:
  """Raises ValueError unless it is a discrete process, or None, and a neighbourhood of the same states."""
  if not isinstance(neighbourhood, Neighbourhood):
    raise ValueError(
      f"{who} takes a neighbourhood such as processes.neighbourhoods.cycle(16), got "
      f"{type(neighbourhood).__name__}"
    )
  if process is None:
    return
  if "concrete_score" not in process.views:
    raise ValueError(
      f"{who} acts on whole numbers under a discrete process such as processes.uniform_resample(...); "
      f"{process.name} is none"
    )
  if (process.sizes, process.shape) != (neighbourhood.sizes, neighbourhood.shape):
    raise ValueError(
      f"{who}: the process has states of shape {process.shape} with {_few(process.sizes)} values, the "
      "neighbourhood of shape "
      f"{neighbourhood.shape} with {_few(neighbourhood.sizes)}: give both the same"
    )


def _few(sizes):
  return ", ".join(map(str, sizes[:4])) + (", ..." if len(sizes) > 4 else "")
