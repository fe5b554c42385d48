"""The conditional scores of a set in the plane at every noise level, by `train.py`.

`:csm` (default) or `:denoising`.
"""

from configs import toy2d

OBJECTIVES = {
  "csm": "losses.autoregressive_score_matching",
  "denoising": "losses.autoregressive_denoising_score_matching",
}


def get_config(objective="csm"):
  if objective not in OBJECTIVES:
    raise ValueError(f"there is no objective '{objective}' here: there are {', '.join(OBJECTIVES)}")
  config = toy2d.get_config("eight_gaussians")
  with config.unlocked():
    del config.denoiser, config.sampler
    config.process = dict(factory="processes.vp_cosine", t_min=0.02)
    config.network = dict(
      factory="networks.MADE", width=64, depth=2, features=16, head_width=64, head_depth=2, num_classes=0
    )
    config.loss = dict(factory=OBJECTIVES[objective], times=dict(factory="losses.low_discrepancy"))
    config.evaluation = dict(
      held_out=2000, own=dict(factory="experiments.ar_csm.autoregressive.in_the_plane", points=301, reach=3.5)
    )
  return config
