"""Between the arrays of a torch module, by dotted name, and the parameters of a Flax module alike.

The Flax modules here are named as their originals, but for the numbers of a list, which follow an underscore:
`down_blocks.0.conv.weight` is params["down_blocks_0"]["conv"]["kernel"]. Convolutions are (O, I, H, W) there
and (H, W, I, O) here, dense layers (O, I) there and (I, O) here; nothing else moves.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from diffusion.config.errors import UserError

LISTS = (
  "adaLN_modulation|attentions|blocks|down_blocks|downsamplers|layers|mlp|net|resnets|to_out|"
  "transformer_blocks|up_blocks|upsamplers"
)
"""Names of torch lists: a number follows them after a dot."""

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "frequencies": "weight"}
TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}
TO_FLAX = {4: (2, 3, 1, 0), 2: (1, 0)}


def dotted(path: tuple[str, ...]) -> str:
  """The torch name of a Flax path.

  >>> dotted(("down_blocks_0", "attentions_1", "to_out_0", "kernel"))
  'down_blocks.0.attentions.1.to_out.0.weight'
  >>> dotted(("time_embedding", "linear_1", "bias"))
  'time_embedding.linear_1.bias'
  """
  modules = (re.sub(rf"^({LISTS})_(\d+)$", r"\1.\2", name) for name in path[:-1])
  return ".".join((*modules, LEAVES.get(path[-1], path[-1])))


def shapes_of(module: Any, *inputs: Any) -> Any:
  """Shapes and dtypes of a module's parameters for inputs of these shapes; nothing is computed."""
  return jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]


def convert(
  arrays: Mapping[str, Any],
  shapes: Any,
  who: str,
  rename: Callable[[str], str] = lambda name: name,
  name_of: Callable[[tuple[str, ...]], str] = dotted,
) -> Any:
  """The Flax parameters of a published file.

  NumPy arrays are not copied: a leaf is a view of the file's own memory, in its own dtype.

  Args:
    arrays: by dotted name, NumPy's or JAX's.
    shapes: the tree that is wanted, as `shapes_of` gives it.
    who: what the file was taken for, in messages.
    rename: the name in use today of a name in the file.
    name_of: the name of a Flax path, where it is not `dotted`.

  Raises:
    UserError: for names that are missing or left over, and arrays of another shape.

  >>> shapes = {"conv": {"kernel": jax.ShapeDtypeStruct((3, 5, 2, 7), "float32")}}
  >>> found = convert({"conv.weight": np.zeros((7, 2, 3, 5), "float16")}, shapes, "net")
  >>> found["conv"]["kernel"].shape, str(found["conv"]["kernel"].dtype)
  ((3, 5, 2, 7), 'float16')
  """
  found = {rename(name): array for name, array in arrays.items()}
  leaves: dict[tuple[str, ...], Any] = dict(traverse_util.flatten_dict(shapes))
  wanted = {name_of(path): (path, leaf) for path, leaf in leaves.items()}
  missing = [name for name in wanted if name not in found]
  extra = [name for name in found if name not in wanted]
  extra += [name for name in arrays if rename(name) != name and rename(name) in arrays]  # under both names
  if missing or extra:
    parts = [f"{what} {_few(names)}" for what, names in (("lack", missing), ("also have", extra)) if names]
    raise UserError(
      f"these arrays are not those of a {who} of this config: they {' and '.join(parts)}; give the config of "
      "the same model, and one set of weights without its optimiser"
    )
  tree, wrong = {}, []
  for name, (path, leaf) in wanted.items():
    array = found[name]
    there = torch_shape(path, leaf.shape)
    if tuple(array.shape) == (*there, 1, 1) and len(there) == 2:  # a dense layer kept as a 1x1 convolution
      array = array.reshape(there)
    if tuple(array.shape) != there:
      wrong.append(f"{name} of {list(array.shape)} in place of {list(there)}")
    elif path[-1] == "kernel":
      array = array.transpose(TO_FLAX[len(there)])
    tree[path] = array
  if wrong:
    raise UserError(
      f"these arrays are not those of a {who} of this config: they have {_few(wrong)}; give the config of "
      "the same model"
    )
  return traverse_util.unflatten_dict(tree)


def export(params: Any, name_of: Callable[[tuple[str, ...]], str] = dotted) -> dict[str, np.ndarray]:
  """The inverse of `convert`: each array by its dotted name, contiguous, in its own dtype."""
  found = {}
  for path, leaf in traverse_util.flatten_dict(params).items():
    array = np.asarray(leaf)
    if path[-1] == "kernel":
      array = array.transpose(TO_TORCH[array.ndim])
    found[name_of(path)] = np.ascontiguousarray(array)
  return found


def torch_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape in torch of a leaf of this path and shape here."""
  return tuple(shape[axis] for axis in TO_TORCH[len(shape)]) if path[-1] == "kernel" else tuple(shape)


def in_single(params: Any) -> Any:
  """Half precision as float32, which is what the networks here keep: a tree of JAX's arrays."""
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


def _few(names: Iterable[str]) -> str:
  found = list(names)
  return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def attention_of_today(name: str) -> str:
  """The name that diffusers has today of an attention's array: query, key, value and proj_attn were renamed.

  >>> attention_of_today("mid_block.attentions.0.proj_attn.bias")
  'mid_block.attentions.0.to_out.0.bias'
  """
  parts = name.split(".")
  if "attentions" in parts[:-2]:
    parts[-2] = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.get(
      parts[-2], parts[-2]
    )
  return ".".join(parts)
