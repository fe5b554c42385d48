"""How noise becomes data: samplers as tables of numbers, run by one jitted scan."""

from diffusion.solvers import grids
from diffusion.solvers.ancestral import ancestral
from diffusion.solvers.annealed_langevin import annealed_langevin
from diffusion.solvers.catalogue import SOLVERS, build
from diffusion.solvers.ddim import ddim
from diffusion.solvers.dpmpp import dpmpp_2m, dpmpp_2m_sde
from diffusion.solvers.euler import euler
from diffusion.solvers.euler_maruyama import euler_maruyama
from diffusion.solvers.executor import Solver, sample
from diffusion.solvers.grids import GRIDS
from diffusion.solvers.heun import heun
from diffusion.solvers.predictor_corrector import PredictorCorrector, annealed, langevin, predictor_corrector
from diffusion.solvers.reverse_diffusion import reverse_diffusion
from diffusion.solvers.table import About, State, Table
