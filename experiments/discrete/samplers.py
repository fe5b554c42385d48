"""Samplers of masked tokens with the exact posterior of a law that can be listed: what is the step error, and
what does it cost to be without?"""

from ml_collections import ConfigDict

VARIANTS = ("joint_5x3", "hidden_markov_8")
FIRST_HITTING, REMASKING = "arXiv:2409.02908", "arXiv:2503.00307"


def get_config(law: str = "joint_5x3") -> ConfigDict:
  if law not in VARIANTS:
    raise ValueError(f"the law is one of {', '.join(VARIANTS)}, got '{law}'")
  row = lambda source, metric, true, note: dict(
    source=source, metric=metric, true=true, tolerance=0.0, bound="at_most", note=note
  )
  claims = [
    row(
      FIRST_HITTING,
      "first_hitting_over_floor",
      1.05,
      "total variation of 50,000 samples from the law, over the mean of as many exact draws; no step error",
    ),
    row(
      FIRST_HITTING,
      "calls_over_ancestral",
      0.5,
      "network calls, over those of the fewest ancestral steps within 1.05 of exact draws, by doubling",
    ),
    row(
      REMASKING,
      "remasking_over_ancestral",
      1.0,
      "total variation at equal calls, two a token; of the exact posterior, where the paper's gains are of "
      "trained networks",
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.discrete.listed_laws.measure",
      law=law,
      count=50_000,
      multiples=(1, 2, 4, 8, 16, 32, 64),
      equal=1.05,
      rescale=0.1,
      claim=claims,
    )
  )
