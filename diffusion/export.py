"""A sampler as one program of JAX's own: weights, steps, guidance and decoding, run without this library.

The program is a function of one dict of arrays and gives one dict of arrays:

    key        uint32 [2]      of the sequence of samples: jax.random.PRNGKey(seed)
    index      int32 [B]       which samples of the sequence; sample i is the same in any company
    label, ... int32 [B], ...  what the model is told, each by its name
    start      [B, ...]        what samples start from, where they do not start from the prior
    guidance   float32 []      the weight of guidance
    table.NAME                 the arrays of the solver: of a table its times and coefficients

    x          [B, ...]        samples in the units of the model
    ...                        whatever `decode` makes of them

What a model has no use for is no input. Parameters are constants of the program, once each. The size of the
batch stays open unless a part of the program needs to know it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from diffusion import sampling, solvers
from diffusion.solvers.executor import check_fits

PLATFORMS = ("cpu", "cuda", "tpu")

LARGEST = 2**31 - 2**24
"""Bytes of constants that a file may hold: JAX stores it as a flatbuffer, whose offsets are 32-bit signed."""

TABLE = "table."
"""Before the names of the solver's arrays."""

ROWS_MATTER: tuple[type[Exception], ...] = (jax.errors.InconclusiveDimensionOperation, TypeError)
"""What JAX raises where a part of the program needs to know how many rows there are."""


def exported(
  denoiser: Any,
  solver: Any,
  shape: Sequence[int],
  inputs: Mapping[str, Any],
  *,
  guided: Callable[[Any, jax.Array], Any] | None = None,
  decode: Callable[[jax.Array], Mapping[str, jax.Array]] | None = None,
  batch: int | None = None,
  platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
  """The program of a sampler, lowered for several platforms; `.serialize()` gives the bytes of a file.

  Nothing is compiled, and no accelerator is needed to lower for one. See the head of this file for inputs and
  outputs.

  Args:
    denoiser: a denoiser, guided or not.
    solver: a table or any solver of `diffusion.solvers`, with one grid for all samples.
    shape: shape of one sample.
    inputs: arrays as the program will be called with, from `inputs_of`: their names, shapes and dtypes count.
    guided: None, or (denoiser, weight `guidance` float32 []) -> the denoiser to sample from.
    decode: None, or a function within the program from x [B, ...] to further outputs by name.
    batch: None for any number of samples; or the one number that the program takes.
    platforms: names as JAX has them.

  Raises:
    ValueError: a solver that does not fit the denoiser, parameters of more than two GB, and what JAX does not
      put into a file: calls back into Python, and of libraries whose interface may change.
    One of `ROWS_MATTER`: a part of the program needs to know how many rows there are, and `batch` is None.

  >>> from diffusion import oracles, processes
  >>> process = processes.edm()
  >>> denoiser = oracles.gaussian(process, jnp.zeros(2), jnp.eye(2))
  >>> solver = solvers.heun(process, solvers.grids.karras(process, 8))
  >>> inputs = inputs_of(solver, index=np.arange(5))
  >>> program = exported(denoiser, solver, (2,), inputs, platforms=("cpu", "tpu"))
  >>> x = jax.jit(program.call)(inputs)["x"]  # or export.deserialize(bytearray(program.serialize())).call
  >>> bool(np.allclose(x, sampling.generate(denoiser, solver, (2,), 5).x, atol=1e-6))
  True
  """
  check_fits(denoiser, solver, batch)
  denoiser, solver, shape = jax.device_get(denoiser), jax.device_get(solver), tuple(shape)

  size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(denoiser))
  if size > LARGEST:
    raise ValueError(
      f"the parameters have {size / 1e9:.1f} GB, and a file of JAX's holds at most {LARGEST / 1e9:.1f}: "
      "export a model in half precision, or a smaller one"
    )
  tree = jax.tree.structure(solver)
  names, implementation = _names(solver), jax.random.key_impl(jax.random.key(0))
  told = [name for name in inputs if name not in (*names, "key", "index", "start", "guidance")]

  def sampler(given):
    key = jax.random.wrap_key_data(given["key"], impl=implementation)
    used = denoiser if guided is None else guided(denoiser, given["guidance"])
    if "start" in given:
      keys, begun = sampling.keys_of(key, given["index"]), given["start"]
    else:
      begun, keys = sampling.noise_of(used.process, key, given["index"], shape)
    x = solvers.sample(
      used,
      jax.tree.unflatten(tree, [given[name] for name in names]),
      begun,
      keys=keys,
      cond={name: given[name] for name in told} or None,
    )
    return {"x": x} | dict(decode(x) if decode is not None else {})

  rows = export.symbolic_shape("batch")[0] if batch is None else batch
  own = (*names, "key", "guidance")
  specs = {
    name: jax.ShapeDtypeStruct(np.shape(array) if name in own else (rows, *np.shape(array)[1:]), array.dtype)
    for name, array in inputs.items()
  }
  try:
    return export.export(jax.jit(sampler), platforms=tuple(platforms))(specs)
  except (NotImplementedError, ValueError) as error:
    if not any(words in str(error) for words in ("custom call", "callback")):
      raise
    what = str(error).strip().splitlines()[0].rstrip(".")
    raise ValueError(
      f"JAX does not put the solver {solver.name} with this denoiser into a file, because of a call into "
      f"Python or into a library whose interface may change ({what}): take another solver, or a network "
      "without such calls"
    ) from error


def inputs_of(
  solver: Any,
  *,
  index: Any,
  seed: int = 0,
  weight: float | None = None,
  cond: Mapping[str, Any] | None = None,
  start: Any = None,
) -> dict[str, np.ndarray]:
  """The inputs of an exported sampler that give the samples of `sampling.generate`.

  Args:
    solver: the solver.
    index: [B] which samples.
    seed: which sequence.
    weight: of guidance; None where it is no input.
    cond: what the model is told, dict(name=[B, ...]).
    start: [B, ...] what samples start from; None for the prior.

  >>> from diffusion import processes
  >>> solver = solvers.build("ddim", processes.edm(), 4)
  >>> found = inputs_of(solver, index=[0, 1], seed=7, cond=dict(label=np.array([3, 3], np.int32)))
  >>> found["key"].tolist(), found["index"].dtype, sorted(found)[:3], found["table.t"].shape
  ([0, 7], dtype('int32'), ['index', 'key', 'label'], (5,))
  """
  found = {
    "key": np.asarray(jax.random.key_data(jax.random.key(seed))),
    "index": np.asarray(index, np.int32),
  }
  found |= {name: np.asarray(array) for name, array in (cond or {}).items()}
  found |= {} if start is None else {"start": np.asarray(start)}
  found |= {} if weight is None else {"guidance": np.asarray(weight, np.float32)}
  leaves = (np.asarray(jnp.asarray(leaf)) for leaf in jax.tree.leaves(solver))
  return found | dict(zip(_names(solver), leaves, strict=True))


def _names(solver):
  """Names of the solver's arrays, in the order of its leaves."""
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(solver)]
  return [TABLE + jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
