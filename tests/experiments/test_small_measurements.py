"""The measurements of the uses, small: what they return is what their claims are about."""

import numpy as np
import pytest

from diffusion.config import factories
from experiments.ddib import plane, translation
from experiments.density_uses import classifier_failure, hallucinations, out_of_distribution
from experiments.diffusion_classifier import digits
from experiments.guidance import autoguidance, composition
from experiments.inverse_problems import mixture

SMALL = {
  "ddib": (
    plane,
    dict(
      pool=400,
      points=40,
      cycle_points=8,
      width=8,
      depth=1,
      steps=3,
      batch=16,
      runge_kutta=4,
      tables=dict(ddim=(4, 8, 1000), heun=(4, 160)),
      tolerance=1e-2,
      pairs=(("moons", "rings"),),
    ),
  ),
  "digits": (digits, dict(width=8, depth=1, steps=3, batch=16, draws=(1, 3, 10, 30))),
  "hallucinations": (hallucinations, dict(width=8, depth=1, steps=3, batch=16, samples=200)),
  "classifier_failure": (classifier_failure, dict(width=8, depth=1, steps=3, batch=16, epochs=30)),
  "out_of_distribution": (out_of_distribution, dict(width=8, depth=1, steps=3, batch=16)),
  "autoguidance": (
    autoguidance,
    dict(
      depth=3,
      pool=500,
      count=60,
      width=8,
      blocks=1,
      steps=3,
      worse_width=4,
      guides=dict(guide_of_an_eighth=2, guide_of_a_half=2),
      batch=16,
      solver_steps=4,
    ),
  ),
  "composition": (composition, dict(count=50, steps=5, side=60)),
  "inverse_problems": (mixture, dict(measurements=("inpainting", "blur"), points=2, count=40, steps=5)),
}


@pytest.mark.slow
@pytest.mark.standard_promotion
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SMALL)
def test_every_measurement_returns_its_metrics(name, tmp_path):
  module, small = SMALL[name]
  config = module.get_config()
  config.unlock()
  for key, value in small.items():
    config[key] = value
  if config.get("picture"):
    config.picture = str(tmp_path / "picture.png")
  found = factories.resolve(config.measure, name)(config, 0)
  assert {claim["metric"] for claim in config.claim} <= set(found)
  for claim in config.claim:
    if "evaluations" in claim["metric"]:  # exact at any size
      assert found[claim["metric"]] == claim["true"]
  if config.get("picture"):
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_optimal_matching_moves_least():
  """A translation is optimal; an exchange of two far points is not."""
  x = np.random.default_rng(0).normal(size=(40, 2))
  np.testing.assert_allclose(translation.transport_over_optimal(x, x + np.array([3.0, -1.0])), 1.0, rtol=1e-9)
  assert translation.transport_over_optimal(x, 3.0 - x) > 1.0
