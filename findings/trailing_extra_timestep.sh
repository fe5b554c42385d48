#!/usr/bin/env bash
# diffusers 0.42.0: timestep_spacing="trailing" gives one timestep too many for 62 of the counts up to 1000.
#
# Expected: set_timesteps(n) gives n timesteps, none below 0.
# Seen: n + 1 for n = 61, 103, 121, 122, 201, ..., 998, the last of them -1. np.arange(1000, 0, -1000 / n) is left one
# element long by rounding; its last value is near 0, is rounded to 0, and 1 is taken off. The
# eight schedulers tried share it; four are run here.
# Hurts: whoever scans step counts or takes an odd one. The network is asked at timestep -1, and DDIM and DDPM then read
# alphas_cumprod[-1], the noisiest level, for the last step: samples come out about 140 times too large. Euler only
# makes a call too many.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "diffusers==0.42.0" "numpy==2.4.6" "scipy==1.17.1" "safetensors==0.8.0"
cat > "$work/seen.py" <<'PY'
import diffusers
import torch

for name in ("DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"):
  scheduler = getattr(diffusers, name)(timestep_spacing="trailing")
  longer, negative = [], []
  for n in range(1, 1001):
    scheduler.set_timesteps(n)
    if len(scheduler.timesteps) != n:
      assert len(scheduler.timesteps) == n + 1
      longer.append(n)
    if scheduler.timesteps[-1] < 0:
      negative.append(n)
  scheduler.set_timesteps(61)
  last = [int(t) for t in scheduler.timesteps[-2:]]
  print(name, "counts with n + 1:", len(longer), longer[:5], "...", longer[-1], "ends at n = 61:", last)
  assert len(longer) == 62 and longer == negative and longer[:5] == [61, 103, 121, 122, 201] and last == [15, -1]


def spread(name, n):
  """Standard deviation of samples of N(0, 0.5^2) with the exact network."""
  scheduler = getattr(diffusers, name)(timestep_spacing="trailing", clip_sample=False)
  scheduler.set_timesteps(n)
  generator = torch.Generator().manual_seed(0)
  x = torch.randn(1, 1, 64, 64, generator=generator)
  for t in scheduler.timesteps:
    kept = scheduler.alphas_cumprod[max(int(t), 0)]
    noise = (1 - kept).sqrt() * x / (kept * 0.25 + 1 - kept)
    x = scheduler.step(noise, t, x, generator=generator).prev_sample
  return x.std().item()


for name in ("DDIMScheduler", "DDPMScheduler"):
  seen = {n: spread(name, n) for n in (60, 61, 62)}
  print(name, "spread of samples, 0.5 is right:", {n: round(value, 2) for n, value in seen.items()})
  assert seen[61] > 50 and 0.4 < seen[60] < 0.6 and 0.4 < seen[62] < 0.6
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# DDIMScheduler counts with n + 1: 62 [61, 103, 121, 122, 201] ... 998 ends at n = 61: [15, -1]
# DDPMScheduler counts with n + 1: 62 [61, 103, 121, 122, 201] ... 998 ends at n = 61: [15, -1]
# EulerDiscreteScheduler counts with n + 1: 62 [61, 103, 121, 122, 201] ... 998 ends at n = 61: [15, -1]
# DPMSolverMultistepScheduler counts with n + 1: 62 [61, 103, 121, 122, 201] ... 998 ends at n = 61: [15, -1]
# DDIMScheduler spread of samples, 0.5 is right: {60: 0.49, 61: 72.89, 62: 0.48}
# DDPMScheduler spread of samples, 0.5 is right: {60: 0.45, 61: 67.38, 62: 0.44}
# as stated
