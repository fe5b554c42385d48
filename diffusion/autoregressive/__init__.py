"""Uses of an autoregressive score: its exact density and exact samples.

The one-dimensional conditionals of such a score are tabulated, so that the density is known and sampled
exactly.

The model is a denoiser with the views `context` and `head`, trained by
`losses.autoregressive_score_matching` or its denoising form. Nothing here compiles by itself: put a call into
`jax.jit`.
"""

from diffusion.autoregressive.langevin import langevin_sample
from diffusion.autoregressive.likelihood import conditional_log_probs, log_prob
from diffusion.autoregressive.order import check_order
from diffusion.autoregressive.sampling import sample
from diffusion.autoregressive.table import Table, check_grid, table
from diffusion.losses.autoregressive import conditional_scores, context_of, head_of
