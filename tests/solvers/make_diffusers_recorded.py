"""Writes `recorded_diffusers.npz`: what the schedulers of diffusers 0.42 do on a denoiser known in closed
form.

Run in an environment with `diffusers==0.42.0 torch scipy`; the tests need this file's cases and its oracle,
without either:

  python tests/solvers/make_diffusers_recorded.py

Each case is run twice: as it is, in float32, of which timesteps, sigmas and the sample are kept, and with
every `float32` in the scheduler's module read as `float64`, of which timesteps, sigmas and the whole
trajectory are kept: the rule itself, to the last digits.
"""

import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("recorded_diffusers.npz")
ROWS, DIM, MOST = 2, 2, 40
LOGITS, MEANS, STDS = np.log([0.3, 0.7]), np.array([[1.0, -0.5], [-0.6, 0.8]]), np.array([0.3, 0.5])


def posterior_mean(x, a, s):
  """E[x0 | x] for x = a x0 + s eps and a mixture of two round Gaussians: [B, D] -> [B, D]."""
  variance = (a * STDS) ** 2 + s**2
  away = x[:, None] - a * MEANS
  log = LOGITS - 0.5 * (away**2).sum(-1) / variance - 0.5 * x.shape[1] * np.log(variance)
  weight = np.exp(log - log.max(1, keepdims=True))
  weight = weight / weight.sum(1, keepdims=True)
  each = MEANS + (a * STDS**2 / variance)[:, None] * away
  return (weight[..., None] * each).sum(1)


def answer(view, x, a, s):
  """What a network of that kind says at scales (a, s): [B, D]."""
  x0 = posterior_mean(x, a, s)
  if view == "x0":
    return x0
  eps = (x - a * x0) / s
  return {"eps": eps, "v": a * eps - s * x0, "velocity": eps - x0}[view]


