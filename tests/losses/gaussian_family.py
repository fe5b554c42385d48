"""Gaussian data in closed form, and the linear family of denoisers that holds its oracle at the origin."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, losses, oracles

MEAN = (0.4, -0.7)
COVARIANCE = ((0.6, 0.2), (0.2, 0.3))
# Off the oracle, where values and gradients are of order one.
ELSEWHERE = {"matrix": ((0.2, -0.1), (0.15, 0.3)), "offset": (0.5, -0.2)}


def params(values=None, dtype=jnp.float32):
  """The family's parameters: the oracle, or the given values."""
  values = {"matrix": np.zeros((2, 2)), "offset": np.zeros(2)} if values is None else values
  return {name: jnp.asarray(value, dtype) for name, value in values.items()}


def noised(process, x, t):
  """Of the data's law at t: alpha and sigma [B, 1], x less the mean [B, 2], inverse covariance [B, 2, 2] and
  determinant [B]."""
  m = process.marginal(t)
  mean, covariance = jnp.asarray(MEAN, x.dtype), jnp.asarray(COVARIANCE, x.dtype)
  alpha, sigma = m.alpha.astype(x.dtype)[:, None], m.sigma.astype(x.dtype)[:, None]
  total = alpha[..., None] ** 2 * covariance[None] + sigma[..., None] ** 2 * jnp.eye(2, dtype=x.dtype)[None]
  # The inverse of a 2 x 2 matrix, by its adjugate.
  determinant = total[:, 0, 0] * total[:, 1, 1] - total[:, 0, 1] ** 2
  adjugate = jnp.stack(
    [jnp.stack([total[:, 1, 1], -total[:, 0, 1]], -1), jnp.stack([-total[:, 0, 1], total[:, 0, 0]], -1)], -2
  )
  return alpha, sigma, x - alpha * mean[None], adjugate / determinant[:, None, None], determinant


def denoiser(process):
  """eps_hat = (sigma C(t)^-1 + matrix / std) (x - alpha m) + offset: the oracle's own at parameters zero."""

  def eps_hat(own, x, t, cond):
    del cond
    alpha, sigma, centred, precision, _ = noised(process, x, t)
    scale = 1.0 / jnp.sqrt(alpha**2 + sigma**2)
    matrix = sigma[..., None] * precision + scale[..., None] * own["matrix"][None]
    return jnp.sum(matrix * centred[:, None, :], -1) + own["offset"][None]

  return denoisers.from_function(eps_hat, process, denoisers.eps(), params())


def energy(process):
  """Minus log p_t at parameters zero; of the matrix it sees the symmetric part, and its score is then the
  denoiser's."""

  def function(own, x, t, cond=None):
    del cond
    alpha, sigma, centred, precision, determinant = noised(process, x, t)
    precision = precision + own["matrix"][None] / (sigma * jnp.sqrt(alpha**2 + sigma**2))[..., None]
    quadratic = 0.5 * jnp.sum(precision * centred[:, None, :] * centred[:, :, None], (1, 2))
    linear = jnp.sum(own["offset"][None] * centred / sigma, 1)
    return quadratic + linear + 0.5 * jnp.log(determinant) + jnp.log(jnp.asarray(2.0 * np.pi, x.dtype))

  return function


def time_score(process):
  """d/dt log p_t at parameters zero, plus a quadratic in x whose six coefficients are the parameters."""

  def function(own, x, t, cond=None):
    del cond
    oracle = oracles.gaussian(process, MEAN, COVARIANCE, x.dtype)
    m = process.marginal(t)
    unit = x / jnp.sqrt(m.alpha**2 + m.sigma**2).astype(x.dtype)[:, None]
    first, second = unit[:, 0], unit[:, 1]
    (a, b), (c, d) = own["matrix"]
    return (
      oracle.time_score(x, t)
      + a * first**2
      + b * first * second
      + c * second**2
      + d
      + jnp.sum(own["offset"][None] * unit, 1)
    )

  return function


