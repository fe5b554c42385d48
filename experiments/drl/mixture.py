"""Two modes on a line: the log-density learned by recovery likelihood against the true one."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2012.08125 (no table; the criterion is ours)"
  return ConfigDict(
    dict(
      measure="experiments.drl.recovery.mixture",
      weights=(0.3, 0.7),
      means=(-1.0, 1.0),
      deviation=0.3,
      levels=6,
      low=0.1,
      high=10.0,
      chain=10,
      step=0.5,
      adjusted=True,
      width=32,
      depth=2,
      frequencies=(1.0, 2.0),
      batch=256,
      steps=1000,
      learning_rate=3e-3,
      claim=[
        dict(
          source=source,
          metric="log_density_correlation",
          true=0.98,
          tolerance=0.0,
          bound="at_least",
          fast=True,
          unit="over 99.9% of the mass",
          note="with three levels, a factor of 4.6 in the noise each, the energies ran away, with "
          "Metropolis' rule and without; six have a factor of 2.2",
        ),
        dict(
          source=source,
          metric="kl_nats",
          true=0.0,
          tolerance=0.05,
          bound="at_most",
          fast=True,
          unit="of the density normalised on a grid",
        ),
      ],
    )
  )
