"""Other libraries' samplers on the problems of the frontier.

Each is handed the same denoiser and the same starts.

A peer is a function (process, nfe) -> runs, or a line that says why it is left out. A run takes a model, (y,
rho) -> E[x0] on y = x/alpha, and starts y [B, D] at the largest rho, and returns y where it ends. Libraries
that work on x of the VP process are given a table of 1000 levels of that process's own schedule, at whose
exact noise levels the model is asked; so all of them meet both kinds of noise.

Grids named `handed` are our node spacings given through an argument that the peer offers to its users."""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable

import frontier_problems as problems
import numpy as np

from diffusion import processes
from diffusion.solvers import grids


@dataclasses.dataclass(frozen=True)
class Run:
  """One sampler of a peer at one number of evaluations.

  Attributes:
    peer, solver, grid: names.
    call: (model, y) -> y at the end, NumPy in and out.
  """

  peer: str
  solver: str
  grid: str
  call: Callable


class Model:
  """The exact denoiser in (y, rho) for NumPy arrays; counts its calls."""

  def __init__(self, denoiser):
    # Without the process, which is not needed here, there are fewer arrays to hand over at each call.
    self.denoiser, self.calls = denoiser.replace(process=None), 0

  def __call__(self, y, rho):
    self.calls += 1
    return np.asarray(problems.clean(self.denoiser, np.asarray(y, np.float64), float(rho)))


def ends(process):
  """The largest and the smallest noise level that the process is sampled at."""
  return tuple(float(process.marginal(t).noise_to_signal) for t in (process.t_max, process.t_min))


def handed(process, n):
  """Our spacings for n steps to sigma = 0, as levels rho: name -> [n + 1]."""
  found = {}
  level = lambda rho: float(process.t_of_log_snr(-2 * np.log(rho)))
  for power in (1.5, 2.0, 3.0):
    for last in (None, 0.03, 0.06):
      if last is None:
        grid = grids.vp_time(process, n, t_min=0.0, power=power)
      else:
        grid = grids.vp_time(process, n, t_min=level(last), power=power, clean=True)
      rho = process.marginal(grid).noise_to_signal
      found[f"handed vp_time^{power:g}" + (f" to {last:g}" if last else "")] = np.asarray(rho)
  return found


# -------------------------------------------------------------------------------------------------- diffusers


def level_table(process):
  """1000 noise levels, even in the linear VP process's time, as the betas of a discrete VP process."""
  reference = processes.vp_linear()
  high, low = (float(reference.t_of_log_snr(-2 * np.log(rho))) for rho in ends(process))
  kept = np.asarray(reference.marginal(np.linspace(low, high, 1000)).alpha) ** 2
  return 1.0 - kept / np.append(1.0, kept[:-1])


_schedulers = {}


def scheduler_of(cls, options, process):
  """A scheduler on the process's 1000 levels, made once: `set_timesteps` forgets the run before."""
  import diffusers

  key = (cls, options, process and process.name)
  if key not in _schedulers:
    diffusers.utils.logging.set_verbosity_error()
    table = {} if process is None else dict(trained_betas=level_table(process), num_train_timesteps=1000)
    _schedulers[key] = getattr(diffusers, cls)(**table, **dict(options))
  return _schedulers[key]


def step_through(scheduler, state, model, y):
  """Runs a diffusers scheduler whose timesteps are set; state is 'vp', 've', 'edm', 'ipndm' or 'flow', what
  its samples are."""
  import torch

  top = float(np.asarray(scheduler.sigmas[0])) if hasattr(scheduler, "sigmas") else None
  sigma_max = y_scale(scheduler, state, top)
  x = torch.as_tensor(y * sigma_max)
  if hasattr(scheduler, "set_begin_index"):
    scheduler.set_begin_index(0)
  for i, t in enumerate(scheduler.timesteps):
    rho = noise_level(scheduler, state, i, t)
    alpha, sigma = scale_of(state, rho)
    seen = (x / alpha).numpy().astype(np.float64)
    clean = torch.as_tensor(model(seen, rho))
    noise = (torch.as_tensor(seen) - clean) / rho
    if state == "edm":
      data = scheduler.config.sigma_data
      total = data**2 + rho**2
      out = (clean - data**2 / total * torch.as_tensor(seen)) * np.sqrt(total) / (rho * data)
    elif state == "ipndm":
      out = alpha * noise - sigma * clean
    elif state == "flow":
      out = noise - clean
    else:
      out = clean if scheduler.config.prediction_type == "sample" else noise
    if hasattr(scheduler, "is_scale_input_called"):
      scheduler.is_scale_input_called = True  # scaled above, exactly
    x = scheduler.step(out.to(x.dtype), t, x).prev_sample
  last = final_level(scheduler, state)
  return x.numpy().astype(np.float64) / scale_of(state, last)[0]