def _cases():
  """{name: (class, options, steps, keyword arguments of the call)}."""
  sd = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
  cosine, sharp = dict(beta_schedule="squaredcos_cap_v2"), dict(timestep_spacing="trailing")
  v, sample, flow = (dict(prediction_type=kind) for kind in ("v_prediction", "sample", "flow_prediction"))
  lead, zero_snr = dict(timestep_spacing="leading", steps_offset=1), dict(rescale_betas_zero_snr=True)
  free, least = dict(clip_sample=False), dict(final_sigmas_type="sigma_min")
  space = lambda kind: {f"use_{kind}_sigmas": True}
  flows = flow | dict(use_flow_sigmas=True, flow_shift=3.0)
  found = {}

  def add(scheduler, name, options=(), n=8, **call):
    found[f"{scheduler} {name}"] = (f"{scheduler}Scheduler", dict(options), n, call)

  add("DDIM", "leading", free | sd | dict(steps_offset=1, set_alpha_to_one=False))
  add("DDIM", "linspace, v", free | v | dict(timestep_spacing="linspace"))
  add("DDIM", "trailing, eta", free | cosine | sharp, 10, eta=0.7)
  add("DDIM", "seven steps", free | sharp, 7)
  add("DDIM", "zero snr, v", free | v | zero_snr | sharp | sd)
  add("DDIM", "sample", free | sample)
  add("DDPM", "small", free)
  add("DDPM", "small log, v", free | v | sharp | dict(variance_type="fixed_small_log"))
  add("DDPM", "large, cosine", free | cosine | dict(variance_type="fixed_large", timestep_spacing="linspace"))
  add("DDPM", "zero snr, sample", free | sample | zero_snr | sharp)
  clip = dict(clip_sample=True, clip_sample_range=0.5)
  add("DDIM", "clipped", clip | sd)
  add("DDIM", "thresholding, v", v | zero_snr | sharp | dict(clip_sample=False, thresholding=True))
  add("DDPM", "clipped", clip | sharp, denoiser_clips=True)
  add("LCM", "clipped", clip, 4, denoiser_clips=True)
  add("HeunDiscrete", "clipped", clip | lead, 5, denoiser_clips=True)
  add("DPMSolverMultistep", "thresholding", sd | sharp | dict(thresholding=True), denoiser_clips=True)
  add("PNDM", "with the start", sd, 10)
  add("PNDM", "without the start", sd | dict(skip_prk_steps=True, steps_offset=1), 10)
  add("PNDM", "without the start, v", v | sharp | dict(skip_prk_steps=True, set_alpha_to_one=True))
  add("IPNDM", "plain")
  add("LCM", "plain", {}, 4)
  add("LCM", "v", v, 3)
  add("EulerDiscrete", "linspace", sd)
  add("EulerDiscrete", "leading, v", sd | v | lead)
  add("EulerDiscrete", "trailing, zero snr, v", sd | v | sharp | zero_snr)
  add("EulerDiscrete", "karras", sd | space("karras"))
  add("EulerDiscrete", "exponential, own ends", space("exponential") | dict(sigma_min=0.05, sigma_max=40.0))
  add("EulerDiscrete", "beta, sigma_min", sd | sharp | space("beta") | least)
  add("EulerDiscrete", "log linear, sample", sample | dict(interpolation_type="log_linear"))
  add("EulerAncestralDiscrete", "linspace", sd)
  add("EulerAncestralDiscrete", "trailing, v, zero snr", sd | v | sharp | zero_snr)
  add("HeunDiscrete", "linspace", {}, 6)
  add("HeunDiscrete", "karras, v", v | space("karras"), 6)
  add("HeunDiscrete", "leading, sample", sample | lead, 5)
  add("LMSDiscrete", "linspace", sd)
  add("LMSDiscrete", "karras, v", sd | v | space("karras"))
  multi = "DPMSolverMultistep"
  add(multi, "default")
  add(multi, "order 1, trailing", sharp | dict(solver_order=1))
  add(multi, "heun, leading, v", sd | v | lead | dict(solver_type="heun"))
  add(multi, "order 3, karras, 20 steps", sd | space("karras") | dict(solver_order=3), 20)
  add(multi, "order 3, few steps", sd | dict(solver_order=3, final_sigmas_type="sigma_min"))
  add(multi, "euler at final, 16 steps", sd | least | sharp | dict(euler_at_final=True, solver_order=3), 16)
  add(multi, "no lower order", sd | least | dict(lower_order_final=False, solver_order=3))
  add(multi, "lu", sd | dict(use_lu_lambdas=True))
  add(multi, "exponential", sd | space("exponential"))
  add(multi, "beta", sd | space("beta"))
  add(multi, "karras, cosine", cosine | space("karras"), begin=0)
  add(multi, "clipped, trailing", cosine | sharp | dict(lambda_min_clipped=-5.1))
  add(multi, "zero snr, v", sd | v | sharp | zero_snr)
  add(multi, "flow", flows | dict(solver_order=3))
  add(multi, "flow, dynamic", flows | dict(use_dynamic_shifting=True), mu=0.8)
  add(multi, "dpmsolver", sd | least | dict(algorithm_type="dpmsolver"))
  add(multi, "dpmsolver, order 3", sd | least | v | dict(algorithm_type="dpmsolver", solver_order=3), 16)
  add(multi, "dpmsolver, heun", sd | least | sample | dict(algorithm_type="dpmsolver", solver_type="heun"))
  sde = dict(algorithm_type="sde-dpmsolver++")
  add(multi, "sde++", sd | sde)
  add(multi, "sde++, heun", sd | sde | space("karras") | dict(solver_type="heun"))
  add(multi, "sde++, order 3", sd | sde | dict(solver_order=3), 16)
  add(multi, "sde", sd | least | dict(algorithm_type="sde-dpmsolver"))
  add(multi, "sde, heun", sd | least | dict(algorithm_type="sde-dpmsolver", solver_type="heun"))
  single = "DPMSolverSinglestep"
  add(single, "default", sd)
  add(single, "order 3", sd | dict(solver_order=3), 10)
  add(single, "order 3, heun", sd | least | dict(solver_order=3, solver_type="heun"), 9)
  add(single, "order 3, lower final", sd | least | dict(solver_order=3, lower_order_final=True), 9)
  add(single, "order 2, odd", sd | least, 7)
  add(single, "order 1", sd | dict(solver_order=1), 5)
  add(single, "dpmsolver, order 3", sd | least | dict(algorithm_type="dpmsolver", solver_order=3), 9)
  add(single, "dpmsolver, heun", sd | least | dict(algorithm_type="dpmsolver", solver_type="heun"))
  add(single, "sde++, order 3, karras", sd | least | sde | space("karras") | dict(solver_order=3), 9)
  add(single, "sde++, order 3, heun", sd | least | sde | dict(solver_order=3, solver_type="heun"), 9)
  add(single, "flow", flows)
  add("UniPCMultistep", "default")
  add("UniPCMultistep", "order 3, trailing, v", sd | v | sharp | dict(solver_order=3))
  add("UniPCMultistep", "bh1, order 3", sd | least | dict(solver_type="bh1", solver_order=3), 10)
  add("UniPCMultistep", "noise", sd | least | dict(predict_x0=False, solver_order=3))
  add("UniPCMultistep", "karras, own ends", sd | space("karras") | least | dict(sigma_max=10.0))
  add("UniPCMultistep", "no corrector at first", sd | dict(disable_corrector=[0, 1], solver_order=3))
  add("UniPCMultistep", "no lower order", sd | least | dict(lower_order_final=False, solver_order=3))
  add("UniPCMultistep", "flow", flows | dict(shift_terminal=0.1))
  add("UniPCMultistep", "flow, dynamic", flows | dict(use_dynamic_shifting=True), mu=1.15)
  add("UniPCMultistep", "flow, karras", flows | space("karras") | dict(solver_order=3))
  add("DEISMultistep", "default")
  add("DEISMultistep", "order 3", sd | dict(solver_order=3), 16)
  add("DEISMultistep", "order 3, few steps, v", sd | v | dict(solver_order=3))
  add("DEISMultistep", "order 1, leading", lead | dict(solver_order=1))
  add("DEISMultistep", "flow", flows | dict(solver_order=3))
  add("SASolver", "default", sd)
  add("SASolver", "orders 3 and 3", sd | dict(predictor_order=3, corrector_order=3), 10)
  add("SASolver", "orders 3 and 4, v", sd | v | dict(predictor_order=3, corrector_order=4), 12)
  add("SASolver", "orders 2 and 1, karras", sd | space("karras") | dict(corrector_order=1))
  add("SASolver", "noise", sd | dict(algorithm_type="noise_prediction", lower_order_final=False))
  add("SASolver", "flow", flows)
  add("EDMEuler", "karras")
  add("EDMEuler", "exponential, sigma_min", least | v | dict(sigma_schedule="exponential", rho=5.0))
  add("EDMDPMSolverMultistep", "default")
  add("EDMDPMSolverMultistep", "order 3", dict(solver_order=3), 16)
  add("EDMDPMSolverMultistep", "sde, heun", dict(algorithm_type="sde-dpmsolver++", solver_type="heun"))
  euler = "FlowMatchEulerDiscrete"
  add(euler, "plain")
  add(euler, "shift", dict(shift=3.0))
  add(euler, "dynamic", dict(use_dynamic_shifting=True), mu=0.9)
  add(euler, "dynamic, linear", dict(use_dynamic_shifting=True, time_shift_type="linear"), mu=2.0)
  add(euler, "terminal, stochastic", dict(shift=2.0, shift_terminal=0.05, stochastic_sampling=True))
  for kind in ("karras", "exponential", "beta"):
    add(euler, kind, space(kind) | dict(shift=2.0))
  add("FlowMatchHeunDiscrete", "shift", dict(shift=3.0), 5)
  add("CMStochasticIterative", "two steps", dict(clip_denoised=False), 2)
  add("CMStochasticIterative", "five steps", dict(clip_denoised=False, s_noise=0.9), 5)
  return found


