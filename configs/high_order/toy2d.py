"""The score and the Hessian of a two-dimensional set at every noise level, by `train.py`.

`:low_rank` (default), `:diagonal` or `:full`.
"""

from configs import toy2d

RANKS = {"low_rank": 1, "diagonal": 0, "full": None}


def get_config(form="low_rank"):
  if form not in RANKS:
    raise ValueError(f"there is no form '{form}' here: there are {', '.join(RANKS)}")
  config = toy2d.get_config("moons")
  with config.unlocked():
    config.process = dict(factory="processes.vp_linear", t_min=0.01)  # a score needs some signal at the start
    config.network = dict(
      factory="networks.SecondOrder",
      form=form,
      rank=1,
      width=128,
      depth=2,
      network=dict(factory="networks.MLP", width=128, depth=2, num_classes=0),
    )
    config.denoiser = dict(factory="denoisers.score", time_input="log_sigma", time_scale=0.25)
    config.loss = dict(
      factory="losses.denoising_score_matching",
      target="score",
      variance_reduced=True,
      transforms=(dict(factory="losses.second_order", rank=RANKS[form], weight=0.5, frozen_score=True),),
      times=dict(factory="losses.low_discrepancy"),
      condition_dropout=0.0,
      uncertainty=False,
    )
    config.sampler.solver = "dpmpp_2m"
  return config
