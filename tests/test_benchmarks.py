"""The benchmarks that need what is not here, or minutes: each runs at toy size, and says what is missing."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))


@pytest.mark.slow
def test_without_an_accelerator_the_gpu_benchmark_says_so():
  done = subprocess.run(
    [sys.executable, str(ROOT / "benchmarks" / "gpu.py")],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={"JAX_PLATFORMS": "cpu", "PATH": "/usr/bin:/bin"},
    timeout=200,
  )
  assert done.returncode == 0 and done.stdout.startswith("no accelerator") and not done.stderr, done


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_the_gpu_benchmark_measures_a_toy():
  """What it would do on a GPU, on a network that a CPU takes."""
  import gpu

  from diffusion.config import loading

  config = loading.load(str(ROOT / "configs" / "cifar10" / "vp_ddpmpp_continuous.py"))
  config.network.width, config.network.num_res_blocks, config.network.dtype = 8, 1, "bfloat16"
  config.network.channel_multipliers = (1, 2)
  config.network.attention_resolutions = ()
  parts = gpu.parts_of(config)
  params, trained = gpu.training(parts, 4, 2)
  sampled = gpu.sampling(parts, params, 4, 1)
  for name, value in (trained | sampled).items():
    assert np.isfinite(value) and value > 0, name
  assert trained["train_step_ratio"] > 0.5 and sampled["sampler_ratio"] > 0.5


@pytest.mark.slow
def test_the_benchmark_of_extraction_says_what_it_lacks():
  import extraction

  with pytest.raises(SystemExit, match="does not run torch-fidelity"):
    extraction.main(["--quick", f"--torch={sys.executable}"])


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_the_benchmark_of_samplers_of_tokens_measures_and_draws(monkeypatch, tmp_path):
  """Two of its samplers: calls as they are, distances near the floor of few draws, a table and a picture."""
  import argparse

  import discrete

  every = discrete.samplers
  kept = (("first_hitting", "1 a call"), ("masked_ancestral", "2 steps"))
  monkeypatch.setattr(discrete, "samplers", lambda p: {key: every(p)[key] for key in kept})
  rows = discrete.measure(argparse.Namespace(quick=True))
  assert [row["calls"] for row in rows] == [5.0, 2.0, 8.0, 2.0]
  assert rows[0]["total_variation"] < 1.2 * rows[0]["floor"] < rows[1]["total_variation"]
  said = discrete.table(rows)
  assert "joint_5x3: 2000 draws of 1 seeds" in said and "ancestral steps do not come to its" in said
  monkeypatch.setattr(discrete, "SHOWN", {name: discrete.SHOWN[name] for name, _ in kept})
  discrete.plot(rows, tmp_path / "found.png")
  assert (tmp_path / "found.png").read_bytes()[:4] == b"\x89PNG"
