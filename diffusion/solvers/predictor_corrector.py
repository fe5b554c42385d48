"""The predictor-corrector sampler of Score SDE, whose Langevin step is sized by norms and so is no table."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.mcmc.langevin_step import langevin_step
from diffusion.processes import expand
from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import Described, PostStep, both, finished, row_at
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.reverse_diffusion import reverse_diffusion
from diffusion.solvers.table import State, Table


def langevin(
  x: jax.Array, score: jax.Array, z: jax.Array, snr: Any, scale: Any, sigma: Any, norm: str
) -> jax.Array:
  """x + h score + sqrt(2 h) z with h = 2 scale (snr |z| / |score|)^2 (arXiv:2011.13456, algorithms 4 and 5).

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


def annealed(
  x: jax.Array, score: jax.Array, z: jax.Array, snr: Any, scale: Any, sigma: Any, norm: str
) -> jax.Array:
  """The same with h = 2 scale (snr sigma)^2, which needs no norms (Score SDE's "ALD" corrector)."""
  del norm
  return _move(x, score, z, 2 * scale * (snr * sigma) ** 2)


def _move(x: jax.Array, score: jax.Array, z: jax.Array, h: jax.Array) -> jax.Array:
  return langevin_step(x, score, z, expand(jnp.broadcast_to(h, x.shape[:1]), x))


@struct.dataclass
class PredictorCorrector(Described):
  """The predictor-corrector sampler; see `predictor_corrector`.

  A step is n_corrector evaluations of the corrector and one of the predictor. [...] is () or [B].

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

  stochastic: ClassVar[bool] = True

  @property
  def order(self) -> None:
    """None is claimed."""

  @property
  def each(self) -> int:
    """Evaluations a step."""
    return self.n_corrector + self.predict

  @property
  def num_steps(self) -> int:
    """Evaluations: N (n_corrector + 1), or N n_corrector without a predictor."""
    return self.table.num_steps * self.each

  @property
  def times(self) -> Any:
    """The predictor's grid."""
    return self.table.t

  @property
  def about(self) -> About:
    """The predictor's, for its process."""
    return self.table.about

  @property
  def views(self) -> tuple[str, ...]:
    """The corrector's score, the predictor's view."""
    return both(("score",) if self.n_corrector else (), (self.table.view,) if self.predict else ())

  @property
  def name(self) -> str:
    """What messages call it."""
    predictor = self.table.name if self.predict else "no predictor"
    return predictor + (
      f" + {self.n_corrector} {self.corrector.__name__} (norm={self.norm})" if self.n_corrector else " alone"
    )

  def begin(self, x: jax.Array, keys: jax.Array | None) -> State:
    """The predictor's state."""
    return self.table.begin(x, keys)

  def ask(self, state: State, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at the time of the step that evaluation i belongs to."""
    return state.x, self.table.time(i // self.each, state.x), self.views

  def tell(
    self, state: State, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> State:
    """The corrector's moves at t_i one after another, then the predictor's from t_i to t_i+1."""
    step, move = i // self.each, i % self.each
    predict = lambda: self.table.tell(state, step, prediction, keys, post_step)
    correct = lambda: self._corrected(state, step, move, prediction, keys, post_step)
    if not self.n_corrector:
      return predict()
    return jax.lax.cond(move < self.n_corrector, correct, predict) if self.predict else correct()

  def _corrected(self, state, step, move, prediction, keys, post_step):
    x = state.x
    row = lambda leaf: row_at(leaf, step, 0, x.dtype)
    # Odd purposes are the moves' noise, even ones their hook's.
    purpose = randomness.CORRECTOR + 2 * move
    z, score = randomness.normal(keys, step + 1, purpose, x), prediction.score.astype(x.dtype)
    snr = jnp.asarray(self.snr, x.dtype)
    x = self.corrector(x, score, z, snr, row(self.scale), row(self.sigma), self.norm)
    t = self.table.time(step, x)
    x = finished(post_step, x, t, keys, step + 1, prediction, purpose + 1)
    return State(x, (x,))

  def end(self, state: State) -> jax.Array:
    """The newest x: [B, ...]."""
    return self.table.end(state)

  def denoised(self, process: Any) -> "PredictorCorrector":
    """The sampler with a last step at the last node: see `with_denoising`.

    Its predictor returns the posterior mean there.
    """
    last = lambda leaf, value: np.append(np.asarray(leaf), np.asarray(value, np.asarray(leaf).dtype))
    sigma = process.marginal(float(np.asarray(self.table.t)[-1])).sigma
    table = self.table.denoised(process)
    return self.replace(table=table, scale=last(self.scale, 1.0), sigma=last(self.sigma, sigma))

  def __str__(self) -> str:
    head = f"{self.name}: no order claimed, {self.cost} evaluations"
    return f"{head}\npredictor {self.table}" if self.predict else head


def predictor_corrector(
  process: Any,
  grid: Any,
  *,
  predictor: Callable[..., Table] | None = reverse_diffusion,
  corrector: Callable[..., Any] | None = langevin,
  snr: float = 0.16,
  n_corrector: int = 1,
  norm: str = "sample",
  denoise: bool = True,
  dtype: Any = np.float32,
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
    denoise: whether the last predictor step adds no noise; False is for predictors with that option,
      `reverse_diffusion` and `euler_maruyama`.
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid, norm, snr or count, a predictor with more than one slot, or neither predictor nor
      corrector.

  >>> from diffusion import processes
  >>> predictor_corrector(processes.ve(), np.linspace(1, 0, 11), n_corrector=2).cost
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
  table = predictor(process, grid, dtype=dtype, **({} if denoise else {"denoise": False}))
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
