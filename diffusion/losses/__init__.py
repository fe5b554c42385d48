"""The loss algebra: objectives, transforms of objectives, and objectives closed into losses.

An objective is a draw and an evaluate. A transform maps objectives to objectives. Choosing how times are
sampled closes an objective into a loss.
"""

from diffusion.losses.any_order import any_order_autoregression
from diffusion.losses.autoregressive import (
  autoregressive_denoising_score_matching,
  autoregressive_score_matching,
)
from diffusion.losses.base import (
  START,
  Clock,
  Draw,
  Objective,
  Placed,
  Terms,
  batch_size,
  chain,
  compose,
  example_keys,
  identity,
  layer,
  merge_needs,
  noised_by,
  placed_at,
  split_keys,
  terms,
  times_of,
)
from diffusion.losses.chain_bounds import continuous_time_bound, score_entropy
from diffusion.losses.closing import Loss, Roles, at_times, roles
from diffusion.losses.combination import add, scale
from diffusion.losses.compositional import compositional_likelihood
from diffusion.losses.concrete_score import (
  balanced,
  concrete_score_matching,
  denoising_concrete_score_matching,
)
from diffusion.losses.conditioning import condition_dropout, random_guidance
from diffusion.losses.consistency import consistency
from diffusion.losses.d3pm import d3pm_bound
from diffusion.losses.denoising import denoising_score_matching
from diffusion.losses.discrete_flow_matching import discrete_flow_matching
from diffusion.losses.distillation import (
  StudentSteps,
  distillation,
  halved,
  progressive_distillation,
  student_steps,
)
from diffusion.losses.distribution_matching import distribution_matching, fake_matching
from diffusion.losses.exact import score_matching
from diffusion.losses.finite_difference import (
  finite_difference_denoising_score_matching,
  finite_difference_sliced_score_matching,
)
from diffusion.losses.importance import importance
from diffusion.losses.joint_score import joint_score_matching
from diffusion.losses.learned_masking import generalised_masked_cross_entropy, value_exponents
from diffusion.losses.masked_cross_entropy import masked_cross_entropy
from diffusion.losses.next_token import next_token
from diffusion.losses.noise_contrastive import noise_contrastive_estimation
from diffusion.losses.reconstruction import reconstruction
from diffusion.losses.recovery_likelihood import recovery_likelihood
from diffusion.losses.reference_noise import Noise, fitted_gaussian_noise, gaussian_noise
from diffusion.losses.second_order import second_order, second_order_score_matching
from diffusion.losses.sliced import sliced_score_matching
from diffusion.losses.telescoping import classifier_ratio, telescoping_ratio
from diffusion.losses.third_order import third_order, third_order_score_matching
from diffusion.losses.time_score import time_score_matching
from diffusion.losses.time_weights import both_ends, diffusion_coefficient, loss_history, noise_variance
from diffusion.losses.times import (
  TimeSampler,
  ladder_times,
  level_times,
  log_normal_sigma,
  logit_normal,
  low_discrepancy,
  step_times,
  uniform_times,
)
from diffusion.losses.uncertainty import uncertainty
from diffusion.losses.velocity_matching import velocity_matching
from diffusion.losses.weights import (
  edm,
  likelihood,
  min_snr,
  native,
  sigmoid,
  snr,
  truncated_snr,
  uniform,
  weight_by,
)
from diffusion.math.precision import sum_rows
from diffusion.processes.recovery import recovery_levels

