"""The baselines at d = 40 and 80 with quadratic logits: a single classifier fails, four bridges do better, neither reaches the time score."""

from ml_collections import ConfigDict

VARIANTS = ("40_nce", "40_tre", "80_nce")


def get_config(case="40_nce"):
  if case not in VARIANTS:
    raise ValueError(f"the case is one of {', '.join(VARIANTS)}, got '{case}'")
  dim, kind = case.split("_")
  claim = {
      "40_nce": dict(true=0.15, bound="at_least", note="one classifier, 2.5 times as many examples as the time score gets; the criterion is ours"),
      "80_nce": dict(true=0.30, bound="at_least", note="one classifier, 2.5 times as many examples as the time score gets; the criterion is ours"),
      "40_tre": dict(true=0.15, bound="at_most", note="four bridges, 7.5 times as many examples as the time score gets; the criterion is ours"),
  }[case]
  return ConfigDict(dict(
      measure="claims.density_ratio.classifiers", dim=int(dim), bridges=1 if kind == "nce" else 4, batch=512, steps=1000 if kind == "nce" else 3000, learning_rate=2e-3,
      claim=dict(source="arXiv:2111.11010 (NCE and TRE beside DRE-infinity)", metric="relative_error", tolerance=0.0, **claim)))
