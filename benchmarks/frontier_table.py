"""The frontier as a table and as a picture."""

from frontier_named import NAMES

OURS = ("ours", "fitted", "floor", *NAMES)
KINDS = {
  "": "RMSE to the exact solution",
  "fresh": "RMSE to the exact solution on starts that nobody was chosen on",
  "stochastic": "sliced Wasserstein distance of stochastic samplers to true samples",
}


def kind(row):
  """Which of `KINDS` a row is."""
  return row.get("kind", "stochastic" if "metric" in row else "")


def best_grids(rows):
  """One row a solver, owner and number of evaluations: that of its best grid."""
  best = {}
  for row in rows:
    key = tuple(row[k] for k in ("problem", "noise", "nfe", "owner", "solver")) + (kind(row),)
    if key not in best or value(row) < value(best[key]):
      best[key] = row
  return list(best.values())


def value(row):
  return row["rmse"] if "rmse" in row else row["sliced_wasserstein"]


def best(rows, keep):
  """The row of the smallest error whose owner passes, or None."""
  return min((row for row in rows if keep(row["owner"])), key=value, default=None)


def described(row):
  elsewhere = f", {100 * row['elsewhere']:.2g}% elsewhere" if row and "elsewhere" in row else ""
  return "-" if row is None else f"{value(row):.3g} {row['solver']} ({row['grid']}{elsewhere})"


def line(rows):
  """One number of evaluations in words."""
  rows = [row for row in rows if row["owner"] not in NAMES]
  if not rows:
    return "nothing"
  mine, peer, fit = (
    best(rows, lambda o: o == "ours"),
    best(rows, lambda o: o not in OURS),
    best(rows, lambda o: o == "fitted"),
  )
  text = f"{rows[0]['nfe']:3} calls  ours {described(mine)}"
  if peer:
    text += f"  |  {peer['owner']} {described(peer)}  |  ours / peer {value(mine) / value(peer):.2f}"
    chosen = (
      [
        min(
          (r for r in rows if (r["owner"] == "ours") == own and r["owner"] != "fitted"),
          key=lambda r: r["halves"][0],
        )
        for own in (True, False)
      ]
      if "halves" in peer
      else None
    )
    if chosen:
      other = chosen[0]["halves"][1] / chosen[1]["halves"][1]
      text += f" (chosen on one half of the starts, judged on the other {other:.2f})"
  floor = best(rows, lambda o: o == "floor")
  if floor:
    text += f"  |  true samples {value(floor):.3g}"
  if fit:
    text += (
      f"  |  fitted {value(fit):.3g} ({100 * fit['elsewhere']:.2g}% elsewhere)"
      if "elsewhere" in fit
      else f"  |  fitted {value(fit):.3g}"
    )
    text += f", fitted / peer {value(fit) / value(peer):.2f}" if peer else ""
  return text


def table(rows):
  """All of them."""
  lines = []
  for which, about in KINDS.items():
    some = [row for row in rows if kind(row) == which]
    for problem, noise in dict.fromkeys((row["problem"], row["noise"]) for row in some):
      here = [row for row in some if (row["problem"], row["noise"]) == (problem, noise)]
      lines.append(f"\n{problem}, {noise} noise: {about}")
      lines += [
        line([row for row in here if row["nfe"] == nfe]) for nfe in sorted({row["nfe"] for row in here})
      ]
  return "\n".join(lines)


def plot(rows, path):
  """One panel a problem and noise over evaluations, on logarithmic axes: each owner's best, and each name."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  rows = [row for row in rows if kind(row) == ""]
  panels = list(dict.fromkeys((row["problem"], row["noise"]) for row in rows))
  noises, names = list(dict.fromkeys(n for _, n in panels)), list(dict.fromkeys(p for p, _ in panels))
  figure, axes = plt.subplots(
    len(noises), len(names), figsize=(4.6 * len(names), 3.8 * len(noises)), squeeze=False
  )
  styles = {
    "ours": ("#c1272d", 2.4),
    "fitted": ("#7b3294", 2.4),
    "diffusers": ("#0072b2", 1.5),
    "k-diffusion": ("#009e73", 1.5),
    "diffrax": ("#8c8c8c", 1.5),
  }
  shades = dict(zip(NAMES, plt.get_cmap("Dark2").colors))
  for problem, noise in panels:
    axis = axes[noises.index(noise)][names.index(problem)]
    here = [row for row in rows if (row["problem"], row["noise"]) == (problem, noise)]
    owners = {row["owner"] for row in here}
    for owner in [one for one in (*NAMES, *sorted(owners - {*OURS}), *OURS[:2]) if one in owners]:
      counts = sorted({row["nfe"] for row in here if row["owner"] == owner})
      errors = [
        min(value(row) for row in here if row["owner"] == owner and row["nfe"] == nfe) for nfe in counts
      ]
      colour, width = styles.get(owner, (None, 1.5))
      colour, width, line = (shades[owner], 1.2, ".--") if owner in shades else (colour, width, "o-")
      axis.loglog(counts, errors, line, color=colour, linewidth=width, markersize=4, label=owner)
    axis.set_title(f"{problem}, {noise} noise")
    ticks = sorted({row["nfe"] for row in here})
    axis.minorticks_off()
    axis.set_xticks(ticks, [str(nfe) for nfe in ticks])
    axis.tick_params(labelbottom=True)
    axis.grid(True, color="0.9")
  for axis in axes.flat:
    axis.set_visible(bool(axis.lines))
  for axis in axes[-1]:
    axis.set_xlabel("denoiser calls")
  for row in axes:
    row[0].set_ylabel("RMSE to the exact solution")
  lines = {line.get_label(): line for axis in axes.flat for line in reversed(axis.lines)}
  order = [*(one for one in lines if one not in NAMES), *(one for one in NAMES if one in lines)]
  figure.legend([lines[one] for one in order], order, loc="lower center", ncols=6, frameon=False)
  figure.tight_layout(rect=(0, 0.07, 1, 1))
  figure.savefig(path, dpi=110)
  plt.close(figure)
