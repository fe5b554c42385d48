"""The codec of a trained autoencoder: a model in its latent space (arXiv:2112.10752, section 3)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Autoencoder:
  """A network with the methods `encode` and `decode`: see `autoencoder`.

  Attributes:
    network: the linen module.
    shape, latent_shape: of one example, and of its latents.
    log_det: None: latents have fewer numbers than data, and the decoder is no inverse.
  """

  network: Any = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  latent_shape: tuple[int, ...] = struct.field(pytree_node=False)

  log_det: ClassVar[None] = None

  def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the latents. Raises ValueError for another shape than the network was trained on."""
    if tuple(shape) != self.shape:
      raise ValueError(
        f"the autoencoder was trained on examples of shape {list(self.shape)}, and these have "
        f"{list(shape)}: give both "
        "runs the same data"
      )
    return self.latent_shape

  def init(self) -> Any:
    """Parameters of the network, all zero until those of a run take their place."""
    return jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _shapes(self.network, self.shape)["params"]
    )

  def measure(self, params: Any, x: jax.Array) -> Any:
    """The parameters as they are."""
    return params

  def encode(self, params: Any, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Latents [B, ...] of x: [B, ...], without randomness, in float32 or wider."""
    return self.network.apply({"params": params}, x, method="encode")

  def decode(self, params: Any, z: jax.Array) -> jax.Array:
    """The reconstruction [B, ...] of latents z: [B, ...]."""
    return self.network.apply({"params": params}, z, method="decode")

  def show(self, x: jax.Array) -> jax.Array:
    """x itself."""
    return x


def autoencoder(run: str, ema: str | None = None, saved: Mapping[str, Any] | None = None) -> Autoencoder:
  """The codec of another run's network, such as one that was trained on `losses.reconstruction`.

  In a config, `codec=dict(factory="codecs.autoencoder", run=FOLDER)`: training writes `saved`, loads the
  weights and keeps them in the train state, so that the folder is needed once. A network is such a one if it
  states the views 'latent' and 'reconstruction' and has methods encode(x [B, ...]) and decode(z [B, ...]);
  `networks.AutoEncoder` is.

  Args:
    run: folder of the run.
    ema: half-life in images of the averaged weights, as text; None for that run's first, 'none' for the raw
      ones.
    saved: what that run is: dict(network=MODULE, shape=SHAPE), and what training knows besides; in a config
      the module is a section with a factory.

  Raises ValueError without `saved`, and for a network with mutable collections.

  >>> from diffusion import networks
  >>> network = networks.AutoEncoder(shape=(4, 4, 1), latent_shape=(3,), width=8, depth=1)
  >>> codec = autoencoder("runs/autoencoder", saved=dict(network=network, shape=(4, 4, 1)))
  >>> codec.shape_of((4, 4, 1)), codec.encode(codec.init(), jnp.ones((2, 4, 4, 1))).shape, codec.log_det
  ((3,), (2, 3), None)
  """
  if saved is None:
    raise ValueError(
      f"an autoencoder of the run {run!r} needs 'saved', which says what that run is: a run gets it from "
      f"train.py"
    )
  network, shape = saved["network"], tuple(saved["shape"])
  shapes = _shapes(network, shape)
  more = sorted(set(shapes) - {"params"})
  if more:
    raise ValueError(
      f"the network of {run} has mutable collections ({', '.join(more)}), which a codec does not keep: use "
      f"one without"
    )
  encode = lambda params, x: network.apply({"params": params}, x, method="encode")
  latent = jax.eval_shape(encode, shapes["params"], jax.ShapeDtypeStruct((1, *shape), jnp.float32))
  return Autoencoder(network, shape, tuple(latent.shape[1:]))


def _shapes(network, shape):
  """The network's variables as shapes."""
  one = jax.ShapeDtypeStruct((1, *shape), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
  return jax.eval_shape(network.init, jax.random.key(0), *one)
