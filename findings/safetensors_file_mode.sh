#!/usr/bin/env bash
# safetensors 0.8.0: save_file writes files that only their owner can read, whatever the umask.
#
# Expected: mode 0644 under umask 022, as open, numpy.savez and safetensors.save with open give; an existing file keeps
# its mode, and a symbolic link is followed.
# Seen: 0600, over an existing file of 0664 too; a link is replaced by a file, and what it named stays as it was. The
# file is written under a temporary name and renamed.
# Hurts: whoever trains as one user and serves as another (containers, shared disks, group folders), and whoever keeps
# links to the newest weights. Known publicly as safetensors issue 782; still so in the newest release. os.chmod after
# saving, or safetensors.numpy.save and open, gives the usual mode.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "safetensors==0.8.0" "numpy==2.4.6"
cat > "$work/seen.py" <<'PY'
import os
import stat
import tempfile

import numpy as np
import safetensors
from safetensors.numpy import save, save_file

os.umask(0o022)
os.chdir(tempfile.mkdtemp(dir=os.path.dirname(os.path.abspath(__file__))))
tensors = {"w": np.zeros(3, np.float32)}


def mode(path):
  return oct(stat.S_IMODE(os.stat(path).st_mode))


save_file(tensors, "new.safetensors")
with open("by_open.safetensors", "wb") as file:
  file.write(save(tensors))
np.savez("new.npz", **tensors)
with open("old.safetensors", "wb"):
  os.chmod("old.safetensors", 0o664)
save_file(tensors, "old.safetensors")
with open("named.safetensors", "wb"):
  os.symlink("named.safetensors", "link.safetensors")
save_file(tensors, "link.safetensors")

seen = {path: mode(path) for path in ("new.safetensors", "old.safetensors", "by_open.safetensors", "new.npz")}
still_link, size = os.path.islink("link.safetensors"), os.path.getsize("named.safetensors")
print("safetensors", safetensors.__version__, seen)
print("the link is still one:", still_link, "bytes of the file it named:", size)
assert list(seen.values()) == ["0o600", "0o600", "0o644", "0o644"] and not still_link and size == 0
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# safetensors 0.8.0 {'new.safetensors': '0o600', 'old.safetensors': '0o600', 'by_open.safetensors': '0o644', 'new.npz': '0o644'}
# the link is still one: False bytes of the file it named: 0
# as stated
