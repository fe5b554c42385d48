"""The model of `configs/digits.py` distilled.

Every weight of guidance in one network, then 64 DDIM steps halved down to one (arXiv:2210.03142).

`:stage_one` learns from runs/digits, `:32` from runs/distilled/stage_one, `:16` from runs/distilled/32 and so
on down to `:1`: train each into runs/distilled/NAME, or name the teacher's folder with
--config.roles.teacher.run and --config.training.warm_start. Minutes on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import digits

STEPS = 64  # of the finest sampler
STAGES = ("stage_one", "32", "16", "8", "4", "2", "1")


def get_config(stage="stage_one"):
  if stage not in STAGES:
    raise ValueError(f"there is no stage '{stage}': there are {', '.join(STAGES)}")
  first = stage == STAGES[0]
  steps = STEPS if first else int(stage)
  before = "runs/digits" if first else f"runs/distilled/{STAGES[STAGES.index(stage) - 1]}"
  # Every other node of this spacing is the same spacing of half as many steps (of any other:
  # solvers.grids.thinned).
  grid = dict(factory="solvers.grids.vp_time", t_min=0.0)
  config = digits.get_config()
  around = (dict(factory="guidance.by_condition", interval=None),) if first else ()
  config.roles = ConfigDict(dict(teacher=dict(run=before, ema=None, guidance=around)))
  config.network.update(
    dict(guidance_size=64, dropout=0.0)
  )  # a teacher's word is never noisy, so there is nothing to overfit
  if first:
    times = dict(
      factory="losses.low_discrepancy", base=dict(factory="losses.log_normal_sigma", mean=-0.5, std=1.6)
    )
    objective = dict(factory="losses.distillation", target="x0", times=times)
  else:
    objective = dict(
      factory="losses.progressive_distillation",
      teacher_steps=2 * steps,
      teacher_grid=grid,
      sampler="ddim",
      times=None,
    )
  # Labels are dropped outside of the weight, so that without a label the student is its teacher at every
  # weight.
  transforms = [
    dict(factory="losses.random_guidance", low=0.0, high=4.0, power=1.5),
    dict(factory="losses.condition_dropout", rate=0.1),
  ]
  config.loss = ConfigDict(
    dict(
      **objective,
      transforms=transforms,
      weight=dict(factory="losses.truncated_snr"),
      condition_dropout=0.0,
      uncertainty=False,
    )
  )
  config.optimizer.update(dict(learning_rate=1e-3 if first else 5e-4, schedule="linear", warmup_steps=50))
  config.training.update(
    dict(
      batch_size=128,
      steps=2500 if first else 500,
      ema_half_life_images=(5000,),
      warm_start=before,
      log_every=50,
      checkpoint_every=500,
      keep=1,
    )
  )
  config.sampler = ConfigDict(
    dict(solver="ddim", steps=steps, grid=grid, guidance=0.5, interval=(), options=dict(), denoise=True)
  )
  return config
