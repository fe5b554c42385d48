"""Scheduler configs of diffusers, read as solvers.

A file each for what they may say, their times and levels, their steps, and what is wrong with them.
"""

from diffusion.solvers.diffusers.build import from_diffusers
from diffusion.solvers.diffusers.lint import lint_diffusers
