"""Mutual information of correlated Gaussians at d = 40 from a network that knows nothing of Gaussians,
averaged over 100,000 samples."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(
    dict(
      measure="experiments.dre_infinity.density_ratio.mutual_information_network",
      dim=40,
      width=128,
      depth=1,
      batch=512,
      steps=2000,
      learning_rate=2e-3,
      claim=dict(
        source="arXiv:2111.11010, mutual information (figure)",
        metric="mi_nats",
        true=10.0,
        tolerance=0.1,
        relative=True,
        unit="nats",
        note="a network instead of the paper's parametric model",
      ),
    )
  )
