"""Time and temporary memory of one gradient, SSM against FD-SSM and DSM against FD-DSM, for a dense energy of
784 inputs."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2007.03317"
  here = "the paper measured a deep ResNet on a GPU; here a network 784-512-512-1 with batch 128 on a CPU"
  claims = [
    dict(
      source=source,
      metric="ssm_over_fd_ssm_seconds",
      reported=2.5,
      reported_sure=False,
      true=1.5,
      tolerance=0.0,
      bound="at_least",
      note=here,
    ),
    dict(
      source=source,
      metric="dsm_over_fd_dsm_seconds",
      reported=1.5,
      reported_sure=False,
      true=1.5,
      tolerance=0.2,
      bound="at_least",
      note="the gradient that DSM takes costs two passes forth and back, as FD-DSM's two energies do; "
      + here,
    ),
    dict(
      source=source,
      metric="ssm_over_fd_ssm_memory",
      reported=2.0,
      reported_sure=False,
      true=1.5,
      tolerance=0.0,
      bound="at_least",
      note="temporary memory of the compiled program",
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.finite_difference.score_matching.cost",
      dimension=784,
      batch_size=128,
      width=512,
      repeats=10,
      claim=claims,
    )
  )
