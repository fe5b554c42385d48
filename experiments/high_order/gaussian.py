"""Ozaki's step leaves a Gaussian as it is at any step size, where Langevin's does not."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2111.04726 (Ozaki discretisation)"
  return ConfigDict(
    dict(
      measure="experiments.high_order.hessians.gaussian",
      chains=100_000,
      steps=10,
      step_sizes=(0.01, 0.1, 0.35, 1.0, 10.0, 1000.0),
      stable=3,
      claim=[
        dict(
          source=source,
          metric="ozaki_covariance_error",
          true=0.0,
          tolerance=0.02,
          fast=True,
          unit="largest over steps from 0.01 to 1000",
          note="the noise of 100,000 chains is 0.0045 of a variance; the identity is exact in the tests",
        ),
        dict(
          source=source,
          metric="langevin_covariance_error",
          true=0.1,
          tolerance=0.0,
          bound="at_least",
          fast=True,
          unit="largest over steps to 0.35",
          note="the same measurement sees Langevin's bias; from a step of 0.4 on it diverges",
        ),
      ],
    )
  )
