"""A mixture whose classes, posteriors and conditional models are known, for the tests of guidance."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes

VIEWS = ("x0", "eps", "score", "v", "velocity")
MEANS = [[-1.0, 0.3], [1.0, 0.0], [0.2, 1.5], [0.0, -1.0]]


WEIGHTS, LABELS = np.array([0.1, 0.4, 0.2, 0.3]), [0, 1, 2, 0]
COVARIANCES = [np.diag([0.2, 0.3]), np.array([[0.3, 0.1], [0.1, 0.2]]), 0.15 * np.eye(2), 0.4 * np.eye(2)]


def mixture(name="edm", classes=(0, 1, 2)):
  """Four Gaussians of three classes, or those of some classes alone."""
  weights = np.where(np.isin(LABELS, classes), WEIGHTS, 0.0)
  return oracles.gaussian_mixture(processes.PROCESSES[name](), weights, MEANS, COVARIANCES, labels=LABELS)


def posterior(oracle, x, t, cond):
  """log p(class | x_t) of the class asked for."""
  return jnp.log(
    jnp.sum(
      jnp.where(
        oracle.labels[None, :] == cond["label"][:, None].astype(jnp.int32), oracle.responsibilities(x, t), 0.0
      ),
      axis=1,
    )
  )


def class_logits(oracle, x, t, cond=None):
  """log p(class | x_t) of classes 0 and 1."""
  del cond
  r = oracle.responsibilities(x, t)
  return jnp.log(jnp.stack([r[:, 0] + r[:, 3], r[:, 1]], axis=1))


def points(dtype=jnp.float32):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), dtype)
  return x, jnp.asarray([0.05, 0.3, 0.7, 0.9, 0.5], dtype), {"label": jnp.asarray([0, 1, 2, 1, 0])}


# The views follow from one table, which the tests of denoisers hold against every process: one with alpha
# below 1 here, all when slow.
EACH_PROCESS = pytest.mark.parametrize(
  "process",
  [pytest.param(name, marks=() if name == "vp_cosine" else pytest.mark.slow) for name in processes.PROCESSES],
)
