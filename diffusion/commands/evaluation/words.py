"""The metrics of a run in words."""

from collections.abc import Mapping
from typing import Any


def report(found: Mapping[str, Any]) -> str:
  """The metrics as a few lines for a person, and what was left out.

  Args:
    found: of `evaluate_run`.

  >>> print(report({"held_out_loss": 0.25, "train_loss": 0.2, "left_out": {"neighbour_ratio": "no data"}}))
  held-out loss         0.2500  (training: 0.2000)
  left out              neighbour_ratio: no data
  """
  lines = []

  def line(text, name, *more):
    if all(key in found for key in (name, *more)):
      lines.append(text.format(found[name], *(found[other] for other in more)))

  line(
    "class accuracy        {:.1%}   (the classifier on real held-out data: {:.1%})",
    "class_accuracy",
    "classifier_accuracy_on_heldout",
  )
  line("Frechet distance      {:.3f}   (real training data: {:.3f})", "frechet_distance", "frechet_floor")
  line("kernel distance       {:.5f} (real training data: {:.5f})", "kernel_distance", "kernel_floor")
  line(
    "sliced Wasserstein    {:.4f}  (real training data: {:.4f})",
    "sliced_wasserstein",
    "sliced_wasserstein_floor",
  )
  line("  before sampling     {:.4f}  (of what samples start from)", "sliced_wasserstein_starts")
  line(
    "neighbour ratio       {:.3f}   (1: as far from the training data as real data are; 0: copies)",
    "neighbour_ratio",
  )
  line(
    "total variation       {:.4f}  (expected of perfect samples: {:.4f})",
    "total_variation",
    "total_variation_floor",
  )
  line("held-out loss         {:.4f}  (training: {:.4f})", "held_out_loss", "train_loss")
  line(
    "pairs of neighbours   {:.4f} total variation to held-out text (training text: {:.4f})",
    "pair_total_variation",
    "pair_total_variation_floor",
  )
  for unit, word in (("dim", "dimension"), ("character", "character"), ("token", "token")):
    name = f"bits_per_{unit}"
    line(f"{f'bits per {word}':<21} {{:.3f}} ± {{:.3f}}", name, f"{name}_error")
    line(
      f"{f'bits per {word}':<21} {{:.3f}} ± {{:.3f}} at the most (a bound)",
      f"{name}_bound",
      f"{name}_bound_error",
    )
    line(
      f"{f'bits per {word}':<21} {{:.3f}} ± {{:.3f}} filled in from first to last",
      f"{name}_in_order",
      f"{name}_in_order_error",
    )
  line("nats per dimension    {:.3f} ± {:.3f}", "nats_per_dim", "nats_per_dim_error")
  lines += [f"{name:<21} {value:.4g}" for name, value in found.get("own", {}).items()]
  line("cost of a sample      {} denoiser calls, {} network evaluations", "nfe", "forward_passes")
  line(
    "training              {:.0f} s, {:,.0f} images/s, {:,} parameters",
    "train_seconds",
    "images_per_second",
    "num_parameters",
  )
  line("data                  SHA-256 {}", "data_sha256")
  lines += [f"left out              {name}: {why}" for name, why in sorted(found.get("left_out", {}).items())]
  return "\n".join(lines)
