"""The files of DiT and SiT: names of arrays, and the denoisers that they make."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, processes
from diffusion.config.errors import UserError
from diffusion.weights.architectures import scheduler, torch_layout
from diffusion.weights.architectures.dit import DiT, positions
from diffusion.weights.architectures.dit_options import DIFFUSERS, is_of_diffusers, shape_of

NAMES = {
  "patches": ("x_embedder.proj", "pos_embed.proj"),
  "time_0": ("t_embedder.mlp.0", "transformer_blocks.{}.norm1.emb.timestep_embedder.linear_1"),
  "time_1": ("t_embedder.mlp.2", "transformer_blocks.{}.norm1.emb.timestep_embedder.linear_2"),
  "classes": ("y_embedder.embedding_table", "transformer_blocks.{}.norm1.emb.class_embedder.embedding_table"),
  "modulation": ("blocks.{}.adaLN_modulation.1", "transformer_blocks.{}.norm1.linear"),
  "query_key_value": ("blocks.{}.attn.qkv", "transformer_blocks.{}.attn1.to_q, to_k, to_v"),
  "out": ("blocks.{}.attn.proj", "transformer_blocks.{}.attn1.to_out.0"),
  "dense_0": ("blocks.{}.mlp.fc1", "transformer_blocks.{}.ff.net.0.proj"),
  "dense_1": ("blocks.{}.mlp.fc2", "transformer_blocks.{}.ff.net.2"),
  "last_modulation": ("final_layer.adaLN_modulation.1", "proj_out_1"),
  "last": ("final_layer.linear", "proj_out_2"),
}
"""{layer of `DiT`: its name in the authors' files, and in diffusers'}; {} is the number of a block."""

JOINED = ("to_q", "to_k", "to_v")


def copies_of(arrays: Mapping[str, Any], config: Mapping[str, Any]) -> int:
  """Embeddings of time and class that a file needs: 1 where all blocks have the same, else one a block.

  The published ones have the same in all blocks. Those that were trained in diffusers have not.
  """
  shape = shape_of(config)
  if not is_of_diffusers(config):
    return 1
  names = [name for name in arrays if ".norm1.emb." in name]
  first = lambda name: arrays.get(re.sub(r"^transformer_blocks\.\d+\.", "transformer_blocks.0.", name))
  same = lambda a, b: b is not None and np.array_equal(np.asarray(a), np.asarray(b))
  return 1 if all(same(arrays[name], first(name)) for name in names) else shape.depth


def build(
  config: Mapping[str, Any], copies: int = 1, trained_in_diffusers: bool = False, **changes: Any
) -> DiT:
  """The module of a config: see `dit_options.shape_of`; `changes` are those of `DiT`.

  A SiT returns what its authors' does: the first half of a learned variance's output, at times it is told.
  """
  shape = shape_of(config, copies, trained_in_diffusers)
  if config["_class_name"] == "SiT":
    changes = dict(kept=shape.channels, time_rounding="none") | changes
  return DiT(shape, **changes)


def convert(arrays: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
  """The parameters of `build(config, copies_of(arrays, config))`, in the file's own dtype.

  Raises UserError for names missing or left over, arrays of another shape, and other positions.
  """
  shape = shape_of(config)
  name, found, in_diffusers = config["_class_name"], dict(arrays), is_of_diffusers(config)
  if in_diffusers:
    copies = copies_of(arrays, config)
    shape = dataclasses.replace(shape, copies=copies)
    found = _joined(found)
    if copies == 1:
      found = {
        one: a for one, a in found.items() if not re.match(r"transformer_blocks\.[1-9]\d*\.norm1\.emb\.", one)
      }
  else:
    _check_positions(found.pop("pos_embed", None), shape, name)
  return torch_layout.convert(found, _shapes(shape), name, name_of=_name_of(in_diffusers))


def export(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The arrays of the published file, by dotted name: the inverse of `convert`, bit for bit."""
  in_diffusers = is_of_diffusers(config)
  shape = shape_of(config)
  found = torch_layout.export(params, _name_of(in_diffusers))
  if not in_diffusers:
    grid = (shape.side // shape.patch,) * 2
    dtype = found["x_embedder.proj.bias"].dtype
    return found | {"pos_embed": positions(grid, shape.width, grid[0])[None].astype(dtype)}
  for name in [one for one in found if ".to_q, to_k, to_v." in one]:
    before, after = name.split("to_q, to_k, to_v")
    parts = np.split(found.pop(name), 3)
    found |= {before + one + after: np.ascontiguousarray(part) for one, part in zip(JOINED, parts)}
  if "embedding_1" not in params:
    of_first = [name for name in found if name.startswith("transformer_blocks.0.norm1.emb.")]
    for i in range(1, shape.depth):
      found |= {name.replace(".0.", f".{i}.", 1): found[name].copy() for name in of_first}
  return found


def parts(
  config: Mapping[str, Any],
  scheduler_config: Mapping[str, Any] | None,
  copies: int = 1,
  trained_in_diffusers: bool = False,
  **changes: Any,
) -> tuple[DiT, processes.GaussianProcess, denoisers.Parameterization]:
  """(network, process, what its output means) of a published DiT or SiT.

  DiT predicts noise on DDPM's linear table of 1,000 steps, and the variance of its steps
  (`denoisers.with_variance`). SiT, whose variance nobody trained, predicts the velocity of the linear path,
  which its authors run from noise at 0 to data at 1: here it is `processes.rectified_flow`, and time and sign
  are turned. Classifier-free guidance of the authors acts on 3 of 4 latent channels; the library's acts on
  all.

  Args:
    config: arguments of the authors' class, or contents of diffusers' config.json.
    scheduler_config: contents of diffusers' scheduler_config.json; None for what the paper has.
    copies: see `copies_of`.
    trained_in_diffusers: whether the weights were trained with diffusers' function: see `dit`.
    **changes: those of `DiT`.

  Raises UserError for what is not known: see `dit_options.shape_of` and `scheduler.read`.
  """
  shape = shape_of(config)
  kept = shape.channels
  if config["_class_name"] == "SiT":
    if scheduler_config is not None:
      raise UserError("a SiT has no scheduler config: its process is the linear path; leave it out")
    process, meaning = processes.rectified_flow(), denoisers.velocity(time_scale=-1.0, time_shift=1.0)
    changes = dict(sign=-1) | changes
  else:
    process, meaning = scheduler.read(scheduler_config)
    if shape.channels_out == 2 * kept:
      kept, meaning = shape.channels_out, denoisers.with_variance(meaning)
  return build(config, copies, trained_in_diffusers, **dict(kept=kept) | changes), process, meaning


def denoiser(
  config: Mapping[str, Any],
  scheduler_config: Mapping[str, Any] | None,
  arrays: Mapping[str, Any],
  trained_in_diffusers: bool = False,
  **changes: Any,
) -> denoisers.NetworkDenoiser:
  """The library's denoiser of a published DiT or SiT, with parameters in float32.

  Args:
    config, scheduler_config, trained_in_diffusers, **changes: as of `parts`.
    arrays: of the file, by dotted name.

  Raises UserError for what is not known: see `parts` and `convert`.
  """
  module, process, meaning = parts(
    config, scheduler_config, copies_of(arrays, config), trained_in_diffusers, **changes
  )
  return denoisers.from_flax(module, process, meaning, torch_layout.in_single(convert(arrays, config)))


def _name_of(in_diffusers):
  """The name in a file of a Flax path of `DiT`."""

  def name(path):
    number, leaf = re.search(r"_(\d+)$", path[0]), torch_layout.LEAVES.get(path[-1], path[-1])
    return f"{NAMES[path[-2]][in_diffusers].format(number and number[1])}.{leaf}"

  return name


def _joined(arrays):
  """The arrays of diffusers' file with query, key and value of a block in one, as in the authors' files."""
  found = dict(arrays)
  for name in [one for one in arrays if ".attn1.to_q." in one]:
    parts = [name.replace("to_q", one) for one in JOINED]
    missing = [one for one in parts if one not in arrays]
    if missing:
      raise UserError(f"these arrays are not those of a {DIFFUSERS}: they lack {', '.join(missing)}")
    joined = np.concatenate([np.asarray(found.pop(one)) for one in parts])
    found[name.replace("to_q", ", ".join(JOINED))] = joined
  return found


def _check_positions(found, shape, name):
  """Raises UserError unless these are the positions that are computed here."""
  grid = (shape.side // shape.patch,) * 2
  wanted = positions(grid, shape.width, grid[0])[None]
  if found is None:
    raise UserError(f"these arrays are not those of a {name}: they lack pos_embed; give one set of weights")
  if found.shape != wanted.shape or np.abs(np.asarray(found, np.float32) - wanted).max() > 5e-3:
    raise UserError(
      f"pos_embed of {list(found.shape)} is not that of a {name} of input_size {shape.side} and hidden_size "
      f"{shape.width}, {list(wanted.shape)} of sines: give the arguments of the same model"
    )


@functools.lru_cache(maxsize=16)
def _shapes(shape):
  x = jax.ShapeDtypeStruct((1, shape.side, shape.side, shape.channels), jnp.float32)
  return torch_layout.shapes_of(DiT(shape), x, jax.ShapeDtypeStruct((1,), jnp.float32))
