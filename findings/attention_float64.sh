#!/usr/bin/env bash
# jax 0.10.2: jax.nn.dot_product_attention of float64 arrays is of dtype float64 and right to float32 alone.
#
# Expected: with jax_enable_x64 and float64 queries, keys and values the result is right to 1e-15 or so, like einsum
# and softmax of the same arrays.
# Seen: the logits are asked for in float32 (preferred_element_type) and the softmax is in float32, whatever the inputs
# are; the result is cast back to float64 and wrong by 1e-7. Nothing says so.
# Hurts: a check of a transformer in float64 (an order of convergence, a finite difference, a law of probabilities) stops
# at 1e-7 and looks like a fault of the network. Ours takes the formula itself where arrays are float64.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "jax==0.10.2" "jaxlib==0.10.2" "numpy==2.4.6"
cat > "$work/seen.py" <<'PY'
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
query, key, value = (rng.normal(size=(1, 16, 2, 8)) for _ in range(3))
logits = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(8)
weights = np.exp(logits - logits.max(-1, keepdims=True))
weights /= weights.sum(-1, keepdims=True)
exact = np.einsum("bhqk,bkhd->bqhd", weights, value)

arrays = [jnp.asarray(array) for array in (query, key, value)]
theirs = jax.nn.dot_product_attention(*arrays)
logits = jnp.einsum("bqhd,bkhd->bhqk", *arrays[:2], precision="highest") / np.sqrt(8)
formula = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits, axis=-1), arrays[2], precision="highest")
error = lambda found: float(np.abs(np.asarray(found) - exact).max())
print("jax", jax.__version__, "attention", theirs.dtype, f"{error(theirs):.0e}", "formula", f"{error(formula):.0e}")
assert theirs.dtype == np.float64 and 1e-9 < error(theirs) < 1e-6 and error(formula) < 1e-14
PY
JAX_PLATFORMS=cpu "$work/venv/bin/python" "$work/seen.py"
echo "as stated"
# Output seen:
# jax 0.10.2 attention float64 1e-07 formula 7e-16
# as stated
