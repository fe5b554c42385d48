"""What the solver tests share.

Tables brought to one shape, and the exact moments of a table on Gaussian data.
"""

import dataclasses

import jax
import numpy as np

from diffusion import solvers


def inner_grid(process, n, spacing=solvers.grids.log_snr):
  """n steps between log-SNR -4 and 5, where every process is smooth."""
  ends = process.t_of_log_snr(np.array([-4.0, 5.0]))
  return spacing(process, n, t_max=float(ends[0]), t_min=float(ends[1]))


def graded(process, n):
  """The same ends with steps that begin short: a multistep solver's first steps, of low order, are then too
  short to matter."""
  return process.t_of_log_snr(-4.0 + 9.0 * np.linspace(0, 1, n + 1) ** 3)


# Slots of the widest built-in table.
SLOTS = 6

# Built-in solvers at other options than the catalogue's.
VARIANTS = [
  *[("deis", dict(r=r, clock=clock)) for clock in ("t", "rho") for r in (0, 1, 2, 3)],
  *[("lms", dict(order=k)) for k in (1, 2, 3)],
  *[("ipndm", dict(order=k)) for k in (1, 2, 3)],
  *[("hb", dict(order=1, beta=0.5)), ("hb", dict(order=3, beta=1.0))],
  *[("ghvb", dict(order=k, beta=b)) for k, b in ((1, 0.5), (2, 1.0), (3, 0.5), (4, 0.8), (5, 0.8))],
  *[("dpm_solver", dict(order=1)), ("dpm_solver", dict(order=2)), ("dpm_solver", dict(order=2, r1=0.3))],
  *[("dpmpp_2s", dict(r=0.7)), ("exponential_rk3", dict(c2=1 / 3, c3=2 / 3))],
  *[("unipc", dict(order=p, variant=v)) for p in (1, 2, 3) for v in ("bh1", "bh2") if (p, v) != (3, "bh2")],
  *[("unipc", dict(order=p, corrector=False)) for p in (1, 2, 3)],
  ("unipc", dict(order=4)),
  *[
    ("sa_solver", dict(tau=0.0, predictor=p, corrector=q))
    for p, q in ((2, 0), (3, 0), (4, 0), (1, 1), (2, 2), (3, 3), (4, 2))
  ],
  ("sa_solver", dict(tau=0.0, predictor=2, corrector=1, few_steps=True)),
]


def pad(table, rows, slots=SLOTS, noises=1):
  """The same sampler with more slots, noises and rows; the rows added keep the last point. One shape, one
  program."""
  m, extra = table.A.shape[-1], rows - table.num_steps
  wide = lambda leaf, *sizes: np.pad(np.asarray(leaf), [(0, 0)] + [(0, size) for size in sizes])
  long = lambda leaf, fill: np.concatenate(
    [leaf, np.broadcast_to(fill, (extra, *leaf.shape[1:])).astype(leaf.dtype)]
  )
  s, z = slots - m, noises - table.noise
  w = wide(table.w, s)
  keep = np.eye(slots)
  return table.replace(
    # Rows that only wait are evaluated where the last real row was.
    t=np.concatenate([long(table.t[:-1], table.t[-2]), table.t[-1:]]),
    g=long(table.g, 0),
    h=long(table.h, 0),
    A=long(wide(table.A, s, s), keep),
    B=long(wide(table.B, s), 0),
    C=long(wide(table.C, s, z), 0),
    w=np.concatenate([w, np.broadcast_to(w[-1], (extra, slots))]),
    start=np.pad(table.start, [(0, s), (0, z)]),
    hook=long(wide(table.hook, s), 0),
  )


def stack(tables):
  """Tables of one shape as one pytree with a leading axis."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *tables)


@jax.jit
def run_all(denoiser, tables, x, keys):
  """Every table of a stack on the same noises: [tables, B, ...]."""
  return jax.vmap(lambda table: solvers.sample(denoiser, table, x, keys=keys))(tables)


@dataclasses.dataclass
class Moments:
  """Mean and variance of one coordinate."""

  mean: float
  variance: float


def marginal_moments(process, mean, variance, t):
  """Of x_t for data N(mean, variance)."""
  m = process.marginal(t)
  return Moments(float(m.alpha * mean), float(m.alpha**2 * variance + m.sigma**2))


def table_moments(process, table, mean, variance, start):
  """The exact moments of a table's output on one coordinate of Gaussian data, by its own linear recursion, in
  float64."""
  leaf = lambda name: np.asarray(getattr(table, name), np.float64)
  t, g, h, A, B, C, w = map(leaf, ("t", "g", "h", "A", "B", "C", "w"))
  begin = leaf("start")
  stack_mean = begin[:, 0] * start.mean
  stack_cov = np.outer(begin[:, 0], begin[:, 0]) * start.variance + begin[:, 1:] @ begin[:, 1:].T
  m = process.marginal(t[:-1])
  total = m.alpha**2 * variance + m.sigma**2
  gain, shift = m.alpha * variance / total, m.sigma**2 * mean / total  # D = gain x + shift
  if table.view == "eps":
    gain, shift = m.sigma / total, -m.alpha * m.sigma * mean / total
  if table.view == "score":
    gain, shift = -1 / total, m.alpha * mean / total
  matrices = A + B[:, :, None] * ((g + h * gain)[:, None] * w[:-1])[:, None, :]
  shifts, noises = B * (h * shift)[:, None], C @ np.swapaxes(C, 1, 2)
  for matrix, shift, noise in zip(matrices, shifts, noises):
    stack_mean = matrix @ stack_mean + shift
    stack_cov = matrix @ stack_cov @ matrix.T + noise
  return Moments(w[-1] @ stack_mean, w[-1] @ stack_cov @ w[-1])


def slope(counts, errors):
  """Observed order: minus the slope of log error over log count."""
  return -np.polyfit(np.log(counts), np.log(errors), 1)[0]
