#!/usr/bin/env bash
# flax 0.12.8: arrays restored by flax.serialization are read-only, but those above 1 GiB are not.
#
# Expected: from_bytes and msgpack_restore give NumPy arrays like those saved, which can be written.
# Seen: they are views of the read bytes with writeable False; an array above 2^30 bytes, which is saved in pieces, is
# joined into a new one and is writable. So it depends on the size.
# Hurts: NumPy code that updates restored weights in place (an average, a changed layer): ValueError, except for the
# largest table. np.array(leaf) makes a copy that can be written. Takes about 6 GB of memory.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "jax==0.10.2" "jaxlib==0.10.2" "flax==0.12.8" "msgpack==1.2.4" "numpy==2.4.6"
cat > "$work/seen.py" <<'PY'
import flax
import numpy as np
from flax import serialization


def raised(array):
  try:
    array *= 0.5
    return None
  except ValueError as error:
    return str(error)


small = serialization.from_bytes({"w": np.ones(3)}, serialization.to_bytes({"w": np.ones(3)}))["w"]
error = raised(small)
print("flax", flax.__version__, "from_bytes, 24 bytes: writeable", small.flags.writeable, "in place:", error)
assert type(small) is np.ndarray and error == "output array is read-only" and raised(np.array(small)) is None

for count in (2**28, 2**28 + 1):
  content = serialization.msgpack_serialize({"w": np.zeros(count, np.float32)})
  array = serialization.msgpack_restore(content)["w"]
  print("msgpack_restore,", array.nbytes, "bytes: writeable", array.flags.writeable)
  assert array.flags.writeable == (array.nbytes > 2**30)
  del content, array
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# flax 0.12.8 from_bytes, 24 bytes: writeable False in place: output array is read-only
# msgpack_restore, 1073741824 bytes: writeable False
# msgpack_restore, 1073741828 bytes: writeable True
# as stated
