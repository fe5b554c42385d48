"""Records what Score SDE's own code gives for the cases of score_sde_cases.py.

  python tests/weights/make_score_sde_recorded.py torch SCORE_SDE_PYTORCH
  python tests/weights/make_score_sde_recorded.py flax SCORE_SDE

and the same with 'ddpm' at the end for the cases of that model.

It is run by hand: the first with torch and NumPy, the second with JAX and Flax. The last argument is a
checkout of yang-song/score_sde_pytorch at cb1f359, or of yang-song/score_sde at 0acb9e0.

For each case: the score, the names and shapes of the arrays that a checkpoint has, and, of some in PyTorch,
the output of each module. Images are written channels last, float32.
"""

import importlib
import json
import lzma
import sys
import types

import numpy as np
import score_sde_cases as cases

SPACE = types.SimpleNamespace
CLASSES = {"ncsnpp": "NCSNpp", "ddpm": "DDPM"}


def config_of(of_network, of_process):
  """The authors' config of options of the network and of the process."""
  process = dict(sde="vpsde", continuous=True, sigma_min=0.01, sigma_max=50.0) | of_process
  ladder = dict(beta_min=0.1, beta_max=20.0, num_scales=1000)
  ladder |= dict(sigma_min=process["sigma_min"], sigma_max=process["sigma_max"])
  fixed = dict(
    resamp_with_conv=True, conditional=True, fir_kernel=[1, 3, 3, 1], skip_rescale=True, dropout=0.0,
    resblock_type="biggan", progressive_combine="sum", init_scale=0.0, fourier_scale=16, nonlinearity="swish",
    normalization="GroupNorm", name="ncsnpp", attention_type="ddpm", conv_size=3,
  )  # fmt: skip
  in_ve = process["sde"] == "vesde"
  data = {key: of_network[key] for key in ("image_size", "num_channels")}
  model = ladder | fixed | {key: one for key, one in of_network.items() if key not in data}
  return SPACE(
    data=SPACE(centered=not in_ve, **data),
    model=SPACE(scale_by_sigma=in_ve, **model),
    training=SPACE(continuous=process["continuous"], sde=process["sde"]),
  )


def sde_of(library, config):
  m = config.model
  return {
    "vesde": lambda: library.VESDE(m.sigma_min, m.sigma_max, m.num_scales),
    "vpsde": lambda: library.VPSDE(m.beta_min, m.beta_max, m.num_scales),
    "subvpsde": lambda: library.subVPSDE(m.beta_min, m.beta_max, m.num_scales),
  }[config.training.sde]()


def times(name):
  """The authors' times of a case: on a ladder, those of its steps, which they count from 0."""
  t = cases.inputs(name)["t"]
  ladder = cases.EVERY[name][1].get("continuous") is False
  return np.float32((np.round(1000 * t) - 1) / 999) if ladder else t


def noised(name, sde_std):
  """x of a case, as large as data with that noise; [B, H, W, 3]."""
  return cases.inputs(name)["x"] * np.sqrt(1 + np.float32(sde_std) ** 2)[:, None, None, None]


def in_torch(checkout, model):
  import torch
  import torch.utils.cpp_extension

  torch.set_num_threads(1)
  torch.utils.cpp_extension.load = lambda *_, **__: None  # kernels of CUDA, whose place on a CPU others take
  sys.path.insert(0, checkout)
  module, utils, library = (
    importlib.import_module(one) for one in (f"models.{model}", "models.utils", "sde_lib")
  )
  build, of_model = getattr(module, CLASSES[model]), cases.MODELS[model]
  last = lambda value: np.ascontiguousarray(np.moveaxis(value.detach().numpy(), 1, -1), np.float32)
  found, shapes = {}, {}
  for name in [one for one in of_model.cases if one not in cases.NOT_IN_TORCH]:
    config = config_of(*of_model.cases[name])
    net = build(config).eval()
    arrays = {key: value for key, value in net.state_dict().items() if key != "sigmas"}
    for key, value in arrays.items():
      value.copy_(torch.from_numpy(cases.weight(key, tuple(value.shape))))
    shapes[name] = {key: list(value.shape) for key, value in net.state_dict().items()}
    if name in of_model.blocks:
      for i, module in enumerate(net.all_modules):
        note = lambda _, given, output, key=f"{name}/blocks/{i}": found.update({key: output})
        module.register_forward_hook(note)
    sde = sde_of(library, config)
    t = torch.from_numpy(times(name))
    score = utils.get_score_fn(sde, net, train=False, continuous=config.training.continuous)
    with torch.no_grad():
      x = torch.zeros(len(t), 3, 1, 1)
      std = sde.marginal_prob(x, t)[1].numpy() if config.training.sde == "vesde" else 0.0 * t.numpy()
      given = torch.from_numpy(noised(name, std)).permute(0, 3, 1, 2).contiguous()
      found[f"{name}/score"] = last(score(given, t))
    for key in [key for key in found if key.startswith(f"{name}/blocks/")]:
      output = found[key][:1]
      found[key] = (last(output) if output.ndim == 4 else output.numpy())[..., :: of_model.channels]
  published = {}
  for name, options in of_model.published.items():
    net = build(config_of(*options))
    published[name] = {key: list(value.shape) for key, value in net.state_dict().items()}
    del net
  return found, {"shapes": shapes, "published": published, "torch": torch.__version__}


def in_flax(checkout, model):
  import flax.training.checkpoints  # which looks for tensorflow, and has to find none
  import jax
  import jax.numpy as jnp

  sys.path.insert(0, checkout)
  flax.optim = SPACE(Optimizer=object)  # it had one then, which annotations name
  sys.modules["tensorflow"] = types.ModuleType("tensorflow")  # of their files, of which none is written here
  module, library = (importlib.import_module(one) for one in (f"models.{model}", "sde_lib"))
  build, of_model = getattr(module, CLASSES[model]), cases.MODELS[model]
  utils = importlib.import_module("models.utils")
  found, shapes = {}, {}
  for name in of_model.flax:
    config = config_of(*of_model.cases[name])
    net, given = build(config), cases.inputs(name)
    x, t = jnp.asarray(given["x"]), jnp.asarray(times(name))
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), x, t, train=False))["params"]
    flat = flax.traverse_util.flatten_dict(made, sep=".")
    params = {key: jnp.asarray(cases.weight(key, leaf.shape)) for key, leaf in flat.items()}
    shapes[name] = {key: list(leaf.shape) for key, leaf in flat.items()}
    params = flax.traverse_util.unflatten_dict(params, sep=".")
    sde = sde_of(library, config)
    std = sde.marginal_prob(x, t)[1] if config.training.sde == "vesde" else 0.0 * t
    score = utils.get_score_fn(sde, net, params, {}, train=False, continuous=config.training.continuous)
    found[f"{name}/score"] = np.asarray(score(jnp.asarray(noised(name, std)), t))
  return found, {"shapes": shapes, "jax": jax.__version__, "flax": flax.__version__}


def main(kind, checkout, model="ncsnpp"):
  found, about = {"torch": in_torch, "flax": in_flax}[kind](checkout, model)
  file = cases.MODELS[model].files[kind]
  found["about"] = np.frombuffer(lzma.compress(json.dumps(about).encode()), np.uint8)
  np.savez_compressed(file, **found)
  print(f"{len(found)} arrays, {file.stat().st_size} bytes")


if __name__ == "__main__":
  main(*sys.argv[1:])
