#!/usr/bin/env bash
# jax 0.10.2: an entry of the persistent compilation cache that was cut short is never written again.
#
# Expected: where a disk was full once, the program is compiled and stored again as soon as there is space.
# Seen: LRUCache.put writes the entry in its place and not aside, so a write that fails leaves its first bytes under
# the final name. From then on every process finds it, warns "Error reading persistent compilation cache entry ...
# incomplete or truncated stream", compiles the program, and does not store it, because put returns early where the
# file exists. A process that is killed while it writes leaves the same.
# Hurts: the cache is useless for that program, with a warning at each start, until somebody deletes the file. Deleting
# it mends it: our run.compile_cache empties its folder when JAX cannot read an entry. Here a limit on the size of files
# (ulimit -f) stands for a full disk.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "jax==0.10.2" "jaxlib==0.10.2" "numpy==2.4.6"
cat > "$work/seen.py" <<'PY'
import glob
import os
import sys
import warnings

import jax
import numpy as np

what, folder = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
x = np.eye(64, dtype=np.float32)
with warnings.catch_warnings(record=True) as caught:
  warnings.simplefilter("always")
  jax.jit(lambda x: jax.numpy.linalg.norm(jax.numpy.tanh(x @ x), axis=1).sum()).lower(x).compile()
said = [str(one.message) for one in caught]
size = [os.path.getsize(path) for path in glob.glob(folder + "/jit__lambda*")]
print("jax", jax.__version__, what, "- entry of", size, "bytes, warnings:", said or "none")
if what == "disk is full":
  assert size == [1024] and "Error writing" in said[0]
if what == "there is space again":
  assert size == [1024] and len(said) == 1 and "truncated stream" in said[0]  # read in vain, not stored
if what == "entry deleted":
  assert size[0] > 1024 and not said
PY
run() { JAX_PLATFORMS=cpu "$work/venv/bin/python" "$work/seen.py" "$1" "$work/cache"; }
(ulimit -f 1; run "disk is full")
run "there is space again"
run "there is space again"
rm "$work"/cache/jit__lambda*
run "entry deleted"
echo "as stated"
# Output seen:
# jax 0.10.2 disk is full - entry of [1024] bytes, warnings: ["Error writing persistent compilation cache entry for 'jit__lambda': OSError: [Errno 27] File too large"]
# jax 0.10.2 there is space again - entry of [1024] bytes, warnings: ["Error reading persistent compilation cache entry for 'jit__lambda': error: Error -5 while decompressing data: incomplete or truncated stream"]
# jax 0.10.2 there is space again - entry of [1024] bytes, warnings: ["Error reading persistent compilation cache entry for 'jit__lambda': error: Error -5 while decompressing data: incomplete or truncated stream"]
# jax 0.10.2 entry deleted - entry of [4072] bytes, warnings: none
# as stated
