"""Energies of a two-dimensional set by recovery likelihood.

For `train.py`: `--config=configs/drl/toy2d.py:checkerboard`, or another set.

Sampled level by level: sample.py with a solver of score networks, or `solvers.recovery_langevin`.
"""

from configs import toy2d


def get_config(name="checkerboard"):
  config = toy2d.get_config(name)
  levels = 12
  with config.unlocked():
    config.process = dict(factory="processes.vp_linear", t_min=0.0044)  # noise of 0.025 of the deviation
    config.network = dict(
      factory="networks.Potential", width=128, depth=2, frequencies=(1.0, 2.0, 4.0, 8.0), num_classes=0
    )
    config.denoiser = dict(factory="denoisers.score", time_input="log_sigma", time_scale=0.25)
    config.loss = dict(
      factory="losses.recovery_likelihood",
      levels=levels,
      steps=10,
      step=0.8,
      adjusted=True,
      times=dict(factory="losses.level_times", levels=levels),
      condition_dropout=0.0,
      uncertainty=False,
    )
    config.optimizer.learning_rate = 2e-3
    config.training.batch_size = 256
    config.training.steps = 6000
    config.sampler.solver = "dpmpp_2m"
  return config
