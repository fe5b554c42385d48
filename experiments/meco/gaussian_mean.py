"""The mean R of a one-dimensional Gaussian of unit variance, from an unnormalised model that starts at 0: R =
4 and 6."""

from ml_collections import ConfigDict

VARIANTS = ("4", "6")


def get_config(true_mean: str = "4") -> ConfigDict:
  if true_mean not in VARIANTS:
    raise ValueError(f"the mean is one of {', '.join(VARIANTS)}, got '{true_mean}'")
  source = "arXiv:2306.07485, one-dimensional Gaussian mean"
  no_number = "the paper shows curves; the criterion is ours"
  gap = {"4": 0.3, "6": 0.9}[true_mean]
  claims = [
    dict(
      source=source,
      metric="meco_error",
      true=0.0,
      tolerance=0.06,
      bound="at_most",
      unit="2000 steps, noise N(0, R^2)",
      fast=true_mean == "4",
    ),
    dict(
      source=source,
      metric="nce_minus_meco_few",
      true=gap,
      tolerance=0.0,
      bound="at_least",
      unit="of the errors after 200 steps",
      fast=true_mean == "4",
      note="the loss of NCE is flat far from the data; " + no_number,
    ),
    dict(
      source=source,
      metric="meco_error_narrow_noise",
      true=0.3,
      tolerance=0.0,
      bound="at_least",
      unit="2000 steps, noise N(0, 1)",
      note="the variance of the weights p/q decides: with a narrow noise MECO does not get there either; "
      + no_number,
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.meco.unnormalised.gaussian_mean",
      true_mean=float(true_mean),
      batch_size=128,
      few=200,
      many=2000,
      rate=0.1,
      meco_learning_rate=0.05,
      nce_learning_rates=(0.05, 0.5),
      claim=claims,
    )
  )
