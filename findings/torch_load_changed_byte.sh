#!/usr/bin/env bash
# torch 2.14.1: torch.load does not look at the checksums that torch.save writes.
#
# Expected: a byte changed in the middle of a tensor is reported: the file is a zip with a CRC-32 of each storage, on by
# default (torch.serialization.get_crc32_options() is True), and unzip and Python's zipfile check it.
# Seen: torch.load returns the changed number in silence, with weights_only or without, from a path, a buffer or mmap.
# Hurts: whoever takes a successful load as proof that a download or an old disk is sound. zipfile.ZipFile(path)
# .testzip() names the bad storage.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6"
cat > "$work/seen.py" <<'PY'
import io
import os
import struct
import zipfile

import torch

os.chdir(os.path.dirname(os.path.abspath(__file__)))
torch.save({"w": torch.arange(1000, dtype=torch.float32)}, "sound.pt")
with open("sound.pt", "rb") as file:
  content = bytearray(file.read())
at = content.index(struct.pack("<3f", 499, 500, 501)) + 4
content[at + 3] ^= 1  # one bit of the exponent of w[500]
with open("changed.pt", "wb") as file:
  file.write(content)

ways = {
  "path": torch.load("changed.pt"),
  "buffer": torch.load(io.BytesIO(content)),
  "weights_only=False": torch.load("changed.pt", weights_only=False),
  "mmap": torch.load("changed.pt", mmap=True),
}
seen = {way: loaded["w"][500].item() for way, loaded in ways.items()}
print("torch", torch.__version__, "w[500], 500 was saved:", seen)
with zipfile.ZipFile("sound.pt") as sound, zipfile.ZipFile("changed.pt") as changed:
  checks = sound.testzip(), changed.testzip()
print("checksums on:", torch.serialization.get_crc32_options(), "zipfile finds:", checks)
assert set(seen.values()) == {125.0} and torch.load("sound.pt")["w"][500] == 500
assert torch.serialization.get_crc32_options() and checks == (None, "sound/data/0")
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# torch 2.14.1+cu130 w[500], 500 was saved: {'path': 125.0, 'buffer': 125.0, 'weights_only=False': 125.0, 'mmap': 125.0}
# checksums on: True zipfile finds: (None, 'sound/data/0')
# as stated
