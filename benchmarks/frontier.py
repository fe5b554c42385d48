"""Accuracy of samplers at a number of denoiser calls.

Measured beside every other library that can be installed.

RMSE to the exact probability-flow solution at sigma = 0 (`frontier_problems`: its error is printed), from the
same starts for all, on three problems whose denoiser is known in closed form, under VP and EDM noise. Every
solver is tried on many grids and the best counts, for the other libraries (`frontier_peers`) as for ours
(`frontier_ours`). Choosing the best of many on the starts it is judged on flatters everybody, so each line
also says what comes out if the choice is made on one half of the starts and judged on the other. For the same
reason the best few of each owner are run again on thousands of starts that nobody was chosen on
(`frontier_fresh`). Stochastic samplers are judged by the sliced Wasserstein distance of their samples to as
many fresh ones (`frontier_stochastic`).

Peers are optional: pip install -e '.[peers]'. A whole run takes some two hours of one core's own time, a
third of it the fits, and continues from --cache if it is stopped. Its parts can be run one by one and add up
in --out: --only=digits/vp, --budgets=5,8, --kinds=fitted. RMSE rows go to --out, the others to the same name
with `_fresh` and `_stochastic`. --plot draws the picture, also from an earlier --out with --redraw."""

import json
import os
import pathlib
import sys
import time

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import frontier_fitted as fitted
import frontier_fresh as fresh
import frontier_named as named
import frontier_ours as ours
import frontier_peers as peers
import frontier_problems as problems
import frontier_stochastic as stochastic
import frontier_table as report
import timing

BUDGETS = (5, 6, 8, 10, 12, 15, 20, 30, 50)
STARTS = {"ring2d": 512, "gmm64": 64, "digits": 64}
# From so many evaluations on, a combination whose errors on the first starts are so many times the best's is
# not tried on all of them.
MANY, PILOT, WORTH = 12, 16, 2.5
# Of search around the best, and twice as many where evaluations are few, after so many random combinations.
ROUNDS = 3
SCATTERED = 400
KINDS = ("flow", "named", "fitted", "fresh", "stochastic")
QUICK = ("UniPC 3 bh2", "DPMSolverMultistep++ 2", "lms 4", "dpmpp_2m", "Tsit5")
# Version of the numbers in the cache; part of their names.
EDITION = 1


def judge(end, case):
  """What a row says of one sampler's ends: over all starts, the median start, and each half of the starts."""
  half = len(case.exact) // 2
  return dict(
    rmse=problems.rmse(end, case.exact),
    median=problems.median_error(end, case.exact),
    halves=[problems.rmse(end[:half], case.exact[:half]), problems.rmse(end[half:], case.exact[half:])],
  )


def row(case, nfe, solver, owner, grid, end):
  return dict(
    problem=case.problem, noise=case.noise, nfe=nfe, solver=solver, owner=owner, grid=grid, **judge(end, case)
  )


def first(case, count):
  """The same case on its first starts."""
  return case.replace(x=case.x[:count], exact=case.exact[:count])


def promising(ends, pilot):
  """Whether each end (None: the run failed) is near the best, by its median error or by its root mean
  square."""
  typical = np.array([np.inf if end is None else problems.median_error(end, pilot.exact) for end in ends])
  total = np.array([np.inf if end is None else problems.rmse(end, pilot.exact) for end in ends])
  return (typical < WORTH * typical.min()) & np.isfinite(typical) | (total < 0.7 * WORTH * total.min())


