"""Stochastic samplers on the problems of the frontier.

Sliced Wasserstein distance of their samples to true ones.

The distance between true samples of the same numbers, on average, is the floor: a row of owner `floor`."""

import functools

import frontier_ours as ours
import frontier_peers as peers
import jax
import numpy as np

from diffusion import solvers
from diffusion.metrics import sliced

# A distance between samples has a floor from their number alone, so fewer budgets and more samples than for
# the flow.
SAMPLES, TRUE = {"ring2d": 8192, "gmm64": 512, "digits": 512}, 16384
BUDGETS = (5, 10, 20)
SOLVERS = {
  "dpmpp_2m_sde": ("dpmpp_2m_sde", {}),
  "dpmpp_2m_sde, eta 0.5": ("dpmpp_2m_sde", dict(eta=0.5)),
  "dpmpp_2m_sde, eta 0.25": ("dpmpp_2m_sde", dict(eta=0.25)),
  "dpmpp_3m_sde": ("dpmpp_3m_sde", {}),
  "dpmpp_3m_sde, eta 0.25": ("dpmpp_3m_sde", dict(eta=0.25)),
  "sa_solver 3 + 3, tau 1": ("sa_solver", {}),
  "sa_solver 3 + 3, tau 0.5": ("sa_solver", dict(tau=0.5)),
  "sa_solver 3 + 3, tau 0.25": ("sa_solver", dict(tau=0.25)),
  "ancestral": ("ancestral", {}),
  "ddim, eta 0.5": ("ddim", dict(eta=0.5)),
}
SPACINGS = [
  ours.Spacing("vp_time", (power,), last) for power in (1.5, 2.0, 3.0) for last in (None, 0.03, 0.06)
]


def diffusers_runs(process, nfe):
  """diffusers' stochastic schedulers with their spacings."""
  top, _ = peers.ends(process)
  found = []

  def add(name, cls, spacings, state="vp", **options):
    for spacing, choice in spacings:

      def call(model, y, choice=choice):
        scheduler = peers.scheduler_of(cls, tuple({**options, **choice}.items()), process)
        scheduler.largest = top
        scheduler.set_timesteps(nfe)
        return peers.step_through(scheduler, state, model, y)

      found.append(peers.Run("diffusers", name, spacing, call))

  spaced, by_sigma = peers.SPACED[:3], peers.BY_SIGMA
  to_zero = dict(final_sigmas_type="zero")
  for kind in ("midpoint", "heun"):
    add(
      f"DPMSolverMultistep sde++ 2 {kind}",
      "DPMSolverMultistepScheduler",
      [(s, {**o, **to_zero}) for s, o in spaced + by_sigma],
      solver_type=kind,
      algorithm_type="sde-dpmsolver++",
      prediction_type="sample",
    )
  add("SASolver 2+2, tau 1", "SASolverScheduler", spaced + by_sigma, tau_func=one, prediction_type="sample")
  add("EulerAncestralDiscrete", "EulerAncestralDiscreteScheduler", spaced, state="ve")
  add("DDPM", "DDPMScheduler", spaced, clip_sample=False)
  return found


def one(t):
  return 1.0


def k_diffusion_runs(process, nfe):
  """k-diffusion's stochastic samplers with its spacings and with ours."""
  import torch

  k = peers.k_diffusion_sampling()
  samplers = {
    "euler_ancestral": (k.sample_euler_ancestral, {}),
    "dpmpp_2m_sde": (k.sample_dpmpp_2m_sde, {}),
    "dpmpp_3m_sde": (k.sample_dpmpp_3m_sde, {}),
    "dpmpp_2m_sde, eta 0.5": (k.sample_dpmpp_2m_sde, dict(eta=0.5)),
  }
  found = []
  for name, (sample, options) in samplers.items():
    for grid, sigmas in (
      peers.own_sigmas(process, nfe)
      | {g: v for g, v in peers.handed(process, nfe).items() if "0.03" not in g}
    ).items():

      def call(model, y, sample=sample, options=options, sigmas=sigmas):
        ask = lambda x, sigma: torch.as_tensor(model(x.numpy(), float(sigma[0])))
        noise = lambda *_: torch.randn(y.shape, dtype=torch.float64)
        return sample(
          ask, torch.as_tensor(y), torch.as_tensor(sigmas), disable=True, noise_sampler=noise, **options
        ).numpy()

      found.append(peers.Run("k-diffusion", name, grid, call))
  return found


PEERS = {"diffusers": diffusers_runs, "k-diffusion": k_diffusion_runs}


def table(solver, spacing, process, nfe):
  """Of so many evaluations, or None where the nodes coincide."""
  name, options = SOLVERS[solver]
  try:
    return solvers.SOLVERS[name].builder(process, spacing(process, nfe), dtype=np.float64, **options)
  except ValueError:
    return None


def rows(case, budgets, cache, name, available, quick):
  """Rows of ours and of the peers' stochastic samplers, each with its best grid, and of the floor."""
  count = 64 if quick else SAMPLES[case.problem]
  process, size = case.denoiser.process, case.x.shape[1]
  x = np.random.default_rng(7).normal(size=(count, size)) * float(process.prior_std)
  true = case.denoiser.draw(8, TRUE)
  distance = functools.partial(sliced.sliced_wasserstein, true, count=32)

  def row(nfe, solver, owner, grid, end):
    finite = np.isfinite(end).all()
    return dict(
      problem=case.problem,
      noise=case.noise,
      nfe=nfe,
      solver=solver,
      owner=owner,
      grid=grid,
      metric="sliced_wasserstein",
      sliced_wasserstein=float(distance(end)) if finite else 1e9,
    )

  def of_ours(nfe):
    pairs = [(solver, spacing) for solver in SOLVERS for spacing in (SPACINGS[3:6] if quick else SPACINGS)]
    tables = {pair: found for pair in pairs if (found := table(*pair, process, nfe)) is not None}
    keys = jax.random.split(jax.random.key(9), count)
    ends = ours.run(case.denoiser, list(tables.values()), x, keys)
    return [row(nfe, solver, "ours", str(spacing), end) for (solver, spacing), end in zip(tables, ends)]

  def of_peer(peer, nfe):
    import torch

    found = []
    for run in PEERS[peer](process, nfe)[:: 6 if quick else 1]:
      torch.manual_seed(9)
      end, calls = peers.attempt(run, case.denoiser, x / float(process.marginal(process.t_max).alpha))
      if end is not None and calls <= nfe:
        found.append(row(nfe, run.solver, peer, run.grid, end))
    return found

  floor = float(np.mean([distance(case.denoiser.draw(seed, count)) for seed in range(10, 15)]))
  found = []
  for nfe in budgets:
    if nfe not in BUDGETS and not quick:
      continue
    found += cache(f"{name}/{count}/{nfe}/stochastic/ours", lambda: of_ours(nfe))
    for peer in available:
      if peer in PEERS:
        found += cache(f"{name}/{count}/{nfe}/stochastic/{peer}", lambda: of_peer(peer, nfe))
    found.append(
      dict(
        problem=case.problem,
        noise=case.noise,
        nfe=nfe,
        solver="true samples",
        owner="floor",
        grid="",
        metric="sliced_wasserstein",
        sliced_wasserstein=floor,
      )
    )
  return found
