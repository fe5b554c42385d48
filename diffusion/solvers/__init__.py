"""Solvers: how noise becomes data.

They are asked where to evaluate and told what was seen, and are run by one jitted scan.
"""

from diffusion.solvers import grids
from diffusion.solvers.about import About
from diffusion.solvers.adaptive_sde import adaptive_sde
from diffusion.solvers.ancestral import ancestral
from diffusion.solvers.annealed_langevin import annealed_langevin
from diffusion.solvers.annealed_metropolis import annealed_metropolis
from diffusion.solvers.block_by_block import block_by_block
from diffusion.solvers.cached import cached
from diffusion.solvers.catalogue import (
  ADAPTIVE,
  BEYOND_GAUSSIAN,
  CHOOSE_STEPS,
  DEFAULT,
  SOLVERS,
  UNMASKING,
  build,
  listing,
  times,
)
from diffusion.solvers.confidence_unmasking import confidence_unmasking
from diffusion.solvers.contract import (
  Around,
  Described,
  OnGrid,
  PostStep,
  SelfDriven,
  SelfPaced,
  Solver,
  finished,
)
from diffusion.solvers.d3pm_ancestral import d3pm_ancestral
from diffusion.solvers.ddim import ddim
from diffusion.solvers.deis import deis, lms
from diffusion.solvers.denoising import with_denoising
from diffusion.solvers.denoising_mcmc import ChainStarts, denoising_mcmc, level_posterior
from diffusion.solvers.diffrax_bridge import diffrax_ode, diffrax_sde
from diffusion.solvers.diffusers import from_diffusers, lint_diffusers
from diffusion.solvers.double_step import double_step
from diffusion.solvers.dpm_solver import dpm_solver, dpm_solver_fast, dpmpp_2s
from diffusion.solvers.dpm_solver_adaptive import dpm_solver_adaptive
from diffusion.solvers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde
from diffusion.solvers.entropy_bound import confidence_threshold, entropy_bound
from diffusion.solvers.euler import euler
from diffusion.solvers.euler_maruyama import euler_maruyama
from diffusion.solvers.euler_rates import euler_rates
from diffusion.solvers.evolution import SearchResult, error_to
from diffusion.solvers.executor import sample
from diffusion.solvers.exponential_rk import exponential_rk3
from diffusion.solvers.first_hitting import first_hitting
from diffusion.solvers.fit import Fitted, fit
from diffusion.solvers.fit_starts import fit_starts
from diffusion.solvers.flow_corrector import flow_predictor_corrector
from diffusion.solvers.gibbs_corrector import gibbs_corrector, informed_corrector
from diffusion.solvers.grids import GRIDS
from diffusion.solvers.heun import heun, heun_churn
from diffusion.solvers.join import join
from diffusion.solvers.jump import masked_ancestral
from diffusion.solvers.late_start import late_start
from diffusion.solvers.linear_steps import linear_steps
from diffusion.solvers.momentum import ghvb, hb
from diffusion.solvers.path_planning import leave_one_out, path_planning
from diffusion.solvers.pndm import ipndm, pndm
from diffusion.solvers.predictor_corrector import PredictorCorrector, annealed, langevin, predictor_corrector
from diffusion.solvers.recovery_langevin import recovery_langevin
from diffusion.solvers.reference import Reference, reference
from diffusion.solvers.remasking import remasking
from diffusion.solvers.res_multistep import res_2m
from diffusion.solvers.restart import restart
from diffusion.solvers.reverse_diffusion import reverse_diffusion
from diffusion.solvers.sa_solver import sa_solver
from diffusion.solvers.saving import load, read_notes, save
from diffusion.solvers.scheduled import scheduled
from diffusion.solvers.search_schedule import search_schedule
from diffusion.solvers.search_times import search_times
from diffusion.solvers.table import State, Table
from diffusion.solvers.tau_leaping import tau_leaping
from diffusion.solvers.teleportation import GaussianFit, fit_gaussian, teleport
from diffusion.solvers.time_shift import time_shift
from diffusion.solvers.unipc import unipc
from diffusion.solvers.velocity import euler_velocity, heun_velocity
