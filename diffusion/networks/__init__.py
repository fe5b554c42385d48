"""Networks: Flax modules `(x, t, cond=None, train=False) -> output` that know nothing of diffusion."""

from diffusion.networks.examples import Example
from diffusion.networks.examples import NETWORKS
from diffusion.networks.mlp import MLP

__all__ = ["MLP", "NETWORKS", "Example"]
