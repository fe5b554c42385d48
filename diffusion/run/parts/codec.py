"""The codec of a run: what its config says, its weights and statistics, and its place in the step.

    config.codec = dict(factory="codecs.autoencoder", run="runs/autoencoder", ema=None)
    config.codec = dict(factory="weights.autoencoder_kl", path="sd-vae-ft-mse")
    config.codec = [dict(factory="codecs.scale", std=0.5), dict(...)]       # several, from the data's side

What comes out of the last one is standardised by one mean and one deviation, measured once on encoded
training data, so that a model of latents has data_std=1; unless the last one is a published autoencoder,
which scales its latents itself. A section with `run` gets another run's weights, and a published autoencoder
those of its file: the first start writes into `saved` what that run or file is, with the file's sha256, and
keeps the weights in the train state, and from then on neither is needed.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import codecs, data, losses, weights
from diffusion.config import factories
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.run.parts import roles, warm_start
from diffusion.run.saved import averages, checkpoints, workdir as workdirs

PLACE = "codec"
"""Of the codec's parameters in loss_state['fixed'], beside the roles that nothing changes."""

PUBLISHED = "weights.autoencoder_kl"
"""The factory of a codec whose weights are in a file that others wrote."""

_ENCODING = 0x636F6465  # a purpose, folded into keys
MEASURED = 2048
"""Training records that the statistics of latents are measured on, at the most."""


def sections(config: Any) -> list[dict[str, Any]]:
  """The codec's sections as plain dicts, from the data's side; [] without any.

  Raises UserError for what is no section and no list of them.
  """
  given = plain(config.get("codec"))
  if not given:
    return []
  found = [given] if isinstance(given, Mapping) else given
  listed = not isinstance(found, str) and isinstance(found, Sequence)
  if not listed or not all(isinstance(plain(one), Mapping) for one in found):
    raise UserError(
      "config.codec is a section such as dict(factory='codecs.autoencoder', run=FOLDER), or a list of them; "
      f"it is {given!r}"
    )
  return [dict(plain(one)) for one in found]


def where(config: Any, index: int) -> str:
  """The name of a codec's section in messages."""
  return "config.codec" if isinstance(plain(config.get("codec")), Mapping) else f"config.codec[{index}]"


def published(section: Mapping[str, Any]) -> bool:
  """Whether a codec's weights are in a file that others wrote.

  >>> published(dict(factory="weights.autoencoder_kl", path="vae")), published(dict(factory="codecs.scale"))
  (True, False)
  """
  return section.get("factory") == PUBLISHED


def resolve(config: Any, workdir: str, say: Callable[[str], None] = print) -> Any:
  """The config with `saved` for every codec of another run or of a file.

  What is saved is from the run in `workdir` if it has a checkpoint, else from the folder or the file that the
  section names. A config without one is returned as it is; the one given is never changed. Raises UserError
  for what is no codec, a folder without a run or without a checkpoint, a network that is no autoencoder, and
  a file that holds none. A file that is gone or has changed since the run began is said, and no more: the
  run has its weights.
  """
  found = sections(config)
  if not any("run" in section or published(section) for section in found):
    return config
  kept = []
  if checkpoints.steps(workdirs.checkpoints(workdir)):
    kept = sections(workdirs.read(workdir))
  for index, section in enumerate(found):
    before = (kept[index] if index < len(kept) else {}).get("saved")
    if published(section):
      section["saved"] = before or _described(section, where(config, index))
      if before:
        _compare(section, where(config, index), say)
    elif "run" in section:
      section["saved"] = before or _found(section, where(config, index), say)
  single = isinstance(plain(config.codec), Mapping)
  config = config.copy_and_resolve_references()
  with config.unlocked(), config.ignore_type():
    config.codec = found[0] if single else tuple(found)
  return config


def _described(section, place):
  """What the file of a published autoencoder is."""
  path = section.get("path")
  if not isinstance(path, str) or not path:
    raise UserError(f"{place}.path is the file or folder of an AutoencoderKL; it is {path!r}")
  try:
    return weights.autoencoders.described(path)
  except UserError as error:
    raise UserError(f"{place}.path={path}: {error}") from error


