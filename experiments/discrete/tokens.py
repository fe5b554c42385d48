"""Five tokens of three letters, a random law, learned by each objective of whole numbers from exact draws."""

from ml_collections import ConfigDict

VARIANTS = (
  "masked",
  "any_order",
  "score_entropy_masked",
  "score_entropy_uniform",
  "uniform",
  "d3pm_uniform",
  "flow_matching_masked",
  "flow_matching_uniform",
)


def get_config(model: str = "masked") -> ConfigDict:
  if model not in VARIANTS:
    raise ValueError(f"the model is one of {', '.join(VARIANTS)}, got '{model}'")
  return ConfigDict(
    dict(
      measure="experiments.discrete.known_law.measure",
      model=model,
      tokens=5,
      letters=3,
      ladder=50,
      width=64,
      depth=2,
      batch=512,
      steps=2000,
      learning_rate=3e-3,
      nodes=24,
    )
  )
