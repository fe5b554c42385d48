"""Eight Gaussians on a circle as a table of 32 x 32 or 91 x 91 states that wrap around, learned at all noise
levels from single draws."""

from ml_collections import ConfigDict

VARIANTS = ("32", "91")


def get_config(size: str = "32") -> ConfigDict:
  if size not in VARIANTS:
    raise ValueError(f"the table has {' or '.join(VARIANTS)} states a side, got '{size}'")
  source = "arXiv:2211.00802, two-dimensional sets" + (", 91 x 91" if size == "91" else "")
  coarse = dict(sigma_min=0.5, sigma_max=8.0, frequencies=8, broad=11, moves=100, steps=5000)
  fine = dict(sigma_min=1.0, sigma_max=25.0, frequencies=16, broad=12, moves=200, steps=5000)
  floor = "8 x 8 blocks, 4,000 samples, of which as many independent draws of the truth have 0.034"
  claims = [
    dict(
      source=source,
      metric="block_tv",
      true={"32": 0.08, "91": 0.10}[size],
      tolerance=0.0,
      bound="at_most",
      unit="8 x 8 blocks",
      note=floor + "; the paper shows pictures, the criterion is ours",
    ),
    dict(
      source=source,
      metric="excess_nats",
      true={"32": 0.06, "91": 0.02}[size],
      tolerance=0.0,
      bound="at_most",
      unit="nats a state",
      note="of the law that the ratios at the lowest noise imply, over the entropy of the truth; criterion "
      "ours",
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.concrete.known_laws.grid",
      size=int(size),
      objective="denoising",
      width=128,
      depth=2,
      embedding_size=32,
      batch=512,
      learning_rate=8e-3,
      levels=24,
      chains=4000,
      sweeps=3,
      claim=claims,
      **(coarse if size == "32" else fine),
    )
  )