def y_scale(scheduler, state, top):
  """What multiplies y at the largest rho to give a scheduler's start: its own start level decides where its
  samples are not of unit size."""
  if state in ("ve", "edm"):
    return np.sqrt((1 + top**2) / (1 + scheduler.largest**2))
  return 1 / np.sqrt(1 + scheduler.largest**2) if state != "flow" else 1 / (1 + scheduler.largest)


def noise_level(scheduler, state, i, t):
  """rho at which the scheduler wants the i-th evaluation."""
  if state == "ipndm":
    return min(float(scheduler.betas[i]) / max(float(scheduler.alphas[i]), 1e-12), scheduler.largest)
  if not hasattr(scheduler, "sigmas"):
    kept = float(scheduler.alphas_cumprod[int(t)])
    return np.sqrt((1 - kept) / kept)
  index = scheduler.step_index or 0
  between = hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order
  sigma = float((scheduler.sigmas_interpol if between else scheduler.sigmas)[index])
  return sigma / (1 - sigma) if state == "flow" else sigma


def final_level(scheduler, state):
  if state == "ipndm":
    return float(scheduler.betas[-1] / scheduler.alphas[-1])
  if not hasattr(scheduler, "sigmas"):
    kept = float(getattr(scheduler, "final_alpha_cumprod", scheduler.alphas_cumprod[0]))
    return np.sqrt((1 - kept) / kept)
  return float(scheduler.sigmas[-1])


def scale_of(state, rho):
  """(alpha, sigma) of the samples that a scheduler keeps."""
  if state in ("ve", "edm"):
    return 1.0, rho
  if state == "flow":
    return 1 / (1 + rho), rho / (1 + rho)
  return 1 / np.sqrt(1 + rho**2), rho / np.sqrt(1 + rho**2)


SPACED = [
  ("linspace", dict(timestep_spacing="linspace")),
  ("trailing", dict(timestep_spacing="trailing")),
  ("leading", dict(timestep_spacing="leading")),
  ("leading + 1", dict(timestep_spacing="leading", steps_offset=1)),
]
BY_SIGMA = [
  ("karras", dict(use_karras_sigmas=True)),
  ("exponential", dict(use_exponential_sigmas=True)),
  ("beta", dict(use_beta_sigmas=True)),
]
ENDED = [(" to 0", dict(final_sigmas_type="zero")), ("", dict(final_sigmas_type="sigma_min"))]


