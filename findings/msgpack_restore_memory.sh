#!/usr/bin/env bash
# flax 0.12.8: flax.serialization.msgpack_restore holds a large array three times at once.
#
# Expected: the bytes and the arrays, 1 to 2 times the file: the arrays are made by np.frombuffer, which copies nothing.
# Seen: 3.0 times for one array of 400 MB (2.0 for a hundred of 4 MB), against 2.0 when all is done: msgpack copies the
# array's bytes out of the file's, and again out of that copy. from_bytes calls it.
# Hurts: whoever sizes a machine by the checkpoint: one large embedding table asks for three times its size. Needs Linux
# (/proc).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "jax==0.10.2" "jaxlib==0.10.2" "flax==0.12.8" "msgpack==1.2.4" "numpy==2.4.6"
cat > "$work/seen.py" <<'PY'
import sys

import numpy as np
from flax import serialization

TOTAL = 400_000_000


def of_process(field):
  with open("/proc/self/status") as status:
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


job, path, parts = sys.argv[1], sys.argv[2], int(sys.argv[3])
if job == "write":
  tree = {f"w{i}": np.ones(TOTAL // 4 // parts, np.float32) for i in range(parts)}
  with open(path, "wb") as file:
    file.write(serialization.msgpack_serialize(tree))
else:
  before = of_process("VmRSS")
  with open(path, "rb") as file:
    content = file.read()
  tree = serialization.msgpack_restore(content)
  peak, after = ((of_process(field) - before) / len(content) for field in ("VmHWM", "VmRSS"))
  print(f"{parts} arrays, {len(content)} bytes: peak {peak:.2f} times the file, afterwards {after:.2f}")
  assert len(tree) == parts and 1.9 < after < 2.1
  assert 2.9 < peak < 3.1 if parts == 1 else 1.9 < peak < 2.1
  print("as stated")
PY
for parts in 1 100; do
  for job in write read; do
    "$work/venv/bin/python" "$work/seen.py" "$job" "$work/$parts.msgpack" "$parts"
  done
done
# Output seen:
# 1 arrays, 400000030 bytes: peak 3.00 times the file, afterwards 2.00
# as stated
# 100 arrays, 400002993 bytes: peak 2.02 times the file, afterwards 2.02
# as stated
