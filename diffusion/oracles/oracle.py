"""What every oracle is: a denoiser without parameters whose answers are exact."""

from typing import Any, ClassVar

import jax

from diffusion.denoisers import Prediction, WithoutParameters, check_views


class Oracle(WithoutParameters):
  """The base of oracles. A subclass has a `process` and `log_prob`, and says what else it answers.

  Attributes:
    posterior_views: views that its `_posterior_views` gives, posterior means of the process's targets.
    methods: methods (x, t, cond) that answer the view of their name.
  """

  posterior_views: ClassVar[tuple[str, ...]] = ()
  methods: ClassVar[tuple[str, ...]] = ()

  @property
  def views(self) -> tuple[str, ...]:
    """All that it can answer."""
    return (*self.posterior_views, *self.methods)

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("x0", "eps"),
    key: jax.Array | None = None,
    train: bool = False,
  ) -> Prediction:
    """The exact views at x: [B, ...], t: [B]; `key` and `train` change nothing. See `denoisers.Denoiser`."""
    check_views(views, self.views)
    means = tuple(view for view in views if view in self.posterior_views)
    found = self._posterior_views(x, t, cond, means) if means else Prediction()
    return found.replace(**{view: getattr(self, view)(x, t, cond) for view in views if view in self.methods})

  def energy(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """-log p_t(x) in nats: [B]."""
    return -self.log_prob(x, t, cond)

  def log_prob(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """log p_t(x) in nats: [B]; each oracle has its own."""
    raise TypeError(f"{type(self).__name__} has no log_prob: write one")

  def _posterior_views(self, x, t, cond, views) -> Prediction:
    """The posterior means of these views at x_t; each oracle that has any has its own."""
    raise TypeError(f"{type(self).__name__} has no posterior means of {views}: write `_posterior_views`")
