"""The ring of eight Gaussians by recovery likelihood: samples, long chains, normaliser and density."""

from ml_collections import ConfigDict

from experiments.drl import checkerboard


def get_config() -> ConfigDict:
  config = checkerboard.get_config()
  config.update(dict(data="eight_gaussians", levels=10, low=0.05, chain=8, steps=2000, picture=""))
  config.claim = checkerboard.claims(0.10, "eight Gaussians")
  return config
