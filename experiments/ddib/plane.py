"""Translation between the six sets in the plane through models that were trained apart, there and back; draws
`config.picture`."""

from ml_collections import ConfigDict

SETS = ("moons", "checkerboard", "rings", "squares", "olympic_rings", "olympic_squares")
PAIRS = (
  ("moons", "checkerboard"),
  ("checkerboard", "rings"),
  ("rings", "squares"),
  ("squares", "moons"),
  ("olympic_rings", "olympic_squares"),
)


def get_config() -> ConfigDict:
  source = "arXiv:2203.08382, section 4.1 (two-dimensional sets)"
  ours = "the criterion is ours"
  row = lambda metric, true, tolerance, **more: (
    dict(source=source, metric=metric, true=true, tolerance=tolerance) | more
  )
  claims = [
    row(
      "ddim_1000_cycle",
      0.0,
      0.02,
      reported=0.0143,
      reported_sure=False,
      unit="mean distance, in deviations of the set",
      note="1000 steps of DDIM each way, five pairs; the paper's networks and number of steps are larger",
    ),
    row(
      "ddim_slope",
      1.0,
      0.15,
      note="of the logarithms of cycle error and steps, 250 to 1000 steps: the order of DDIM",
    ),
    row("heun_160_cycle", 0.0, 0.02, unit="320 evaluations each way"),
    row("heun_slope", 2.0, 0.3, note="40 to 160 steps: the order of Heun's method"),
    row(
      "adaptive_cycle",
      0.0,
      1e-3,
      note="diffrax's Tsit5 at a tolerance of 1e-5, each point with steps of its own",
    ),
    row("runge_kutta_cycle", 0.0, 1e-3, note="the default, 32 steps of order 4"),
    row("latent_deviation", 1.0, 0.05, note="both models' latents are a standard normal: what they share"),
    row(
      "translated_distance",
      0.1,
      0.0,
      bound="at_most",
      unit="sliced Wasserstein to true points",
      note="1000 translated points; see own_samples_distance and true_points_distance for what to compare "
      "with; " + ours,
    ),
    row(
      "own_samples_distance",
      0.1,
      0.0,
      bound="at_most",
      unit="sliced Wasserstein to true points",
      note="as many samples of the target's model from noise; " + ours,
    ),
    row(
      "true_points_distance",
      0.1,
      0.0,
      bound="at_most",
      unit="sliced Wasserstein to true points",
      note="as many true points: the floor",
    ),
    row(
      "worst_transport_over_optimal",
      1.5,
      0.0,
      bound="at_most",
      note="squared distance moved over that of the optimal matching of the same 500 points, of the five "
      "pairs the worst: near to optimal transport, and not it; " + ours,
    ),
  ]
  return ConfigDict(
    dict(
      measure="experiments.ddib.translation.plane",
      sets=SETS,
      pairs=PAIRS,
      pool=30_000,
      points=1000,
      cycle_points=256,
      t_min=1e-3,
      width=64,
      depth=3,
      steps=3000,
      batch=512,
      learning_rate=3e-3,
      log_mean=-1.2,
      log_std=1.2,
      runge_kutta=32,
      tables=dict(ddim=(250, 500, 1000), heun=(40, 80, 160)),
      tolerance=1e-5,
      picture="docs/ddib.png",
      claim=claims,
    )
  )
