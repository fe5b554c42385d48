"""EDM's and EDM2's preconditioners, as a process and a parameterisation, and the denoiser of a snapshot.

Each makes D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) of a network F (arXiv:2206.00364, table 1).

| class | c_skip, c_out, c_in | c_noise | process here | F is |
|---|---|---|---|---|
| EDMPrecond | table 1 with sigma_data | log(sigma) / 4 | `edm` | edm |
| VPPrecond | 1, -sigma, 1 / sqrt(sigma^2 + 1) | (M - 1) t(sigma) | `vp_linear` | eps |
| VEPrecond | 1, sigma, 1 | log(sigma / 2) | `ve` | scaled_score |
| iDDPMPrecond | as VP | M - 1 - j of the nearest u_j | `vp_ladder` | eps |
| Precond (EDM2) | as EDM | log(sigma) / 4 | `edm` | edm |

On a process with alpha < 1 the denoiser is asked at x_t = alpha x, and its x0 is D. Where the original takes
class and augmentation as arrays of one row each, this one takes the conditions 'label' (-1 for none) and
'vector' (zeros for none).

Numbers: NVlabs/edm 008a4e5, training/networks.py; NVlabs/edm2 4bf8162, training/networks_edm2.py.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, processes
from diffusion.config.errors import UserError
from diffusion.denoisers import NetworkDenoiser, Parameterization
from diffusion.processes import GaussianProcess
from diffusion.weights.architectures import dhariwal_unet, edm2, song_unet
from diffusion.weights.architectures.entries import Entries, options_of
from diffusion.weights.architectures.nearest_level import NearestLevel

NETWORKS: dict[str, tuple[Any, Any]] = {
  "SongUNet": (song_unet, song_unet.SongUNet),
  "DhariwalUNet": (dhariwal_unet, dhariwal_unet.DhariwalUNet),
  "UNet": (edm2, edm2.UNet),
}
"""Class of a network -> its file here, and its options."""


class Preconditioner(Protocol):
  """The options of a preconditioner, named as its authors name them, and what they mean here.

  `img_resolution` and `img_channels` are the shape of an image, `label_dim` the number of classes, 0 for
  none, and `model_type` the class of the network.
  """

  @property
  def img_resolution(self) -> int: ...

  @property
  def img_channels(self) -> int: ...

  @property
  def label_dim(self) -> int: ...

  @property
  def model_type(self) -> str: ...

  def meaning(self) -> tuple[GaussianProcess, Parameterization]:
    """The process on which the network is a denoiser, and what its output means there."""
    ...

  def of_network(self) -> dict[str, Any]:
    """Arguments of the network that follow from these options."""
    ...

  def own(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The network's arrays by their names in the network."""
    ...


