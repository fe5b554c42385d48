"""Students of one step, by two players or by a role that is an average, of the digits and of eight Gaussians.

`:matching` trains a generator of one step against a critic of its own samples and a teacher
(arXiv:2405.14867); `:consistency` continues the teacher's own training with consistency (arXiv:2406.14548),
its own average as the target. The teacher is runs/digits (`configs/digits.py`), and runs/eight_gaussians
(`configs/toy2d.py:eight_gaussians`) for `:matching_plane` and `:consistency_plane`: train it first, or name
another with --config.roles.teacher.run and --config.training.warm_start.
"""

from ml_collections import ConfigDict

from configs import digits, toy2d

VARIANTS = ("matching", "consistency", "matching_plane", "consistency_plane")


def get_config(variant="matching"):
  if variant not in VARIANTS:
    raise ValueError(f"there is no variant '{variant}': there are {', '.join(VARIANTS)}")
  plane = variant.endswith("_plane")
  config = toy2d.get_config("eight_gaussians") if plane else digits.get_config()
  teacher = "runs/eight_gaussians" if plane else "runs/digits"
  if not plane:
    config.network.dropout = 0.0
  times = dict(factory="losses.log_normal_sigma", mean=-0.5, std=1.6)
  critic = dict(config.optimizer.to_dict(), learning_rate=5e-4, schedule="constant", warmup_steps=0, b1=0.0)
  if variant.startswith("matching"):
    config.roles = ConfigDict(
      dict(teacher=dict(run=teacher, ema=None, guidance=()), fake=dict(copy_of="teacher"))
    )
    config.players = [
      dict(
        trains=("fake",), loss=dict(factory="losses.fake_matching", times=times), optimizer=critic, every=1
      ),
      dict(
        trains=("model",),
        loss=dict(factory="losses.distribution_matching", times=times),
        optimizer=critic | dict(learning_rate=2e-4),
        every=5,
      ),
    ]
    steps = 5000
  else:
    config.roles = ConfigDict(dict(target=dict(average_of="model", decay=0.9)))
    config.loss = ConfigDict(dict(factory="losses.consistency", halving_steps=500, times=times))
    config.optimizer.update(dict(learning_rate=5e-4, schedule="cosine", warmup_steps=50))
    steps = 4000
  config.training.update(
    dict(steps=steps, ema_half_life_images=(20_000,), warm_start=teacher, checkpoint_every=1000, keep=1)
  )
  config.sampler = ConfigDict(
    dict(solver="ddim", steps=1, grid="", guidance=0.0, interval=(), options=dict(), denoise=True)
  )
  return config
