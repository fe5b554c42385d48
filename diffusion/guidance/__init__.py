"""Functions from denoiser to denoiser: guidance that any solver can use."""

from diffusion.guidance.autoguidance import Autoguidance, autoguidance
from diffusion.guidance.by_condition import ByCondition, by_condition
from diffusion.guidance.chain import chain
from diffusion.guidance.classifier import Classifier, DiscreteClassifier, classifier
from diffusion.guidance.classifier_free import ClassifierFree, classifier_free
from diffusion.guidance.composition import Conjunction, Disjunction, conjunction, disjunction
from diffusion.guidance.epsilon_scaling import EpsilonScaling, epsilon_scaling
from diffusion.guidance.experts import Experts, experts
from diffusion.guidance.gradient_free import GradientFree, gradient_free
from diffusion.guidance.learned import Learned, learned
from diffusion.guidance.minority import minority_bins, minority_score
from diffusion.guidance.temperature import Nucleus, Tempered, nucleus, temperature
from diffusion.guidance.threshold import Threshold, dynamic_threshold, static_threshold
