"""diffusers' UNet2DModel: equal to the original on drawn weights, and its files read and written."""

import functools
import json

import diffusers_networks as case
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, processes
from diffusion.config.errors import UserError
from diffusion.weights.architectures import scheduler, torch_layout, unet2d
from diffusion.weights.architectures.layers import ResnetBlock, Style, snapped

RECORDED = np.load(case.FILE)
NAMES = json.loads(RECORDED["names"].tobytes())
EVERY = pytest.mark.parametrize(
  "name",
  [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("ddpm", "ncsnpp"))) for name in case.UNETS],
)


def arrays_of(name):
  return {one: case.draw(one, tuple(shape)) for one, shape in NAMES[name].items()}


def relative(found, wanted):
  """The norm of the difference over the norm."""
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@functools.partial(jax.jit, static_argnames="views")
def asked(denoiser, x, t, cond, views):
  return denoiser(x, t, cond, views=views)


def flat(tree, path=()):
  """The outputs that Flax kept of each module, by dotted name."""
  for key, value in tree.items():
    if key == "__call__":
      out = value[0]
      while isinstance(out, tuple):  # a block on the way down gives all its states, and the image
        out = out[-1] if isinstance(out[0], jax.Array) and path[-1].startswith("down_blocks") else out[0]
      yield torch_layout.dotted((*path, ""))[:-1], out
    elif isinstance(value, dict):
      yield from flat(value, (*path, key))


@EVERY
def test_it_is_equal_to_the_original(name):
  x, t, cond = case.unet_inputs(name)
  config, arrays = case.UNETS[name], arrays_of(name)
  module, params = unet2d.build(config), unet2d.convert(arrays, config)
  blocks = name in case.WITH_BLOCKS
  run = jax.jit(lambda p, *inputs: module.apply({"params": p}, *inputs, capture_intermediates=blocks))
  out = run(params, x, t, cond)
  out, kept = out if blocks else (out, {"intermediates": {}})
  assert out.dtype == jnp.float32 and relative(out, RECORDED[f"{name}/output"]) < 1e-5
  found = dict(flat(kept["intermediates"]))
  wanted = [key for key in RECORDED.files if key.startswith(f"{name}/block/")]
  assert len(wanted) == {"ddpm": 26, "ncsnpp": 26}.get(name, 0)
  for key in wanted:
    assert relative(case.thinned(np.asarray(found[key.split("/")[2]])), RECORDED[key]) < 1e-5, key


@EVERY
def test_a_file_comes_back_bit_for_bit(name):
  config = case.UNETS[name]
  arrays = {key: value.astype(np.float16) for key, value in arrays_of(name).items()}
  again = unet2d.export(unet2d.convert(arrays, config), config)
  assert sorted(again) == sorted(arrays)
  for key, value in arrays.items():
    assert again[key].dtype == value.dtype and again[key].flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(again[key], value)


def test_arrays_are_not_copied():
  arrays = arrays_of("ddpm")
  params = unet2d.convert(arrays, case.DDPM)
  assert np.shares_memory(
    params["down_blocks_0"]["resnets_0"]["conv1"]["kernel"], arrays["down_blocks.0.resnets.0.conv1.weight"]
  )


def test_names_of_old_files_are_known():
  old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

  def aged(name):
    for new, one in old.items():
      name = name.replace(f".{new}.", f".{one}.")
    return name

  arrays = arrays_of("ddpm")
  square = lambda name, a: a[:, :, None, None] if ".to_" in name and a.ndim == 2 else a
  found = unet2d.convert({aged(name): square(name, a) for name, a in arrays.items()}, case.DDPM)
  jax.tree.map(np.testing.assert_array_equal, found, unet2d.convert(arrays, case.DDPM))
  key = "mid_block.attentions.0.to_q.bias"
  with pytest.raises(UserError, match="also have mid_block.attentions.0.query.bias"):
    unet2d.convert(arrays | {aged(key): arrays[key]}, case.DDPM)


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda a: a.pop("conv_in.weight"), "they lack conv_in.weight; give the config"),
    (
      lambda a: (
        [a.pop(k) for k in list(a) if k.startswith("time")] and a.update({"ema.decay": a["conv_in.bias"]})
      ),
      r"lack time_embedding.\S+, \S+, \S+ and 1 more and also have ema.decay",
    ),
    (
      lambda a: a.update({"conv_in.weight": a["conv_in.weight"][:, :2]}),
      r"conv_in.weight of \[8, 2, 3, 3\] in pl",
    ),
  ],
)
def test_other_arrays_are_refused(change, message):
  arrays = arrays_of("ddpm")
  change(arrays)
  with pytest.raises(UserError, match=message) as caught:
    unet2d.convert(arrays, case.DDPM)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(norm_num_group=4), "option 'norm_num_group', did you mean 'norm_num_groups'"),
    (dict(act_fn="mish"), "act_fn='mish' is not known here: act_fn is one of 'silu', 'swish'"),
    (dict(time_embedding_type="learned"), "one of 'positional', 'fourier'"),
    (dict(_class_name="UNet2DConditionModel"), "of the class 'UNet2DConditionModel'"),
    (dict(block_out_channels=[8, 16, 16, 16]), "has as many down_block_types, got 2"),
    (
      dict(up_block_types=["UpBlock2D", "SkipUpBlock2D"]),
      "all up_block_types with Skip or none",
    ),
    (dict(norm_num_groups=None), "needs norm_num_groups"),
  ],
)
def test_configs_that_are_not_known_are_refused(change, message):
  with pytest.raises(UserError, match=message):
    unet2d.build(case.DDPM | change)
  with pytest.raises(UserError, match="made for pictures of 3 channels"):
    unet2d.build(case.NCSNPP | dict(in_channels=1))


