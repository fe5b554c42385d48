"""The posterior of a mixture of Gaussians under a linear measurement with Gaussian noise: a mixture again."""

from typing import Any

import numpy as np

from diffusion.oracles.mixture import GaussianMixture, gaussian_mixture


def conditioned(
  process: Any, weights: Any, means: Any, covariances: Any, matrix: Any, y: Any, noise: float
) -> GaussianMixture:
  """The oracle of p(x | y) for x from a mixture and y = matrix x + noise z, on the host in float64.

  Component k keeps its mean m_k + K (y - A m_k) and covariance S_k - K A S_k with K = S_k A^T (A S_k A^T +
  noise^2)^-1, and gets the weight w_k N(y; A m_k, A S_k A^T + noise^2).

  Args:
    process, weights, means [K, D], covariances: of `gaussian_mixture`.
    matrix: [M, D].
    y: [M], one measurement.
    noise: standard deviation, above zero.

  Raises:
    ValueError: shapes that do not fit, or no noise.

  >>> from diffusion import processes
  >>> posterior = conditioned(processes.edm(), None, [[0.0, 0.0]], 1.0, [[1.0, 0.0]], [1.0], 1.0)
  >>> posterior.means.tolist(), np.sort(posterior.eigenvalues[0]).tolist()
  ([[0.5, 0.0]], [0.5, 1.0])
  """
  means, matrix, y = np.asarray(means, np.float64), np.asarray(matrix, np.float64), np.asarray(y, np.float64)
  if means.ndim != 2 or matrix.shape != (y.size, means.shape[1]) or y.ndim != 1:
    raise ValueError(
      f"means [K, D], matrix [M, D] and y [M] do not fit: got {means.shape}, {matrix.shape} and {y.shape}"
    )
  if not noise > 0:
    raise ValueError(
      f"the measurement needs noise above zero for its posterior to have a density, got {noise}"
    )
  count, dim = means.shape
  weights = np.ones(count) if weights is None else np.asarray(weights, np.float64)
  covariances = [covariances] * count if np.ndim(covariances) == 0 else list(covariances)
  log_weights, new_means, new_covariances = [], [], []
  for weight, mean, covariance in zip(weights, means, covariances):
    covariance = np.asarray(covariance, np.float64)
    covariance = covariance if covariance.ndim == 2 else np.diag(np.broadcast_to(covariance, dim))
    of_y = matrix @ covariance @ matrix.T + noise**2 * np.eye(y.size)
    gain = np.linalg.solve(of_y, matrix @ covariance).T
    residual = y - matrix @ mean
    new_means.append(mean + gain @ residual)
    kept = np.eye(dim) - gain @ matrix  # Joseph's form stays symmetric and positive
    new_covariances.append(kept @ covariance @ kept.T + noise**2 * gain @ gain.T)
    with np.errstate(divide="ignore"):
      log_weights.append(
        np.log(weight) - 0.5 * (residual @ np.linalg.solve(of_y, residual) + np.linalg.slogdet(of_y)[1])
      )
  log_weights = np.array(log_weights)
  return gaussian_mixture(process, np.exp(log_weights - log_weights.max()), new_means, new_covariances)
