"""Distribution matching: a generator of one step, taught by where a critic and a teacher differ."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Draw, Objective, Placed, example_keys, placed_at, split_keys, terms
from diffusion.losses.denoising import check_gaussian, residual
from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import expand


def distribution_matching(process: Any, *, normalized: bool = True) -> Objective:
  """Distribution matching: the gradient of KL(generated || data) at noise level t, as a squared error.

  Source: DMD, arXiv:2311.18828, eq. 7-8.

  The generator is the model's own x0 at pure noise, G(z) = x0(z, t_max). At x_t of it, the teacher knows
  the score of the data and `fake` that of the generated: the value is half the square of w (x0_fake -
  x0_teacher), and its gradient that of the generator along it. `fake` is a role of its own that another
  player trains, by `fake_matching`, more often than this (arXiv:2405.14867, two time scales). Where
  generated and data are one law and `fake` is right, the gradient is nought.

  Args:
    process: the Gaussian process of all three.
    normalized: w is the inverse of the mean |G(z) - x0_teacher| of each example (eq. 8), else 1.

  batch: a dict with 'x' [B, ...], of which only the shape is taken, and, if conditional, 'cond'. Raises
  ValueError for what is no Gaussian process.

  >>> from diffusion import losses, processes
  >>> sorted(losses.distribution_matching(processes.edm()).needs)
  ['fake', 'model', 'teacher']
  """
  name = "distribution_matching"
  check_gaussian(process, name)

  def evaluate(roles, placed, params, state, clock):
    generated = placed.targets["generated"]
    ask = lambda role: roles[role](placed.x_t, placed.t, placed.cond, views=("x0",), train=False).x0
    real, fake = jax.lax.stop_gradient((ask("teacher"), ask("fake")))
    wide = at_least_single(real.dtype)
    away = fake.astype(wide) - real.astype(wide)
    if normalized:
      far = jnp.abs(generated.astype(wide) - real.astype(wide)).reshape(away.shape[0], -1).mean(axis=1)
      away = away / expand(jnp.maximum(far, 1e-6), away)
    still = jax.lax.stop_gradient(generated.astype(wide) - away)
    square = sum_rows(jnp.square(generated.astype(wide) - still))
    return terms(0.5 * square, metrics={"distance": jnp.sqrt(sum_rows(jnp.square(away)))})

  needs = {"model": {"x0": name}, "teacher": {"x0": name}, "fake": {"x0": name}}
  return Objective(
    name=name,
    draw=_draw(process, name),
    place=_generated(process, True),
    evaluate=evaluate,
    process=process,
    needs=needs,
    denoises=False,
  )


def fake_matching(process: Any) -> Objective:
  """Denoising score matching of the role 'fake' on what the model generates in one step.

  Source: arXiv:2311.18828, section 4.2. The minimiser is the denoiser of the generated law; no gradient
  reaches the model. In units of eps.

  batch: as in `distribution_matching`. Raises ValueError for what is no Gaussian process.

  >>> from diffusion import losses, processes
  >>> sorted(losses.fake_matching(processes.edm()).needs)
  ['fake', 'model']
  """
  name = "fake_matching"
  check_gaussian(process, name)

  def evaluate(roles, placed, params, state, clock):
    said = roles["fake"](placed.x_t, placed.t, placed.cond, views=("x0",), key=placed.key)
    at = placed.replace(x0=placed.targets["generated"])
    square = sum_rows(jnp.square(residual(process, "x0", said.x0, at)))
    collections = None if said.collections is None else {"fake": said.collections}
    return terms(square, metrics={"eps_mse": square / said.x0[0].size}, collections=collections)

  needs = {"model": {"x0": name}, "fake": {"x0": name}}
  return Objective(
    name=name,
    draw=_draw(process, name),
    place=_generated(process, False),
    evaluate=evaluate,
    process=process,
    needs=needs,
  )


def _draw(process, who):
  """draw(key, batch, t, state): the pure noise that an example is made of, and the noise it is seen under."""

  def draw(key, batch, t, state):
    if not isinstance(batch, dict) or "x" not in batch:
      raise ValueError(
        f"{who} takes a batch that is a dict with 'x' [B, ...], got "
        f"{sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
      )
    x = batch["x"]
    network_key, key = jax.random.split(key)
    noise_keys, start_keys, keys = split_keys(example_keys(key, batch), 3)
    start = jnp.asarray(process.prior_std, x.dtype) * process.noise(start_keys, x)
    return Draw(
      t=t,
      x0=x,
      noise=process.noise(noise_keys, x),
      cond=batch.get("cond"),
      keys=keys,
      key=network_key,
      targets={"start": start},
    )

  return draw


def _generated(process, learns):
  """place(roles, draw): x_t of what the model makes of pure noise; `learns` lets gradients into the model."""

  def place(roles, draw: Draw) -> Placed:
    start = draw.targets["start"]
    top = jnp.broadcast_to(jnp.asarray(process.t_max, draw.t.dtype), draw.t.shape)
    mode = {} if learns else {"train": False}
    made = roles["model"](start, top, draw.cond, views=("x0",), key=draw.key, **mode).x0
    made = made if learns else jax.lax.stop_gradient(made)
    draw = draw.replace(targets={**draw.targets, "generated": made})
    return placed_at(draw, process.corrupt(made, draw.noise, draw.t).astype(start.dtype))

  return place