def our_rows(case, nfe, quick):
  """Rows of our combinations of solver and grid, and of those around the best."""
  tables = lambda pairs: {
    pair: table for pair in pairs if (table := ours.table(*pair, case.noise, nfe)) is not None
  }

  def score(candidates):
    return (
      dict(zip(candidates, ours.run(case.denoiser, list(candidates.values()), case.x))) if candidates else {}
    )

  begin = tables(ours.combinations(quick))
  if nfe >= MANY:
    pilot = first(case, PILOT)
    chosen = promising(ours.run(case.denoiser, list(begin.values()), pilot.x), pilot)
    begin = {pair: table for (pair, table), good in zip(begin.items(), chosen) if good}
  elif not quick:
    begin |= tables(ours.scattered(SCATTERED))
  ends = score(begin)
  for _ in range(0 if quick else ROUNDS if nfe >= MANY else 2 * ROUNDS):
    ranked, grids = sorted(ends, key=lambda pair: problems.rmse(ends[pair], case.exact)), {}
    for solver, spacing in ranked:
      grids.setdefault(spacing, []).append(solver)
    # Around the best grids, each with the solvers that are best on it.
    near = [
      (solver, g)
      for spacing in list(grids)[:5]
      for solver in grids[spacing][:3]
      for g in spacing.neighbours()
    ]
    ends |= score(tables([pair for pair in dict.fromkeys(near) if pair not in ends]))
  return [row(case, nfe, solver, "ours", str(spacing), end) for (solver, spacing), end in ends.items()]


def peer_rows(case, nfe, peer, runs, quick):
  """Rows of one peer's runs; those that raise, blow up or take more calls than the budget are left out."""
  process = case.denoiser.process
  to_y = 1 / float(process.marginal(process.t_max).alpha)
  candidates = runs(process, nfe)
  if quick:
    candidates = [run for run in candidates if run.solver in QUICK]
  if nfe >= MANY:
    pilot = first(case, PILOT)
    ends = [peers.attempt(run, case.denoiser, pilot.x * to_y)[0] for run in candidates]
    candidates = [run for run, good in zip(candidates, promising(ends, pilot)) if good]
  rows = []
  for run in candidates:
    end, calls = peers.attempt(run, case.denoiser, case.x * to_y)
    if end is not None and calls <= nfe and np.isfinite(problems.rmse(end, case.exact)):
      rows.append(row(case, nfe, run.solver, peer, run.grid, end))
  return rows


class Cache:
  """Finished pieces by name, on disk after each, so that a run that was stopped goes on."""

  def __init__(self, path):
    self.path = path
    self.pieces = json.loads(pathlib.Path(path).read_text()) if path and os.path.exists(path) else {}

  def __call__(self, name, make):
    name = f"{EDITION}/{name}"
    if name not in self.pieces:
      self.pieces[name] = make()
      if self.path:
        temporary = f"{self.path}.new"
        pathlib.Path(temporary).write_text(json.dumps(self.pieces))
        os.replace(temporary, self.path)
    return self.pieces[name]


def measure(args, available, keep):
  """Measures what is asked for and hands each piece's rows to keep as soon as they are there."""
  cache = Cache(None if args.quick else args.cache)
  budgets = args.budgets or ((6, 12) if args.quick else BUDGETS)
  names = [
    (p, n)
    for p in problems.PROBLEMS
    for n in (("vp",) if args.quick else problems.NOISES)
    if not args.only or f"{p}/{n}".startswith(args.only)
  ]
  begun, cases = time.perf_counter(), []
  for problem, noise in names:
    starts = 32 if args.quick else STARTS[problem]
    case = problems.case(problem, noise, starts, steps=300 if args.quick else 2000)
    cases.append(case)
    print(f"{problem}/{noise}: {starts} starts, exact to {case.error:.1e}", flush=True)
    for nfe in budgets:
      name = f"{problem}/{noise}/{starts}/{nfe}"
      new = []
      if "flow" in args.kinds:
        new += cache(f"{name}/ours", lambda: our_rows(case, nfe, args.quick))
        for peer, runs in available.items():
          new += cache(f"{name}/{peer}", lambda: peer_rows(case, nfe, peer, runs, args.quick))
      if "named" in args.kinds:
        new += named.rows(case, nfe, row, ours.run)
      if "fitted" in args.kinds:
        new += fitted.rows(case, nfe, cache, name, row)
      said = [one for one in keep(new, problem, noise, nfe) if one["owner"] not in named.NAMES]
      if "fresh" in args.kinds and said:
        sampler = fitted.saved(cache, problem, noise, nfe)
        keep(fresh.rows(problem, noise, nfe, said, available, sampler, args.quick), problem, noise, nfe)
      print(f"  {report.line(said)}  [{time.perf_counter() - begun:.0f} s]", flush=True)
  for case in cases if "stochastic" in args.kinds else []:
    keep(
      stochastic.rows(case, budgets, cache, f"{case.problem}/{case.noise}", available, args.quick),
      case.problem,
      case.noise,
    )
    print(
      f"{case.problem}/{case.noise}: stochastic samplers done  [{time.perf_counter() - begun:.0f} s]",
      flush=True,
    )


