"""A change detector on handwritten digits: 0 to 4 turn into 5 to 9; `config.picture` names a file to draw the
alarm into."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2111.11010, the method; the example is ours"
  return ConfigDict(
    dict(
      measure="experiments.dre_infinity.digit_stream.measure",
      before=(0, 1, 2, 3, 4),
      after=(5, 6, 7, 8, 9),
      components=16,
      noise=1.0,
      bridge=0.5,
      width=128,
      depth=1,
      batch=256,
      steps=800,
      learning_rate=2e-3,
      stream=100,
      threshold=15.0,
      picture="",
      claim=[
        dict(source=source, metric="auc", true=0.9, tolerance=0.0, bound="at_least"),
        dict(
          source=source, metric="false_alarms", true=0.0, tolerance=0.0, bound="at_most", unit="in 100 digits"
        ),
        dict(source=source, metric="delay", true=15.0, tolerance=0.0, bound="at_most", unit="digits"),
      ],
    )
  )
