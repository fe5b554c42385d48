"""Our samplers on the problems of the frontier.

Every combination of a solver and a grid, stacked and run by one program a shape.
"""

import dataclasses
import functools

import jax
import numpy as np

from diffusion import solvers
from diffusion.solvers import About, Table, grids
from diffusion.solvers.join import widen

# Solvers that take one evaluation a step, with the options that make a difference. "final" is
# lower_order_final.
MULTISTEP = {
  "dpmpp_2m": ("dpmpp_2m", {}),
  "dpmpp_3m": ("dpmpp_3m", dict(lower_order_final=False)),
  "dpmpp_3m, final": ("dpmpp_3m", dict(lower_order_final=True)),
  **{f"unipc {p}": ("unipc", dict(order=p, lower_order_final=False)) for p in (2, 3, 4)},
  **{f"unipc {p}, final": ("unipc", dict(order=p, lower_order_final=True)) for p in (3, 4)},
  "unipc 3 bh1, final": ("unipc", dict(order=3, variant="bh1", lower_order_final=True)),
  "sa_solver 2 + 2, tau 0, final": (
    "sa_solver",
    dict(tau=0.0, predictor=2, corrector=2, lower_order_final=True),
  ),
  "sa_solver 2 + 1, tau 0, few steps": ("sa_solver", dict(tau=0.0, predictor=2, corrector=1, few_steps=True)),
  "sa_solver 4 + 4, tau 0, final": (
    "sa_solver",
    dict(tau=0.0, predictor=4, corrector=4, lower_order_final=True),
  ),
  "deis t 2": ("deis", dict(r=2)),
  "deis t 3": ("deis", dict(r=3)),
  "lms 4": ("lms", dict(order=4)),
  "ipndm 3": ("ipndm", dict(order=3)),
  "ipndm 4": ("ipndm", dict(order=4)),
  "ghvb 2.8": ("ghvb", dict(order=3, beta=0.8)),
  "ghvb 3.8": ("ghvb", dict(order=4, beta=0.8)),
}
# Tried on few grids, as references.
PLAIN = {"ddim": ("ddim", {}), "lms 3": ("lms", dict(order=3)), "hb 4.8": ("hb", dict(order=4, beta=0.8))}
# Solvers of several evaluations a step: name -> (name, options, evaluations of n steps to sigma = 0).
SINGLESTEP = {
  "heun": ("heun", {}, lambda n: 2 * n - 1),
  "dpmpp_2s": ("dpmpp_2s", {}, lambda n: 2 * n - 1),
  "dpm_solver 3": ("dpm_solver", {}, lambda n: 3 * n - 2),
  "exponential_rk3": ("exponential_rk3", {}, lambda n: 3 * n - 2),
  "pndm": ("pndm", {}, lambda n: n + 9 if n > 3 else 10**6),
}


def level(process, rho):
  return float(process.t_of_log_snr(-2 * np.log(rho)))


@dataclasses.dataclass(frozen=True)
class Spacing:
  """A member of a family of grids to sigma = 0: 'vp_time' (power), 'asinh' (scale, power), 'karras' (rho),
  'log_snr'.

  last: noise level sigma/alpha of the last evaluation, or None for the family's own way down to sigma = 0.
  first: noise level of the first evaluation (`solvers.late_start` with data of std 1), or None for the
  process's largest.
  """

  family: str
  shape: tuple = ()
  last: float | None = None
  first: float | None = None

  def __str__(self):
    ends = [f", {name} {value:.3g}" for name, value in (("first", self.first), ("last", self.last)) if value]
    return self.family + "".join(f" {value:.3g}" for value in self.shape) + "".join(ends)

  def __call__(self, process, n):
    options = {"vp_time": ("power",), "asinh": ("scale", "power"), "karras": ("rho",), "log_snr": ()}[
      self.family
    ]
    end = dict(t_min=0.0) if self.last is None else dict(t_min=level(process, self.last), clean=True)
    start = level(process, self.first) if self.first else None
    return grids.GRIDS[self.family](process, n, t_max=start, **end, **dict(zip(options, self.shape)))

  def neighbours(self):
    """Members nearby, for a search around a good one."""
    moved = (
      [
        dataclasses.replace(self, shape=(*self.shape[:-1], self.shape[-1] + step))
        for step in (-0.25, -0.1, -0.03, 0.03, 0.1, 0.25)
      ]
      if self.family != "log_snr"
      else []
    )
    raised = (
      [dataclasses.replace(self, last=self.last * factor) for factor in (0.7, 1.4)] if self.last else []
    )
    later = [self.first * factor for factor in (0.75, 0.9, 1.1, 1.33)] if self.first else (40.0, 20.0, 10.0)
    later = [dataclasses.replace(self, first=first) for first in later if first < 70]
    scaled = (
      [dataclasses.replace(self, shape=(self.shape[0] * f, self.shape[1])) for f in (0.7, 1.4)]
      if self.family == "asinh"
      else []
    )
    return [s for s in moved + raised + later + scaled if not s.shape or s.shape[-1] >= 0.75]


