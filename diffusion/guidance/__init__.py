"""Functions from denoiser to denoiser: guidance that any solver can use."""

from diffusion.guidance.chain import chain
from diffusion.guidance.classifier_free import ClassifierFree, classifier_free
from diffusion.guidance.epsilon_scaling import EpsilonScaling, epsilon_scaling
