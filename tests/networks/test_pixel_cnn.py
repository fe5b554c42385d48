"""PixelCNN's order.

An entry's context has a derivative in exactly what comes before it, row by row, pixel by pixel, channel by
channel.
"""

import jax
import numpy as np
import pytest
from test_made import built, denoiser

from diffusion import autoregressive
from diffusion.autoregressive.order import influence
from diffusion.networks import PixelCNN


@pytest.mark.parametrize("shape,depth", [((3, 3, 1), 1), pytest.param((3, 4, 2), 2, marks=pytest.mark.slow)])
def test_the_context_sees_all_that_is_before_and_nothing_else(shape, depth):
  """The Jacobian's pattern is the strictly lower triangle: exact zeros outside, and no blind spot inside, the
  upper right included."""
  net = PixelCNN(width=6, depth=depth, features=3, head_width=5)
  params, x, t = built(net, shape)
  size = int(np.prod(shape))
  seen = np.asarray(
    jax.jit(lambda params: influence(lambda x: net.apply(params, x, t, method="context"), x, size))(params)
  )
  np.testing.assert_array_equal(seen != 0, np.tril(np.ones((size, size), bool), -1))
  if depth == 2:
    autoregressive.check_order(denoiser(net, params), x, t)


def test_what_is_no_image_is_refused():
  net = PixelCNN(width=6, depth=1, features=3)
  params, x, t = built(net, (3, 3, 1))
  with pytest.raises(ValueError, match="4 axes"):
    net.apply(params, x[..., 0], t)
  with pytest.raises(ValueError, match="one time per example"):
    net.apply(params, x, t[:2])