def _compare(section, place, say):
  """Says where a file is no longer that which the run began with."""
  at, saved = f"{place}.path={section['path']}", section["saved"]
  try:
    now = weights.autoencoders.described(section["path"])
  except UserError:
    say(f"{at}: that file is gone or damaged, and this run goes on with the weights that it keeps")
    return
  if any(now[name] != plain(saved)[name] for name in ("config", "sha256")):
    say(
      f"{at}: that file has changed since this run began (sha256 {saved['sha256'][:12]}... then, "
      f"{now['sha256'][:12]}... now), and the run goes on with the weights that it keeps"
    )


def _found(section, place, say):
  """What another run's autoencoder is, read from its folder."""
  config, chosen, average = roles.finished(section["run"], section.get("ema"), place, say)
  at = f"{place}.run={section['run']}"
  network = factories.build(config.network, where=f"{at}, config.network")
  stated = tuple(getattr(network, "views", ()))  # a module of somebody's own may state none
  if not {"latent", "reconstruction"} <= set(stated):
    raise UserError(
      f"{at}: that run's network is no autoencoder, it states the views {', '.join(stated) or 'none'}; "
      f"name the folder "
      "of a run with network=dict(factory='networks.AutoEncoder', ...) and "
      "loss=dict(factory='losses.reconstruction')"
    )
  if config.get("codec"):
    raise UserError(f"{at}: that run has a codec itself; list both codecs, in their order, in config.codec")
  dataset = factories.build(config.data, where=f"{at}, config.data")
  return dict(
    step=checkpoints.read_meta(chosen)["step"],
    ema=average,
    shape=tuple(dataset.shape),
    scaling=str(dataset.scaling),
    network=plain(config.network),
  )


def build(config: Any, dataset: Any) -> codecs.Codec | None:
  """The codec of a config, standardised; None without one.

  Raises UserError for what does not fit the data.
  """
  found = sections(config)
  if not found:
    return None
  parts, shape = [], tuple(dataset.shape)
  if dataset.scaling.dtype != np.float32:
    raise UserError(
      f"config.codec takes real numbers, and the data set {dataset.name} gives whole ones: leave out "
      "config.data.dequantization='categories', or the codec"
    )
  for index, section in enumerate(found):
    place, saved = where(config, index), section.get("saved")
    if ("run" in section or published(section)) and saved is None:
      raise UserError(
        f"{place} has no 'saved', which says what that {'file' if published(section) else 'run'} is: a run "
        "gets it from `parts.codec.resolve`, as train.py does"
      )
    if published(section):
      _check_range(dataset, place, index)
    elif saved is not None and not index and saved["scaling"] != str(dataset.scaling):
      raise UserError(
        f"{place}.run={section['run']}: that run's data are scaled by {saved['scaling']}, and these by "
        f"{dataset.scaling}; give both runs the same config.data"
      )
    parts.append(factories.build(section, where=place))
    try:
      shape = parts[-1].shape_of(shape)
    except ValueError as error:
      raise UserError(f"{place}: {' '.join(str(error).split())}") from error
  if dataset.pair is not None and tuple(dataset.pair.spec.shape) != tuple(dataset.shape):
    raise UserError(
      f"config.codec encodes both halves of a pair, and they have the shapes {list(dataset.shape)} and "
      f"{list(dataset.pair.spec.shape)}: give both one shape, or leave the codec out"
    )
  return codecs.chain(*parts, *([] if published(found[-1]) else [codecs.standardize()]))


def _check_range(dataset, place, index):
  """UserError for pictures that are not in [-1, 1], which is what a published autoencoder was trained on."""
  ends = tuple(float(end) for end in dataset.scaling.model_range(np.zeros(1))) if not index else (-1.0, 1.0)
  if ends != (-1.0, 1.0):
    raise UserError(
      f"{place} is an AutoencoderKL of pictures in [-1, 1], and config.data gives {ends[0]:g} to "
      f"{ends[1]:g}: set config.data.centered=True, of a data set of pictures"
    )


def same(first: Any, second: Any) -> bool:
  """Whether two sections config.codec say the same."""
  first, second = (json.dumps(plain(one), sort_keys=True) for one in (first, second))
  return first == second


