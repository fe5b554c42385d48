"""A plain pickle: EDM's and EDM2's network snapshots, statistics, and dicts of NumPy arrays.

EDM's objects are `torch_utils.persistence._reconstruct_persistent_obj({type, version, module_src, class_name,
state})`: module_src is Python, which the original loader runs and this one does not look at. A storage within
is `torch.storage._load_from_bytes` of a file in PyTorch's old format (NVlabs/edm 008a4e5,
torch_utils/persistence.py; training/training_loop.py).

A module in `notes["tree"]` is {"class_name", "init_args", "init_kwargs", "source_sha256", "attributes",
"modules": by name, each again such a dict}; its parameters and buffers are arrays by dotted name.
"""

from typing import Any

from diffusion.weights.contents import Contents
from diffusion.weights.formats import allowed, pickle_machine, trees
from diffusion.weights.formats.mapped import Damaged, Source, sound


def read(source: Source, notes: dict[str, Any]) -> Contents:
  """A whole file.

  Raises UserError for a damaged one, and for whatever `allowed` does not know.
  """
  with sound(source.path, "a pickle"):
    root, end = pickle_machine.run(source, 0, source.size, allowed.find)
    if end != source.size:
      raise Damaged(f"{source.size - end} bytes follow the pickle")
    arrays, tree = trees.flat(root, source.size)
  return Contents(source.path, "pickle", arrays, notes | {"tree": tree})