COARSE = [
  *[Spacing("vp_time", (power,), last) for power in (1.5, 2.0, 2.5, 3.0) for last in (None, 0.03, 0.06)],
  Spacing("vp_time", (1.0,)),
  *[Spacing("vp_time", (power,), None, 40.0) for power in (1.0, 1.5, 2.0)],
  *[Spacing("asinh", (scale, 1.3)) for scale in (0.1, 0.2, 0.4)],
]
FEW = [
  Spacing("vp_time", (2.0,)),
  Spacing("vp_time", (3.0,), 0.03),
  Spacing("karras", (7.0,), 0.002),
  Spacing("log_snr", (), 0.03),
]


def scattered(count, seed=0):
  """Random combinations: with few evaluations the best one is found nowhere near the regular ones."""
  rng, names = np.random.default_rng(seed), list(MULTISTEP)
  found = []
  for _ in range(count):
    first, last = (float(rng.uniform(*np.log(span))) for span in ((8.0, 75.0), (0.02, 0.4)))
    spacing = Spacing(
      "vp_time",
      (float(rng.uniform(0.8, 3.2)),),
      None if rng.random() < 0.5 else float(np.exp(last)),
      None if rng.random() < 0.4 else float(np.exp(first)),
    )
    found.append((names[rng.integers(len(names))], spacing))
  return found


def combinations(quick):
  """(solver, spacing) pairs to begin with."""
  several = [(solver, spacing) for solver in MULTISTEP for spacing in (COARSE[1:12:5] if quick else COARSE)]
  return several + [(solver, spacing) for solver in (*PLAIN, *SINGLESTEP) for spacing in FEW]


@functools.cache
def table(solver, spacing, process_name, nfe) -> Table | None:
  """The float64 table of so many evaluations, or None where there is none."""
  import frontier_problems as problems

  process = problems.NOISES[process_name]()
  if solver in MULTISTEP | PLAIN:
    (name, options), n = (MULTISTEP | PLAIN)[solver], nfe
  else:
    name, options, count = SINGLESTEP[solver]
    fitting = [n for n in range(2, nfe + 1) if count(n) <= nfe]
    if not fitting:
      return None
    n = fitting[-1]
  try:
    found = solvers.SOLVERS[name].builder(process, spacing(process, n), dtype=np.float64, **options)
  except ValueError:  # nodes that coincide
    return None
  found = solvers.late_start(found, process) if spacing.first else found
  return found if found.cost <= nfe else None


@jax.jit
def _run(denoiser, tables, x, keys):
  return jax.vmap(lambda table: solvers.sample(denoiser, table, x, keys=keys))(tables)


def padded(table, rows, slots, noises):
  """With more slots and noises, and with rows that keep the last point: one shape, one program."""
  table = widen(table, slots, noises)
  extra = rows - table.num_steps
  if not extra:
    return table
  long = lambda leaf, fill: np.concatenate(
    [leaf, np.broadcast_to(fill, (extra, *leaf.shape[1:])).astype(leaf.dtype)]
  )
  return table.replace(
    t=np.concatenate([long(table.t[:-1], table.t[-2]), table.t[-1:]]),
    g=long(table.g, 0),
    h=long(table.h, 0),
    A=long(table.A, np.eye(slots)),
    B=long(table.B, 0),
    C=long(table.C, 0),
    w=np.concatenate([table.w, np.broadcast_to(table.w[-1], (extra, slots))]),
    hook=long(table.hook, 0),
  )


def run(denoiser, tables, x, keys=None, chunk=24, slots=6):
  """The ends of all tables (same budget of rows) from the same starts, with the same keys [B] if they draw
  noise: list of [B, D]."""
  rows, nothing = max(t.num_steps for t in tables), About()
  tables = [padded(t, rows, slots, 0 if keys is None else 1).replace(about=nothing) for t in tables]
  ends = []
  for i in range(0, len(tables), chunk):
    part = tables[i : i + chunk]
    filled = part + [part[-1]] * (chunk - len(part))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
    ends += list(np.asarray(_run(denoiser, stacked, x, keys)))[: len(part)]
  return ends
