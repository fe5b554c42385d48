#!/usr/bin/env bash
# diffusers 0.42.0: the first network call of IPNDMScheduler has no effect on the samples.
#
# Expected: the first step, at t = 1 where x is all noise (alpha = 0), uses the network's v: there x0 = -v.
# Seen: x0 is computed as (x - sigma eps) / max(alpha, 1e-8) with eps = sigma x + alpha v = x, so it is 0 whatever the
# network says, and the step only shrinks x. One step gives zeros.
# Hurts: users of few steps: for n calls n - 1 count, and samples are pulled towards 0: the mean of N(2, 0.5^2) comes
# out 1.79 with 5 steps and 1.93 with 20. With x0 = -v put into that one step it is 2.00 in both.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "diffusers==0.42.0" "numpy==2.4.6" "scipy==1.17.1" "safetensors==0.8.0"
cat > "$work/seen.py" <<'PY'
import diffusers
import torch

scheduler = diffusers.IPNDMScheduler()
x = torch.tensor([1.0, -2.0, 0.5])
for n in (1, 5, 50):
  after = []
  for value in (0.0, -7.0, 100.0):
    scheduler.set_timesteps(n)
    after.append(scheduler.step(torch.full((3,), value), scheduler.timesteps[0], x).prev_sample)
  print("n", n, "first timestep", scheduler.timesteps[0].item(), "x after it", [round(v, 4) for v in after[0].tolist()])
  assert scheduler.alphas[0] == 0 and torch.equal(after[0], after[1]) and torch.equal(after[0], after[2])
  assert torch.equal(after[0], x * scheduler.betas[1])


def mean(n, with_first):
  """Mean of samples of N(2, 0.5^2) with the exact network's v = alpha eps - sigma x0."""
  scheduler.set_timesteps(n)
  x = torch.randn(40000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
  for i, t in enumerate(scheduler.timesteps):
    alpha, sigma = scheduler.alphas[i].double(), scheduler.betas[i].double()
    clean = 2 + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x - 2 * alpha)
    v = alpha * (x - alpha * clean) / sigma - sigma * clean
    x = scheduler.step(v, t, x).prev_sample
    if i == 0 and with_first:
      x = x + scheduler.alphas[1].double() * clean
  return x.mean().item()


for n in (1, 5, 20, 50):
  plain, mended = mean(n, False), mean(n, True)
  print(f"n {n} mean of the samples, 2 is right: {plain:.3f}, with the first call used: {mended:.3f}")
  assert abs(mended - 2) < 0.02 and (plain == 0 if n == 1 else 0.02 < 2 - plain < 0.25)
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# n 1 first timestep 1.0 x after it [0.0, 0.0, 0.0]
# n 5 first timestep 1.0 x after it [0.9045, -1.809, 0.4523]
# n 50 first timestep 1.0 x after it [0.999, -1.998, 0.4995]
# n 1 mean of the samples, 2 is right: 0.000, with the first call used: 2.000
# n 5 mean of the samples, 2 is right: 1.794, with the first call used: 1.996
# n 20 mean of the samples, 2 is right: 1.928, with the first call used: 1.996
# n 50 mean of the samples, 2 is right: 1.969, with the first call used: 1.996
# as stated