CASES = _cases()


class Wide:
  """A module with float64 in place of float32."""

  def __init__(self, module, wide):
    self.module, self.float32 = module, wide

  def __getattr__(self, name):
    return getattr(self.module, name)


def run(name, wide):
  """{timesteps, sigmas, states [calls + 1, B, D] in units of x_t} of a case, with diffusers."""
  import importlib

  import diffusers
  import torch

  cls, options, steps, call = CASES[name]
  source = getattr(diffusers, cls)
  module = importlib.import_module(source.__module__)
  noise, at = np.random.default_rng(11).standard_normal((MOST + 1, ROWS, DIM)), [0]
  kind = torch.float64 if wide else torch.float32
  genuine = {key: getattr(module, key) for key in ("torch", "np", "randn_tensor") if hasattr(module, key)}
  torch.set_default_dtype(kind)
  if wide:
    module.torch = Wide(torch, torch.float64)
    if "np" in genuine:
      module.np = Wide(np, np.float64)
  module.randn_tensor = lambda *_, **__: torch.from_numpy(noise[at[0] + 1][..., None]).to(kind)
  try:
    scheduler = source(**options)
    scheduler.set_timesteps(steps, **({"mu": call["mu"]} if "mu" in call else {}))
    if "begin" in call:  # without it a first timestep that comes twice is looked up as the second
      scheduler.set_begin_index(call["begin"])
    answers = _network(cls, scheduler)
    x = torch.from_numpy(noise[0][..., None]).to(kind) * torch.as_tensor(
      float(getattr(scheduler, "init_noise_sigma", 1.0)), dtype=kind
    )
    states = [x.numpy()]
    for i, k in enumerate(scheduler.timesteps):
      at[0] = i
      scaled = scheduler.scale_model_input(x, k) if hasattr(scheduler, "scale_model_input") else x
      out = torch.from_numpy(answers(scaled.double().numpy()[..., 0], float(k))[..., None]).to(kind)
      x = scheduler.step(out, k, x, **({"eta": call["eta"]} if "eta" in call else {}), return_dict=False)[0]
      states.append(x.numpy())
  finally:
    torch.set_default_dtype(torch.float32)
    for key, value in genuine.items():
      setattr(module, key, value)
  sigmas = getattr(scheduler, "sigmas", None)
  states = np.array(states, np.float64)[..., 0]
  if cls in (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
  ):
    level = np.array(sigmas, np.float64)[: len(states)]
    if cls == "HeunDiscreteScheduler":
      level = np.array(sigmas, np.float64)
      assert len(level) == len(states)
    states = states / np.sqrt(level**2 + 1)[:, None, None]
  return dict(
    timesteps=np.array(scheduler.timesteps, np.float64),
    sigmas=np.zeros(0) if sigmas is None or cls == "IPNDMScheduler" else np.array(sigmas, np.float64),
    states=states,
  )


