"""The predictor-corrector sampler of Score SDE, whose Langevin step is sized by norms and so is no table."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes import expand
from diffusion.solvers import randomness
from diffusion.solvers.nodes import nodes
from diffusion.solvers.reverse_diffusion import reverse_diffusion
from diffusion.solvers.table import State, Table, row_at


def langevin(x, score, z, snr, scale, sigma, norm):
  """x + step score + sqrt(2 step) z with step = 2 scale (snr |z| / |score|)^2 (arXiv:2011.13456, algorithms 4
  and 5).

  Args:
    x, score, z: [B, ...].
    snr: signal-to-noise ratio of the step.
    scale, sigma: [] or [B].
    norm: 'sample', each sample its own norms; 'batch', the paper's means over the batch.
  """
  del sigma
  size = lambda y: jnp.sqrt(jnp.sum(y.reshape(y.shape[0], -1) ** 2, axis=-1))
  of_noise, of_score = size(z), size(score)
  if norm == "batch":
    of_noise, of_score = jnp.mean(of_noise, keepdims=True), jnp.mean(of_score, keepdims=True)
  return _move(x, score, z, 2 * scale * (snr * of_noise / of_score) ** 2)


def annealed(x, score, z, snr, scale, sigma, norm):
  """The same with step = 2 scale (snr sigma)^2, which needs no norms (Score SDE's "ALD" corrector)."""
  del norm
  return _move(x, score, z, 2 * scale * (snr * sigma) ** 2)


def _move(x, score, z, step):
  step = jnp.broadcast_to(step, x.shape[:1])
  return x + expand(step, x) * score + expand(jnp.sqrt(2 * step), x) * z


@struct.dataclass
class PredictorCorrector:
  """See `predictor_corrector`. [...] is () or [B].

  Attributes:
    table: the predictor, one row a step on one slot.
    snr: [] signal-to-noise ratio of the corrector.
    scale: [..., N] factor of the corrector's step, (alpha/alpha')^2 = 1 - beta on VP, 1 on VE.
    sigma: [..., N] noise level of each step.
    corrector: (x, score, z, snr, scale, sigma, norm) -> x.
    n_corrector: corrector moves a step.
    norm: 'sample' or 'batch'.
    predict: whether the predictor moves; if not, x stays and only its time goes on.
  """

  table: Table
  snr: Any
  scale: Any
  sigma: Any
  corrector: Callable[..., Any] = struct.field(pytree_node=False)
  n_corrector: int = struct.field(pytree_node=False)
  norm: str = struct.field(pytree_node=False)
  predict: bool = struct.field(pytree_node=False, default=True)

  order = None
  stochastic = True

  @property
  def num_steps(self):
    """Steps N."""
    return self.table.num_steps

  @property
  def nfe(self):
    """Denoiser calls per sample, N (n_corrector + 1), or N n_corrector without a predictor."""
    return self.num_steps * (self.n_corrector + self.predict)

  @property
  def name(self):
    """What messages call it."""
    predictor = self.table.name if self.predict else "no predictor"
    return predictor + (
      f" + {self.n_corrector} {self.corrector.__name__} (norm={self.norm})" if self.n_corrector else " alone"
    )

  def init(self, denoiser, x, keys, cond=None):
    """The predictor's state."""
    return self.table.init(denoiser, x, keys, cond)

  def step(self, denoiser, state, i, keys, cond=None, post_step=None):
    """The corrector's moves at t_i, then the predictor's from t_i to t_i+1."""
    row = lambda leaf: row_at(leaf, i, 0, state.x.dtype)
    snr = jnp.asarray(self.snr, state.x.dtype)
    t = jnp.broadcast_to(row(self.table.t), state.x.shape[:1])

    def correct(j, x):
      # Odd purposes are the moves' noise, even ones their hook's.
      z = randomness.normal(keys, i + 1, randomness.CORRECTOR + 2 * j, x)
      score = denoiser(x, t, cond, views=("score",)).score.astype(x.dtype)
      x = self.corrector(x, score, z, snr, row(self.scale), row(self.sigma), self.norm)
      if post_step is None:
        return x
      return post_step(x, t, randomness.fold(keys, i + 1, randomness.CORRECTOR + 2 * j + 1)).astype(x.dtype)

    x = jax.lax.fori_loop(0, self.n_corrector, correct, state.x)
    state = State(x, (x,))
    return self.table.step(denoiser, state, i, keys, cond, post_step) if self.predict else state

  def output(self, state):
    """The newest x: [B, ...]."""
    return self.table.output(state)

  def __str__(self):
    head = f"{self.name}: no order claimed, {self.nfe} evaluations"
    return f"{head}\npredictor {self.table}" if self.predict else head


def predictor_corrector(
  process,
  grid,
  *,
  predictor=reverse_diffusion,
  corrector=langevin,
  snr=0.16,
  n_corrector=1,
  norm="sample",
  denoise=True,
  dtype=np.float32,
) -> PredictorCorrector:
  """Corrector first, then predictor, at every node (arXiv:2011.13456, algorithm 1 and Score SDE's code).

  The last predictor step returns its mean (the final denoising); on a process that has noise at t = 0, see
  also `with_denoising`. With norm='batch' samples of a batch depend on
  each other, as in the paper.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    predictor: a builder of a one-slot table: `reverse_diffusion`, `euler_maruyama`, `ancestral`, `ddim`,
      `euler`; None to correct alone, which leaves at each time the noise that its moves do not take out.
    corrector: `langevin`, `annealed`, or a function of the same arguments, built once, since it is part of
      the program; None to predict alone.
    snr: signal-to-noise ratio; 0.16 for CIFAR-10 on VE, 0.01 on VP.
    n_corrector: corrector moves a step.
    norm: 'sample' or 'batch'.
    denoise: whether the last predictor step adds no noise.
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid, norm, snr or count, a predictor with more than one slot, or neither predictor nor
      corrector.

  >>> from diffusion import processes
  >>> predictor_corrector(processes.ve(), np.linspace(1, 0, 11), n_corrector=2).nfe
  30
  """
  if norm not in ("sample", "batch"):
    raise ValueError(f"norm is 'sample' or 'batch', got {norm!r}")
  if n_corrector < 0 or not snr > 0:
    raise ValueError(
      f"the corrector needs n_corrector >= 0 and snr > 0, got n_corrector={n_corrector} and snr={snr}"
    )
  if corrector is None:
    corrector, n_corrector = langevin, 0
  predict = predictor is not None
  if not predict and not n_corrector:
    raise ValueError("without a predictor there must be a corrector with n_corrector >= 1, or nothing moves")
  predictor = reverse_diffusion if predictor is None else predictor  # for its times
  # Deterministic predictors have no noise to leave out.
  noisy = {} if denoise or "denoise" not in inspect.signature(predictor).parameters else {"denoise": False}
  table = predictor(process, grid, dtype=dtype, **noisy)
  n = nodes(process, grid, dtype)
  if table.A.shape[-1] != 1 or table.num_steps != n.s.shape[-1]:
    raise ValueError(
      f"a predictor keeps x alone and makes one evaluation a step, but {table.name} has {table.A.shape[-1]} "
      "slots and"
      f" {table.num_steps} rows for {n.s.shape[-1]} steps: take reverse_diffusion, euler_maruyama, "
      "ancestral, ddim or euler"
    )
  scale, sigma = (n.a / n.a1) ** 2, n.s
  return PredictorCorrector(
    table,
    np.asarray(snr, dtype),
    scale.astype(dtype),
    sigma.astype(dtype),
    corrector,
    n_corrector,
    norm,
    predict,
  )