def diffusers_runs(process, nfe):
  """Every deterministic scheduler of diffusers that fits a Gaussian process, with each of its spacings."""
  betas = level_table(process)
  top, bottom = ends(process)
  with_ends = [(s + e, {**a, **b}) for s, a in SPACED + BY_SIGMA for e, b in ENDED]
  lu = [("lu" + e, dict(use_lu_lambdas=True, **b)) for e, b in ENDED]
  even = (nfe + 1) // 2  # steps of two evaluations but the last
  found = []

  def add(name, cls, spacings, steps, state="vp", set_steps=None, **options):
    if steps < 1:
      return
    for spacing, choice in spacings:

      def call(model, y, choice=choice):
        scheduler = scheduler_of(
          cls, tuple({**options, **choice}.items()), None if state in ("edm", "ipndm") else process
        )
        scheduler.largest = top
        (set_steps or (lambda s: s.set_timesteps(steps)))(scheduler)
        return step_through(scheduler, state, model, y)

      found.append(Run("diffusers", name, spacing, call))

  for order in (2, 3):
    add(
      f"DPMSolverMultistep++ {order}",
      "DPMSolverMultistepScheduler",
      with_ends + lu,
      nfe,
      solver_order=order,
      prediction_type="sample",
    )
  add(
    "DPMSolverMultistep++ 2 heun",
    "DPMSolverMultistepScheduler",
    with_ends,
    nfe,
    solver_order=2,
    solver_type="heun",
    prediction_type="sample",
  )
  add(
    "DPMSolverSinglestep++ 2",
    "DPMSolverSinglestepScheduler",
    [("", {}), *BY_SIGMA],
    nfe,
    solver_order=2,
    prediction_type="sample",
  )
  add(
    "DPMSolverSinglestep++ 3",
    "DPMSolverSinglestepScheduler",
    [("", {}), *BY_SIGMA],
    nfe,
    solver_order=3,
    prediction_type="sample",
  )
  for order in (2, 3, 4):
    add(
      f"UniPC {order} bh2",
      "UniPCMultistepScheduler",
      with_ends,
      nfe,
      solver_order=order,
      prediction_type="sample",
    )
  add(
    "UniPC 3 bh1",
    "UniPCMultistepScheduler",
    [s for s in with_ends if not s[0].endswith("to 0")],
    nfe,
    solver_order=3,
    solver_type="bh1",
    prediction_type="sample",
  )
  for order in (1, 2, 3):
    add(f"DEISMultistep {order}", "DEISMultistepScheduler", SPACED + BY_SIGMA, nfe, solver_order=order)
  for predictor, corrector in ((2, 2), (3, 3)):
    add(
      f"SASolver {predictor}+{corrector}, tau 0",
      "SASolverScheduler",
      SPACED + BY_SIGMA[:2],
      nfe,
      predictor_order=predictor,
      corrector_order=corrector,
      tau_func=lambda t: 0.0,
      prediction_type="sample",
    )
  add("DDIM", "DDIMScheduler", SPACED, nfe, clip_sample=False)
  add("PNDM", "PNDMScheduler", SPACED, nfe - 9 if nfe >= 13 else 0, set_alpha_to_one=True)
  add("PLMS", "PNDMScheduler", SPACED, nfe - 1 if nfe > 2 else 0, set_alpha_to_one=True, skip_prk_steps=True)
  add("IPNDM", "IPNDMScheduler", [("its own", {})], nfe, state="ipndm")
  add("LMSDiscrete", "LMSDiscreteScheduler", SPACED + BY_SIGMA, nfe, state="ve")
  add("EulerDiscrete", "EulerDiscreteScheduler", SPACED + BY_SIGMA, nfe, state="ve")
  add("HeunDiscrete", "HeunDiscreteScheduler", SPACED + BY_SIGMA, even, state="ve")
  add("KDPM2Discrete", "KDPM2DiscreteScheduler", SPACED[:3] + BY_SIGMA[:1], even, state="ve")
  edm = [
    (f"{kind}{f' rho {rho}' if kind == 'karras' else ''}{e}", dict(sigma_schedule=kind, rho=float(rho), **b))
    for kind, rho in (("karras", 7), ("karras", 4), ("exponential", 7))
    for e, b in ENDED
  ]
  for order in (2, 3):
    add(
      f"EDMDPMSolverMultistep {order}",
      "EDMDPMSolverMultistepScheduler",
      edm,
      nfe,
      state="edm",
      solver_order=order,
      sigma_min=bottom,
      sigma_max=top,
    )
  add("EDMEuler", "EDMEulerScheduler", edm, nfe, state="edm", sigma_min=bottom, sigma_max=top)
  nodes = handed(process, nfe)
  kept = np.cumprod(1 - betas)
  table = np.log((1 - kept) / kept) / 2
  for order in (2, 3):
    for name, rho in nodes.items():
      steps = np.unique([int(abs(table - np.log(level)).argmin()) for level in rho[:-1]])[::-1]
      if len(steps) == nfe:
        add(
          f"DPMSolverMultistep++ {order}",
          "DPMSolverMultistepScheduler",
          [(name, {})],
          nfe,
          set_steps=lambda s, steps=steps: s.set_timesteps(timesteps=steps.tolist()),
          solver_order=order,
          prediction_type="sample",
        )
  for order in (2, 3, 4):
    for name, rho in nodes.items():
      add(
        f"UniPC {order} bh2",
        "UniPCMultistepScheduler",
        [(name, {})],
        nfe,
        state="flow",
        use_flow_sigmas=True,
        solver_order=order,
        set_steps=lambda s, rho=rho: s.set_timesteps(sigmas=rho[:-1] / (1 + rho[:-1])),
        prediction_type="flow_prediction",
      )
  for name, rho in nodes.items():
    add(
      "IPNDM",
      "IPNDMScheduler",
      [(name, dict(trained_betas=tuple(rho / np.sqrt(1 + rho**2))))],
      nfe,
      state="ipndm",
    )
  return found


