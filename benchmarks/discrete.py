"""How far samplers of masked tokens are from the data, and for how many network calls.

Two laws whose states can be listed, five tokens of three letters and a hidden Markov chain of eight, with
their exact posteriors, so that what is seen is the samplers' own error. For each sampler and setting: the
total variation of its samples from the law, the mean and the standard deviation over seeds, beside the
floor, which as many exact draws have on average; and the calls of the network, of a sample on average and of
a batch of 64, which waits for its slowest. `--plot` draws them, `--redraw` from the file of `--out`."""

import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import jax
import timing

from diffusion import solvers
from experiments.discrete import listed_laws

BATCH = 64


def samplers(p):
  """(name, setting) -> solver."""
  (d,) = p.shape
  grid, steps, few = p.default_grid, (2, d, 2 * d, 4 * d, 8 * d, 16 * d, 32 * d), (2, d)
  ancestral = lambda n: solvers.masked_ancestral(p, grid(n))
  of_steps = lambda name, counts, make: {(name, f"{n} steps"): make(n) for n in counts}
  return {
    **{("first_hitting", f"{k} a call"): solvers.first_hitting(p, tokens_per_call=k) for k in (1, 2, 4, d)},
    **of_steps("masked_ancestral", steps, ancestral),
    **of_steps("cached(masked_ancestral)", (d, 4 * d, 32 * d), lambda n: solvers.cached(ancestral(n))),
    **{
      ("entropy_bound", f"{b:g} nats"): solvers.entropy_bound(p, bound=b)
      for b in (0.0, 0.5, 0.7, 0.9, 1.2, 2.0, 4.0)
    },
    **{
      ("confidence_threshold", f"{q:g}"): solvers.confidence_threshold(p, threshold=q)
      for q in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
    },
    **{
      key: value
      for rule in ("drawn", "highest", "margin", "entropy", "random")
      for key, value in of_steps(
        f"confidence_unmasking({rule})",
        few,
        lambda n, rule=rule: solvers.confidence_unmasking(p, grid(n), confidence=rule),
      ).items()
    },
    **{
      key: value
      for rescale in (0.1, 1.0)
      for key, value in of_steps(
        f"remasking({rescale:g})",
        (d, 4 * d, 16 * d),
        lambda n, rescale=rescale: solvers.remasking(p, grid(n), rescale=rescale),
      ).items()
    },
    **{
      key: value
      for planner, eta in (("self", 0.0), ("self", 1.0), ("random", 0.0), ("random", 1.0))
      for key, value in of_steps(
        f"path_planning({planner}, eta={eta:g})",
        (d, 4 * d),
        lambda n, planner=planner, eta=eta: solvers.path_planning(p, grid(n), planner=planner, eta=eta),
      ).items()
    },
    **{
      ("block_by_block(2, first_hitting)", f"{k} a call"): solvers.block_by_block(
        p, solvers.first_hitting(p, tokens_per_call=k), block=2
      )
      for k in (1, 2)
    },
  }


