"""What every opened model is, of a run or of a published file: what the commands ask of it."""

import abc
import dataclasses
from typing import Any

import jax
import numpy as np

from diffusion.run import sharding
from diffusion.run.parts import codec


@dataclasses.dataclass(frozen=True)
class Opened(abc.ABC):
  """A model with its parameters and all that a command asks of it: a run's, or a published one's.

  Attributes:
    parts: config, data set, process, network, parameterisation (`parts.assembly.Parts`).
    params: parameters of the model.
    denoiser: the network with them as a denoiser, with every view that the network states.
    mesh: the devices it was put on.
    codec_params: the parameters of its codec; None without one.
    guide: the second network that guides its samples (`run.guide.Guide`); None without one.
  """

  parts: Any
  params: Any
  denoiser: Any
  mesh: Any
  codec_params: Any
  guide: Any = dataclasses.field(default=None, kw_only=True)

  @property
  def config(self) -> Any:
    """The config; of a published model what its sections `sampler` and `evaluation` would say."""
    return self.parts.config

  @property
  @abc.abstractmethod
  def objective(self) -> Any:
    """What trained the model, with what it states (`losses.Objective`)."""
    ...

  @property
  @abc.abstractmethod
  def title(self) -> str:
    """What samples are of, in a sentence: 'step 300'."""
    ...

  @property
  @abc.abstractmethod
  def source(self) -> str:
    """The folder or the file of its parameters."""
    ...

  @property
  @abc.abstractmethod
  def mark(self) -> str:
    """What tells its files from those of others: 'step300'; '' where their folder does."""
    ...

  @property
  @abc.abstractmethod
  def record(self) -> dict[str, Any]:
    """What metrics.json says of where it is from."""
    ...

  @property
  def why_no_loss(self) -> str:
    """Why its training loss cannot be asked, in a sentence; '' where it can."""
    return ""

  def noted(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """What else a file of samples [n] says of them, by name: the prompts that they were told."""
    del index
    return {}

  @property
  def no_sampler(self) -> str:
    """Why the sampler of its authors is not known here, in a sentence; '' where it is, or there are none."""
    return ""

  @property
  def said(self) -> str:
    """What else to say of it after a sentence, with '; ' before it; '' for nothing."""
    return f"; guided by {self.guide.path}" if self.guide else ""

  @property
  def guide_record(self) -> dict[str, Any]:
    """What metrics.json says of what guides it."""
    return {"guide_weights": self.guide.path, "guide_sha256": self.guide.identity} if self.guide else {}

  @property
  @abc.abstractmethod
  def own_identity(self) -> dict[str, Any]:
    """All that decides its parameters, as JSON."""
    ...

  @property
  def identity(self) -> dict[str, Any]:
    """The same, and the parameters of what guides it."""
    return self.own_identity | ({"guide": self.guide.identity} if self.guide else {})

  def own_sampler(self, steps: int | None) -> Any:
    """The solver that goes with the model where none is named, in `steps` or its own number; None without."""
    del steps
    return None

  def place(self, array: Any) -> jax.Array:
    """A [batch, ...] array split over the devices."""
    return jax.device_put(array, sharding.batch_sharding(self.mesh))

  def decode(self, x: np.ndarray) -> np.ndarray:
    """Samples [n, ...] of the model as model values of the data, [n, ...]; themselves without a codec."""
    devices = self.mesh.shape["data"]
    return codec.decoded(self.parts.codec, self.codec_params, x, -(-64 // devices) * devices, self.place)

  def encode(self, x: np.ndarray) -> np.ndarray:
    """Model values [n, ...] of the data as the model sees them, [n, ...]; themselves without a codec."""
    devices = self.mesh.shape["data"]
    return codec.coded(self.parts.codec, self.codec_params, x, -(-64 // devices) * devices, self.place)

  def to_data(self, x: np.ndarray) -> np.ndarray:
    """Samples [n, ...] of the model in stored values: decoded, then scaled."""
    return self.parts.dataset.scaling.to_data(self.decode(x))
