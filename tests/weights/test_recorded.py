"""Files of each format hold, bit for bit, what the library that wrote them reads from them."""

import hashlib

import numpy as np
import pytest

from diffusion import weights
from tests.weights.recorded_pairs import FOLDER, FORMATS, expected, same


@pytest.mark.parametrize("name", FORMATS)
def test_arrays_are_those_that_their_own_library_reads(name):
  contents, want = weights.read(str(FOLDER / name)), expected(name)
  assert contents.format == FORMATS[name]
  assert set(contents.arrays) == set(want)
  found = contents.load()
  for key, array in want.items():
    assert same(found[key], array), key
    assert (contents.arrays[key].shape, contents.arrays[key].dtype) == (array.shape, array.dtype), key
    assert contents.arrays[key].nbytes == array.nbytes


@pytest.mark.parametrize("name", FORMATS)
def test_parts_of_arrays_are_parts_of_the_whole(name):
  contents = weights.read(str(FOLDER / name))
  for key, array in expected(name).items():
    for axis, size in enumerate(array.shape):
      index = (slice(None),) * axis + (slice(size // 3, size - size // 4),)
      assert same(contents.arrays[key].read(index), array[index]), (key, axis)


def test_a_training_checkpoint_keeps_what_is_no_array():
  assert weights.read(str(FOLDER / "zip.pt")).notes == {
    "tree": {
      "opt": {"param_groups": [{"lr": 1e-4, "params": [0]}]},
      "args": {"model": "DiT-S/2", "image_size": 32},
      "epoch": 7,
    }
  }


def test_numbers_between_the_arrays_of_flax():
  tree = weights.read(str(FOLDER / "flax.msgpack")).notes["tree"]
  assert tree == {
    "step": 5, "lr": 1e-4, "flag": True, "model_state": {}, "scalar": 2.5, "phase": 1 + 2j
  }  # fmt: skip
  assert weights.read(str(FOLDER / "numpy2.pkl")).notes["tree"] == {"count": 50000}


def test_shards_have_the_config_beside_them():
  notes = weights.read(str(FOLDER / "sharded")).notes
  assert notes == {
    "config": {"_class_name": "UNet2DModel", "sample_size": 32},
    "metadata": {"total_size": 229},
  }


def test_modules_of_edm_are_plain_data():
  """The source in these files raises an error where it is run."""
  tree = weights.read(str(FOLDER / "edm.pkl")).notes["tree"]
  source = b"raise RuntimeError('the source in a pickle was run')"
  net = tree["ema"]
  assert net["class_name"] == "EDMPrecond" and net["init_args"] == [4, 3]
  assert net["init_kwargs"]["model_type"] == "SongUNet" and net["init_kwargs"]["channel_mult"] == [1]
  assert net["attributes"]["sigma_data"] == 0.5 and net["attributes"]["sigma_max"] == np.inf
  assert net["source_sha256"] == hashlib.sha256(source).hexdigest()
  model = net["modules"]["model"]
  assert model["class_name"] == "SongUNet" and model["attributes"]["label_dropout"] == 0
  assert model["modules"]["enc"]["class_name"] == "torch.nn.modules.container.ModuleDict"
  block = model["modules"]["dec"]["modules"]["4x4_in0"]
  assert block["class_name"] == "UNetBlock" and block["attributes"]["num_heads"] == 1
  assert tree["loss_fn"]["attributes"] == {"P_mean": -1.2, "P_std": 1.2, "sigma_data": 0.5}
  assert tree["dataset_kwargs"] == {"path": "x.zip", "xflip": False} and tree["augment_pipe"] is None


def test_edm2_has_half_precision_and_its_encoder():
  contents = weights.read(str(FOLDER / "edm2.pkl"))
  assert contents.arrays["ema.unet.emb_noise.weight"].dtype == np.float16
  assert contents.arrays["ema.unet.out_gain"].shape == ()
  encoder = contents.notes["tree"]["encoder"]
  assert encoder["class_name"] == "StabilityVAEEncoder"
  scale = contents.arrays["encoder.scale"].read()  # 0.5 over the deviations of the raw latents
  np.testing.assert_allclose(scale.ravel(), 0.5 / np.array([4.17, 4.62, 3.71, 3.28]), rtol=1e-6)


def test_a_whole_module_of_torch_gives_its_parameters_and_its_constants():
  tree = weights.read(str(FOLDER / "module.pt")).notes["tree"]
  assert tree["modules"]["1"]["attributes"]["eps"] == 1e-5