def measure(args):
  count, seeds = (2000, 1) if args.quick else (50_000, 3)
  rows = []
  for name, make in listed_laws.LAWS.items():
    law = make()
    denoiser, floor = listed_laws.posterior(law), listed_laws.floor(law, count)
    for (sampler, setting), solver in samplers(denoiser.process).items():
      if args.quick and (solver.cost or 0) > law.ndim:
        continue
      found, calls, of_batch = [], [], []
      for seed in range(seeds):
        x, evaluations = map(np.asarray, listed_laws.draws(denoiser, solver, jax.random.key(seed), count))
        found.append(listed_laws.total_variation(x, law))
        calls.append(evaluations.mean())
        of_batch.append(evaluations[: count // BATCH * BATCH].reshape(-1, BATCH).max(axis=1).mean())
      rows.append(
        dict(
          law=name,
          sampler=sampler,
          setting=setting,
          calls=float(np.mean(calls)),
          calls_of_batch=float(np.mean(of_batch)),
          total_variation=float(np.mean(found)),
          over_seeds=float(np.std(found, ddof=1)) if seeds > 1 else None,
          floor=floor,
          draws=count,
          seeds=seeds,
        )
      )
    print(f"{name}: {len(rows)} rows", file=sys.stderr, flush=True)
  return rows


def table(rows):
  """A line a sampler and setting, a block a law."""
  lines = []
  for law in dict.fromkeys(row["law"] for row in rows):
    here = [row for row in rows if row["law"] == law]
    count, seeds, floor = (here[0][key] for key in ("draws", "seeds", "floor"))
    lines.append(f"\n{law}: {count} draws of {seeds} seeds, floor {floor:.4f}")
    lines.append(f"{'sampler':36}{'setting':>12}{'calls':>9}{'of 64':>8}{'total variation':>20}")
    for row in here:
      spread = "" if row["over_seeds"] is None else f" +- {row['over_seeds']:.4f}"
      distance = f"{row['total_variation']:.4f}{spread}"
      lines.append(
        f"{row['sampler']:36}{row['setting']:>12}{row['calls']:>9.2f}{row['calls_of_batch']:>8.2f}{distance:>20}"
      )
    lines.append(law_of_cost(here))
  return "\n".join(lines)


def law_of_cost(rows):
  """First-hitting beside ancestral steps at equal total variation: the floor and three standard errors."""
  first = next(row for row in rows if (row["sampler"], row["setting"]) == ("first_hitting", "1 a call"))
  spread = 0.0 if first["over_seeds"] is None else 3 * first["over_seeds"] / np.sqrt(first["seeds"])
  limit = max(first["total_variation"], first["floor"]) + spread
  steps = [row for row in rows if row["sampler"] == "masked_ancestral"]
  reached = [row for row in steps if row["total_variation"] <= limit]
  if not reached:
    return f"first_hitting: {first['calls']:g} calls; ancestral steps do not come to its {limit:.4f} here"
  least = min(reached, key=lambda row: row["calls"])
  before = max((row["calls"] for row in steps if row["calls"] < least["calls"]), default=0)
  ours, theirs = first["calls"], least["calls"]
  return (
    f"first_hitting is within {limit:.4f} in {ours:g} calls, ancestral steps in {theirs:g} and not yet in "
    f"{before:g}: {ours / theirs:.3f} to {ours / max(before, 1):.3f} of the calls"
  )


SHOWN = {
  "first_hitting": ("#c1272d", "o-"),
  "masked_ancestral": ("#0072b2", "o-"),
  "cached(masked_ancestral)": ("#0072b2", ".:"),
  "entropy_bound": ("#009e73", "s-"),
  "confidence_threshold": ("#56b4a0", "s--"),
  "confidence_unmasking(margin)": ("#7b3294", "^-"),
  "confidence_unmasking(drawn)": ("#b48cc8", "^--"),
  "remasking(0.1)": ("#d98c00", "v-"),
  "remasking(1)": ("#e8c27a", "v--"),
  "path_planning(self, eta=1)": ("#777777", "x--"),
  "path_planning(random, eta=1)": ("#444444", "x-"),
}


def plot(rows, path):
  """Total variation over calls of a sample, a panel a law, with the floor."""
  from diffusion.pictures import curves, sheets

  laws = list(dict.fromkeys(row["law"] for row in rows))
  figure, *panels = curves.axes_of(6.4 * len(laws), 5.6, len(laws))
  for axes, law in zip(panels, laws):
    here = [row for row in rows if row["law"] == law]
    for name, (colour, style) in SHOWN.items():
      some = sorted((row for row in here if row["sampler"] == name), key=lambda row: row["calls"])
      axes.plot(
        [row["calls"] for row in some],
        [row["total_variation"] for row in some],
        style,
        color=colour,
        label=name,
        markersize=5,
        linewidth=1.6,
      )
    axes.axhline(here[0]["floor"], color="black", linewidth=1, linestyle="--", label="exact draws (floor)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:.1g}" if f"{value:.0e}"[0] in "25" else "")
    axes.set_xlabel("network calls of a sample")
    axes.set_title(law, loc="left", fontweight="bold")
  panels[0].set_ylabel(f"total variation from the law, {rows[0]['draws']:,} draws")
  lines, labels = panels[0].get_legend_handles_labels()
  figure.legend(lines, labels, loc="outside lower center", ncols=4, frameon=False)
  sheets.write_figure(path, figure)


def main():
  parser = timing.arguments(__doc__)
  parser.add_argument("--plot", metavar="FILE", help="draw the numbers as PNG")
  parser.add_argument("--redraw", action="store_true", help="take the numbers from the file of --out")
  args = parser.parse_args()
  if args.redraw:
    rows = json.loads(pathlib.Path(args.out).read_text())
  else:
    rows = measure(args)
    if args.out:
      pathlib.Path(args.out).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
  print(table(rows))
  if args.plot:
    plot(rows, args.plot)


if __name__ == "__main__":
  main()