@dataclasses.dataclass(frozen=True)
class Precond:
  """What EDM's preconditioners have in common."""

  img_resolution: int
  img_channels: int
  label_dim: int = 0
  use_fp16: bool = False

  def of_network(self) -> dict[str, Any]:
    """The sizes; the network gives as many channels as it takes."""
    return {
      "img_resolution": self.img_resolution,
      "in_channels": self.img_channels,
      "out_channels": self.img_channels,
      "label_dim": self.label_dim,
    }

  def own(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays without 'model.' before their names."""
    return {name.removeprefix("model."): value for name, value in arrays.items()}


@dataclasses.dataclass(frozen=True)
class EDMPrecond(Precond):
  """EDM's own: input, output and target have unit variance.

  The process ends where EDM's sampler does, at 80 and 0.002, or where the network does before.

  >>> process, _ = EDMPrecond(32, 3).meaning()
  >>> process.t_min, process.t_max
  (0.002, 80.0)
  """

  sigma_min: float = 0.0
  sigma_max: float = math.inf
  sigma_data: float = 0.5
  model_type: str = "DhariwalUNet"

  def meaning(self) -> tuple[GaussianProcess, Parameterization]:
    """EDM's process, and its parameterisation."""
    process = processes.edm(max(self.sigma_min, 0.002), min(self.sigma_max, 80.0))
    return process, denoisers.edm(self.sigma_data)


@dataclasses.dataclass(frozen=True)
class VPPrecond(Precond):
  """Of the VP SDE: the network gives the noise, and is told (M - 1) t."""

  beta_d: float = 19.9
  beta_min: float = 0.1
  M: int = 1000
  epsilon_t: float = 1e-5
  model_type: str = "SongUNet"

  def meaning(self) -> tuple[GaussianProcess, Parameterization]:
    """The VP SDE down to the smallest time in training."""
    process = processes.vp_linear(self.beta_min, self.beta_min + self.beta_d, self.epsilon_t)
    return process, denoisers.eps(time_scale=self.M - 1.0)


@dataclasses.dataclass(frozen=True)
class VEPrecond(Precond):
  """Of the VE SDE: the network gives sigma times the score, and is told log(sigma / 2)."""

  sigma_min: float = 0.02
  sigma_max: float = 100.0
  model_type: str = "SongUNet"

  def meaning(self) -> tuple[GaussianProcess, Parameterization]:
    """The VE SDE with geometric noise between the two ends."""
    process = processes.ve(self.sigma_min, self.sigma_max)
    return process, denoisers.scaled_score(time_shift=-math.log(2.0))


@dataclasses.dataclass(frozen=True)
class iDDPMPrecond(Precond):
  """Of improved DDPM: the cosine ladder, whose steps alone the network knows.

  Of the network's outputs the second half says variances; it is left out.

  >>> process, parameterization = iDDPMPrecond(64, 3).meaning()
  >>> round(float(process.level(1.0))), float(parameterization.levels[-1]) == float(process.level(1.0))
  (20291, True)
  """

  C_1: float = 0.001
  C_2: float = 0.008
  M: int = 1000
  model_type: str = "DhariwalUNet"

  def meaning(self) -> tuple[GaussianProcess, Parameterization]:
    """The ladder on which step i is at t = i / M."""
    process = processes.vp_ladder(processes.cosine_betas(self.M, self.C_2, 1.0 - self.C_1))
    levels = process.level(np.arange(self.M + 1) / self.M)
    return process, NearestLevel(1.0, 1.0, -1.0, "eps", "t", levels)

  def own(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays, of the last layer the part that gives means, without the table of noise levels."""
    means = lambda name: "out_conv." in name or "_aux_conv." in name
    return {
      name: np.asarray(value)[: self.img_channels] if means(name) else value
      for name, value in super().own(arrays).items()
      if name != "u"
    }


@dataclasses.dataclass(frozen=True)
class EDM2Precond:
  """EDM2's, in its files of class Precond: as EDM's own, on latents of deviation sigma_data.

  What it has to tell a loss how uncertain the network is takes no part in a denoiser.
  """

  img_resolution: int
  img_channels: int
  label_dim: int
  use_fp16: bool = True
  sigma_data: float = 0.5
  logvar_channels: int = 128

  model_type: ClassVar[str] = "UNet"

  def meaning(self) -> tuple[GaussianProcess, Parameterization]:
    """EDM's process, and its parameterisation."""
    return processes.edm(), denoisers.edm(self.sigma_data)

  def of_network(self) -> dict[str, Any]:
    """The sizes."""
    return {
      "img_resolution": self.img_resolution,
      "img_channels": self.img_channels,
      "label_dim": self.label_dim,
    }

  def own(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays without 'unet.' before their names.

    Raises UserError if those of the uncertainty are missing, or others.
    """
    known = lambda name: name.startswith("logvar_")
    entries = Entries({name: value for name, value in arrays.items() if known(name)}, "EDM2's uncertainty")
    for name in ("freqs", "phases"):
      entries.take(f"logvar_fourier.{name}", self.logvar_channels)
    entries.take("logvar_linear.weight", 1, self.logvar_channels)
    entries.finish()
    return {name.removeprefix("unet."): value for name, value in arrays.items() if not known(name)}


PRECONDITIONERS: dict[str, Any] = {
  "EDMPrecond": EDMPrecond,
  "VPPrecond": VPPrecond,
  "VEPrecond": VEPrecond,
  "iDDPMPrecond": iDDPMPrecond,
  "Precond": EDM2Precond,
}
"""Class of a preconditioner -> its options."""


def options(notes: Mapping[str, Any]) -> tuple[Preconditioner, Any]:
  """(options of the preconditioner, options of its network) of a snapshot.

  Args:
    notes: {'class_name', 'init_args', 'init_kwargs'} of the object 'ema', as a file's notes have it.
  Raises:
    UserError: for a class that is not known, and for an argument that its class does not have.

  >>> notes = {"class_name": "VEPrecond", "init_args": [32, 3], "init_kwargs": {"embedding_type": "fourier"}}
  >>> outer, inner = options(notes)
  >>> outer.sigma_max, inner.out_channels, inner.embedding_type
  (100.0, 3, 'fourier')
  """
  kind = PRECONDITIONERS[_known(notes["class_name"], PRECONDITIONERS, "preconditioner")]
  names = [field.name for field in dataclasses.fields(kind)]
  given = dict(zip(names, notes.get("init_args") or ())) | dict(notes.get("init_kwargs") or {})
  outer = options_of(kind, {name: value for name, value in given.items() if name in names})
  _, of_network = NETWORKS[_known(outer.model_type, NETWORKS, "network of EDM")]
  inner = {name: value for name, value in given.items() if name not in names} | outer.of_network()
  return outer, options_of(of_network, inner)


def parts(notes: Mapping[str, Any], **changes: Any) -> tuple[Any, GaussianProcess, Parameterization]:
  """(network, process, what its output means) of a snapshot.

  Args:
    notes: see `options`.
    **changes: attributes of the network, such as its dtype.
  Raises:
    UserError: as `options`.
  """
  outer, inner = options(notes)
  network, _ = NETWORKS[outer.model_type]
  return network.build(inner).clone(**changes), *outer.meaning()


def convert(arrays: Mapping[str, Any], notes: Mapping[str, Any]) -> Any:
  """The parameters of a snapshot's network, in float32.

  Args:
    arrays: by their names in the object 'ema': 'model.map_layer0.weight', ...
    notes: see `options`.
  Raises:
    UserError: as `options`, and for arrays that do not fit.
  """
  outer, inner = options(notes)
  network, _ = NETWORKS[outer.model_type]
  return network.convert(outer.own(arrays), inner)


def denoiser(
  notes: Mapping[str, Any], arrays: Mapping[str, Any], dtype: Any = jnp.float32
) -> NetworkDenoiser:
  """The denoiser of a snapshot.

  Args:
    notes, arrays: as of `convert`.
    dtype: that the network computes in; its parameters are float32.
  Raises:
    UserError: as `convert`.
  """
  params = jax.tree.map(jnp.asarray, convert(arrays, notes))
  module, process, meaning = parts(notes, dtype=dtype)
  return denoisers.from_flax(module, process, meaning, params)


def _known(name, table, what):
  if name not in table:
    raise UserError(f"{name!r} is no {what} that is known here: those known are {', '.join(table)}")
  return name
