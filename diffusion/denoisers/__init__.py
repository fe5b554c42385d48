"""Denoisers: whatever answers questions about x_t, each a pytree with one contract.

A network is made one by `from_flax`, `from_network`, `from_function` or `from_functions`; oracles, guidance
and compositions are others.
"""

from diffusion.denoisers.combined import Extended, Together, extend, function_of, together
from diffusion.denoisers.contract import (
  Denoiser,
  InTraining,
  Prediction,
  WithoutParameters,
  Wrapper,
  check_times,
  check_views,
  null_condition,
)
from diffusion.denoisers.network import (
  NetworkDenoiser,
  Parameterization,
  edm,
  eps,
  from_flax,
  from_function,
  from_functions,
  from_network,
  logits,
  ratios,
  scaled_score,
  score,
  v,
  velocity,
  x0,
)