def test_configs_of_google_are_read():
  """The notes of a config, and what is left of Score SDE's, change nothing."""
  notes = dict(_diffusers_version="0.0.4", _name_or_path="somewhere", decay=0.9999, image_size=1024)
  assert unet2d.build(case.NCSNPP | notes) == unet2d.build(case.NCSNPP)


SMALL = case.DDPM | dict(
  norm_num_groups=32,
  block_out_channels=[128, 256, 256, 256],
  down_block_types=["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
  up_block_types=["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
)
LARGE = SMALL | dict(
  block_out_channels=[128, 128, 256, 256, 512, 512],
  down_block_types=["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
  up_block_types=["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
)


@pytest.mark.parametrize(
  "config, arrays, elements",
  [(SMALL, 328, 35_746_307), pytest.param(LARGE, 450, 113_673_219, marks=pytest.mark.slow)],
)
def test_published_sizes(config, arrays, elements):
  """Numbers of arrays and of elements of google/ddpm-cifar10-32 and google/ddpm-*-256."""
  leaves = jax.tree.leaves(unet2d.shapes(config))
  assert (len(leaves), sum(leaf.size for leaf in leaves)) == (arrays, elements)


def test_its_denoiser_is_told_whole_timesteps():
  """On every rung of the ladder the network is told exactly k, as by diffusers, and eps is its output."""
  config, arrays = case.DEFAULT, arrays_of("default")
  denoiser = unet2d.denoiser(config, None, arrays)
  assert denoiser.process.name == "vp_ladder" and denoiser.parameterization.kind == "eps"
  k = np.array([0.0, 7.0, 333.0, 951.0, 999.0], np.float32)
  clock = denoiser.parameterization.clock(denoiser.process, jnp.asarray((k + 1) / 1000, jnp.float32))
  np.testing.assert_array_equal(snapped(clock, "snap"), k)
  x, t, _ = case.unet_inputs("default")
  got = asked(denoiser, x, (t + 1) / 1000, None, views=("eps", "x0"))
  assert relative(got.eps, RECORDED["default/output"]) < 1e-5
  alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[t.astype(int)][:, None, None, None]
  x0 = (x - np.sqrt(1 - alpha_bar) * RECORDED["default/output"]) / np.sqrt(alpha_bar)
  assert relative(got.x0, x0) < 1e-5


def test_a_learned_variance_is_left_out():
  """Twice the channels are a prediction and a variance; the first half is what the scheduler says it is."""
  config = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
  found = unet2d.denoiser(case.UNETS["scale_shift"], config, arrays_of("scale_shift"))
  whole = denoisers.from_flax(
    unet2d.build(case.UNETS["scale_shift"], kept=3), found.process, found.parameterization, found.params
  )
  assert found.fn == whole.fn and found.parameterization.kind == "v"
  x, t, cond = case.unet_inputs("scale_shift")
  shape = jax.eval_shape(asked, found, x, (t + 1) / 1000, cond, views=("v",)).v.shape
  assert shape == x.shape
  with pytest.raises(UserError, match="gives 3 channels, or twice as many with a learned variance"):
    unet2d.denoiser(case.DEFAULT | dict(out_channels=4), None, {})


def test_ncsnpp_tells_the_score_at_a_noise_level():
  """The network is told sigma, which is the time of the process, and its output is taken for the score."""
  found = unet2d.denoiser(
    case.NCSNPP, {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 348}, arrays_of("ncsnpp")
  )
  x, t, _ = case.unet_inputs("ncsnpp")
  fed, clock = found.parameterization.inputs(found.process, x, jnp.asarray(t))
  np.testing.assert_array_equal(clock, t)
  np.testing.assert_array_equal(fed, x)
  assert found.parameterization.kind == "score" and found.process == processes.edm(0.01, 348.0)


def test_conditions_that_it_has_not_are_refused():
  x, t, cond = case.unet_inputs("scale_shift")
  call = lambda name, cond: jax.eval_shape(
    unet2d.build(case.UNETS[name]).apply, {"params": unet2d.shapes(case.UNETS[name])}, x, t, cond
  )
  with pytest.raises(ValueError, match="takes no condition, got also"):
    call("default", cond)
  with pytest.raises(ValueError, match="takes the condition 'label', got also"):
    call("scale_shift", {"vector": x[:, 0, 0]})
  with pytest.raises(ValueError, match="integers of shape"):
    call("scale_shift", {"label": t})


def test_no_label_adds_nothing():
  """Without a label the network is the one whose class embedding is zero."""
  config = case.UNETS["scale_shift"]
  x, t, _ = case.unet_inputs("scale_shift")
  arrays = arrays_of("scale_shift")
  params = unet2d.convert(arrays, config)
  zero = params | {"class_embedding": {"embedding": np.zeros_like(params["class_embedding"]["embedding"])}}
  run = jax.jit(lambda p, cond: unet2d.build(config).apply({"params": p}, x, t, cond))
  none = {"label": np.array([-1, -1], np.int32)}
  want = run(zero, {"label": np.array([4, 1], np.int32)})
  np.testing.assert_array_equal(run(params, none), want)


def test_rounding_of_time_is_declared():
  """A network that rounds gives at 7.4 what one that does not gives at 7, and not what that gives at 7.4."""
  t = jnp.array([7.4, 7.0004])
  for rounding, told in (("none", [7.4, 7.0004]), ("snap", [7.4, 7.0]), ("nearest", [7.0, 7.0])):
    np.testing.assert_array_equal(snapped(t, rounding), np.float32(told))
  config = case.UNETS["identity"]
  params = unet2d.convert(arrays_of("identity"), config)
  x, _, cond = case.unet_inputs("identity")
  run = lambda rounding: jax.jit(
    lambda t: unet2d.build(config, time_rounding=rounding).apply({"params": params}, x, t, cond)
  )
  exact, rounded = run("none"), run("nearest")
  at = lambda t: np.full(2, t, np.float32)
  assert relative(rounded(at(7.4)), np.asarray(exact(at(7.0)))) < 1e-6
  assert relative(exact(at(7.4)), np.asarray(exact(at(7.0)))) > 1e-6
  with pytest.raises(ValueError, match="the rounding of time is 'none', 'snap' or 'nearest', got 'up'"):
    snapped(t, "up")


def test_bfloat16_computes_near_float32():
  config, arrays = case.UNETS["identity"], arrays_of("identity")
  x, t, cond = case.unet_inputs("identity")
  net = unet2d.build(config, dtype="bfloat16")
  half = jax.jit(net.apply)({"params": unet2d.convert(arrays, config)}, x, t, cond)
  assert half.dtype == jnp.float32 and 1e-4 < relative(half, RECORDED["identity/output"]) < 0.04


def test_recomputing_a_block_changes_no_gradient():
  x, time = case.numbers(1, 2, 4, 4, 8), case.numbers(2, 2, 6)
  rng = np.random.default_rng(1)

  def gradient(remat):
    style = Style(1e-5, scale_shift=True, remat=remat)
    block = style.stored(ResnetBlock)(4, 2, 2, style)
    params = jax.eval_shape(block.init, jax.random.key(0), x, time)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)
    loss = lambda p: jnp.sum(block.apply(p, x, time) ** 2)
    return lambda drawn: jax.jit(jax.grad(loss))(drawn), jax.tree.map(draw, params)

  (plain, params), (again, _) = gradient(False), gradient(True)
  want, found = plain(params), again(params)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want))
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest)
  jax.tree.map(close, found, want)


def test_processes_of_schedulers():
  read = scheduler.read
  process, meaning = read({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 500})
  assert (process, meaning.kind, meaning.time_scale) == (processes.rectified_flow(), "velocity", 500.0)
  config = dict(
    _class_name="PNDMScheduler", beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
  )
  alpha = float(read(config)[0].marginal(1.0).alpha)
  betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
  assert abs(alpha**2 / np.prod(1 - betas) - 1) < 1e-5
  for config, message in [
    ({"_class_name": "RePaintScheduler"}, "its process is not known here"),
    ({"_class_name": "ScoreSdeVeScheduler"}, "network takes numbers of timesteps"),
    ({"_class_name": "DDIMScheduler", "prediction_type": "flow"}, "prediction_type='flow'"),
    ({"_class_name": "DDIMScheduler", "beta_schedule": "sigmoid"}, "beta_schedule='sigmoid'"),
    ({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}, "no signal at its last"),
  ]:
    with pytest.raises(UserError, match=message):
      read(config)
