"""The two layouts of Score SDE's files, of Flax and of PyTorch, and the options that their arrays tell.

A Flax checkpoint names modules by class and number (`ResnetBlockBigGANpp_3.Conv_0.kernel`), and has the
average under `params_ema`. One of PyTorch numbers all modules together
(`model.module.all_modules.7.Conv_0.weight`), and has the average as a list, `ema.shadow_params`, in the order
of those parameters that are trained: all but the Fourier frequencies, which are taken from the model.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from diffusion.config.errors import UserError
from diffusion.weights.architectures.entries import options_of as read
from diffusion.weights.architectures.score_sde import ATTENTION, BLOCK, NCSNpp, Place

FLAX, TORCH = "params_ema.", "model.module."
SHADOWS = "ema.shadow_params."
FROZEN = "all_modules.0.W"
LEVELS = "sigmas"

SIDES = {(1, 2, 2, 2): 32, (1, 1, 2, 2, 2, 2, 2): 256, (1, 2, 4, 8, 16, 32, 32, 32): 1024}
"""ch_mult of the published models -> the side of their images, which no array tells."""

SIGMAS = {(1, 2, 2, 2): 50.0, (1, 2, 4, 8, 16, 32, 32, 32): 1348.0}
"""ch_mult -> sigma_max of 'vesde', where all published models of that have the same."""


def is_flax(arrays: Mapping[str, Any]) -> bool:
  """Whether these are arrays of a Flax checkpoint of Score SDE's 'ncsnpp'."""
  return f"{FLAX}{BLOCK}_0.Conv_0.kernel" in arrays


def is_torch(arrays: Mapping[str, Any]) -> bool:
  """Whether these are arrays of a PyTorch checkpoint of Score SDE."""
  return f"{SHADOWS}0" in arrays and any(name.startswith(f"{TORCH}all_modules.") for name in arrays)


def needed(names: Iterable[str]) -> list[str]:
  """The names that `averaged` looks at: the optimiser's are most of a file.

  >>> needed(["optimizer.state.0.exp_avg", "ema.shadow_params.0", "params_ema.Conv_0.bias"])
  ['ema.shadow_params.0', 'params_ema.Conv_0.bias']
  """
  return [name for name in names if name.startswith((FLAX, TORCH, SHADOWS))]


