"""Where every array lives: the one module that names mesh axes.

The mesh has the axes `data` and `model`. A batch is split along `data`; parameters, optimiser state
and EMAs follow one rule, `leaf_spec`. Everything else in the library is written for one logical array
and does not know how many devices hold it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffusion.config.errors import UserError

LAYOUTS = ("replicated", "fsdp")
SMALLEST = 1024
"""Leaves with fewer numbers than this stay whole on every device: gathering one costs more than keeping
it."""


def make_mesh(model: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
  """A mesh over all devices (of all processes), `model` of them to a model and the rest along `data`.

  >>> dict(make_mesh(devices=jax.devices()[:1]).shape)
  {'data': 1, 'model': 1}
  """
  devices = jax.devices() if devices is None else devices
  if model < 1 or len(devices) % model:
    raise UserError(
      f"config.training.model_devices={model} does not divide the {len(devices)} devices; choose a divisor"
    )
  if jax.process_count() > 1 and jax.local_device_count() % model:
    raise UserError(
      f"config.training.model_devices={model} does not divide the {jax.local_device_count()} devices of a "
      "process, "
      "whose part of the batch is its own; choose a divisor"
    )
  grid = np.asarray(devices).reshape(len(devices) // model, model)
  return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def leaf_spec(shape: tuple[int, ...], layout: str, mesh: Mesh) -> PartitionSpec:
  """How one leaf of the train state is split.

  `replicated` keeps a whole copy on each device. `fsdp` splits the longest axis that the number of devices
  divides (the last of equals) over all of them, so that each holds 1/N; leaves without such an axis, and
  small ones, stay whole.

  >>> mesh = make_mesh(devices=jax.devices()[:4])
  >>> tuple(leaf_spec((3, 3, 64, 128), "fsdp", mesh)), tuple(leaf_spec((128,), "fsdp", mesh))
  ((None, None, None, ('data', 'model')), ())
  """
  if layout not in LAYOUTS:
    raise UserError(f"config.training.layout='{layout}': the layouts are {', '.join(LAYOUTS)}")
  fitting = [(size, axis) for axis, size in enumerate(shape) if size % mesh.size == 0]
  if layout == "replicated" or mesh.size == 1 or math.prod(shape) < SMALLEST or not fitting:
    return PartitionSpec()
  _, axis = max(fitting)
  return PartitionSpec(*[None] * axis, ("data", "model"))


def state_sharding(mesh: Mesh, state: Any, layout: str = "replicated") -> Any:
  """A NamedSharding for each leaf of a train state (arrays or shapes)."""
  return jax.tree.map(lambda leaf: NamedSharding(mesh, leaf_spec(leaf.shape, layout, mesh)), state)


def placed(shapes: Any, places: Any) -> Any:
  """A `jax.ShapeDtypeStruct` for each leaf (array or shape), with its place among the shardings `places`."""
  put = lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
  return jax.tree.map(put, shapes, places)


def whole(params: Any, places: Any, mesh: Mesh) -> Any:
  """Parameters gathered to a whole copy for the loss, whose gradient comes back split as they are.

  Said here, the compiler gathers weights and never moves activations, whatever the network: examples stay
  where they are.

  Args:
    params: a pytree of arrays, split as `places` says.
    places: a NamedSharding for each.
    mesh: of all of them. With one device nothing is said, and nothing to compile.
  """
  if mesh.size == 1:
    return params

  @jax.custom_vjp
  def gather(params):
    return jax.lax.with_sharding_constraint(params, replicated(mesh))

  def backward(_, gradient):
    return (jax.lax.with_sharding_constraint(gradient, places),)

  gather.defvjp(lambda params: (gather(params), None), backward)
  return gather(params)


def activations(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
  """The rule for h [B, ..., C] inside a network: examples along `data`, channels along `model`.

  What these do not divide stays as it is. With one device to a model nothing moves: each keeps its examples.
  With more, each computes its share of the channels of every layer.
  """

  def rule(h):
    if mesh.size == 1 or h.ndim < 2 or h.shape[0] % mesh.shape["data"]:
      return h
    channels = "model" if h.shape[-1] % mesh.shape["model"] == 0 else None
    return jax.lax.with_sharding_constraint(
      h, NamedSharding(mesh, PartitionSpec("data", *[None] * (h.ndim - 2), channels))
    )

  return rule


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Examples, the leading axis, are split along `data`."""
  return NamedSharding(mesh, PartitionSpec("data"))


def microbatch_sharding(mesh: Mesh) -> NamedSharding:
  """[microbatch, example, ...]: each microbatch is split along `data`."""
  return NamedSharding(mesh, PartitionSpec(None, "data"))


def replicated(mesh: Mesh) -> NamedSharding:
  """A whole copy on each device: scalars, metrics, keys."""
  return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """This process's rows of the global batch, as global arrays split along `data`."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), batch)


def check_batch_size(batch_size: int, accumulate: int, mesh: Mesh) -> None:
  """UserError unless each microbatch splits evenly over the devices along `data`."""
  parts = accumulate * mesh.shape["data"]
  if batch_size < 1 or accumulate < 1 or batch_size % parts:
    raise UserError(
      f"config.training.batch_size={batch_size} cannot be split into accumulate={accumulate} parts over "
      f"{mesh.shape['data']} devices; use a multiple of {max(parts, 1)}"
    )
