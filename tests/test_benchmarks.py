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
