"""Guidance that a network has learned: one weight for all samples, put into their condition."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, Wrapper


@struct.dataclass
class Learned(Wrapper):
  """A denoiser that adds one weight 'guidance' to the condition of every row; see `learned`."""

  inner: Any
  weight: Any

  @property
  def own_conditions(self) -> tuple[str, ...]:
    """Those of the inner denoiser but for 'guidance', which it gives."""
    return tuple(name for name in self.inner.own_conditions if name != "guidance")

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("x0", "eps"),
    key: jax.Array | None = None,
    train: bool = False,
  ) -> Prediction:
    """The prediction of the distilled network at the one weight.

    As of a denoiser: x: [B, ...], t: [B] and a condition without 'guidance' give a `Prediction` with the
    views asked for.

    Raises ValueError for a condition that has a weight already.
    """
    if "guidance" in (cond or {}):
      raise ValueError(
        "the condition has a weight 'guidance' of its own already: call the denoiser without "
        "guidance.learned, or leave it out"
      )
    weight = jnp.broadcast_to(jnp.asarray(self.weight, t.dtype), t.shape)
    return self.inner(x, t, {**(cond or {}), "guidance": weight}, views=views, key=key, train=train)


def learned(weight: Any) -> Callable[[Denoiser], Learned]:
  """Guidance by a distilled network, at one evaluation.

  It is (1 + w) conditional - w unconditional (arXiv:2210.03142, section 3.1).

  Args:
    weight: w, one number for all samples, within the range of the network's training; changing it does not
      recompile.

  Returns:
    A function from a denoiser that takes 'guidance' [B] in its condition (a distilled one, `by_condition()`
    of any other) to one that does not.

  >>> from diffusion import guidance, oracles, processes
  >>> oracle = oracles.gaussian_mixture(processes.edm(), None, [[-1.0], [1.0]], 1e-6, labels=[0, 1])
  >>> denoiser = guidance.chain(guidance.by_condition(), guidance.learned(4.0))(oracle)
  >>> denoiser(jnp.zeros((1, 1)), jnp.ones(1), {"label": jnp.ones(1, jnp.int32)}).x0[:, 0].round(3).tolist()
  [5.0]
  """
  return lambda denoiser: Learned(denoiser, weight)
