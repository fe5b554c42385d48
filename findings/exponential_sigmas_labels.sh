#!/usr/bin/env bash
# diffusers 0.42.0: use_exponential_sigmas and use_beta_sigmas cut the timestep off where use_karras_sigmas rounds it.
#
# Expected: as with use_karras_sigmas, the network is given the timestep nearest to the noise level; the first, at the
# largest sigma, is 999.
# Seen: in DPM-Solver++, UniPC, DEIS and SA-Solver the exact timestep is cast to int64 without rounding. On Stable
# Diffusion's betas the first is 998 (998.99999 cut), and the timesteps are half a step low on average. At the low
# end a step is much: with the exponential spacing the level is up to 1.4 times the one that the network is told.
# Hurts: whoever compares these spacings with Karras's, or with Euler's, which keeps the fraction: part of the
# difference is the label, not the spacing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "diffusers==0.42.0" "numpy==2.4.6" "scipy==1.17.1" "safetensors==0.8.0"
cat > "$work/seen.py" <<'PY'
import diffusers
import numpy as np

betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"):
  for option in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
    scheduler = getattr(diffusers, name)(**{option: True}, **betas)
    scheduler.set_timesteps(20)
    kept = scheduler.alphas_cumprod.double().numpy()
    table = np.sqrt((1 - kept) / kept)
    sigmas = scheduler.sigmas[:20].double().numpy()
    exact = np.interp(np.log(sigmas), np.log(table), np.arange(1000))
    labels = scheduler.timesteps.numpy()
    off = float((labels - exact)[1:-1].mean())
    worst = float((sigmas / table[labels]).max())
    print(name, option, "first", labels[0], f"mean of label - exact {off:.2f}, level / told level up to {worst:.2f}")
    if option == "use_karras_sigmas":
      assert labels[0] == 999 and abs(off) < 0.2 and worst < 1.2
    else:
      assert labels[0] == 998 and exact[0] > 998.999 and -0.7 < off < -0.3
      assert worst > 1.3 or option == "use_beta_sigmas"
for option in ("use_exponential_sigmas", "use_beta_sigmas"):
  euler = diffusers.EulerDiscreteScheduler(**{option: True}, **betas)
  euler.set_timesteps(20)
  linear = diffusers.UniPCMultistepScheduler(**{option: True})
  linear.set_timesteps(20)
  print(option, "Euler's first", float(euler.timesteps[0]), "UniPC's first on linear betas", int(linear.timesteps[0]))
  assert abs(float(euler.timesteps[0]) - 999) < 1e-3 and linear.timesteps[0] == 999
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# DPMSolverMultistepScheduler use_karras_sigmas first 999 mean of label - exact 0.03, level / told level up to 1.02
# DPMSolverMultistepScheduler use_exponential_sigmas first 998 mean of label - exact -0.63, level / told level up to 1.39
# DPMSolverMultistepScheduler use_beta_sigmas first 998 mean of label - exact -0.49, level / told level up to 1.01
# UniPCMultistepScheduler use_karras_sigmas first 999 mean of label - exact 0.03, level / told level up to 1.02
# UniPCMultistepScheduler use_exponential_sigmas first 998 mean of label - exact -0.63, level / told level up to 1.39
# UniPCMultistepScheduler use_beta_sigmas first 998 mean of label - exact -0.49, level / told level up to 1.01
# DEISMultistepScheduler use_karras_sigmas first 999 mean of label - exact 0.03, level / told level up to 1.02
# DEISMultistepScheduler use_exponential_sigmas first 998 mean of label - exact -0.63, level / told level up to 1.39
# DEISMultistepScheduler use_beta_sigmas first 998 mean of label - exact -0.49, level / told level up to 1.01
# SASolverScheduler use_karras_sigmas first 999 mean of label - exact 0.03, level / told level up to 1.02
# SASolverScheduler use_exponential_sigmas first 998 mean of label - exact -0.63, level / told level up to 1.39
# SASolverScheduler use_beta_sigmas first 998 mean of label - exact -0.49, level / told level up to 1.01
# use_exponential_sigmas Euler's first 999.0 UniPC's first on linear betas 999
# use_beta_sigmas Euler's first 999.0 UniPC's first on linear betas 999
# as stated
