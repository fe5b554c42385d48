"""Markov chains and their kernels.

A kernel is an `init` and a `step`, pure functions of many chains at once. `run` is one `lax.scan` for all of
them.
"""

from diffusion.mcmc.annealed import anneal
from diffusion.mcmc.base import Kernel, Run, fold, run
from diffusion.mcmc.effective_sample_size import effective_sample_size
from diffusion.mcmc.gibbs import gibbs
from diffusion.mcmc.langevin import langevin, mala
from diffusion.mcmc.metropolis import metropolis
from diffusion.mcmc.ozaki import ozaki
from diffusion.mcmc.target import as_data, at_time
