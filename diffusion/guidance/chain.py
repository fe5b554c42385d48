"""Composition of denoiser transforms."""

from collections.abc import Callable
from typing import Any


def chain(*transforms: Callable[[Any], Any]) -> Callable[[Any], Any]:
  """Applies denoiser transforms in order: the first is closest to the network.

  Args:
    transforms: functions from denoiser to denoiser.

  Returns:
    A function from denoiser to denoiser; the identity if there are none.

  >>> chain(lambda d: d + ['first'], lambda d: d + ['second'])([])
  ['first', 'second']
  """

  def apply(denoiser):
    for transform in transforms:
      denoiser = transform(denoiser)
    return denoiser

  return apply
