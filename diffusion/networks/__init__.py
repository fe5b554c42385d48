"""Networks: Flax modules `(x, t, cond=None, train=False) -> output` that know nothing of diffusion."""

from diffusion.networks.concrete import ConcreteFlips
from diffusion.networks.concrete import ConcreteMLP
from diffusion.networks.dit import DiT
from diffusion.networks.energy import Energy
from diffusion.networks.examples import Example
from diffusion.networks.examples import NETWORKS
from diffusion.networks.made import MADE
from diffusion.networks.mlp import MLP
from diffusion.networks.pixel_cnn import PixelCNN
from diffusion.networks.potential import Potential
from diffusion.networks.second_order import SecondOrder
from diffusion.networks.time_score import TimeScore
from diffusion.networks.unet import UNet

__all__ = ["ConcreteFlips", "ConcreteMLP", "DiT", "Energy", "MADE", "MLP", "NETWORKS", "Example", "PixelCNN", "Potential", "SecondOrder", "TimeScore", "UNet"]
