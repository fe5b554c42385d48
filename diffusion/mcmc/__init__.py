"""Markov chains: a kernel is an `init` and a `step`, pure functions of many chains at once, and `run` is one `lax.scan` for all of them."""

from diffusion.mcmc.base import Kernel, Run, fold, run
