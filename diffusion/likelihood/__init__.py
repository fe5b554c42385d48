"""Log-likelihoods of data under a trained model: by the probability flow, or bounded from below."""

from diffusion.likelihood.annealed_importance import LogNormalizer, annealed_importance
from diffusion.likelihood.categorical import categorical_elbo, end_kl
from diffusion.likelihood.decoders import gaussian_decoder, level_decoder
from diffusion.likelihood.dequantization import (
  bits_per_dim,
  dequantize,
  log_likelihood_of_values,
  uniform_noise,
)
from diffusion.likelihood.elbo import Bound, continuous_elbo, discrete_elbo
from diffusion.likelihood.error_bars import over_batch, over_draws
from diffusion.likelihood.flow_map import decode, encode
from diffusion.likelihood.in_order import log_prob_in_order
from diffusion.likelihood.masked import masked_elbo
from diffusion.likelihood.next_token import next_token_log_likelihood
from diffusion.likelihood.prior import prior_gap, prior_kl
from diffusion.likelihood.probability_flow import decode_with_log_likelihood, log_likelihood
from diffusion.likelihood.state_probabilities import annealed_log_prob, log_prob_of_states
from diffusion.likelihood.steps import Steps, flow_steps, log_snr_times
from diffusion.likelihood.units import UNITS, Measured, measured
