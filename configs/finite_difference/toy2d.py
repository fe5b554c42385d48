"""An energy of a two-dimensional set at every noise level, by `train.py`.

`:fd_ssm` (default), `:fd_dsm`, `:ssm`, `:sm`, `:dsm`.
"""

from configs import toy2d

OBJECTIVES = {
  "fd_ssm": dict(factory="losses.finite_difference_sliced_score_matching", step=0.3),
  "fd_dsm": dict(factory="losses.finite_difference_denoising_score_matching", step=0.3),
  "ssm": dict(factory="losses.sliced_score_matching"),
  "sm": dict(factory="losses.score_matching"),
  "dsm": dict(factory="losses.denoising_score_matching", target="score"),
}


def get_config(objective="fd_ssm"):
  if objective not in OBJECTIVES:
    raise ValueError(f"there is no objective '{objective}' here: there are {', '.join(OBJECTIVES)}")
  config = toy2d.get_config("moons")
  with config.unlocked():
    config.process = dict(factory="processes.vp_linear", t_min=0.02)
    config.network = dict(
      factory="networks.Energy", network=dict(factory="networks.MLP", width=128, depth=2, num_classes=0)
    )
    config.denoiser = dict(factory="denoisers.score", time_input="log_sigma", time_scale=0.25)
    config.loss = dict(
      times=dict(factory="losses.low_discrepancy"),
      condition_dropout=0.0,
      uncertainty=False,
      **OBJECTIVES[objective],
    )
    config.sampler.solver = "dpmpp_2m"
  return config
