"""Placement of a network's activations on many devices.

A question that networks ask, and that whoever spreads the work answers.

Networks know of no devices. They hand the output of each block through `placed`, which is the identity unless
it is called inside `placing`; the training step calls it with the rule of `training.sharding`.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax

_rule: contextvars.ContextVar[Callable[[jax.Array], jax.Array] | None] = contextvars.ContextVar(
  "placing", default=None
)


def placed(h: jax.Array) -> jax.Array:
  """h [B, ..., C], laid out by the rule in force.

  >>> placed(3.0)
  3.0
  """
  rule = _rule.get()
  return h if rule is None else rule(h)


@contextlib.contextmanager
def placing(rule: Callable[[jax.Array], jax.Array]) -> Iterator[None]:
  """A context in which a network that is traced lays its activations out by `rule`.

  >>> with placing(lambda h: -h):
  ...   placed(3.0)
  -3.0
  """
  token = _rule.set(rule)
  try:
    yield
  finally:
    _rule.reset(token)
