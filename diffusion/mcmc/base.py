"""What a Markov chain is here, and the one `lax.scan` that runs every kernel."""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


class Kernel(Protocol):
  """A Markov transition of C chains at once: a pytree with these two methods.

  Whatever changes numbers and not the program (step sizes, parameters of the target) is a leaf, so another
  step size compiles nothing; a kernel is made by a lower-case factory that checks its arguments.
  """

  def init(self, x: Any) -> Any:
    """The state of chains at x [C, ...].

    It is a pytree with the position as its field `x`, and whatever else the next step can use.
    """
    ...

  def step(self, state: Any, keys: jax.Array) -> tuple[Any, dict]:
    """One step of every chain: (the next state, info).

    keys [C] are this step's own, and chain c uses keys[c] alone. info is a dict of [C] numbers.
    """
    ...


@struct.dataclass
class Run:
  """What `run` returns.

  state: of the kernel after the last step; samples: [num_steps / thin, C, ...], or None where none were asked
  for; info: the mean over all steps of what the kernel reports, each [C] float32.
  """

  state: Any
  samples: Any
  info: dict

  @property
  def x(self) -> Any:
    """The last positions, [C, ...]."""
    return self.state.x


def run(
  kernel: Kernel, x: Any, keys: jax.Array, num_steps: int, *, thin: int | None = None, first: int = 0
) -> Run:
  """Runs C chains for num_steps steps.

  Chain c depends on (x[c], keys[c]) alone, whatever the number of chains. Continuing with `first` steps
  already made gives bit for bit what one longer run gives, where the state follows from x.

  Args:
    kernel: see `Kernel`.
    x: [C, ...] where the chains start.
    keys: [C] typed keys, one a chain; or one key, of which chain c takes `fold_in(key, c)`.
    num_steps: how many steps, one program a number.
    thin: keep every thin-th position, from the thin-th on; None keeps none.
    first: how many steps these chains have already made with these keys.

  Raises:
    ValueError, TypeError: numbers below one, a num_steps that thin does not divide, keys that do not fit x,
      something that is no kernel.

  >>> @struct.dataclass
  ... class Walk:
  ...   x: jax.Array
  ...   def init(self, x): return Walk(x)
  ...   def step(self, state, keys):
  ...     step = jax.vmap(jax.random.normal)(keys)
  ...     return Walk(state.x + step), {"moved": jnp.abs(step)}
  >>> done = run(Walk(jnp.zeros(3)), jnp.zeros(3), jax.random.key(0), 100, thin=10)
  >>> done.samples.shape, bool((done.samples[-1] == done.x).all())
  ((10, 3), True)
  """
  x = jnp.asarray(x)
  if not (callable(getattr(kernel, "init", None)) and callable(getattr(kernel, "step", None))):
    raise TypeError(
      "a kernel has init(x) and step(state, keys), such as mcmc.langevin(score, 0.1); got "
      f"{type(kernel).__name__}"
    )
  for name, number in (("num_steps", num_steps), ("thin", 1 if thin is None else thin)):
    if not isinstance(number, int) or number < 1:
      raise ValueError(f"run makes {name}=1 or more steps, got {number!r}")
  if thin is not None and num_steps % thin:
    raise ValueError(
      f"thin={thin} does not divide num_steps={num_steps}: take {num_steps - num_steps % thin or thin} steps"
    )
  return _run(kernel, x, chain_keys(keys, x), jnp.asarray(first, jnp.int32), num_steps=num_steps, thin=thin)


def chain_keys(keys: jax.Array, x: Any) -> jax.Array:
  """Typed keys [C], one a chain of x [C, ...]: as they are, or folded from one.

  Raises TypeError for keys that are not typed, ValueError for shapes that do not fit.
  """
  if not jnp.issubdtype(getattr(keys, "dtype", np.float32), jax.dtypes.prng_key):
    raise TypeError(
      f"keys are typed keys such as jax.random.split(jax.random.key(0), {x.shape[0] if x.ndim else 'C'}), "
      f"got {keys!r}"
    )
  if x.ndim < 1:
    raise ValueError("x is [C, ...], one row a chain, got a single number: write x[None]")
  if keys.ndim == 0:
    return fold(jnp.broadcast_to(keys, x.shape[:1]), jnp.arange(x.shape[0]))
  if keys.shape != x.shape[:1]:
    raise ValueError(
      f"there are {x.shape[0]} chains and keys of shape {keys.shape}: give one key a chain, or one key for "
      "all"
    )
  return keys


def fold(keys: jax.Array, data: Any) -> jax.Array:
  """Keys [C] with a number, or one a chain, folded in.

  They are a step's own keys, and one for each purpose within a step.

  >>> fold(jax.random.split(jax.random.key(0), 2), 1).shape
  (2,)
  """
  return jax.vmap(jax.random.fold_in)(keys, jnp.broadcast_to(data, keys.shape))


@functools.partial(jax.jit, static_argnames=("num_steps", "thin"))
def _run(kernel, x, keys, first, *, num_steps, thin):
  def step(carry, number):
    state, total = carry
    state, info = kernel.step(state, fold(keys, number))
    total = jax.tree.map(lambda sum_, value: sum_ + value.astype(jnp.float32), total, info)
    return (state, total), None

  def kept(carry, number):
    carry, _ = jax.lax.scan(step, carry, number + jnp.arange(thin))
    return carry, carry[0].x

  state = kernel.init(x)
  info = jax.eval_shape(lambda: kernel.step(state, keys)[1])
  carry = (state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), info))
  if thin is None:
    (state, total), samples = jax.lax.scan(step, carry, first + jnp.arange(num_steps))
  else:
    (state, total), samples = jax.lax.scan(kept, carry, first + thin * jnp.arange(num_steps // thin))
  return Run(state, samples, jax.tree.map(lambda leaf: leaf / num_steps, total))
