"""A learned low-rank Hessian against the Jacobian of a learned score, smooth and ReLU networks.

`:64` (default) and `:784` are the dimension, with the Hessian learned from the residuals of the score; `:noise` is D = 64 in the paper's
own form.
"""

from ml_collections import ConfigDict

VARIANTS = ("64", "784", "noise")


def get_config(variant="64"):
  source = "arXiv:2111.04726 (a learned Hessian is more accurate than the Jacobian of a score)"
  ours = "four overlapping modes, noise level 0.1, both with variance reduction; the criterion is ours"
  form = ("the paper's form, in which an error d of the score s costs (s d^T + d s^T)" if regresses_on_noise(variant)
          else "learned from the residuals of the score, in which its errors count squared")
  claims = []
  for activation in ("relu", "softplus"):
    claims += [
        dict(source=source, metric=f"learned_over_jacobian_{activation}", true=1.0, tolerance=0.0, bound="at_most",
             note=f"of mean square errors, {form}; {ours}"),
        dict(source=source, metric=f"learned_over_constant_{activation}", true=1.0, tolerance=0.0, bound="at_most",
             note="beside the best constant Hessian"),
        dict(source=source, metric=f"jacobian_over_constant_{activation}", true=1.0, tolerance=0.0, bound="at_most",
             note="beside the best constant Hessian"),
    ]
  if variant != "64":
    claims = [{**claim, "seeds": 1} for claim in claims]
  size = dict(dimension=784, steps=600, jacobians=64) if variant == "784" else dict(dimension=64, steps=2000, jacobians=512)
  return ConfigDict(dict(measure="claims.high_order.accuracy", radius=1.0, deviation=0.5, level=0.1, rank=4, width=128, batch=128,
                         learning_rate=5e-3, residual=not regresses_on_noise(variant), claim=claims, **size))


def regresses_on_noise(variant):
  """Whether the variant regresses on the noise itself; raises ValueError for a variant that does not exist."""
  if variant not in VARIANTS:
    raise ValueError(f"there is no variant '{variant}' here: there are {', '.join(VARIANTS)}")
  return variant == "noise"
