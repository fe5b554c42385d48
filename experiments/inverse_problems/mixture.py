"""Replacement, DDRM, DPS, PiGDM and DAPS beside the exact posteriors of mixtures of Gaussians: is the order
of the papers that of their distances?"""

from ml_collections import ConfigDict

NOISES = (0.1, 0.5)
METHODS = ("replacement", "ddrm", "dps", "dps, normalized", "pigdm", "pigdm, flow", "daps")
DPS, PIGDM, DAPS = "arXiv:2209.14687", "PiGDM (Song et al., ICLR 2023)", "arXiv:2407.01521"
ORDER = {
  ("dps, normalized", "replacement"): (
    DPS,
    "DPS as its algorithm has it, divided by the residual, beside replacement",
  ),
  ("dps, normalized", "ddrm"): (DPS, "DPS as its algorithm has it beside DDRM"),
  ("pigdm", "dps"): (
    PIGDM,
    "beside DPS's likelihood (its equation 11), which 100 steps can be too few for: it then diverges",
  ),
  ("pigdm", "dps, normalized"): (PIGDM, "beside DPS as its algorithm has it"),
  ("pigdm", "pigdm, flow"): (PIGDM, "noise in every step (eta = 1) beside none"),
  ("daps", "dps, normalized"): (DAPS, "beside DPS as its algorithm has it"),
  ("daps", "ddrm"): (DAPS, "beside DDRM"),
}
"""(A, B): who says that A is better than B, on images by their distances to the original; here by the
distance to the posterior."""


def get_config() -> ConfigDict:
  slug = lambda name: name.replace(",", "").replace(" ", "_")
  row = lambda source, metric, true, note, unit="": dict(
    source=source, metric=metric, true=true, tolerance=0.0, bound="at_most", unit=unit, note=note
  )
  claims = [
    row(
      source,
      f"{slug(a)}_over_{slug(b)}_{noise:g}",
      1.0,
      f"{what}; noise {noise:g}; distances to the exact posterior, the geometric mean of three measurements; "
      "the order is the paper's, its numbers are of images",
    )
    for (a, b), (source, what) in ORDER.items()
    for noise in NOISES
  ]
  ours = "all measurements and noises; the criterion is ours"
  claims += [
    row(source, f"{slug(name)}_over_prior", 0.5, f"of the distance that samples have which ignore y; {ours}")
    for name, source in (
      ("replacement", "arXiv:2011.13456"),
      ("ddrm", "arXiv:2201.11793"),
      ("dps, normalized", DPS),
      ("pigdm", PIGDM),
      ("daps", DAPS),
    )
  ]
  claims += [
    row(source, f"{slug(name)}_over_floor", 2.0, f"samples of the posterior have 1 here; {ours}")
    for name, source in (("pigdm", PIGDM), ("daps", DAPS))
  ]
  return ConfigDict(
    dict(
      measure="experiments.inverse_problems.posteriors.mixture",
      measurements=("inpainting", "super_resolution", "blur"),
      noises=NOISES,
      methods=METHODS,
      pairs=tuple(ORDER),
      points=4,
      count=1000,
      steps=100,
      claim=claims,
    )
  )
