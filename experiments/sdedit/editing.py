"""Strokes to digits by SDEdit (arXiv:2108.01073), measured: faithfulness against realism over the strength
t0, and the mask."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import metrics, processes, tasks
from diffusion.data import digits as digits_set
from experiments.digit_models import images, trained


def digits(config: Any, seed: int) -> dict[str, float]:
  """The curve of a small unconditional model, what it recommends, and the error outside of a mask.

  Args:
    config: width, depth, dropout, steps, batch, learning_rate: of the model; levels (sigma/alpha, ascending),
      edit_steps, block, greys; picture: a path, where the first seed draws.
    seed: of the network, its training and the noise of the edits.
  """
  (train, _), (held, _) = images()
  model = trained(config, processes.edm(), (train, None), seed, num_classes=0)
  guides = strokes(held, config.block, config.greys)
  keys = jax.random.split(jax.random.key(100 + seed), len(held))
  found = curve(model, guides, held, train, keys, config.levels, config.edit_steps)
  best = tasks.recommended(config.levels, found["frechet"], found["frechet_of_guides"])
  at = list(config.levels).index(best)
  mask = np.broadcast_to((np.arange(8) >= 4)[None, :, None], (8, 8, 1)).astype(np.int32)
  inside = tasks.edit(
    model, tasks.start_at(model.process, best, config.edit_steps), guides, keys, mask=mask, repeats=3
  ).x
  if config.get("picture") and seed == 0:
    draw(config.picture, config.levels, found, best, guides, held)
  return {
    "recommended_t0": best,
    "distance_least_rise": float(np.diff(found["distance"]).min()),
    "frechet_most_rise": float(np.diff([found["frechet_of_guides"], *found["frechet"][: at + 1]]).max()),
    "frechet_at_recommended": found["frechet"][at],
    "frechet_of_guides": found["frechet_of_guides"],
    "frechet_of_real": found["frechet_of_real"],
    "distance_at_recommended": found["distance"][at],
    "distance_of_others": found["distance_of_others"],
    "outside_mask_error": float(jnp.max(jnp.abs(jnp.where(mask == 0, inside - guides, 0.0)))),
  }


def strokes(x: jax.Array, block: int, greys: int) -> jax.Array:
  """Images [B, H, W, C] in [-1, 1] as a crude painting: means of blocks, in so many greys.

  >>> strokes(jnp.array([-1.0, 0.9, 0.2, 0.1]).reshape(1, 2, 2, 1), 2, 3).ravel().tolist()
  [0.0, 0.0, 0.0, 0.0]
  """
  rows, height, width, channels = x.shape
  coarse = x.reshape(rows, height // block, block, width // block, block, channels).mean((2, 4))
  coarse = jnp.round((coarse + 1.0) / 2.0 * (greys - 1)) / (greys - 1) * 2.0 - 1.0
  return coarse.repeat(block, axis=1).repeat(block, axis=2)


def curve(
  denoiser: Any,
  guides: jax.Array,
  held: jax.Array,
  train: jax.Array,
  keys: jax.Array,
  levels: Sequence[float],
  steps: int,
) -> dict[str, Any]:
  """Faithfulness and realism at every level, realism also of the guides and of real data.

  Args:
    denoiser: of digits in [-1, 1].
    guides: [B, 8, 8, 1]; keys: [B].
    held, train: real images; those of training are what realism is measured against.
    levels: [S] values of sigma/alpha, ascending.
    steps: of the solver.

  Returns:
    distance [S]: mean Euclidean distance of a result from its guide; distance_of_others: of a guide from
    another's original, for comparison; frechet [S], frechet_of_guides, frechet_of_real (held-out images, as
    many): Frechet distance from the training images in the library's features of digits; x [S, B, ...].
  """
  scaling = digits_set().scaling
  x = np.asarray(tasks.sweep(denoiser, guides, keys, levels, steps=steps))
  features = metrics.fit_features(scaling.to_data(train))
  reference = metrics.statistics(features(scaling.to_data(train)))
  frechet = lambda images: float(
    metrics.frechet_distance(metrics.statistics(features(scaling.to_data(np.asarray(images)))), reference)
  )
  norm = lambda a: float(np.mean(np.linalg.norm(np.asarray(a).reshape(len(a), -1), axis=1)))
  return dict(
    x=x,
    distance=[norm(one - guides) for one in x],
    distance_of_others=norm(np.roll(held, 7, axis=0) - guides),
    frechet=[frechet(one) for one in x],
    frechet_of_guides=frechet(guides),
    frechet_of_real=frechet(held),
  )


def draw(
  path: str,
  levels: Sequence[float],
  found: Mapping[str, Any],
  best: float,
  guides: jax.Array,
  held: jax.Array,
  examples: int = 5,
) -> None:
  """Both curves over the level, one against the other, and examples from the guide to the most noise."""
  from matplotlib.figure import Figure

  from diffusion.pictures.sheets import write_figure

  figure = Figure(figsize=(10.5, 8.6), layout="constrained")
  top, bottom = figure.subfigures(2, 1, height_ratios=(4.0, 4.6))
  left, right = top.subplots(1, 2)
  left.semilogx(levels, found["distance"], "o-", color="tab:blue")
  left.set(
    xlabel="strength t0 (noise level sigma/alpha where the edit starts)",
    title="Faithful with little noise, realistic with much",
  )
  left.set_ylabel("L2 distance to the guide", color="tab:blue")
  left.axvline(best, color="black", linestyle=":")
  left.annotate(f"recommended: {best:g} ", (best, 0.9 * max(found["distance"])), fontsize=9, ha="right")
  other = left.twinx()
  other.semilogx(levels, found["frechet"], "s-", color="tab:red")
  other.axhline(found["frechet_of_real"], color="tab:red", linestyle="--", linewidth=1.0)
  other.axhline(found["frechet_of_guides"], color="tab:red", linestyle="-.", linewidth=1.0)
  other.set_ylabel("Frechet distance to real digits", color="tab:red")
  other.annotate(
    "guides",
    (levels[0], found["frechet_of_guides"]),
    xytext=(0, -4),
    textcoords="offset points",
    color="tab:red",
    fontsize=9,
    va="top",
  )
  other.annotate(
    "real, held out",
    (levels[-1], found["frechet_of_real"]),
    xytext=(0, -4),
    textcoords="offset points",
    color="tab:red",
    fontsize=9,
    ha="right",
    va="top",
  )
  other.set_ylim(-1.5, 1.05 * found["frechet_of_guides"])
  right.plot(found["distance"], found["frechet"], "o-", color="tab:purple")
  for level, a, b in zip(levels, found["distance"], found["frechet"]):
    right.annotate(
      f"{level:g}",
      (a, b),
      xytext=(4, 4),
      textcoords="offset points",
      fontsize=8,
      fontweight="bold" if level == best else None,
    )
  right.axhline(found["frechet_of_real"], color="tab:red", linestyle="--", linewidth=1.0)
  right.margins(x=0.09)
  right.set(
    xlabel="L2 distance to the guide",
    ylabel="Frechet distance to real digits",
    title="One against the other, t0 at the points",
  )
  columns = [
    ("original", held),
    ("guide", guides),
    *((f"t0 = {level:g}" + ("*" if level == best else ""), x) for level, x in zip(levels, found["x"])),
  ]
  axes = bottom.subplots(examples, len(columns))
  for k, (title, shown) in enumerate(columns):
    for i in range(examples):
      axes[i, k].imshow(np.asarray(shown[i])[..., 0], cmap="gray", vmin=-1.0, vmax=1.0)
      axes[i, k].set_axis_off()
    axes[0, k].set_title(title, fontsize=9)
  write_figure(path, figure)
