"""The conversion table: how each view of a prediction follows from the raw output of each kind of network."""

from collections.abc import Callable
from typing import Any

GAUSSIAN_VIEWS = ("x0", "eps", "score", "v", "velocity")

VARIANCE_FRACTION = "variance_fraction"
"""View of a network that learned the variance of its reverse steps, [B, ...].

It is the fraction of the way from log beta~, the variance of q(x' | x, x0), to log beta, that of the forward
step (arXiv:2102.09672, eq. 15). It follows from no other view, and what guidance does to those does not move
it.
"""

# kind of output -> view -> (factor of x_t, factor of the output), from x_t = a x0 + s eps.
# a, s, da, ds: alpha, sigma and their time derivatives; dv: d sigma^2/dt (so that s ds stays finite at s =
# 0).
VIEWS: dict[str, dict[str, Callable[..., tuple[Any, Any]]]] = {
  "x0": {
    "x0": lambda a, s, da, ds, dv: (0.0 * a, a**0),
    "eps": lambda a, s, da, ds, dv: (1 / s, -a / s),
    "score": lambda a, s, da, ds, dv: (-1 / s**2, a / s**2),
    "v": lambda a, s, da, ds, dv: (a / s, -(a**2 + s**2) / s),
    "velocity": lambda a, s, da, ds, dv: (ds / s, da - a * ds / s),
  },
  "eps": {
    "x0": lambda a, s, da, ds, dv: (1 / a, -s / a),
    "eps": lambda a, s, da, ds, dv: (0.0 * a, a**0),
    "score": lambda a, s, da, ds, dv: (0.0 * a, -1 / s),
    "v": lambda a, s, da, ds, dv: (-s / a, (a**2 + s**2) / a),
    "velocity": lambda a, s, da, ds, dv: (da / a, ds - s * da / a),
  },
  "score": {
    "x0": lambda a, s, da, ds, dv: (1 / a, s**2 / a),
    "eps": lambda a, s, da, ds, dv: (0.0 * a, -s),
    "score": lambda a, s, da, ds, dv: (0.0 * a, a**0),
    "v": lambda a, s, da, ds, dv: (-s / a, -s * (a**2 + s**2) / a),
    "velocity": lambda a, s, da, ds, dv: (da / a, s**2 * da / a - 0.5 * dv),
  },
  "v": {
    "x0": lambda a, s, da, ds, dv: (a / (a**2 + s**2), -s / (a**2 + s**2)),
    "eps": lambda a, s, da, ds, dv: (s / (a**2 + s**2), a / (a**2 + s**2)),
    "score": lambda a, s, da, ds, dv: (-1 / (a**2 + s**2), -a / (s * (a**2 + s**2))),
    "v": lambda a, s, da, ds, dv: (0.0 * a, a**0),
    "velocity": lambda a, s, da, ds, dv: (
      (a * da + 0.5 * dv) / (a**2 + s**2),
      (a * ds - s * da) / (a**2 + s**2),
    ),
  },
  "velocity": {
    "x0": lambda a, s, da, ds, dv: (ds / (a * ds - s * da), -s / (a * ds - s * da)),
    "eps": lambda a, s, da, ds, dv: (-da / (a * ds - s * da), a / (a * ds - s * da)),
    "score": lambda a, s, da, ds, dv: (
      da / (s * (a * ds - s * da)),
      -a / (s * (a * ds - s * da)),
    ),
    "v": lambda a, s, da, ds, dv: (
      -(a * da + s * ds) / (a * ds - s * da),
      (a**2 + s**2) / (a * ds - s * da),
    ),
    "velocity": lambda a, s, da, ds, dv: (0.0 * a, a**0),
  },
}


def check_kind(process: Any, kind: str, allowed: tuple[str, ...]) -> None:
  """Raises ValueError for a kind of output that a process does not convert."""
  if kind not in allowed:
    raise ValueError(
      f"'{process.name}' converts outputs of kind {', '.join(allowed)}, got {kind!r}: choose a "
      "parameterisation of these"
    )


def edm_views(d: Any) -> dict[str, Callable[..., tuple[Any, Any]]]:
  """EDM's output F: x0 = c_skip x/a + c_out F at rho = s/a, data std d (arXiv:2206.00364, table 1).

  Written with n = s^2 + a^2 d^2 so that both ends of the process are finite.
  """
  root = lambda a, s: (s**2 + (a * d) ** 2) ** 0.5
  n = lambda a, s: s**2 + (a * d) ** 2
  return {
    "x0": lambda a, s, da, ds, dv: (a * d**2 / n(a, s), s * d / root(a, s)),
    "eps": lambda a, s, da, ds, dv: (s / n(a, s), -a * d / root(a, s)),
    "score": lambda a, s, da, ds, dv: (-1 / n(a, s), a * d / (s * root(a, s))),
    "v": lambda a, s, da, ds, dv: (
      a * s * (1 - d**2) / n(a, s),
      -(a**2 + s**2) * d / root(a, s),
    ),
    "velocity": lambda a, s, da, ds, dv: (
      (a * da * d**2 + 0.5 * dv) / n(a, s),
      d * (s * da - a * ds) / root(a, s),
    ),
  }


def _flipped(views):
  """The table of a network whose output has the opposite sign."""
  flip = lambda rule: lambda *m: (rule(*m)[0], -rule(*m)[1])
  return {name: flip(rule) for name, rule in views.items()}


# score = output / sigma is an eps network with the opposite sign.
VIEWS["scaled_score"] = _flipped(VIEWS["eps"])

KINDS = (*VIEWS, "edm")