def hessian(process):
  """The Hessian of log p_t at parameters zero, plus the symmetric part of the matrix in units of sigma: [B,
  2, 2]."""

  def function(own, x, t, cond=None):
    del cond
    _, sigma, _, precision, _ = noised(process, x, t)
    symmetric = 0.5 * (own["matrix"] + own["matrix"].T)
    return symmetric[None] / sigma[..., None] ** 2 - precision

  return function


def third_derivative(process):
  """Zero at parameters zero; the matrix's entries are the four of a symmetric tensor in units of sigma: [B,
  2, 2, 2]."""

  def function(own, x, t, cond=None):
    del cond
    entries = own["matrix"].reshape(-1)[jnp.asarray([[[0, 1], [1, 2]], [[1, 2], [2, 3]]])]
    return entries[None] / (process.marginal(t).sigma.astype(x.dtype) ** 3)[:, None, None, None]

  return function


def context(process):
  """Of each conditional p_t(x_d | x_<d), linear in x_d: the intercept and slope of its score, with the lower
  triangle of the matrix: [B, 2, 2]."""

  def function(own, x, t, cond=None):
    del cond
    alpha, sigma, centred, precision, determinant = noised(process, x, t)
    unit = 1.0 / (sigma * jnp.sqrt(alpha**2 + sigma**2))
    first = centred[:, :1]
    own_slope = (
      jnp.concatenate([-1.0 / (precision[:, 1:, 1] * determinant[:, None]), -precision[:, 1:, 1]], 1)
      - unit * jnp.diag(own["matrix"])[None]
    )
    of_first = jnp.concatenate([jnp.zeros_like(first), -precision[:, 1:, 0] - unit * own["matrix"][1, 0]], 1)
    intercept = of_first * first - own_slope * (x - centred) - own["offset"][None] / sigma
    return jnp.stack([intercept, own_slope], -1)

  return function


def head(own, x, t, cond=None):
  """The score that a context of `context` says."""
  del own, t
  return cond["context"][..., 0] + cond["context"][..., 1] * x


def visible(objective):
  """Directions [n, 6] of the flat parameters that the objective's field depends on.

  All, or those that keep a symmetric matrix, or those of a matrix without its upper triangle.
  """
  if "context" in objective.needs["model"]:
    return np.delete(np.eye(6), 1, axis=0)
  if "energy" not in objective.needs["model"]:
    return np.eye(6)
  return np.array(
    [[1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1.0]]
  )


def model(process):
  """The family as one denoiser with every view that an objective asks for."""
  return denoisers.extend(
    denoiser(process),
    energy=energy(process),
    time_score=time_score(process),
    hessian=hessian(process),
    third_derivative=third_derivative(process),
    context=context(process),
    head=head,
  )


def roles(process, objective=None):
  """The family as the role 'model', and its oracle as the 'teacher' of an objective that has one."""
  others = {"teacher": denoiser(process)} if objective is not None and "teacher" in objective.needs else {}
  return losses.roles(model=model(process), **others)


def parameters(objective, own, loss_params=None):
  """The parameters that a loss takes: the model's own, and the oracle for a teacher."""
  others = {"teacher": params(dtype=own["offset"].dtype)} if "teacher" in objective.needs else {}
  return {"model": own, "loss": {} if loss_params is None else loss_params, **others}


def bound(process, own, objective=None):
  """{role: denoiser} at the family's parameters."""
  return roles(process, objective)({"model": own} if objective is None else parameters(objective, own), {})


def batch(size, dtype=jnp.float32, seed=0):
  """A sample of the data, with labels."""
  generator = np.random.default_rng(seed)
  x = generator.multivariate_normal(MEAN, COVARIANCE, size)
  return {
    "x": jnp.asarray(x, dtype),
    "cond": {"label": jnp.asarray(generator.integers(0, 5, size), jnp.int32)},
  }


