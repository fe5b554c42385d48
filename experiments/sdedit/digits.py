"""Crude paintings of held-out digits made digits again by SDEdit from several strengths; draws
`config.picture`."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2108.01073, section 5 (the trade-off between realism and faithfulness)"
  row = lambda metric, true, bound, **more: (
    dict(source=source, metric=metric, true=true, tolerance=0.0, bound=bound) | more
  )
  claims = [
    row(
      "distance_least_rise",
      0.0,
      "at_least",
      unit="L2 to the guide",
      note="least difference from one t0 to the next of nine: faithfulness falls all along",
    ),
    row(
      "frechet_most_rise",
      0.0,
      "at_most",
      unit="Frechet distance",
      note="largest difference from one t0 to the next, from the guides to the recommended t0: realism rises "
      "all along",
    ),
    row(
      "frechet_at_recommended",
      6.0,
      "at_most",
      unit="Frechet distance",
      note="359 results against the training digits; the criterion is ours",
    ),
    row(
      "frechet_of_guides",
      6.0,
      "at_least",
      unit="Frechet distance",
      note="for comparison: means of 2x2 pixels in four greys",
    ),
    row("outside_mask_error", 0.0, "within", note="largest change outside of a mask after three repeats"),
  ]
  return ConfigDict(
    dict(
      measure="experiments.sdedit.editing.digits",
      width=192,
      depth=3,
      dropout=0.1,
      steps=2000,
      batch=128,
      learning_rate=3e-3,
      levels=(0.1, 0.15, 0.22, 0.33, 0.5, 0.75, 1.1, 1.7, 2.5),
      edit_steps=40,
      block=2,
      greys=4,
      picture="docs/sdedit.png",
      claim=claims,
    )
  )
