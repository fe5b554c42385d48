"""Small instances of every network, for tests that must hold for all of them."""

from collections.abc import Callable
import dataclasses

from flax import linen as nn

from diffusion.networks.mlp import MLP


@dataclasses.dataclass(frozen=True)
class Example:
  """One small network: `build(**changes)` makes it, `shape` is one example's shape (without the batch axis).

  Every one takes 10 classes, vectors of size 3 and dropout, if the caller asks for it.
  """

  build: Callable[..., nn.Module]
  shape: tuple[int, ...]


def _small(module: type[nn.Module], shape: tuple[int, ...], **defaults) -> Example:
  return Example(lambda **changes: module(**{"num_classes": 10, "vector_size": 3, **defaults, **changes}), shape)


NETWORKS: dict[str, Example] = {
    "mlp": _small(MLP, (5,), width=16, depth=2),
    "mlp_image": _small(MLP, (4, 6, 2), width=16, depth=1, embedding="positional"),
}
