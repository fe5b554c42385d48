"""What a trained model is used for: short compositions of the parts below."""

from diffusion.tasks import operators, posterior_covariance
from diffusion.tasks.daps import Daps, daps
from diffusion.tasks.ddrm import Ddrm, ddrm
from diffusion.tasks.likelihood_guidance import LikelihoodGuidance, dps, pigdm
from diffusion.tasks.measurement import Measurement, measurement
from diffusion.tasks.operators import blur, colorization, compressed_sensing, inpainting, linear, phase_retrieval, super_resolution
from diffusion.tasks.replacement import Replacement, replacement
