#!/usr/bin/env bash
# diffusers 0.42.0: thresholding=True alone is plain clipping to [-1, 1], not dynamic thresholding.
#
# Expected: thresholding=True is the dynamic thresholding of Imagen (arXiv:2205.11487): s is a percentile of |x0|, at
# least 1; x0 is clipped to [-s, s] and divided by s.
# Seen: s is clamped to [1, sample_max_value], and sample_max_value is 1 by default, in twelve schedulers. So s = 1
# always: dynamic_thresholding_ratio changes nothing, and the result is clamp(x0, -1, 1), bit for bit.
# Hurts: whoever turns it on against saturation under strong guidance and concludes that it does not help. Give
# sample_max_value a larger value too.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "diffusers==0.42.0" "numpy==2.4.6" "scipy==1.17.1" "safetensors==0.8.0"
cat > "$work/seen.py" <<'PY'
import inspect

import diffusers
import torch

names = """DDIMScheduler DDIMParallelScheduler DDPMScheduler DDPMParallelScheduler DEISMultistepScheduler
DPMSolverMultistepScheduler DPMSolverSinglestepScheduler EDMDPMSolverMultistepScheduler LCMScheduler
SASolverScheduler TCDScheduler UniPCMultistepScheduler""".split()
defaults = {inspect.signature(getattr(diffusers, name)).parameters["sample_max_value"].default for name in names}
print(len(names), "schedulers, default of sample_max_value:", defaults)
assert defaults == {1.0}

x0 = 3 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def clean(name, **options):
  scheduler = getattr(diffusers, name)(prediction_type="sample", clip_sample=False, thresholding=True, **options)
  scheduler.set_timesteps(10)
  return scheduler.step(x0, scheduler.timesteps[0], torch.zeros_like(x0)).pred_original_sample


def dynamic(ratio):
  s = torch.quantile(x0.abs().reshape(2, -1), ratio, dim=1).reshape(2, 1, 1, 1)
  return x0.clamp(-s, s) / s


for name in ("DDIMScheduler", "DDPMScheduler"):
  clipped = all(torch.equal(clean(name, dynamic_thresholding_ratio=r), x0.clamp(-1, 1)) for r in (0.5, 0.9, 0.995))
  dynamic_with_max = torch.allclose(clean(name, sample_max_value=100.0), dynamic(0.995))
  print(name, "default is clamp(x0, -1, 1):", clipped, "dynamic with sample_max_value=100:", dynamic_with_max)
  saturated = [round((image.abs() == 1).float().mean().item(), 3) for image in (x0.clamp(-1, 1), dynamic(0.995))]
  print("  part of the pixels at -1 or 1, clipped and dynamic:", saturated)
  assert clipped and dynamic_with_max
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# 12 schedulers, default of sample_max_value: {1.0}
# DDIMScheduler default is clamp(x0, -1, 1): True dynamic with sample_max_value=100: True
#   part of the pixels at -1 or 1, clipped and dynamic: [0.738, 0.005]
# DDPMScheduler default is clamp(x0, -1, 1): True dynamic with sample_max_value=100: True
#   part of the pixels at -1 or 1, clipped and dynamic: [0.738, 0.005]
# as stated
