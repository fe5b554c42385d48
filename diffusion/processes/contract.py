"""What every process is: Gaussian noise, a path between two data sets, noise for whole numbers."""

from typing import Any, NamedTuple, Protocol

import jax


class Rate(NamedTuple):
  """A number that changes with time, and its time derivative, both shaped like t."""

  value: Any
  slope: Any


class Process(Protocol):
  """How data become noise, or one data set becomes another, as a pytree: numbers that may change are leaves.

  Time runs from data, at `t_min`, to what sampling starts from, at `t_max`. Functions of t compute on the
  device for a JAX array and in float64 on the host for anything else. `processes.check` tests what is
  stated here.

  Attributes:
    name: what messages call it.
    kind: 'gaussian', 'two_ended' or 'discrete'.
    ends: what lies at t_min and at t_max: 'data' is read from the batch, as x0 and as x1; anything else is
      drawn.
    t_min, t_max: where sampling stops by default and where it starts.
    views: what may be asked of a denoiser of this process.
  """

  name: str
  kind: str
  ends: tuple[str, str]
  t_min: Any
  t_max: Any

  @property
  def views(self) -> tuple[str, ...]:
    """What may be asked of a denoiser of this process."""
    ...

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What sampling starts from at t_max: [B, *shape], row i from keys[i] alone.

    Args:
      keys: [B] typed keys, one a sample.
      shape: of ONE sample.
    """
    ...

  def noise(self, keys: jax.Array, x0: jax.Array) -> Any:
    """All randomness of x_t, a pytree of [B, ...] for data like x0: [B, ...], row i from keys[i] alone."""
    ...

  def corrupt(self, x0: Any, noise: Any, t: jax.Array, x1: Any = None) -> jax.Array:
    """The state x_t [B, ...] at times t [B].

    It lies between x0 [B, ...] and, where the process has a second data set, x1 [B, ...].
    """
    ...

  def targets(self, x0: Any, noise: Any, t: jax.Array, x1: Any = None) -> dict[str, jax.Array]:
    """What views regress on, {view: array}.

    The mean of each over everything that leads to x_t is the exact view. Not every view has one: logits do
    not.
    """
    ...

  def views_of(self, kind: str) -> tuple[str, ...]:
    """The views that follow exactly from a network's output of one kind.

    Raises ValueError for an unknown kind.
    """
    ...

  def convert(
    self,
    kind: str,
    output: jax.Array,
    x_t: jax.Array,
    t: jax.Array,
    views: tuple[str, ...],
    data_std: Any = 1.0,
  ) -> dict[str, jax.Array]:
    """Views of x_t from a network's output of one kind, each straight from it.

    x_t is [B, ...] and t is [B]. Returns {view: array}.
    """
    ...

  def rates(self, t: Any) -> dict[str, Rate]:
    """Every number of the process that depends on time, by its name, with its time derivative."""
    ...

  def level(self, t: Any) -> Any:
    """The noise level at times t, increasing in t and shaped like it: 0 or little at data."""
    ...

  def t_of_level(self, level: Any) -> Any:
    """The time at which the noise level has this value: the inverse of `level`."""
    ...

  def default_grid(self, n: int) -> Any:
    """A grid of n + 1 decreasing times from t_max towards data, float64 on the host.

    Raises ValueError for n below 1.
    """
    ...


def is_gaussian(process: Any) -> bool:
  """Whether it is a Gaussian process; None, and what else a caller may give by mistake, is none."""
  return getattr(process, "kind", None) == "gaussian"


def check_steps(n: int) -> None:
  """Raises ValueError unless n counts at least one step."""
  if int(n) != n or n < 1:
    raise ValueError(f"the number of steps must be a whole number of at least 1, got {n}")
