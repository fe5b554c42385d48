"""One step of denoising of 8x8 digits in [0, 1] at sigma = 0.1, by a PixelCNN trained by the denoising
form."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  claim = dict(
    source="arXiv:2010.12810 (single-step denoising)",
    metric="mse_ratio",
    true=1.0,
    tolerance=0.0,
    bound="at_most",
    unit="to the noisy digits",
    note="the paper shows pictures; a pixel is estimated from itself and the pixels before it",
  )
  return ConfigDict(
    dict(
      measure="experiments.ar_csm.autoregressive.denoising",
      noise=0.1,
      batch=64,
      steps=1000,
      learning_rate=2e-3,
      clip=10.0,
      network=dict(width=24, depth=2, features=12, head_width=32, head_depth=1),
      claim=claim,
    )
  )
