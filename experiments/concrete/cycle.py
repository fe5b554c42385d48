"""Sixteen categories around a circle, learned by the exact objective and drawn by Metropolis-Hastings."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2211.00802, one-dimensional histogram"
  note = "the paper shows a histogram; the criterion is ours"
  return ConfigDict(
    dict(
      measure="experiments.concrete.known_laws.cycle",
      size=16,
      width=32,
      frequencies=4,
      batch=512,
      steps=1000,
      learning_rate=3e-3,
      chains=50_000,
      sweeps=300,
      claim=[
        dict(
          source=source,
          metric="tv",
          true=0.02,
          tolerance=0.0,
          bound="at_most",
          fast=True,
          unit="50,000 chains",
          note=note + "; as many independent draws of the truth have 0.006",
        ),
        dict(
          source=source,
          metric="tv_of_the_ratios",
          true=0.02,
          tolerance=0.0,
          bound="at_most",
          fast=True,
          note=note,
        ),
      ],
    )
  )
