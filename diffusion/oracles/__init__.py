"""Distributions whose denoiser, score, Hessian, density and time score are known in closed form.

They are known so at every time. Each oracle is bound to a process and is a denoiser itself, so a solver, a
guidance rule or a loss can be checked against the true answer in a second.
"""

from diffusion.oracles.atoms import Atoms, atoms
from diffusion.oracles.categorical import UniformResampleCategorical, uniform_resample_categorical
from diffusion.oracles.conditioned import conditioned
from diffusion.oracles.discrete import Discrete, discrete
from diffusion.oracles.gaussian import Gaussian, gaussian
from diffusion.oracles.masked_categorical import MaskedCategorical, masked_categorical
from diffusion.oracles.mixture import GaussianMixture, gaussian_mixture
from diffusion.oracles.path_mixture import PathMixture, path_mixture
from diffusion.oracles.ratio import DensityRatio, density_ratio
