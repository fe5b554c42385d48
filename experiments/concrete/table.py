"""A discretised table: eight columns of scikit-learn's breast-cancer data in three parts each, 6,561 states
and 360 rows to learn from."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2211.00802, tabular data; the table is ours"
  return ConfigDict(
    dict(
      measure="experiments.concrete.breast_cancer.measure",
      columns=tuple(range(8)),
      bins=3,
      train=360,
      choose=90,
      width=64,
      depth=2,
      batch=256,
      steps=1500,
      learning_rate=2e-3,
      nodes=24,
      levels=(0.02, 0.05, 0.1, 0.2),
      claim=[
        dict(
          source=source,
          metric="gain_nats",
          true=3.0,
          tolerance=0.0,
          bound="at_least",
          unit="a row, over independent columns",
          note="held-out likelihood by following the noise, normalised over all states; the criterion is "
          "ours",
        ),
        dict(
          source=source,
          metric="log_normalizer",
          true=0.0,
          tolerance=0.5,
          unit="nats",
          note="of the same before it is normalised: nought if the learned ratios fit together at all levels",
        ),
        dict(
          source=source,
          metric="over_smoothed_nats",
          true=0.1,
          tolerance=0.0,
          bound="at_most",
          unit="a row",
          note="over the training rows with every value drawn anew with the same probability: what memory "
          "alone does; criterion ours",
        ),
      ],
    )
  )