def _network(cls, scheduler):
  """(input, timestep) -> what a network that is trained for this scheduler says."""
  c = scheduler.config
  if cls == "IPNDMScheduler":
    return lambda x, k: answer("v", x, np.cos(np.pi * k / 2), np.sin(np.pi * k / 2))
  if cls.startswith(("EDM", "CM")):
    edm = cls.startswith("EDM")

    def preconditioned(x, k):
      sigma, data = np.exp(4 * k if edm else k / 250), c.sigma_data
      x = x * np.sqrt(sigma**2 + data**2)
      near = 0.0 if edm else c.sigma_min
      skip = data**2 / ((sigma - near) ** 2 + data**2)
      out = (sigma - near) * data / np.sqrt(sigma**2 + data**2)
      out = -out if c.get("prediction_type") == "v_prediction" else out
      return (posterior_mean(x, 1.0, sigma) - skip * x) / out

    return preconditioned
  if cls.startswith("FlowMatch") or c.get("use_flow_sigmas"):
    count = c.num_train_timesteps
    return lambda x, k: answer("velocity", x, 1 - k / count, k / count)
  view = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}[c.prediction_type]
  abar = np.cumprod(1 - scheduler.betas.double().numpy())
  abar = scheduler.alphas_cumprod.double().numpy() if abar[-1] == 0 else abar
  with np.errstate(divide="ignore"):
    log = np.append(0.0, np.log(abar))

  def table(x, k):
    at = np.exp(np.interp(k + 1, np.arange(len(log)), log)) if k % 1 else abar[int(k)]
    return answer(view, x, np.sqrt(at), np.sqrt(1 - at))

  return table


def main():
  """Runs all cases and writes the file."""
  import diffusers

  assert diffusers.__version__ == "0.42.0", diffusers.__version__
  found = {"noise": np.random.default_rng(11).standard_normal((MOST + 1, ROWS, DIM))}
  for name in CASES:
    narrow, wide = run(name, False), run(name, True)
    bad = not np.isfinite(wide["states"]).all()
    print(f"{name:45} {len(wide['timesteps'])} calls{'  NOT FINITE' if bad else ''}")
    found |= {f"{name}|{key}": value for key, value in wide.items()}
    found |= {f"{name}|float32 {key}": narrow[key].astype(np.float32) for key in ("timesteps", "sigmas")}
    found[f"{name}|float32 sample"] = narrow["states"][-1].astype(np.float32)
  # One array for all: a file of many small arrays is mostly headers.
  shapes = {key: list(value.shape) for key, value in found.items()}
  import json

  flat = np.concatenate([value.ravel().astype(np.float64) for value in found.values()])
  np.savez_compressed(FILE, values=flat, shapes=np.array(json.dumps(shapes)))
  print(FILE.stat().st_size, "bytes")


if __name__ == "__main__":
  main()
