"""The ratio of N(0, 1e-6) and N(0, 1), whose samples hardly meet: 6.9 nats at the centre."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2111.11010, one-dimensional peaked Gaussians"
  return ConfigDict(
    dict(
      measure="experiments.dre_infinity.density_ratio.peaked",
      deviation=1e-3,
      t_max=20.0,
      t_min=0.01,
      batch=1024,
      steps=1500,
      learning_rate=0.03,
      nodes=48,
      claim=[
        dict(
          source=source,
          metric="largest_error_nats",
          true=0.0,
          tolerance=0.1,
          fast=True,
          unit="nats, on [-2, 2] standard deviations",
        ),
        dict(
          source=source, metric="kl_nats", true=6.4078, tolerance=0.02, relative=True, unit="nats", fast=True
        ),
      ],
    )
  )
