#!/usr/bin/env bash
# diffusers 0.42.0: with rescale_betas_zero_snr and the default betas the noise levels rise after the first one.
#
# Expected: the floor that stands for "no signal", alphas_cumprod[-1] = 2^-24 (sigma 4096), is below all other levels,
# so sigmas fall and the first is the largest.
# Seen: on the default linear betas the value before the last is 4.2e-9, below the floor. From n = 286 on with
# "trailing" (266 with Euler's "linspace") the second sigma is above the first: 4096, then 7668 at n = 500.
# init_noise_sigma is the largest, 7668, though the first step believes 4096.
# Hurts: v-prediction with zero terminal SNR on linear betas and many steps. Euler's samples are 1.8 times too wide at
# n = 500; the ancestral sampler takes the root of a negative number and returns NaN. DPM-Solver++ and UniPC have the
# same rise. scaled_linear and cosine betas have not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "diffusers==0.42.0" "numpy==2.4.6" "scipy==1.17.1" "safetensors==0.8.0"
cat > "$work/seen.py" <<'PY'
import diffusers
import torch

options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
scheduler = diffusers.EulerDiscreteScheduler(**options)
last = scheduler.alphas_cumprod[-2:].tolist()
print("alphas_cumprod ends", last)
assert last[1] == 2**-24 and last[0] < last[1] / 10

names = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler")
for name in (*names, "UniPCMultistepScheduler"):
  for spacing in ("trailing", "linspace"):
    scheduler = getattr(diffusers, name)(**{**options, "timestep_spacing": spacing})
    rising = []
    for n in range(2, 1001):
      scheduler.set_timesteps(n)
      if (scheduler.sigmas.diff() > 0).any():
        rising.append(n)
    scheduler.set_timesteps(500)
    begin = [round(value, 1) for value in scheduler.sigmas[:3].tolist()]
    print(name, spacing, "step counts that rise:", len(rising), "from", rising[0], "n = 500:", begin)
    assert rising == list(range(rising[0], 1001)) and rising[0] in (266, 286)
    assert begin[0] == 4096 and 7600 < begin[1] < 7700
  for betas in ("scaled_linear", "squaredcos_cap_v2"):
    scheduler = getattr(diffusers, name)(**options, beta_schedule=betas)
    scheduler.set_timesteps(500)
    assert (scheduler.sigmas.diff() < 0).all()


def spread(name, n):
  """Standard deviation of samples of N(0, 0.5^2) with the exact network at the scheduler's own levels."""
  scheduler = getattr(diffusers, name)(**options)
  scheduler.set_timesteps(n)
  generator = torch.Generator().manual_seed(0)
  x = torch.randn(1, 1, 64, 64, generator=generator) * scheduler.init_noise_sigma
  for t in scheduler.timesteps:
    z = scheduler.scale_model_input(x, t).double()
    kept = 1 / (1 + scheduler.sigmas[scheduler.step_index].double() ** 2)
    signal, noise = kept.sqrt(), (1 - kept).sqrt()
    total = kept * 0.25 + 1 - kept
    v = signal * noise * z / total - noise * signal * 0.25 * z / total
    x = scheduler.step(v.float(), t, x, generator=generator).prev_sample
  return x.std().item()


for name in names[:2]:
  seen = {n: spread(name, n) for n in (200, 500)}
  print(name, "spread of samples, 0.5 is right:", {n: round(value, 2) for n, value in seen.items()})
  assert 0.45 < seen[200] < 0.55
  assert 0.85 < seen[500] < 1.05 if name == names[0] else seen[500] != seen[500]
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# alphas_cumprod ends [4.213273285813557e-09, 5.960464477539063e-08]
# EulerDiscreteScheduler trailing step counts that rise: 715 from 286 n = 500: [4096.0, 7668.0, 3799.2]
# EulerDiscreteScheduler linspace step counts that rise: 735 from 266 n = 500: [4096.0, 7662.8, 3796.1]
# EulerAncestralDiscreteScheduler trailing step counts that rise: 715 from 286 n = 500: [4096.0, 7668.0, 3799.2]
# EulerAncestralDiscreteScheduler linspace step counts that rise: 735 from 266 n = 500: [4096.0, 7662.8, 3796.1]
# DPMSolverMultistepScheduler trailing step counts that rise: 715 from 286 n = 500: [4096.0, 7668.0, 3799.2]
# DPMSolverMultistepScheduler linspace step counts that rise: 715 from 286 n = 500: [4096.0, 7668.0, 3799.2]
# UniPCMultistepScheduler trailing step counts that rise: 715 from 286 n = 500: [4096.0, 7668.0, 3799.2]
# UniPCMultistepScheduler linspace step counts that rise: 715 from 286 n = 500: [4096.0, 7668.0, 3799.2]
# EulerDiscreteScheduler spread of samples, 0.5 is right: {200: 0.49, 500: 0.92}
# EulerAncestralDiscreteScheduler spread of samples, 0.5 is right: {200: 0.47, 500: nan}
# as stated