def averaged(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """The averaged parameters of a checkpoint of either kind.

  Those of PyTorch come out by the names of their model without 'module.', as it has them: 'all_modules.0.W',
  and beside them 'sigmas'. Those of Flax keep their names, without 'params_ema.'.

  Raises:
    UserError: where these are no arrays of such a checkpoint, and for a list that does not fit the model.

  >>> found = averaged({"model.module.all_modules.0.W": np.ones(3), "ema.shadow_params.0": np.ones((2, 3)),
  ...   "model.module.all_modules.1.weight": np.zeros((2, 3))})
  >>> {name: float(one.mean()) for name, one in found.items()}
  {'all_modules.0.W': 1.0, 'all_modules.1.weight': 1.0}
  """
  if any(name.startswith(FLAX) for name in arrays):
    return {name.removeprefix(FLAX): one for name, one in arrays.items() if name.startswith(FLAX)}
  if not is_torch(arrays):
    raise UserError(
      "these arrays are not those of a checkpoint of Score SDE: they have neither params_ema, as "
      "Flax's have, nor ema.shadow_params beside model, as PyTorch's have; give the whole checkpoint"
    )
  model = {name.removeprefix(TORCH): one for name, one in arrays.items() if name.startswith(TORCH)}
  kept = {name: one for name, one in model.items() if name == LEVELS or _is_frozen(name, one)}
  trained = [name for name in model if name not in kept]
  numbers = [int(one) for one in (name.split(".")[1] for name in trained if "." in name) if one.isdecimal()]
  if numbers != sorted(numbers):
    raise UserError(
      "ema.shadow_params is a list in the order of the model's parameters, and this file has those in "
      "another: give the file that score_sde_pytorch wrote, not one that was made of it"
    )
  shadows = [name for name in arrays if name.startswith(SHADOWS)]
  shadows.sort(key=lambda name: (len(name), name))  # by their numbers
  differ = [
    name for name, shadow in zip(trained, shadows) if tuple(model[name].shape) != tuple(arrays[shadow].shape)
  ]
  if len(trained) != len(shadows) or differ:
    what = f"{differ[0]} has another shape" if differ else f"{len(shadows)} averages of {len(trained)}"
    raise UserError(
      f"ema.shadow_params is not the average of this model's parameters: {what}; give a checkpoint as "
      "score_sde_pytorch writes it"
    )
  found = dict(zip(trained, (arrays[shadow] for shadow in shadows))) | kept
  return {name: found[name] for name in model}


def own(arrays: Mapping[str, Any], modules: Iterable[Place]) -> dict[str, Any]:
  """Averaged parameters as `convert` takes them: with the names and the axes of PyTorch.

  Args:
    arrays: see `averaged`.
    modules: of the network in the order in which the authors make them, `score_sde.places(options)`.
  """
  if FROZEN in arrays or any(name.startswith("all_modules.") for name in arrays):
    return {name: one for name, one in arrays.items() if name != LEVELS}
  counts: dict[str, int] = {}
  names = {}
  for i, place in enumerate(modules):
    k = counts.setdefault(place.kind, 0)
    counts[place.kind] += 1
    names[f"{place.kind}_{k}"] = f"all_modules.{i}"
  found = {}
  for name, one in arrays.items():
    module, _, rest = name.partition(".")
    inside, _, leaf = rest.rpartition(".")
    moved = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
    value = np.asarray(one)
    if moved == "weight" and value.ndim in (2, 4):
      value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
    where = names.get(module, module)  # an unknown one keeps its name, which is then refused
    found[".".join(part for part in (where, inside, moved) if part)] = value
  return found


def options_of(arrays: Mapping[str, Any], told: Mapping[str, Any] | None = None) -> NCSNpp:
  """The options of a checkpoint.

  Args:
    arrays: averaged parameters, see `averaged`; shapes alone are looked at.
    told: what no array tells. 'sde' and 'continuous' where the embedding is not of Fourier features, which
      'vesde' alone has; 'sigma_max' of vesde for images of 256 in Flax's files (380 for LSUN, 348 for faces);
      'image_size' and 'attn_resolutions' for a ch_mult that is not published.

  Raises:
    UserError: where these are no arrays of such a network, and where something has to be told.
  """
  told = dict(told or {})
  parts = _parts(arrays)
  blocks = parts[BLOCK]
  if not blocks or "first" not in parts:
    raise UserError(
      "these arrays are not those of Score SDE's 'ncsnpp' with BigGAN's blocks: networks of that kind and "
      "of its 'ddpm' are known here; give the checkpoint of one"
    )
  halved = sum(inputs == outputs and shortcut for inputs, outputs, shortcut in blocks)
  levels = halved // 2 + 1
  each, rest = divmod(len(blocks) - 3 * levels, 2 * levels)
  if rest or each < 1:
    raise UserError(
      f"{len(blocks)} residual blocks do not make an 'ncsnpp' of {levels} levels: give its whole checkpoint"
    )
  image, nf = parts["first"]
  ch_mult = tuple(blocks[level * (each + 1)][1] // nf for level in range(levels))
  fourier = parts["fourier"]
  found = {
    "nf": nf,
    "num_channels": image,
    "ch_mult": ch_mult,
    "num_res_blocks": each,
    "embedding_type": "fourier" if fourier else "positional",
    "progressive": "output_skip" if parts["norms"] > 1 else "none",
    "progressive_input": parts["entry"],
    "fir": parts["entry"] != "none",
  }
  if fourier:
    found["sde"] = "vesde"
  elif "sde" not in told:
    raise UserError(
      "a checkpoint of Score SDE without Fourier features does not say its SDE: give sde='vpsde' or "
      "'subvpsde', or 'vesde' with continuous=False"
    )
  if ch_mult in SIDES:
    found["image_size"] = SIDES[ch_mult]
  elif "image_size" not in told:
    raise UserError(
      f"an 'ncsnpp' of ch_mult {ch_mult} is none of the published sizes, and its arrays do not tell the side "
      "of its images: give image_size, and attn_resolutions where it is not (16,)"
    )
  if LEVELS in arrays:
    found |= {"sigma_max": float(np.max(arrays[LEVELS])), "sigma_min": float(np.min(arrays[LEVELS]))}
  elif ch_mult in SIGMAS:
    found["sigma_max"] = SIGMAS[ch_mult]
  elif fourier and "sigma_max" not in told:
    raise UserError(
      "a Flax checkpoint of Score SDE for this size does not say its largest noise: give sigma_max, 380 for "
      "LSUN and 348 for faces"
    )
  return read(NCSNpp, found | told, ignored=("_class_name",))


def _is_frozen(name, value):
  return name == FROZEN and len(value.shape) == 1


def modules(arrays: Mapping[str, Any]) -> list[tuple[str, dict[str, tuple[int, ...]]]]:
  """(name of a module, {name of an array in it: shape}) of averaged parameters, in their order.

  >>> modules({"Conv_10.bias": np.zeros(3), "Conv_2.bias": np.zeros(5)})
  [('Conv_2', {'bias': (5,)}), ('Conv_10', {'bias': (3,)})]
  """
  found: dict[str, dict[str, tuple[int, ...]]] = {}
  for name, one in arrays.items():
    pieces = name.split(".")
    module = ".".join(pieces[:2]) if pieces[0] == "all_modules" else pieces[0]
    found.setdefault(module, {})[name.removeprefix(f"{module}.")] = tuple(one.shape)
  return sorted(found.items(), key=_place)


def _parts(arrays):
  """What both layouts show: residual blocks, entries of the image, the first convolution, outer norms."""
  found: dict[str, Any] = {BLOCK: [], ATTENTION: 0, "norms": 0, "entry": "none", "fourier": False}
  for module, shapes in modules(arrays):
    torch = module.startswith("all_modules")
    kernel = "weight" if torch else "kernel"
    outer = shapes.get(kernel, ())
    inside = shapes.get(f"Conv_0.{kernel}", ())
    if f"Dense_0.{kernel}" in shapes and len(inside) == 4:
      inputs, outputs = ends(inside, torch)
      found[BLOCK].append((inputs, outputs, f"Conv_2.{kernel}" in shapes))
    elif "Conv2d_0.weight" in shapes:
      found["entry"] = "residual"
    elif inside and f"GroupNorm_0.{'weight' if torch else 'scale'}" not in shapes:
      found["entry"] = "input_skip"
    elif len(outer) == 4 and "first" not in found:
      found["first"] = ends(outer, torch)
    elif "scale" in shapes or (torch and len(outer) == 1):
      found["norms"] += 1
    elif "W" in shapes:
      found["fourier"] = True
  return found


def ends(shape: tuple[int, ...], torch: bool) -> tuple[int, int]:
  """(inputs, outputs) of a convolution's weights in PyTorch or in Flax.

  >>> ends((3, 3, 16, 32), False)
  (16, 32)
  """
  return (shape[1], shape[0]) if torch else (shape[2], shape[3])


def _place(item):
  """Modules in the order of their numbers."""
  name = item[0]
  stem, _, number = name.rpartition("." if name.startswith("all_modules") else "_")
  return (stem, int(number)) if number.isdecimal() else (name, -1)
