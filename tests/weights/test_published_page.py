"""What docs/published.md leads a reader through, of a small file of every family: pictures, a fit, a FID."""

import json

import numpy as np
import published_files
import pytest
import test_models

from diffusion import solvers, weights
from tests.scripts import sample

pytestmark = [pytest.mark.standard_promotion, pytest.mark.slow]
FITTED = ("EDMPrecond", "DiTTransformer2DModel")
"""Of which a sampler is fitted too, which takes longest: a fit asks nothing that differs between families."""

FEATURES = "tests.commands.small_extractors.inception"


@pytest.mark.parametrize("name", published_files.FILES)
def test_from_a_file_to_pictures_a_fitted_sampler_and_a_fid(tmp_path, monkeypatch, name):
  path, told = published_files.FILES[name](tmp_path)
  model = weights.load(path, told=told)
  monkeypatch.chdir(tmp_path)
  numbers = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
  np.savez("real.npz", arr_0=numbers)
  common = [
    f"--weights={path}",
    "--workdir=out",
    *(f"--told={key}={one}" for key, one in (told or {}).items()),
  ]
  if model.parts.values is None and model.shape[-1] == 4:
    common.append(f"--codec={test_models.autoencoder(tmp_path / 'kl')}")
  latents = model.parts.values is None and len(common) == 2 + len(
    told or {}
  )  # SiT's two channels have no codec

  if model.parts.told:
    side, small = model.shape[0], numbers[:, :2, :2]
    np.savez("told.npz", x=numbers[:, :side, :side], label=np.arange(20) % 5, low_res=small)
    common.append("--data=told.npz")

  def called(*flags):
    status, said, err = sample(*common, *flags)
    assert status == 0, err
    return said

  called("--num=3", "--batch=8", "--solver=ddim", "--steps=2", "--out=drawn")
  drawn = np.load("drawn.npz")
  assert drawn["x"].shape == (3, *model.shape) and np.all(np.isfinite(drawn["x"]))
  if not latents:
    assert drawn["stored"].dtype == np.uint8 and (tmp_path / "drawn.png").stat().st_size > 100

  fit = ("--fit", "--solver=ddim", "--steps=2", "--num=16", "--batch=8", "--out=table")
  if name in FITTED:
    called(*fit)
    assert solvers.load("table.npz", model.denoiser.process).cost >= 2
    called("--num=3", "--batch=8", "--solver=table.npz", "--out=fitted")
  elif not model.parts.denoises:
    assert "student of few steps" in sample(*common, *fit)[2]

  measured = ("--evaluate", "--protocol=edm", f"--features={FEATURES}", "--statistics=real.npz")
  measured += ("--num=12", "--batch=8", "--solver=ddim", "--steps=2")
  if latents:
    status, _, err = sample(*common, *measured)
    assert status != 0 and len(err.splitlines()) == 1
    return
  called(*measured)
  found = json.loads((tmp_path / "out" / "metrics.json").read_text())["protocols"]["edm"]
  assert found["fid"] > 0 and found["samples"] == 12 and found["model"] == name.split(" of ")[0]
