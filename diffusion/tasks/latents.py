"""Tasks on pictures for a model of latents: a measurement through the decoder, and a mask on latents."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from diffusion.tasks.measurement import Measurement, measurement


def decoded(inner: Measurement, codec: Any, params: Any, shape: Sequence[int]) -> Measurement:
  """What a measurement of pictures says of latents: A(decode(z)), which is not linear.

  With `dps` it is latent DPS (arXiv:2307.00619, without the terms that are that paper's own), with `daps`
  latent DAPS (arXiv:2407.01521).

  Args:
    inner: A, of pictures [B, H, W, C].
    codec, params: the codec of the model and its parameters.
    shape: of one latent, [h, w, c].

  Raises ValueError for latents that do not decode to what A measures.

  >>> import jax.numpy as jnp
  >>> from diffusion import codecs, tasks
  >>> seen = decoded(tasks.inpainting(np.ones((2, 2, 1))), codecs.scale(1.0, 2.0), {}, (2, 2, 1))
  >>> seen(jnp.zeros((1, 2, 2, 1)))[0, 0, 0].tolist(), seen.linear
  ([1.0], False)
  """
  return measurement(
    functools.partial(_decoded, inner.operator),
    shape,
    params=(inner.params, codec, params),
    noise=inner.noise,
    name=f"{inner.name} of decoded latents",
  )


def _decoded(operator: Callable[[Any, jax.Array], jax.Array], params: Any, z: jax.Array) -> jax.Array:
  own, codec, weights = params
  return operator(own, codec.decode(weights, z))


def latent_mask(mask: npt.ArrayLike, shape: Sequence[int]) -> np.ndarray:
  """The mask on latents of a mask on pictures: 1 where any pixel of a latent's block has 1, [h, w, c].

  A convolutional codec makes a latent of one block of pixels and of what is around it, so this is a rule of
  thumb, that of blended latent diffusion (arXiv:2206.02779).

  Args:
    mask: [H, W, C] of 0 and 1, 1 where pixels are made anew.
    shape: of one latent, [h, w, c].

  Raises:
    ValueError: for latents that are no picture, or that whole blocks of pixels do not fit.

  >>> latent_mask(np.array([[0, 0, 1, 0]] * 2)[..., None], (1, 2, 3)).tolist()
  [[[0, 0, 0], [1, 1, 1]]]
  """
  mask = np.asarray(mask)
  if len(shape) != 3 or any(large % small for large, small in zip(mask.shape[:2], shape[:2])):
    raise ValueError(
      f"the latents have shape {list(shape)}, which are no blocks of pictures of shape {list(mask.shape)}, "
      "so a mask on pixels is none on them"
    )
  height, width, channels = shape
  blocks = mask.reshape(height, mask.shape[0] // height, width, mask.shape[1] // width, -1)
  return np.broadcast_to(blocks.max((1, 3)).max(-1, keepdims=True), (height, width, channels)).copy()