# ------------------------------------------------------------------------------------------------ k-diffusion


@functools.cache
def k_diffusion_sampling():
  """k_diffusion.sampling, also where the picture libraries that its other modules import are missing."""
  try:
    import k_diffusion.sampling as sampling
  except (ImportError, RuntimeError):
    where = importlib.util.find_spec("k_diffusion")
    if where is None:
      raise ImportError("No module named 'k_diffusion'") from None
    for name in [name for name in sys.modules if name.split(".")[0] in ("k_diffusion", "torchvision")]:
      del sys.modules[name]
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(where.submodule_search_locations)
    sys.modules["k_diffusion"] = package
    pictures, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    transforms.functional, pictures.transforms = None, transforms
    sys.modules.update({"torchvision": pictures, "torchvision.transforms": transforms})
    import k_diffusion.sampling as sampling

    del sys.modules["torchvision"], sys.modules["torchvision.transforms"]
  return sampling


def own_sigmas(process, n):
  """k-diffusion's spacings for n evaluations, each also with a raised last level: name -> [n + 1] ending at
  0."""
  k = k_diffusion_sampling()
  top, bottom = ends(process)
  found = {}
  for last in (bottom, 0.04):
    to = "" if last == bottom else f" to {last:g}"
    for rho in (7, 4):
      found[f"karras rho {rho}{to}"] = k.get_sigmas_karras(n, last, top, float(rho))
    found[f"exponential{to}"] = k.get_sigmas_exponential(n, last, top)
    found[f"polyexponential 1.5{to}"] = k.get_sigmas_polyexponential(n, last, top, 1.5)
  reference = processes.vp_linear()
  if abs(top / float(reference.marginal(1.0).noise_to_signal) - 1) < 1e-6:
    for eps in (1e-3, 1e-2):
      found[f"vp eps {eps:g}"] = k.get_sigmas_vp(n, 19.9, 0.1, eps)
  return {name: np.asarray(sigmas, np.float64) for name, sigmas in found.items()}


def k_diffusion_runs(process, nfe):
  """The deterministic samplers of k-diffusion, with its spacings and, as they all take any list of sigmas,
  with ours."""
  import torch

  k = k_diffusion_sampling()
  quiet = lambda *_: 0.0
  samplers = {
    "euler": (k.sample_euler, {}, 1),
    "lms 3": (k.sample_lms, dict(order=3), 1),
    "lms 4": (k.sample_lms, dict(order=4), 1),
    "dpmpp_2m": (k.sample_dpmpp_2m, {}, 1),
    "dpmpp_2m_sde heun, eta 0": (
      k.sample_dpmpp_2m_sde,
      dict(eta=0.0, solver_type="heun", noise_sampler=quiet),
      1,
    ),
    "dpmpp_3m_sde, eta 0": (k.sample_dpmpp_3m_sde, dict(eta=0.0, noise_sampler=quiet), 1),
    "heun": (k.sample_heun, {}, 2),
    "dpm_2": (k.sample_dpm_2, {}, 2),
    "dpmpp_2s": (k.sample_dpmpp_2s_ancestral, dict(eta=0.0, noise_sampler=quiet), 2),
  }
  found = []
  for name, (sample, options, stages) in samplers.items():
    n = nfe if stages == 1 else (nfe + 1) // 2
    choices = own_sigmas(process, n) | (handed(process, n) if stages == 1 and name != "euler" else {})
    for grid, sigmas in choices.items():

      def call(model, y, sample=sample, options=options, sigmas=sigmas):
        ask = lambda x, sigma: torch.as_tensor(model(x.numpy(), float(sigma[0])))
        return sample(ask, torch.as_tensor(y), torch.as_tensor(sigmas), disable=True, **options).numpy()

      found.append(Run("k-diffusion", name, grid, call))
  top, bottom = ends(process)
  for last in (bottom, 0.01):

    def fast(model, y, last=last):
      ask = lambda x, sigma: torch.as_tensor(model(x.numpy(), float(sigma[0])))
      return k.sample_dpm_fast(ask, torch.as_tensor(y), last, top, nfe, disable=True).numpy()

    found.append(Run("k-diffusion", "dpm_fast", f"log to {last:g}", fast))
  return found


# ---------------------------------------------------------------------------------------------------- diffrax


