"""Log-density ratios from a time score.

By quadrature in t, by an ODE, along a line in x and t, or by bridges.

One convention: a path runs from p_0 at `t_min` to p_1 at `t_max`, and every function here returns log p_1(x)
- log p_0(x) in nats, for a `time_score` (x [B, ...], t [B], cond) -> [B] such as that of an oracle or of a
  trained time score.
"""

from diffusion.density_ratio.divergence import Estimate, kl_divergence
from diffusion.density_ratio.gaussian_end import gaussian_end, prepare
from diffusion.density_ratio.line import log_difference, log_ratio_along
from diffusion.density_ratio.ode import log_ratio_ode
from diffusion.density_ratio.quadrature import log_ratio
from diffusion.density_ratio.quadrature_nodes import Nodes, bridges, gauss_legendre
