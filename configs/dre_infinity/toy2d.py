"""The density of a two-dimensional set by its ratio to a standard normal.

A time score trained by `train.py`: `:moons` or any other set.
"""

from ml_collections import ConfigDict

from configs import toy2d


def get_config(name="moons"):
  config = toy2d.get_config(name)
  with config.unlocked():
    del config.denoiser, config.sampler
    config.process = dict(factory="processes.spherical")
    config.network = dict(
      factory="networks.TimeScore", network=dict(factory="networks.MLP", width=128, depth=2, num_classes=0)
    )
    config.loss = dict(
      factory="losses.time_score_matching",
      weight=dict(factory="losses.noise_variance"),
      times=dict(factory="losses.low_discrepancy"),
    )
    config.evaluation = dict(
      held_out=2000,
      own=dict(
        factory="experiments.dre_infinity.learned_density.in_the_plane", nodes=32, points=81, reach=3.0
      ),
    )
  return ConfigDict(config)
