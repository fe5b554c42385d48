"""Five tokens of three letters, a random law, learned by each objective of whole numbers from exact draws."""

from ml_collections import ConfigDict

VARIANTS = (
  "masked",
  "any_order",
  "score_entropy_masked",
  "score_entropy_uniform",
  "uniform",
  "d3pm_uniform",
  "flow_matching_uniform",
)
SOURCES = {
  "masked": "arXiv:2406.07524, eq. 10",
  "any_order": "arXiv:2110.02037, section 2",
  "score_entropy_masked": "arXiv:2310.16834, theorem 3.6, masks",
  "score_entropy_uniform": "arXiv:2310.16834, theorem 3.6, uniform noise",
  "uniform": "arXiv:2412.10193, eq. 18",
  "d3pm_uniform": "arXiv:2107.03006, eq. 5",
  "flow_matching_uniform": "arXiv:2407.15595, eq. 25",
}
WITHIN = {"masked": 0.05, "any_order": 0.05}


def get_config(model: str = "masked") -> ConfigDict:
  if model not in VARIANTS:
    raise ValueError(f"the model is one of {', '.join(VARIANTS)}, got '{model}'")
  claim = dict(
    source=SOURCES[model],
    metric="excess_nats",
    true=WITHIN.get(model, 0.2),
    tolerance=0.0,
    bound="at_most",
    unit="nats of 4.93",
    note="the bound in continuous time of a network after 2,000 updates, over the entropy of the law; summed "
    "over all states and times, nothing is sampled; criterion ours",
  )
  steps = dict(
    claim,
    metric="excess_nats_of_steps",
    note="the same, the bound of 50 steps, whose tokens are drawn apart",
  )
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
      claim=[claim, steps] if model == "d3pm_uniform" else [claim],
    )
  )