class Rows:
  """All rows, each solver's best grid, in three files: RMSE rows in `path`, those of fresh starts and
  stochastic ones beside it; written after every piece.

  New rows take the place of earlier ones of the same problem, noise, budget, kind and owner, so runs of parts
  add up.
  """

  def __init__(self, path, take_over):
    self.path, self.rows = path and pathlib.Path(path), []
    for file in self._files() if take_over else ():
      self.rows += json.loads(file.read_text()) if file.exists() else []

  def _files(self):
    return (
      [
        self.path.with_name(f"{self.path.stem}{kind and '_' + kind}{self.path.suffix}")
        for kind in report.KINDS
      ]
      if self.path
      else []
    )

  def keep(self, new, problem, noise, nfe=None):
    """Adds rows; returns all that are known of one cell."""
    place = lambda row: (*(row[name] for name in ("problem", "noise", "nfe", "owner")), report.kind(row))
    replaced = {place(row) for row in new}
    self.rows = [row for row in self.rows if place(row) not in replaced] + report.best_grids(new)
    orders = dict(problem=list(problems.PROBLEMS), noise=list(problems.NOISES))
    self.rows.sort(
      key=lambda row: (*(order.index(row[name]) for name, order in orders.items()), row["nfe"], row["owner"])
    )
    for file, wanted in zip(self._files(), report.KINDS):
      chosen = [row for row in self.rows if report.kind(row) == wanted]
      if chosen:
        file.write_text("[\n" + ",\n".join(json.dumps(row) for row in chosen) + "\n]\n")
    return [
      row
      for row in self.rows
      if (row["problem"], row["noise"], row["nfe"]) == (problem, noise, nfe) and report.kind(row) == ""
    ]


def main():
  parser = timing.arguments(__doc__)
  parser.add_argument("--only", metavar="PROBLEM[/NOISE]", help="for example digits or ring2d/vp")
  parser.add_argument(
    "--budgets",
    type=lambda text: tuple(map(int, text.split(","))),
    metavar="N,N",
    help="numbers of evaluations",
  )
  parser.add_argument(
    "--cache",
    metavar="FILE",
    default="/tmp/frontier_cache.json",
    help="finished pieces, to go on from (default: %(default)s)",
  )
  parser.add_argument("--plot", metavar="FILE", help="write the picture")
  parser.add_argument(
    "--redraw", action="store_true", help="measure nothing: table and picture of an earlier --out"
  )
  parser.add_argument(
    "--kinds",
    type=lambda text: tuple(text.split(",")),
    metavar="KIND,KIND",
    default=KINDS,
    help="what to measure: flow (deterministic samplers), named (solvers and grids known elsewhere), "
    "fitted (to the problem), fresh (the best of flow and fitted on new starts), stochastic (default: all)",
  )
  args = parser.parse_args()
  if unknown := set(args.kinds) - set(KINDS):
    parser.error(f"--kinds: {unknown.pop()!r} is none of {', '.join(KINDS)}")
  if args.redraw and not args.out:
    parser.error("--redraw needs the --out of an earlier run")
  jax.config.update("jax_enable_x64", True)
  known = Rows(args.out, take_over=args.redraw or not args.quick)
  if not args.redraw:
    available, missing = peers.available()
    print("\n".join([*missing, f"peers: {', '.join(available) or 'none'}"]))
    if args.quick:
      args.kinds = [kind for kind in args.kinds if kind != "fitted"]
    measure(args, available, known.keep)
  print(report.table(known.rows))
  if args.plot:
    report.plot(known.rows, args.plot)
    print(f"wrote {args.plot}")


if __name__ == "__main__":
  main()
