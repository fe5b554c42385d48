"""Networks: Flax modules `(x, t, cond=None, train=False) -> output` that know nothing of diffusion.

Networks of another make come in by `from_nnx` and `from_pair`.
"""

from diffusion.networks.adapters import NNX, Linen, Network, Pair, as_network, from_nnx, from_pair
from diffusion.networks.auto_encoder import AutoEncoder
from diffusion.networks.concrete_score import ConcreteFlips, ConcreteMLP
from diffusion.networks.dit import DiT
from diffusion.networks.embedded_values import EmbeddedValues
from diffusion.networks.energy import Energy
from diffusion.networks.examples import NETWORKS, Example
from diffusion.networks.made import MADE
from diffusion.networks.mlp import MLP
from diffusion.networks.pixel_cnn import PixelCNN
from diffusion.networks.potential import Potential
from diffusion.networks.second_order import SecondOrder
from diffusion.networks.sequence_transformer import SequenceTransformer
from diffusion.networks.time_score import TimeScore
from diffusion.networks.token_mlp import TokenMLP
from diffusion.networks.unet import UNet

__all__ = [
  "MADE",
  "MLP",
  "NETWORKS",
  "NNX",
  "AutoEncoder",
  "ConcreteFlips",
  "ConcreteMLP",
  "DiT",
  "EmbeddedValues",
  "Energy",
  "Example",
  "Linen",
  "Network",
  "Pair",
  "PixelCNN",
  "Potential",
  "SecondOrder",
  "SequenceTransformer",
  "TimeScore",
  "TokenMLP",
  "UNet",
  "as_network",
  "from_nnx",
  "from_pair",
]
