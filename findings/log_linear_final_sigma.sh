#!/usr/bin/env bash
# diffusers 0.42.0: EulerDiscreteScheduler(interpolation_type="log_linear") never reaches its final sigma.
#
# Expected: n levels spaced evenly in log sigma, then the final one that final_sigmas_type names (0 by default), and
# timesteps that belong to those levels.
# Seen: n + 1 levels, and the final one after them, n + 2 in all. n steps stop at sigma 0.0100, whatever
# final_sigmas_type says. The timesteps stay evenly spaced: with n = 5 the network is told 749 at the level of 785,
# 250 at that of 138. With timestep_type="continuous" and v-prediction there are n + 1 timesteps for n asked.
# Hurts: whoever turns log_linear on: samples keep noise of 0.01 and every inner call has the wrong timestep.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "diffusers==0.42.0" "numpy==2.4.6" "scipy==1.17.1" "safetensors==0.8.0"
cat > "$work/seen.py" <<'PY'
import diffusers
import numpy as np
import torch

ends = {}
for final in ("zero", "sigma_min"):
  scheduler = diffusers.EulerDiscreteScheduler(interpolation_type="log_linear", final_sigmas_type=final)
  scheduler.set_timesteps(5)
  levels = scheduler.sigmas.tolist()
  x = torch.ones(3) * scheduler.init_noise_sigma  # all noise: with noise predicted as 1, x follows sigma
  for t in scheduler.timesteps:
    scheduler.scale_model_input(x, t)
    x = scheduler.step(torch.ones(3), t, x).prev_sample
  ends[final] = x[0].item()
  print(final, "levels", [round(value, 4) for value in levels], "left at the end", round(ends[final], 4))
  assert len(levels) == 7 and scheduler.step_index == 5
  assert np.allclose(np.diff(np.log(levels[:6])), np.log(levels[5] / levels[0]) / 5, rtol=1e-4)
assert ends["zero"] == ends["sigma_min"] and abs(ends["zero"] - 0.0100) < 1e-4

kept = scheduler.alphas_cumprod.double().numpy()
belongs = np.interp(np.log(levels[:5]), np.log(np.sqrt((1 - kept) / kept)), np.arange(1000))
print("timesteps", scheduler.timesteps.tolist(), "of these levels", [round(t, 1) for t in belongs.tolist()])
assert scheduler.timesteps.tolist() == [999, 749.25, 499.5, 249.75, 0]
assert np.allclose(belongs, [999, 784.8, 492.1, 138.0, 16.8], atol=0.2)

plain = diffusers.EulerDiscreteScheduler()
plain.set_timesteps(5)
print("linear, for comparison:", len(plain.sigmas), "levels, the last", plain.sigmas[-1].item())
assert len(plain.sigmas) == 6 and plain.sigmas[-1] == 0
continuous = diffusers.EulerDiscreteScheduler(
  interpolation_type="log_linear", timestep_type="continuous", prediction_type="v_prediction"
)
continuous.set_timesteps(5)
print("continuous, v-prediction:", len(continuous.timesteps), "timesteps for 5")
assert len(continuous.timesteps) == 6
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# zero levels [157.4073, 22.7841, 3.2979, 0.4774, 0.0691, 0.01, 0.0] left at the end 0.01
# sigma_min levels [157.4073, 22.7841, 3.2979, 0.4774, 0.0691, 0.01, 0.01] left at the end 0.01
# timesteps [999.0, 749.25, 499.5, 249.75, 0.0] of these levels [999.0, 784.8, 492.1, 138.0, 16.8]
# linear, for comparison: 6 levels, the last 0.0
# continuous, v-prediction: 6 timesteps for 5
# as stated
