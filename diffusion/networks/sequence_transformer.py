"""A transformer for sequences of whole numbers: tokens in, logits out."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.attention import dot_product
from diffusion.networks.dit import modulation
from diffusion.networks.embeddings import Condition, NoiseEmbedding
from diffusion.networks.layers import check_inputs, layer_norm, placed
from diffusion.networks.rotary import rotary_angles, rotate


class SequenceTransformer(nn.Module):
  """Transformer over tokens: x [B, L] int and t [B] -> logits [B, L, K], in float32, for any L.

  Positions are rotary (arXiv:2104.09864), so that attention knows distances alone. Layer norms are adaptive
  in time and condition, with gates that start at zero, as in the DiT; with `time=False` the network ignores
  t, as a masked model may (arXiv:2406.07524, section 3.2), and without conditions too its norms have learned
  scales of their own. The tokens' vectors are the rows of the last layer as well (`tied`).

  With `causal=True` the logits of place i see the tokens before i alone, whatever stands at i and after: the
  tokens enter moved on by one, after the value K that begins a sequence. It then states the view
  'next_logits', which `losses.next_token` trains.

  Attributes:
    num_values: K, of the output.
    num_inputs: values that a token of x may take; 0 for K + 1, the values and the mask.
    width: features of a token; num_heads must divide it into even parts.
    depth, num_heads, mlp_ratio: number of blocks, attention heads, and hidden features of a block's MLP over
      `width`.
    time: whether the network is told t.
    causal: whether the logits of a place see what comes before it alone.
    neighbours: how many places to each side (to the left, where it is causal) each block mixes in before its
      attention and its MLP, feature by feature, with weights that start at zero: spelling is then learned
      at once, which attention finds late. 0 for none.
    tied: whether the vectors of the values are the rows of the last layer too.
    rope_base: the slowest rotary frequency is about 1 / rope_base; it and `rope_scale` may be changed after
      training, for longer sequences (arXiv:2506.14429).
    rope_scale: what positions are divided by.
    embedding, fourier_scale: of the time, as in `MLP`.
    num_classes, vector_size, guidance_size: sizes of the conditions, as in `MLP`.
    dropout: rate after attention and inside the MLP, drawn from the rng 'dropout' when train=True.
    dtype, param_dtype: of the computation and of the parameters; embeddings of time, softmax, normalisation
      statistics and the logits stay in float32.
    remat: recompute the blocks in the backward pass instead of storing them.

  Raises ValueError for a t that is not [B], an x that is not whole numbers [B, L], a width that the heads do
  not divide, or a condition that the network was not built for.

  >>> net = SequenceTransformer(num_values=5, width=8, depth=1, num_heads=2)
  >>> x, t = jnp.array([[0, 3, 5, 1]]), jnp.full(1, 0.5)
  >>> logits, _ = jax.jit(net.init_with_output)(jax.random.key(0), x, t)
  >>> logits.shape, logits.dtype
  ((1, 4, 5), dtype('float32'))
  """

  num_values: int
  num_inputs: int = 0
  width: int = 256
  depth: int = 6
  num_heads: int = 4
  mlp_ratio: float = 4.0
  time: bool = True
  causal: bool = False
  neighbours: int = 0
  tied: bool = True
  rope_base: float = 10000.0
  rope_scale: float = 1.0
  embedding: str = "fourier"
  fourier_scale: float = 1.0
  num_classes: int = 0
  vector_size: int = 0
  guidance_size: int = 0
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  @property
  def views(self) -> tuple[str, ...]:
    """'next_logits' where it is causal: what its parameterisation does not say of it."""
    return ("next_logits",) if self.causal else ()

  def next_logits(self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None) -> jax.Array:
    """Logits [B, L, K] of each token given those before it, in evaluation.

    Raises ValueError for a network that is not causal.
    """
    if not self.causal:
      raise ValueError("SequenceTransformer has next_logits with causal=True alone")
    return self(x, t, cond)

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """Logits [B, L, K] at x [B, L] int, t [B]."""
    check_inputs(x, t, (2,), "SequenceTransformer")
    self._check(x)
    precision: dict[str, Any] = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
    embedding = self._told(t, cond, precision)
    if self.causal:
      begin = jnp.full((x.shape[0], 1), self.num_values, x.dtype)
      x = jnp.concatenate([begin, x[:, :-1]], axis=1)
    inputs = self.num_inputs or self.num_values + 1
    table = self.param(
      "values", nn.initializers.normal(0.02), (inputs, self.width), precision["param_dtype"]
    ).astype(precision["dtype"])
    h = placed(table[x])
    # In float32 whatever the network computes in: bfloat16 would not tell distant positions apart.
    angles = rotary_angles(
      jnp.arange(x.shape[1], dtype=at_least_single(self.dtype)),
      self.width // self.num_heads,
      self.rope_base,
      self.rope_scale,
    )
    block = nn.remat(Block) if self.remat else Block
    for i in range(self.depth):
      h = block(
        self.num_heads,
        self.mlp_ratio,
        self.causal,
        self.neighbours,
        1.0 / (2 * self.depth),
        self.dropout,
        not train,
        name=f"block_{i}",
        **precision,
      )(h, angles, embedding)
    norm, _ = normalised(h, embedding, 1, "last", precision)
    h = norm(h)
    wide = at_least_single(self.dtype)
    if not self.tied:
      h = nn.Dense(self.num_values, kernel_init=nn.initializers.zeros, name="last", **precision)(h)
      return h.astype(wide)
    logits = jnp.einsum("blc,kc->blk", h, table[: self.num_values], preferred_element_type=wide)
    bias = self.param("bias", nn.initializers.zeros, (self.num_values,), precision["param_dtype"])
    return logits + bias.astype(wide)[None, None, :]

  def _check(self, x):
    """Raises ValueError for tokens or sizes that do not fit."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError(f"SequenceTransformer takes whole numbers x [B, L], got {x.dtype}")
    if self.width % (2 * self.num_heads):
      raise ValueError(
        f"SequenceTransformer: 2 * num_heads={2 * self.num_heads} must divide width={self.width}, for rotary "
        "positions turn pairs of features."
      )
    if self.num_inputs and self.num_inputs < self.num_values + self.causal:
      raise ValueError(
        f"SequenceTransformer: num_inputs={self.num_inputs} must hold the num_values={self.num_values} "
        "values" + (" and the one that begins a sequence" if self.causal else "") + "; 0 is one more."
      )

  def _told(self, t, cond, precision):
    """The embedding [B, width] of time and condition; None where the network is told neither."""
    sizes = (self.num_classes, self.vector_size, self.guidance_size)
    if self.time:
      size = max(self.width // 4, 4)
      found = NoiseEmbedding(
        self.width, size, self.embedding, self.fourier_scale, *sizes, name="noise", **precision
      )(t, cond)
    else:
      wide = precision | dict(dtype=at_least_single(self.dtype))
      found = Condition(self.width, *sizes, name="condition", **wide)(cond, t.shape[0])
    return None if found is None else nn.swish(found).astype(precision["dtype"])


class Block(nn.Module):
  """Attention and MLP, each added: h [B, L, width], angles [L, d / 2] -> [B, L, width].

  With an embedding [B, E] norms and gates follow it, the gates from zero; without one norms have scales, and
  the layers that are added start smaller, by the square root of `added` (GPT-2's rule).
  """

  num_heads: int
  mlp_ratio: float
  causal: bool
  neighbours: int
  added: float
  dropout: float
  deterministic: bool
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array, angles: jax.Array, embedding: jax.Array | None) -> jax.Array:
    width, precision = h.shape[-1], dict(dtype=self.dtype, param_dtype=self.param_dtype)
    drop = nn.Dropout(self.dropout, deterministic=self.deterministic)
    scale = 1.0 if embedding is not None else self.added

    def dense(features, name, scale=1.0):
      init = nn.initializers.variance_scaling(scale, "fan_avg", "uniform")
      return nn.Dense(features, kernel_init=init, use_bias=False, name=name, **precision)

    def mixed(h, name):
      if not self.neighbours:
        return h
      return Neighbours(self.neighbours, self.causal, name=name, **precision)(h)

    norm, gate = normalised(h, embedding, 0, "attention", precision)
    inner = dense(3 * width, "query_key_value")(mixed(norm(h), "attention_neighbours"))
    inner = inner.reshape(*h.shape[:2], 3, self.num_heads, width // self.num_heads)
    query, key = rotate(inner[:, :, 0], angles), rotate(inner[:, :, 1], angles)
    inner = dot_product(query, key, inner[:, :, 2], causal=self.causal).reshape(h.shape)
    h = placed(h + gate(drop(dense(width, "out", scale)(inner))))

    norm, gate = normalised(h, embedding, 0, "mlp", precision)
    inner = dense(round(self.mlp_ratio * width), "dense_0")(mixed(norm(h), "mlp_neighbours"))
    inner = drop(nn.gelu(inner))
    return placed(h + gate(dense(width, "dense_1", scale)(inner)))


def normalised(
  h: jax.Array, embedding: jax.Array | None, last: int, name: str, precision: dict[str, Any]
) -> tuple[Callable[[jax.Array], jax.Array], Callable[[jax.Array], jax.Array]]:
  """(the layer norm before a layer, the gate after it), within a module's compact method.

  Args:
    h: [B, L, width].
    embedding: [B, E], which gives shift, scale and gate; None for a learned scale alone.
    last: 1 for no gate.
    name: of the parameters.
    precision: dtype and param_dtype.
  """
  width, dtype = h.shape[-1], precision["dtype"]
  if embedding is not None:
    found = modulation(3 - last, width, f"{name}_modulation", precision)(embedding)
    shift, scale, gate = found if not last else (*found, None)
    return lambda h: layer_norm(h, dtype) * (1 + scale) + shift, lambda h: h if gate is None else gate * h
  scale = _Scale(name=f"{name}_norm", **precision)(width)
  return lambda h: layer_norm(h, dtype) * scale, lambda h: h


class _Scale(nn.Module):
  """A learned scale [1, 1, width] that starts at one."""

  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, width: int) -> jax.Array:
    scale = self.param("scale", nn.initializers.ones, (width,), self.param_dtype)
    return scale.astype(self.dtype)[None, None, :]


class Neighbours(nn.Module):
  """h [B, L, width] plus a sum of its neighbours, each feature with weights of its own that start at zero.

  What lies outside of the sequence counts as zero.
  """

  reach: int
  causal: bool
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    after = 0 if self.causal else self.reach
    offsets = [offset for offset in range(-self.reach, after + 1) if offset]
    weights = self.param("weights", nn.initializers.zeros, (len(offsets), h.shape[-1]), self.param_dtype)
    padded = jnp.pad(h, ((0, 0), (self.reach, after), (0, 0)))
    total = h
    for offset, weight in zip(offsets, weights.astype(self.dtype)):
      moved = jax.lax.dynamic_slice_in_dim(padded, self.reach + offset, h.shape[1], axis=1)
      total = total + weight[None, None, :] * moved
    return total
