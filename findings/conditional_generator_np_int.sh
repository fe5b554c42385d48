#!/usr/bin/env bash
# torch-fidelity 0.4.0: a class-conditional generator cannot be evaluated with NumPy 1.24 or newer.
#
# Expected: calculate_metrics(input1=generator, input1_model_num_classes=10, ...) draws labels 0 to 9 and calls the
# generator with them, as it does without labels when num_classes is 0. setup.py sets no upper bound on NumPy.
# Seen: AttributeError: module 'numpy' has no attribute 'int', from utils.get_featuresdict_from_generative_model, which
# asks for dtype=np.int. The unconditional generator runs. The alias left NumPy in 1.24 (December 2022).
# Hurts: whoever evaluates a conditional model by its module, ONNX or JIT file, with FID, KID, the Inception score or
# precision and recall; a folder of its samples still works.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.14.1" "torchvision==0.29.1" "torch-fidelity==0.4.0" "numpy==2.4.6"
cat > "$work/seen.py" <<'PY'
import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.generative_model_modulewrapper import GenerativeModelModuleWrapper
from torch_fidelity.utils import get_featuresdict_from_generative_model


class Mean(FeatureExtractorBase):
  """Mean colours: an extractor that needs no weights."""

  def forward(self, x):
    return (x.float().mean(dim=(2, 3)),)

  @staticmethod
  def get_provided_features_list():
    return ("3",)


class Generator(torch.nn.Module):
  """One colour a picture, from the noise and, where there is one, the label."""

  def forward(self, z, label=None):
    if label is not None:
      assert label.shape == (len(z),) and 0 <= label.min() and label.max() < 10
    return (z[:, :3, None, None].expand(-1, -1, 8, 8) * 50 + 128).clamp(0, 255).to(torch.uint8)


def features(num_classes):
  model = GenerativeModelModuleWrapper(Generator(), 4, "normal", num_classes)
  return get_featuresdict_from_generative_model(model, Mean("mean", ["3"]), 20, 10, False, 0, False)["3"]


print("without classes:", tuple(features(0).shape))
assert features(0).shape == (20, 3)
try:
  features(10)
except AttributeError as error:
  print("with 10 classes:", type(error).__name__, str(error).splitlines()[0])
  assert "has no attribute 'int'" in str(error)
else:
  raise AssertionError("labels were drawn")
print("as stated")
PY
"$work/venv/bin/python" "$work/seen.py"
# Output seen:
# without classes: (20, 3)
# with 10 classes: AttributeError module 'numpy' has no attribute 'int'.
# as stated
