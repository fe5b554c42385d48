"""MeanFlow's SiT with two times (arXiv:2505.13447), in the layout of zhuyu-cs/MeanFlow: one embedding more.

The network gives u(x, r, t), the mean velocity from time t down to r on the path x_t = (1 - t) x + t noise,
and is told t and t - r as they are. As a denoiser it is asked with one r:

| until | r | the network answers | what for |
|---|---|---|---|
| data | 0 | x_t - t u(x_t, 0, t), the data | one step: `sampler` |
| now | t | u(x_t, t, t), the velocity | any solver, guidance, likelihood |

Its files are of latents that are standardised channel by channel, which SiT's are not. Several steps of mean
velocities, each with an r of its own, are not known to the solvers here.

Names and shapes: zhuyu-cs/MeanFlow 04d183c, sit.py, meanflow_sampler.py and evaluate.py.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion import denoisers, processes, solvers
from diffusion.config.errors import UserError
from diffusion.processes.base import expand
from diffusion.weights.architectures import dit_files, dit_sizes, torch_layout
from diffusion.weights.architectures.dit import FEATURES, DiT
from diffusion.weights.architectures.dit_options import shape_of
from diffusion.weights.architectures.entries import Entries
from diffusion.weights.architectures.layers import time_features

UNTIL = ("data", "now")
FIRST = "r_embedder.mlp.0"
SECOND = "r_embedder.mlp.2"


class Interval(nn.Module):
  """The length t - r of the interval [B] as a vector [B, width]."""

  width: int
  param_dtype: Any

  @nn.compact
  def __call__(self, length: jax.Array) -> jax.Array:
    precision: dict[str, Any] = dict(dtype=length.dtype, param_dtype=self.param_dtype)
    h = nn.Dense(self.width, name="dense_0", **precision)(time_features(length, FEATURES, 0, True))
    return nn.Dense(self.width, name="dense_1", **precision)(nn.silu(h))


class MeanFlow(DiT):
  """The network asked with one r: x [B, H, W, C], t [B] -> [B, H, W, C], see the head of this file.

  Attributes: those of `DiT`, and
    until: 'data' or 'now'.

  >>> from diffusion.weights.architectures.dit import Shape
  >>> net = MeanFlow(Shape(side=4, width=8, depth=1, num_heads=2, hidden=16, channels_out=4, classes=3))
  >>> x, t = jnp.zeros((2, 4, 4, 4)), jnp.zeros(2)
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)[0].shape
  (2, 4, 4, 4)
  """

  time_rounding: str = "none"
  until: str = "data"

  @nn.nowrap
  def conditions(self, t: jax.Array, label: jax.Array) -> list[jax.Array]:
    """Both times and the class as one vector [B, width]."""
    (of_time,) = super().conditions(t, label)
    length = t if self.until == "data" else jnp.zeros_like(t)
    return [of_time + Interval(self.shape.width, jnp.dtype(self.param_dtype), name="interval")(length)]

  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """What `until` says [B, H, W, C] in at least float32; errors as of `DiT`."""
    velocity = super().__call__(x, t, cond, train)
    if self.until == "now":
      return velocity
    return x.astype(velocity.dtype) - expand(t.astype(velocity.dtype), velocity) * velocity


def config_of(arrays: Mapping[str, Any], told: Mapping[str, Any] | None = None) -> dict[str, Any]:
  """The options of a file: those of a SiT, and `until`.

  Args:
    arrays: by dotted name; shapes alone are looked at.
    told: 'until', and 'num_heads' of a size that is not published.

  Raises:
    UserError: where these are no arrays of such a network, for an option that does not exist, and for a size
      whose heads are not known.
  """
  told = {name: one for name, one in (told or {}).items() if name != "_class_name"}
  strange = [name for name in told if name not in ("until", "num_heads")]
  if strange or told.get("until", "data") not in UNTIL:
    raise UserError(
      f"what a MeanFlow can be told is until={' or '.join(map(repr, UNTIL))} and num_heads, got {told}"
    )
  if f"{FIRST}.weight" not in arrays:
    raise UserError(
      f"these arrays are not those of a MeanFlow: they lack {FIRST}.weight, of its second time; give the "
      "weights under 'ema'"
    )
  found = dit_sizes.config_of(arrays, "SiT", told.get("num_heads"))
  return found | {"_class_name": "MeanFlow", "until": told.get("until", "data")}


def build(config: Mapping[str, Any], **changes: Any) -> MeanFlow:
  """The network; changes are attributes of `MeanFlow`."""
  shape = shape_of(_of_sit(config))
  given: dict[str, Any] = {"kept": shape.channels, "until": config["until"]} | changes
  return MeanFlow(shape, **given)


def convert(arrays: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
  """The parameters of `build(config)`; errors as of `dit_files.convert`."""
  of_interval = {name: one for name, one in arrays.items() if name.startswith("r_embedder.")}
  rest = {name: one for name, one in arrays.items() if name not in of_interval}
  entries, width = Entries(of_interval, "a MeanFlow"), config["hidden_size"]
  interval = {
    "dense_0": entries.dense(FIRST, FEATURES, width),
    "dense_1": entries.dense(SECOND, width, width),
  }
  entries.finish()
  return dit_files.convert(rest, _of_sit(config)) | {"interval": interval}


def process(config: Mapping[str, Any]) -> processes.GaussianProcess:
  """The linear path."""
  del config
  return processes.rectified_flow()


def meaning(config: Mapping[str, Any]) -> denoisers.Parameterization:
  """What the module of `build` gives."""
  return denoisers.x0() if config["until"] == "data" else denoisers.velocity()


def sampler(config: Mapping[str, Any], steps: int = 50) -> Any:
  """One step for 'data'; Euler's method for 'now'.

  >>> sampler({"until": "data"}).cost
  1
  """
  if config["until"] == "data":
    return solvers.ddim(process(config), [1.0, 0.0])
  return solvers.build("euler", process(config), steps, grid="uniform")


def denoiser(
  config: Mapping[str, Any], arrays: Mapping[str, Any], **changes: Any
) -> denoisers.NetworkDenoiser:
  """The library's denoiser of a file.

  Args:
    config: see `config_of`.
    arrays: of the file, by dotted name.
    **changes: attributes of `MeanFlow`, such as its dtype; its parameters are float32.
  Raises:
    UserError: as `convert`.
  """
  params = torch_layout.in_single(convert(arrays, config))
  return denoisers.from_flax(build(config, **changes), process(config), meaning(config), params)


def _of_sit(config):
  return {name: one for name, one in config.items() if name != "until"} | {"_class_name": "SiT"}
