#!/usr/bin/env bash
# diffusers 0.42.0: one step with the default spacing of Euler, Heun, KDPM2 and LMS starts at timestep 0, without noise.
#
# Expected: timestep_spacing="linspace" with one step starts at the noisiest level, 999, as DPM-Solver++, UniPC and DEIS
# do under the same option name.
# Seen: timesteps [0], sigma 0.0100 (Heun and KDPM2, with their own default betas: 0.0292), and init_noise_sigma is the
# same small number. np.linspace(0, 999, 1) is [0].
# Hurts: whoever tries a distilled or consistency model in one step: the network sees an almost clean image of nothing
# and gives it back, with no warning. timestep_spacing="trailing" starts at 999.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "diffusers==0.42.0" "numpy==2.4.6" "scipy==1.17.1" "safetensors==0.8.0"
cat > "$work/seen.py" <<'PY'
import diffusers
import torch

for name, level in {
  "EulerDiscreteScheduler": 0.0100,
  "EulerAncestralDiscreteScheduler": 0.0100,
  "LMSDiscreteScheduler": 0.0100,
  "HeunDiscreteScheduler": 0.0292,
  "KDPM2DiscreteScheduler": 0.0292,
}.items():
  scheduler = getattr(diffusers, name)()
  scheduler.set_timesteps(1)
  first, initial = float(scheduler.sigmas[0]), float(scheduler.init_noise_sigma)
  print(name, scheduler.timesteps.tolist(), f"sigma {first:.4f} initial {initial:.4f}")
  assert scheduler.config.timestep_spacing == "linspace" and scheduler.timesteps.tolist() == [0]
  assert abs(first - level) < 1e-4 and initial == first
for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"):
  scheduler = getattr(diffusers, name)()
  scheduler.set_timesteps(1)
  print(name, scheduler.timesteps.tolist(), f"sigma {float(scheduler.sigmas[0]):.1f}")
  assert scheduler.config.timestep_spacing == "linspace" and scheduler.timesteps.tolist() == [999]


def sampled(spacing):
  """Mean and standard deviation of one-step samples of N(1, 0.5^2) with the exact network."""
  scheduler = diffusers.EulerDiscreteScheduler(timestep_spacing=spacing)
  scheduler.set_timesteps(1)
  x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
  sigma = scheduler.sigmas[0]
  scheduler.scale_model_input(x, scheduler.timesteps[0])
  clean = (x * 0.25 + sigma**2) / (0.25 + sigma**2)
  x = scheduler.step((x - clean) / sigma, scheduler.timesteps[0], x).prev_sample
  return round(x.mean().item(), 3), round(x.std().item(), 3)


default, trailing = sampled("linspace"), sampled("trailing")
print("mean and spread of one-step samples of N(1, 0.5^2): linspace", default, "trailing", trailing)
assert abs(default[0]) < 0.01 and abs(default[1] - 0.01) < 0.001 and abs(trailing[0] - 1) < 0.01
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# EulerDiscreteScheduler [0.0] sigma 0.0100 initial 0.0100
# EulerAncestralDiscreteScheduler [0.0] sigma 0.0100 initial 0.0100
# LMSDiscreteScheduler [0.0] sigma 0.0100 initial 0.0100
# HeunDiscreteScheduler [0.0] sigma 0.0292 initial 0.0292
# KDPM2DiscreteScheduler [0.0] sigma 0.0292 initial 0.0292
# DPMSolverMultistepScheduler [999] sigma 157.4
# UniPCMultistepScheduler [999] sigma 157.4
# DEISMultistepScheduler [999] sigma 157.4
# mean and spread of one-step samples of N(1, 0.5^2): linspace (0.0, 0.01) trailing (1.0, 0.002)
# as stated