def load(config: Any, codec: Any, dataset: Any, state: Any, say: Callable[[str], None] = print) -> Any:
  """The state with other runs' weights in the codec, and its statistics measured on training data.

  Raises UserError for weights that do not fit, and for data that all encode to the same.
  """
  if codec is None:
    return state
  params = list(codec.init())  # on one device, so that what is measured is the same on any mesh
  for index, section in enumerate(sections(config)):
    if published(section):
      params[index] = _read(section, where(config, index), params[index])
    elif "run" in section:
      folder, saved = section["run"], section["saved"]
      place = f"{where(config, index)}.run={folder}"
      found, _ = averages.of_run(folder, saved["step"], saved["ema"], "codec", place, say)
      params[index] = warm_start.fit(found, params[index], place)
  if all(published(section) for section in sections(config)):
    return _with(state, tuple(params))  # there is nothing to measure
  records = data.load(dataset.train, MEASURED, seed=0)
  noise = np.random.default_rng(0).random(np.shape(records["x"])) if dataset.scaling.uses_noise else None
  try:
    found = codec.measure(tuple(params), jnp.asarray(dataset.scaling.to_model(records["x"], noise)))
  except ValueError as error:
    raise UserError(f"config.codec: {error}") from error
  return _with(state, found)


def _with(state, params):
  """The state with a codec's parameters, each where its place is."""
  fixed = dict(state.loss_state["fixed"])
  put = lambda leaf, like: jax.device_put(np.asarray(leaf, like.dtype), like.sharding)
  fixed[PLACE] = jax.tree.map(put, params, fixed[PLACE])
  return state.replace(loss_state={**state.loss_state, "fixed": fixed})


def _read(section, place, like):
  """The weights of a published autoencoder, which are those that `saved` was written for."""
  at, wanted = f"{place}.path={section['path']}", section["saved"]["sha256"]
  now = weights.autoencoders.described(section["path"])["sha256"]
  if now != wanted:
    raise UserError(
      f"{at}: its sha256 is {now} and config.codec.saved says {wanted}: give that file, or leave out 'saved'"
    )
  return warm_start.fit(weights.autoencoders.load(section["path"])[1], like, at)


def key(seed: int, step: Any) -> jax.Array:
  """The typed key of a codec's randomness at a step of a run."""
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _ENCODING), step)


def encoded(codec: Any, params: Any, batch: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
  """A batch with x, and x1 where there is one, as the model sees them.

  Args:
    codec: of the run, or None, which changes nothing.
    params: the codec's.
    batch: a dict of arrays [B, ...].
    key: typed key of this step; example i gets its own by its index.
  """
  if codec is None:
    return dict(batch)
  keys, found = losses.example_keys(key, batch), dict(batch)
  for number, name in enumerate(("x", "x1")):
    if name in batch:
      own = jax.vmap(lambda one, number=number: jax.random.fold_in(one, number))(keys)
      found[name] = codec.encode(params, batch[name], own)
  return found


def decoded(
  codec: Any, params: Any, z: np.ndarray, batch: int = 64, place: Callable[[Any], Any] = jnp.asarray
) -> np.ndarray:
  """Samples z: [n, ...] of the model as model values of the data, [n, ...]; z itself without a codec.

  Args:
    codec, params: of the run.
    z: on the host.
    batch: rows that are decoded together; the last ones are filled up, so that a row does not depend on n.
    place: puts a batch on the devices.
  """
  return _in_batches(_decode, codec, params, z, batch, place)


def coded(
  codec: Any, params: Any, x: np.ndarray, batch: int = 64, place: Callable[[Any], Any] = jnp.asarray
) -> np.ndarray:
  """Model values x: [n, ...] of the data as the model sees them, without randomness; x without a codec.

  Args: as of `decoded`.
  """
  return _in_batches(_encode, codec, params, x, batch, place)


def _in_batches(function, codec, params, z, batch, place):
  if codec is None:
    return z
  found = []
  for first in range(0, len(z), batch):
    rows = z[np.minimum(np.arange(first, first + batch), len(z) - 1)]
    found.append(np.asarray(function(codec, params, place(rows)))[: len(z) - first])
  return np.concatenate(found)


@jax.jit
def _decode(codec, params, z):
  return codec.decode(params, z)


@jax.jit
def _encode(codec, params, x):
  return codec.encode(params, x)