@functools.cache
def diffrax_integrator(name, clock):
  """A compiled (denoiser, y, high, low, steps) -> y: diffrax on x of the VP process, dx = (x/(1 + rho^2) -
  alpha D) d log rho."""
  import diffrax
  import jax
  import jax.numpy as jnp

  reference = processes.vp_linear()

  def field(u, x, args):
    denoiser, high, low = args
    if clock == "log":
      log_rho, slope = (1 - u) * jnp.log(high) + u * jnp.log(low), jnp.log(low / high)
    else:
      begin, end = (reference.t_of_log_snr(-2 * jnp.log(rho)) ** 0.5 for rho in (high, low))
      level = lambda u: -0.5 * reference.marginal(((1 - u) * begin + u * end) ** 2).log_snr
      log_rho, slope = jax.jvp(level, (jnp.asarray(u, jnp.float64),), (jnp.ones((), jnp.float64),))
    rho = jnp.exp(log_rho)
    alpha = 1 / jnp.sqrt(1 + rho**2)
    clean = denoiser.clean(x / alpha, jnp.broadcast_to(rho, x.shape[:1]))
    return slope * (x / (1 + rho**2) - alpha * clean)

  @jax.jit
  def run(denoiser, y, high, low, steps):
    x = y / jnp.sqrt(1 + high**2)
    solution = diffrax.diffeqsolve(
      diffrax.ODETerm(field),
      getattr(diffrax, name)(),
      0.0,
      1.0,
      1.0 / steps,
      x,
      (denoiser, high, low),
      max_steps=64,
    )
    return solution.ys[-1] * jnp.sqrt(1 + low**2)

  return run


# Evaluations a step, and those spent once: the last of a step is the first of the next where a method says
# so.
DIFFRAX = {"Heun": (2, 0), "Bosh3": (3, 1), "Tsit5": (6, 1), "Dopri5": (6, 1)}


def diffrax_runs(process, nfe):
  """diffrax's explicit Runge-Kutta methods at a fixed number of steps, in log sigma and in VP's time
  squared."""
  top, bottom = ends(process)
  found = []
  for name, (stages, once) in DIFFRAX.items():
    steps = (nfe - once) // stages
    for clock in ("log", "vp_time^2") if steps else ():
      for last in (bottom, 0.03):

        def call(model, y, name=name, clock=clock, last=last, steps=steps, calls=steps * stages + once):
          model.calls += calls
          return np.asarray(diffrax_integrator(name, clock)(model.denoiser, y, top, last, float(steps)))

        found.append(Run("diffrax", name, f"{clock} to {last:g}", call))
  return found


# --------------------------------------------------------------------------------------------------- together


PEERS = {
  "diffusers": (("torch", "diffusers"), diffusers_runs),
  "k-diffusion": (("torch", "k_diffusion"), k_diffusion_runs),
  "diffrax": (("diffrax",), diffrax_runs),
  "jax_deis": (("jax_deis",), None),
}
OTHERWISE = {"jax_deis": "is on no package index and does not import on JAX 0.10 or newer"}


def available():
  """The peers that can be imported: name -> its function; and one line for each of the others."""
  found, missing = {}, []
  for name, (modules, runs) in PEERS.items():
    try:
      for module in modules:
        if module == "k_diffusion":
          k_diffusion_sampling()
        else:
          importlib.import_module(module)
      if runs is None:
        missing.append(f"{name} is left out: no adapter, {OTHERWISE[name]}")
      else:
        found[name] = runs
    except (ImportError, AttributeError, RuntimeError) as error:
      missing.append(f"{name} is left out: {OTHERWISE.get(name) or f'{error} (pip install -e .[peers])'}")
  return found, missing


def attempt(run, denoiser, y):
  """(y at the end or None where the peer raises, calls)."""
  model = Model(denoiser)
  with (
    warnings.catch_warnings(),
    np.errstate(all="ignore"),
    open(os.devnull, "w") as null,
    contextlib.redirect_stdout(null),
    contextlib.redirect_stderr(null),
  ):
    warnings.simplefilter("ignore")
    try:
      out = run.call(model, y)
    except (
      ValueError,
      IndexError,
      RuntimeError,
      ZeroDivisionError,
      AssertionError,
      FloatingPointError,
    ) as error:
      return None, f"{type(error).__name__}: {error}"
  return out, model.calls
