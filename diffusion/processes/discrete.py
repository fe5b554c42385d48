"""What processes of whole numbers share where each coordinate is noised on its own."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.math.precision import at_least_single
from diffusion.processes.base import expand
from diffusion.processes.contract import check_steps
from diffusion.processes.views import check_kind

EXACT = jax.lax.Precision.HIGHEST
MARKOV_VIEWS = ("logits", "probabilities", "ratios", "rates")


class CoordinateNoise:
  """The base of processes under which each coordinate takes other states, whatever its neighbours do.

  A coordinate has K values in the data and S states in x_t: its values, and the mask where there is one.
  The views of x_t [B, ...] are

  - logits [B, ..., K]: log p(x_0 = k | x_t) of each coordinate, normalised, -inf for values that do not
    exist or that cannot become x_t;
  - probabilities [B, ..., K]: the same without the logarithm;
  - ratios [B, ..., S]: p_t(y) / p_t(x_t) for y that is x_t with the coordinate set to k (arXiv:2310.16834,
    eq. 4); 0 for states k that noise never turns into the coordinate's own, of which nothing is said (of a
    coordinate that is not masked, all others);
  - rates [B, ..., S]: the jump rates of the reverse chain from x_t to y, Q_t[k, x_t] p_t(y) / p_t(x_t), 0 at
    the coordinate's own state; per unit of t, so that going back by dt it jumps with probability rates dt
    (arXiv:2205.14987, proposition 1);
  - concrete_score [B, N]: p_t(neighbour) / p_t(x_t) - 1 of a neighbourhood (arXiv:2211.00802), which
    follows from nothing but itself here, for a process has no neighbourhood.

  A subclass has `num_values`, `shape`, `transition` and `generator`; and where matrices would be slow, its
  own `likelihood`, `forward` and `inflow`.

  Attributes:
    num_values: K.
    num_states: S, K or, with a mask, K + 1.
    mask: the state of a masked coordinate, K, or None.
    mixes: whether x_t is x_0 with probability alpha(t), else a draw apart from it: a mixture path.
    markov: whether x_t is a Markov chain in t, so that `transition(s, t)` and `posterior` exist.
    jumps: whether it jumps in continuous time, so that `generator` and the view 'rates' exist.
    follows: kind of output -> the views that follow from it.
  """

  name: str
  t_max: Any
  num_values: int
  shape: tuple[int, ...]
  corrupt: Callable[..., jax.Array]
  transition: Callable[..., Any]
  generator: Callable[..., Any]

  kind: ClassVar[str] = "discrete"
  ends: ClassVar[tuple[str, str]] = ("data", "uniform")
  markov: ClassVar[bool] = True
  mixes: ClassVar[bool] = False
  jumps: ClassVar[bool] = True
  follows: ClassVar[dict[str, tuple[str, ...]]] = {
    "logits": MARKOV_VIEWS,
    "probabilities": MARKOV_VIEWS,
    "ratios": MARKOV_VIEWS,
    "rates": ("rates",),
  }

  @property
  def views(self) -> tuple[str, ...]:
    """What may be asked of a denoiser."""
    return tuple(self.follows)

  @property
  def mask(self) -> int | None:
    """None: no state stands for a masked coordinate."""
    return None

  @property
  def num_states(self) -> int:
    """S, the number of states of a coordinate of x_t."""
    return self.num_values if self.mask is None else self.num_values + 1

  def value_counts(self) -> tuple[int, ...]:
    """The number of values of each coordinate, flattened."""
    return (self.num_values,) * int(np.prod(self.shape))

  def likelihood(self, x: jax.Array, s: jax.Array | None, t: jax.Array) -> jax.Array:
    """q(x_t = x | x_s = k) of each coordinate for every state k: [B, ..., S].

    x is [B, ...] int, t is [B] and s is [B], or None for the data.
    """
    return _columns(self.transition(s, t), x)

  def forward(self, weights: jax.Array, s: jax.Array | None, t: jax.Array) -> jax.Array:
    """Laws of x_s, or any weights [B, ..., S], carried forward to t: [B, ..., S].

    t is [B] and s is [B], or None for the data.
    """
    return jnp.einsum("b...i,bij->b...j", weights, self.transition(s, t), precision=EXACT)

  def inflow(self, x: jax.Array, t: jax.Array) -> jax.Array:
    """The rates Q_t[k, x] of jumps from every other state k to x, 0 at x itself: [B, ..., S]; t [B]."""
    own = jax.nn.one_hot(x, self.num_states, dtype=bool)
    return jnp.where(own, 0.0, _columns(self.generator(t), x))

  def prior_law(self, dtype: Any) -> jax.Array:
    """The law of each coordinate of what sampling starts from: [1, ..., S], to fit [B, ..., S]."""
    raise TypeError(f"{type(self).__name__} does not say what `prior` draws: write `prior_law`")

  def outflow(self, x: jax.Array, t: jax.Array) -> jax.Array:
    """The rates Q_t[x, k] of jumps from x to every other state k, 0 at x itself: [B, ..., S]; t [B]."""
    own, rates = jax.nn.one_hot(x, self.num_states, dtype=bool), self.generator(t)
    return jnp.where(own, 0.0, jax.vmap(lambda matrix, states: matrix[states])(rates, x))

  def sources(self, x: jax.Array) -> jax.Array:
    """Which states the noise can turn into x in some time, x itself among them: bool, [B, ..., S]."""
    return jnp.ones((*x.shape, self.num_states), bool)

  def targets(self, x0: jax.Array, noise: Any, t: jax.Array, x1: None = None) -> dict[str, jax.Array]:
    """What the views regress on: their means given x_t are the exact views.

    'probabilities', the indicator of x_0 [B, ..., K]; 'ratios', those of the kernel q(. | x_0), and 'rates',
    those of the reverse chain given x_0 (arXiv:2407.15595, eq. 14), each [B, ..., S]. Logits regress on
    nothing: they are learned by cross-entropy.
    """
    clean = jax.nn.one_hot(x0, self.num_values, dtype=at_least_single(t.dtype))
    x_t, found = self.corrupt(x0, noise, t, x1), {"probabilities": clean}
    if "ratios" in self.follows["probabilities"]:
      found["ratios"] = self.posterior_ratios(clean, x_t, t)
    if self.jumps:
      found["rates"] = self.posterior_rates(clean, x_t, t)
    return found

  def posterior_ratios(self, probabilities: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """p_t(x_t with the coordinate set to k) / p_t(x_t) [B, ..., S] from p(x_0 = j | x_t) [B, ..., K]; t [B].

    The mean over x_0 of q(k | x_0) / q(x_t | x_0).
    """
    ratios = self.forward(self._weights(probabilities, x_t, t), None, t)
    return jnp.where(self.sources(x_t), ratios, 0.0)

  def posterior_rates(self, probabilities: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """The reverse jump rates from x_t [B, ..., S] from p(x_0 = j | x_t) [B, ..., K]; t [B]."""
    return self.inflow(x_t, t) * self.posterior_ratios(probabilities, x_t, t)

  def posterior(
    self, probabilities: jax.Array, x_t: jax.Array, s: jax.Array | None, t: jax.Array
  ) -> jax.Array:
    """p(x_s = k | x_t) of each coordinate for an earlier time s: [B, ..., S] (arXiv:2107.03006, eq. 3 and 4).

    Args:
      probabilities: p(x_0 = j | x_t) [B, ..., K].
      x_t: [B, ...] int.
      s, t: [B], s <= t; s is None for the data.

    Raises ValueError for a process that is no Markov chain.
    """
    self._check_markov("a posterior at an earlier time")
    weights = self._weights(probabilities, x_t, t)
    earlier = weights if s is None else self.forward(weights, None, s)
    return self.likelihood(x_t, s, t) * earlier

  def views_of(self, kind: str) -> tuple[str, ...]:
    """The views that follow from an output of one kind. Raises ValueError for another kind."""
    check_kind(self, kind, tuple(self.follows))
    return self.follows[kind]

  def convert(
    self,
    kind: str,
    output: jax.Array,
    x_t: jax.Array,
    t: jax.Array,
    views: tuple[str, ...],
    data_std: Any = 1.0,
  ) -> dict[str, jax.Array]:
    """Views of x_t from the raw output of a network, with what is known of x_0 put in.

    Args:
      kind: 'logits' or 'probabilities' [B, ..., K], not necessarily normalised; 'ratios' or 'rates'
        [B, ..., S]; 'concrete_score'.
      output: as `kind` says.
      x_t: [B, ...] int.
      t: [B].
      views: which to give.
      data_std: takes no part.

    Returns:
      {view: array}, in at least float32. Raises ValueError for an output over another number of values.
    """
    del data_std
    output = output.astype(at_least_single(output.dtype))
    if kind == "concrete_score":
      return dict.fromkeys(views, output)
    t, found = t.astype(output.dtype), {}
    check_outputs(self, output, x_t, self.num_states if kind in ("ratios", "rates") else self.num_values)
    if kind in ("ratios", "rates"):
      found[kind] = jnp.where(self.sources(x_t), output, 0.0)
      if set(views) <= {kind}:
        return {view: found[view] for view in views}
      output = self.from_rates(output, x_t, t) if kind == "rates" else self.from_ratios(output, x_t, t)
    log_p = self._known(output if kind == "logits" else jnp.log(output), x_t)
    probabilities = jnp.exp(log_p)
    found = {"logits": log_p, "probabilities": probabilities} | found
    if "ratios" in views and "ratios" not in found:
      found["ratios"] = self.posterior_ratios(probabilities, x_t, t)
    if "rates" in views and "rates" not in found:
      found["rates"] = self.posterior_rates(probabilities, x_t, t)
    return {view: found[view] for view in views}

  def from_ratios(self, ratios: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """p(x_0 = j | x_t) [B, ..., K], up to a factor, from ratios [B, ..., S]; t [B].

    The ratios are w q(. | x_0) with w_j = p(x_0 = j | x_t) / q(x_t | x_0 = j), so that w follows where the
    transition matrix is invertible (arXiv:2310.16834, section 4.2). What is below zero is cut off.
    """
    weights = self.undone(ratios, t) * self.likelihood(x_t, None, t)
    return jnp.maximum(weights, 0.0)[..., : self.num_values]

  def undone(self, ratios: jax.Array, t: jax.Array) -> jax.Array:
    """Weights w [B, ..., S], up to a factor, that noise carries forward to these [B, ..., S]; t [B]."""
    matrix = jnp.swapaxes(self.transition(None, t), -1, -2).astype(ratios.dtype)
    columns = ratios.reshape(ratios.shape[0], -1, ratios.shape[-1])
    solve = jax.vmap(lambda m, r: jnp.linalg.solve(m, r.T).T)
    return solve(matrix, columns).reshape(ratios.shape)

  def from_rates(self, rates: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """p(x_0 = j | x_t) [B, ..., K], up to a factor, from reverse rates where every state jumps to x_t."""
    own, inflow = jax.nn.one_hot(x_t, self.num_states, dtype=bool), self.inflow(x_t, t)
    ratios = jnp.where(own, 1.0, jnp.where(inflow > 0, rates / jnp.where(inflow > 0, inflow, 1.0), 0.0))
    return self.from_ratios(ratios, x_t, t)

  def default_grid(self, n: int) -> np.ndarray:
    """n + 1 times in equal steps from t_max to the data at t = 0.

    Raises ValueError for n below 1.

    >>> from diffusion import processes
    >>> processes.uniform_resample(3).default_grid(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    check_steps(n)
    return np.linspace(float(self.t_max), 0.0, n + 1)

  def _weights(self, probabilities, x_t, t):
    """p(x_0 = j | x_t) / q(x_t | x_0 = j) for every state j, 0 for those that are no value: [B, ..., S]."""
    likelihood = self.likelihood(x_t, None, t)[..., : self.num_values]
    some = (probabilities > 0) & (likelihood > 0)
    weights = jnp.where(some, probabilities / jnp.where(some, likelihood, 1.0), 0.0)
    more = self.num_states - self.num_values
    return jnp.pad(weights, [(0, 0)] * x_t.ndim + [(0, more)])

  def _known(self, log_p, x_t):
    """Normalised log p(x_0 | x_t), -inf for values that cannot become x_t."""
    return jax.nn.log_softmax(jnp.where(self.sources(x_t)[..., : self.num_values], log_p, -jnp.inf), axis=-1)

  def _check_markov(self, what):
    if not self.markov:
      raise ValueError(
        f"'{self.name}' says how x_t comes of x_0 and is no Markov chain in t, so that it has no {what}: "
        "take a process such as uniform_resample for one"
      )


def check_state_shape(process: Any, shape: tuple[int, ...]) -> None:
  """Raises ValueError unless the shape is that of one state of the process."""
  if tuple(shape) != process.shape:
    raise ValueError(
      f"'{process.name}' has states of shape {process.shape}, got the shape {tuple(shape)} of one sample: "
      "give its own"
    )


def check_outputs(process: Any, output: jax.Array, x_t: jax.Array, number: int) -> None:
  """Raises ValueError unless an output is over so many values of each coordinate: [B, ..., number]."""
  wanted = (*x_t.shape, number)
  if output.shape != wanted:
    raise ValueError(
      f"'{process.name}' takes outputs over {number} values a coordinate, of shape {wanted}, got "
      f"{output.shape}: give the network as many outputs"
    )


def coordinates(value: Any, x: jax.Array) -> Any:
  """One number a sample, [B], so that it multiplies an output over values, [B, ..., K] for x: [B, ...].

  >>> coordinates(jnp.ones(3), jnp.ones((3, 8, 2))).shape
  (3, 1, 1, 1)
  """
  return expand(value, x)[..., None]


def each_value(process: Any, x: jax.Array) -> jax.Array:
  """The values 0..K-1 along a new last axis, to compare with x [B, ...]: [1, ..., 1, K] of its dtype."""
  return jnp.arange(process.num_values, dtype=x.dtype).reshape((1,) * x.ndim + (-1,))


def _columns(matrix: jax.Array, x: jax.Array) -> jax.Array:
  """Column x of a matrix [B, S, S] for each coordinate of x [B, ...]: [B, ..., S]."""
  return jax.vmap(lambda own, states: jnp.swapaxes(own, 0, 1)[states])(matrix, x)