# Every objective (of a process) and every transform, for the tests that hold for all of them: list a new one
# here.
OBJECTIVES = {
  **{
    f"denoising_score_matching_{view}": (
      lambda process, view=view: denoising_score_matching(process, target=view)
    )
    for view in ("eps", "x0", "score", "v", "velocity")
  },
  "denoising_score_matching_per_dimension": lambda process: denoising_score_matching(
    process, per_dimension=True
  ),
  "score_matching": score_matching,
  "sliced_score_matching": lambda process: sliced_score_matching(process, variance_reduced=False),
  "sliced_score_matching_variance_reduced": sliced_score_matching,
  # Steps at which float32 keeps the digits that the laws ask for; the listed family has no bias at any step.
  "finite_difference_sliced_score_matching": lambda process: finite_difference_sliced_score_matching(
    process, step=0.5
  ),
  "finite_difference_sliced_score_matching_of_score": lambda process: finite_difference_sliced_score_matching(
    process, step=0.5, view="score"
  ),
  "finite_difference_denoising_score_matching": lambda process: finite_difference_denoising_score_matching(
    process, step=0.5
  ),
  "noise_contrastive_estimation": lambda process: noise_contrastive_estimation(
    process, gaussian_noise(0.0, 1.0)
  ),
  "compositional_likelihood": lambda process: compositional_likelihood(process, gaussian_noise(0.0, 1.0)),
  "recovery_likelihood": lambda process: recovery_likelihood(process, 6, steps=20, step=0.5, adjusted=True),
  "time_score_matching": time_score_matching,
  "joint_score_matching": lambda process: joint_score_matching(
    process, weight=both_ends(), history=loss_history(8)
  ),
  "denoising_score_matching_variance_reduced": lambda process: denoising_score_matching(
    process, variance_reduced=True
  ),
  "second_order_score_matching": second_order_score_matching,
  "third_order_score_matching": third_order_score_matching,
  "autoregressive_score_matching": autoregressive_score_matching,
  "autoregressive_denoising_score_matching": autoregressive_denoising_score_matching,
  "velocity_matching": velocity_matching,
  "distillation": distillation,
  "distillation_velocity": lambda process: distillation(process, target="velocity"),
  "progressive_distillation": lambda process: progressive_distillation(
    process, recovery_levels(process, 8).t[::-1]
  ),
  "progressive_distillation_double_step": lambda process: progressive_distillation(
    process, recovery_levels(process, 8).t[::-1], sampler="double_step"
  ),
}
# Every objective of whole numbers, of a discrete process and a neighbourhood.
DISCRETE_OBJECTIVES = {
  "concrete_score_matching": concrete_score_matching,
  "concrete_score_matching_of_one_neighbour": lambda process, neighbourhood: concrete_score_matching(
    process, neighbourhood, num_reverse=1
  ),
  "denoising_concrete_score_matching": denoising_concrete_score_matching,
}
# Every objective of whole numbers under masks, of a masked process.
MASKED_OBJECTIVES = {
  "masked_cross_entropy": masked_cross_entropy,
  "any_order_autoregression": any_order_autoregression,
  "generalised_masked_cross_entropy": generalised_masked_cross_entropy,
}
# Every objective of whole numbers of which a model of logits is enough, of a process that is a Markov chain.
CHAIN_OBJECTIVES = {
  "continuous_time_bound": continuous_time_bound,
  "score_entropy": score_entropy,
  "score_entropy_of_one_weight": lambda process: score_entropy(process, weight="one"),
  "d3pm_bound": lambda process: d3pm_bound(process, 6),
  "d3pm_bound_auxiliary": lambda process: d3pm_bound(process, 6, auxiliary=0.1),
  "discrete_flow_matching": discrete_flow_matching,
  "discrete_flow_matching_generalised_kl": lambda process: discrete_flow_matching(
    process, weight="generalised_kl"
  ),
}
TRANSFORMS = {
  "identity": identity,
  "scale": lambda: scale(0.3),
  "condition_dropout": lambda: condition_dropout(0.3),
  "random_guidance": lambda: random_guidance(0.0, 4.0),
  "uncertainty": uncertainty,
  "weight_by_min_snr": lambda: weight_by(min_snr(5.0)),
  "second_order": lambda: second_order(weight=0.5),
  "third_order": lambda: third_order(weight=0.1),
}
WEIGHTS = {
  "uniform": uniform,
  "likelihood": likelihood,
  "snr": lambda: snr(-0.5),
  "truncated_snr": truncated_snr,
  "min_snr": min_snr,
  "edm": edm,
  "sigmoid": sigmoid,
  **{f"native_{view}": (lambda view=view: native(view)) for view in ("x0", "eps", "score", "v", "velocity")},
}
# Samplers left open: the interval, and the process where they need it, come from the objective.
TIME_SAMPLERS = {
  "uniform_times": uniform_times,
  "low_discrepancy": low_discrepancy,
  "log_normal_sigma": log_normal_sigma,
  "logit_normal": logit_normal,
  "importance": lambda: importance(likelihood(), t_max=0.99),
  "ladder_times": lambda: ladder_times(50),
}
