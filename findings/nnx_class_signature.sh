#!/usr/bin/env bash
# flax 0.12.8: the signature of an NNX module's class says nothing of its __init__.
#
# Expected: inspect.signature(Net) is that of Net.__init__, as for any class, a linen module's too.
# Seen: (*args, **kwargs), because the metaclass of nnx.Module has a __call__ of its own; so whoever binds the options
# of a config to a factory's signature lets a misspelt one through, until the constructor raises TypeError.
# inspect.signature(Net.__init__) has the names: our networks.from_nnx binds to that.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "jax==0.10.2" "jaxlib==0.10.2" "flax==0.12.8"
cat > "$work/seen.py" <<'PY'
import inspect

import flax
import flax.linen as nn
from flax import nnx


class Net(nnx.Module):
  def __init__(self, width, *, rngs):
    self.layer = nnx.Linear(2, width, rngs=rngs)


class Linen(nn.Module):
  width: int


def binds(signature, **options):
  try:
    signature.bind(**options)
    return True
  except TypeError:
    return False


of_class = inspect.signature(Net)
of_init = inspect.signature(Net.__init__)
print("flax", flax.__version__, "class", of_class, "__init__", of_init)
kinds = [one.kind for one in of_class.parameters.values()]
assert kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD], of_class
assert list(of_init.parameters) == ["self", "width", "rngs"]
assert binds(of_class, widht=3, rngs=None) and not binds(of_init, self=None, widht=3, rngs=None)
assert not binds(inspect.signature(Linen), widht=3)  # linen's dataclass says its fields
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# flax 0.12.8 class (*args: 'Any', **kwargs: 'Any') -> 'Any' __init__ (self, width, *, rngs)
# as stated
