"""Effective sample sizes of Ozaki's and of Langevin's steps, at equal step, on targets in the plane."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2111.04726 (effective sample sizes on two sets in the plane)"
  ours = "the paper's sets are not known to us (it may report 28.9 over 21.8 and 46.6 over 26.3)"
  return ConfigDict(
    dict(
      measure="experiments.high_order.hessians.sample_sizes",
      chains=32,
      steps=2000,
      warm_up=3000,
      claim=[
        dict(
          source=source,
          metric="ozaki_over_langevin_ridge",
          true=1.0,
          tolerance=0.0,
          bound="at_least",
          note="a heavy-tailed ridge, step 0.2; " + ours,
        ),
        dict(
          source=source,
          metric="ozaki_over_langevin_two_ridges",
          true=1.0,
          tolerance=0.0,
          bound="at_least",
          note="two heavy-tailed ridges across each other, step 0.2; " + ours,
        ),
        dict(
          source=source,
          metric="ozaki_over_langevin_ring",
          true=1.0,
          tolerance=0.0,
          bound="at_least",
          note="eight round modes, step 0.1: Langevin's step is too wide within a mode, and so hops more; a "
          "bias that a sample size does not see",
        ),
        dict(
          source=source,
          metric="ozaki_over_langevin_cross",
          true=1.0,
          tolerance=0.0,
          bound="at_least",
          note="two narrow Gaussians across each other, step 0.05, five times the smallest variance: "
          "Langevin diverges and counts as 0.001",
        ),
      ],
    )
  )