def quadrature(objective, process, t):
  """A draw whose mean over its rows is the expectation over x0 and eps, exact to degree 3 in them.

  Where the objective projects on random directions, it is exact to degree 3 in these too.
  """
  signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
  x0 = np.asarray(MEAN) + signs[:, :2] @ np.linalg.cholesky(np.asarray(COVARIANCE)).T
  x0, eps = jnp.asarray(x0), jnp.asarray(signs[:, 2:])
  times = jnp.full((len(signs),), t)
  state = objective.init(jax.random.key(0))[1]
  cond = {"label": jnp.zeros(len(signs), jnp.int32)}
  draw = objective.draw(jax.random.key(0), {"x": x0, "cond": cond}, times, state)
  draw = draw.replace(noise=eps)
  if "direction" in draw.targets:
    corners = jnp.asarray(
      [[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]
    )  # all of norm sqrt(2): E v v^T = I
    draw = jax.tree.map(lambda leaf: jnp.repeat(leaf, 4, axis=0) if leaf.ndim else leaf, draw)
    draw = draw.replace(targets={"direction": jnp.tile(corners, (16, 1))[:, None]})
  return draw


def high_order(objective):
  """Whether the loss has products of scores and of noises: of degree up to six in (x0, eps), and not of
  degree two in the family."""
  return "hessian" in objective.needs["model"]


def fine_quadrature(process, t):
  """(draw, weights) at one time, exact to degree seven in x0 and eps: Gauss-Hermite with four nodes, for
  `high_order` objectives."""
  nodes, masses = np.polynomial.hermite_e.hermegauss(4)
  grid = lambda values: np.stack(np.meshgrid(*[values] * 4, indexing="ij"), -1).reshape(-1, 4)
  points, weights = grid(nodes), np.prod(grid(masses / masses.sum()), -1)
  x0 = np.asarray(MEAN) + points[:, :2] @ np.linalg.cholesky(np.asarray(COVARIANCE)).T
  x0, eps, times = jnp.asarray(x0), jnp.asarray(points[:, 2:]), jnp.full(len(points), t)
  return losses.Draw(t=times, x0=x0, noise=eps), jnp.asarray(weights)


def expectations(objective, process, times):
  """Pairs of a draw and its rows' weights: the expectation at each time, or over all times where the
  objective integrates.

  An objective that integrates by parts is at rest at the oracle over its whole interval alone, and is of
  degree four in x: Gauss-Hermite of degree five in x0 and eps, Gauss-Legendre between times that are equal in
  log-SNR.
  """
  if high_order(objective):
    return [fine_quadrature(process, t) for t in times]
  if objective.interval is None:
    draws = [quadrature(objective, process, t) for t in times]
    return [(draw, jnp.full_like(draw.t, 1.0 / draw.t.size)) for draw in draws]
  low, high = (float(end) for end in objective.interval)
  inside = process.t_of_log_snr(
    np.linspace(*np.clip(process.log_snr(np.array([low, high])), -10.0, 14.0), 11)
  )
  edges = np.unique(np.clip(np.concatenate([[low], inside, [high]]), low, high))
  u, w = np.polynomial.legendre.leggauss(10)
  t = (edges[:-1, None] + 0.5 * np.diff(edges)[:, None] * (u + 1.0)).ravel()
  w = (0.5 * np.diff(edges)[:, None] * w).ravel() / (high - low)
  z, v = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)]), np.array([1.0, 4.0, 1.0]) / 6.0
  points = np.stack(np.meshgrid(z, z, z, z, indexing="ij"), -1).reshape(-1, 4)
  masses = np.prod(np.stack(np.meshgrid(v, v, v, v, indexing="ij"), -1).reshape(-1, 4), -1)
  directions = np.array([[1.0, 1.0], [1.0, -1.0]])[
    : 2 if "score" in objective.needs["model"] else 1
  ]  # their negatives give the same
  rows = np.stack(
    np.meshgrid(np.arange(81), np.arange(t.size), np.arange(len(directions)), indexing="ij"), -1
  ).reshape(-1, 3)
  points, t = points[rows[:, 0]], jnp.asarray(t[rows[:, 1]])
  weights = jnp.asarray(masses[rows[:, 0]] * w[rows[:, 1]] / len(directions))
  x0 = np.asarray(MEAN) + points[:, :2] @ np.linalg.cholesky(np.asarray(COVARIANCE)).T
  x0, eps = jnp.asarray(x0), jnp.asarray(points[:, 2:])
  draw = losses.Draw(
    t=t,
    x0=x0,
    noise=eps,
    targets={"direction": jnp.asarray(directions[rows[:, 2]])[:, None]},
  )
  return [(draw, weights)]
