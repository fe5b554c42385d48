"""What a trained model is used for: short compositions of the parts below."""

from diffusion.tasks import operators, posterior_covariance
from diffusion.tasks.classification import Classified, classify, strata
from diffusion.tasks.daps import Daps, daps
from diffusion.tasks.ddrm import Ddrm, ddrm
from diffusion.tasks.detection import Scored, atypicality, surprise
from diffusion.tasks.editing import Edited, edit, recommended, start_at, sweep
from diffusion.tasks.encoding import Swapped, encoder, swapped
from diffusion.tasks.latents import decoded, latent_mask
from diffusion.tasks.likelihood_guidance import LikelihoodGuidance, dps, pigdm
from diffusion.tasks.measurement import Measurement, measurement
from diffusion.tasks.operators import (
  blur,
  colorization,
  compressed_sensing,
  inpainting,
  linear,
  phase_retrieval,
  super_resolution,
)
from diffusion.tasks.replacement import Replacement, replacement
from diffusion.tasks.spectrum import Spectrum, spectrum
from diffusion.tasks.trajectory_variance import Watched, watched
from diffusion.tasks.translation import Translated, check_shared, ddim_encoder, translate
