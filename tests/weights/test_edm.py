"""EDM's networks and preconditioners, against what its own code gave and against closed forms.

The script that recorded it is make_edm_recorded.py.
"""

import functools
import json

import edm_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edm_cases import CASES

from diffusion import denoisers, networks, solvers
from diffusion.config.errors import UserError
from diffusion.weights.architectures import dhariwal_unet, edm, edm2, song_unet

TOLERANCE = 1e-5

# By default, what published models have; the slow ones are further options, or the same ones at other sizes.
SLOW = (
  "ddpmpp-edm-uncond",
  "residual-mean-edm",
  "skip-edm",
  "edm2-uncond",
  "ddpmpp-vp",
  "ncsnpp-edm",
  "adm-edm",
)
marked = lambda names, slow: [pytest.param(one, marks=[pytest.mark.slow] * (one in slow)) for one in names]


@functools.cache
def recorded():
  with np.load(cases.RECORDED) as file:
    found = dict(file)
  return found, json.loads(found["about"].tobytes())


def arrays(name):
  """The arrays of a case as a file would hold them: drawn by name, and the constants of its class."""
  found = {}
  for key, shape in recorded()[1]["shapes"][name].items():
    if key.endswith("resample_filter"):
      taps = np.array({2: [1, 1], 4: [1, 3, 3, 1]}[shape[-1]], np.float32)
      found[key] = (np.outer(taps, taps) / taps.sum() ** 2)[None, None]
    else:
      found[key] = np.zeros(shape, np.float32) if key == "u" else cases.weight(key, tuple(shape))
  return found


@functools.cache
def made(name):
  """(denoiser, its network (params, x, t, cond) -> (output, outputs of blocks)), compiled once."""
  denoiser = edm.denoiser(cases.notes(name), arrays(name))
  module = denoiser.fn.network.module
  blocks = name in cases.BLOCKS

  @jax.jit
  def call(params, x, t, cond):
    found = module.apply({"params": params}, x, t, cond, capture_intermediates=blocks, mutable=blocks)
    return (found[0], found[1]["intermediates"]) if blocks else (found, {})

  plain = lambda params, collections, x, t, cond, key, train: (call(params, x, t, cond)[0], collections)
  return denoiser.replace(fn=plain), call


def condition(name):
  given = cases.inputs(name)
  return {key: jnp.asarray(given[key]) for key in ("label", "vector") if key in given} or None


def difference(found, wanted):
  assert found.shape == wanted.shape, (found.shape, wanted.shape)
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("name", marked(CASES, SLOW))
def test_a_network_gives_what_the_original_gives(name):
  found, _ = recorded()
  denoiser, call = made(name)
  output, _ = call(denoiser.params, found[f"{name}/in"], found[f"{name}/t"], condition(name))
  assert difference(output, found[f"{name}/out"][..., : cases.CHANNELS]) < TOLERANCE


def split(key, name):
  """'enc.8x8_block0' of a case -> ('enc', level, 'block0')."""
  part, _, rest = key.partition(".")
  side, _, kind = rest.partition("_")
  return part, int(CASES[name][1] // int(side.split("x")[0])).bit_length() - 1, kind


def of_song(key, tree, name):
  """The output in the tree of `networks.UNet` for a block of SongUNet."""
  (part, level, kind), given = split(key, name), CASES[name][2]
  half = tree["encoder" if part == "enc" else "decoder"]
  last = "last" if given["decoder_type"] == "standard" else f"image_{level}"
  if kind in ("in0", "in1"):
    return tree[{"in0": "middle_attention", "in1": "middle_1"}[kind]]
  if kind.startswith("block"):
    i = int(kind.removeprefix("block"))
    attention = f"attention_{level}_{i}" if part == "enc" else f"attention_{level}"
    follows = attention in half and (part == "enc" or i == given["num_blocks"])
    return half[attention if follows else f"block_{level}_{i}"]
  return half[
    {
      "conv": "first", "down": f"down_{level - 1}", "up": f"up_{level + 1}", "aux_down": "Resample_0",
      "aux_up": "Resample_0", "aux_skip": f"combine_{level - 1}", "aux_residual": f"image_{level - 1}",
      "aux_norm": f"{last}_norm", "aux_conv": last,
    }[kind]
  ]  # fmt: skip


def of_adm(key, tree, name):
  """The output in the tree of `ADM` or `MPUNet` for a block of DhariwalUNet or of EDM2's UNet."""
  part, level, kind = split(key, name)
  half = {"enc": "encoder", "dec": "decoder"}[part]
  names = {"conv": "first", "down": f"down_{level}", "up": f"up_{level}"}
  return tree[{**names, "in0": "middle_0", "in1": "middle_1"}.get(kind, f"{half}_{level}_{kind[5:]}")]


@pytest.mark.parametrize("name", marked(cases.BLOCKS, SLOW))
def test_every_block_gives_what_the_original_gives(name):
  found, _ = recorded()
  denoiser, call = made(name)
  _, tree = call(denoiser.params, found[f"{name}/in"], found[f"{name}/t"], condition(name))
  where = {"DhariwalUNet": of_adm, "SongUNet": of_song, "UNet": of_adm}[
    edm.options(cases.notes(name))[0].model_type
  ]
  prefix = f"{name}/blocks/"
  keys = [key for key in found if key.startswith(prefix)]
  wrong = {}
  for key in keys:
    output = where(key.removeprefix(prefix), tree, name)["__call__"][0]
    wrong[key] = difference(output[:1], found[key])
  assert len(keys) >= 11 and max(wrong.values()) < TOLERANCE, wrong


@pytest.mark.parametrize("name", marked(CASES, SLOW))
def test_a_denoiser_gives_what_the_original_gives(name):
  found, _ = recorded()
  denoiser, _ = made(name)
  given = cases.inputs(name)
  sigma = given["sigma"].astype(np.float64)
  t = denoiser.process.t_of_level(sigma)
  x = given["x"] * np.sqrt(1 + given["sigma"] ** 2)[:, None, None, None]
  t = jnp.asarray(t, jnp.float32)
  x_t = denoiser.process.marginal(t).alpha[:, None, None, None] * x
  output = denoiser(x_t, t, condition(name), views=("x0",)).x0
  for row, wanted in zip(output, found[f"{name}/D"]):
    assert difference(row, wanted) < TOLERANCE


@pytest.mark.parametrize("name", marked(cases.SAMPLED, ["adm-iddpm"]))
def test_samples_are_those_of_the_original_sampler(name):
  """Heun's method of the library on the authors' grid, from their noise: 2 n - 1 evaluations in a row."""
  found, _ = recorded()
  denoiser = edm.denoiser(cases.notes(name), arrays(name))
  process, given = denoiser.process, cases.inputs(name)
  t_max, t_min = process.t_of_level([80.0, 0.002])
  grid = solvers.grids.karras(process, cases.STEPS, t_max, max(t_min, process.t_min), clean=True)
  if name == "adm-iddpm":
    grid = denoiser.parameterization.snap(process, grid)
  start = process.marginal(grid[0])
  x = (given["x"] * start.sigma).astype(np.float32)
  cond = {"label": jnp.asarray(given["label"])}
  samples = solvers.sample(denoiser, solvers.heun(process, grid), x, cond=cond)
  wrong = difference(samples, found[f"{name}/sampled"])
  assert wrong < TOLERANCE, wrong


# class -> arguments -> (c_skip, c_out, c_in, c_noise) of sigma, in float64 (arXiv:2206.00364, table 1)
EDM = lambda s: (
  0.25 / (s**2 + 0.25),
  0.5 * s / np.sqrt(s**2 + 0.25),
  1 / np.sqrt(s**2 + 0.25),
  np.log(s) / 4,
)
LAWS = {
  "EDMPrecond": EDM,
  "Precond": EDM,
  "VPPrecond": lambda s: (
    1.0, -s, 1 / np.sqrt(s**2 + 1), 999 * (np.sqrt(0.01 + 39.8 * np.log1p(s**2)) - 0.1) / 19.9
  ),
  "VEPrecond": lambda s: (1.0, s, 1.0, np.log(s / 2)),
  "iDDPMPrecond": lambda s: (1.0, -s, 1 / np.sqrt(s**2 + 1), 999.0 - nearest(s)),
}  # fmt: skip


def ladder(steps=1000, smallest=0.001, offset=0.008):
  """u_0 > ... > u_M = 0 by the recursion of arXiv:2206.00364, eq. 170 and after, in float64."""
  bar = lambda j: np.sin(0.5 * np.pi * j / steps / (offset + 1)) ** 2
  u = np.zeros(steps + 1)
  for j in range(steps, 0, -1):
    u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(bar(j - 1) / bar(j), smallest) - 1)
  return u


def nearest(sigma):
  return np.argmin(np.abs(sigma - ladder()))


@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("sigma", [0.03, 0.5, 3.0, 60.0])
def test_coefficients_are_those_of_the_paper(kind, sigma, x64):
  """Read off by networks of which the output is zero, one, the input or the clock."""
  process, parameterization = edm.PRECONDITIONERS[kind](32, 3, 0).meaning()
  t = jnp.asarray(process.t_of_level(sigma)).reshape(1)
  x = jnp.full((1, 1), 1.7)
  alpha = process.marginal(t).alpha[:, None]

  def answer(network):
    denoiser = denoisers.from_function(network, process, parameterization)
    return float(denoiser(alpha * x, t, views=("x0",)).x0[0, 0])

  at_zero = answer(lambda params, x, t, cond: 0.0 * x)
  c_out = answer(lambda params, x, t, cond: 0.0 * x + 1.0) - at_zero
  c_in = (answer(lambda params, x, t, cond: x) - at_zero) / c_out / 1.7
  c_noise = (answer(lambda params, x, t, cond: 0.0 * x + t[:, None]) - at_zero) / c_out
  np.testing.assert_allclose((at_zero / 1.7, c_out, c_in, c_noise), LAWS[kind](sigma), rtol=1e-9, atol=1e-11)


def test_levels_of_improved_ddpm_and_their_rounding():
  process, parameterization = edm.iDDPMPrecond(64, 3).meaning()
  u = ladder()[::-1]
  np.testing.assert_allclose(parameterization.levels, u, rtol=1e-9)
  between = np.array([0.6 * u[7] + 0.4 * u[8], 0.4 * u[7] + 0.6 * u[8], u[1000], 1.0])
  steps = parameterization.clock(process, jnp.asarray(process.t_of_level(between), jnp.float32))
  np.testing.assert_array_equal(steps, [6.0, 7.0, 999.0, np.argmin(np.abs(u - 1.0)) - 1.0])


def test_improved_ddpm_is_told_what_the_original_tells_it():
  found, _ = recorded()
  denoiser, _ = made("adm-iddpm")
  t = jnp.asarray(denoiser.process.t_of_level(np.array(cases.SIGMAS)), jnp.float32)
  clock = denoiser.parameterization.clock(denoiser.process, t)
  np.testing.assert_array_equal(clock, found["adm-iddpm/t"])


@pytest.mark.parametrize("name", ["ddpmpp-edm", "ncsnpp-edm", "skip-edm", "adm-edm", "edm2"])
def test_every_parameter_is_given_and_has_its_shape(name):
  outer, inner = edm.options(cases.notes(name))
  file, _ = edm.NETWORKS[outer.model_type]
  own = outer.own(arrays(name))
  params = file.convert(own, inner)
  x = jnp.zeros((1, outer.img_resolution, outer.img_resolution, 3))
  shapes = jax.eval_shape(file.build(inner).init, jax.random.key(0), x, jnp.zeros(1))["params"]
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
  assert all(leaf.dtype == np.float32 and leaf.any() for leaf in jax.tree.leaves(params))


@pytest.mark.slow
@pytest.mark.parametrize("file, options", [
  (song_unet, song_unet.SongUNet(32, 3, 3, 10, 9, channel_mult=(2, 2, 2))),
  (song_unet, song_unet.SongUNet(32, 3, 3, 0, 9, channel_mult=(2, 2, 2), embedding_type="fourier",
    encoder_type="residual", channel_mult_noise=2, resample_filter=(1, 3, 3, 1))),
  (dhariwal_unet, dhariwal_unet.DhariwalUNet(64, 3, 3, label_dim=1000)),
])  # fmt: skip
def test_published_sizes(file, options):
  """As many parameters as the original's, which counts no frequencies, and has a bias of the class."""
  x = jax.ShapeDtypeStruct((1, options.img_resolution, options.img_resolution, 3), jnp.float32)
  t = jax.ShapeDtypeStruct((1,), jnp.float32)
  shapes = jax.eval_shape(file.build(options).init, jax.random.key(0), x, t)["params"]
  count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
  width = options.model_channels
  # n rows of a condition are of 4 width here; there of width (of 2 width in NCSN++)
  folded = {10: 10 * 3 * width - width + 9 * 3 * width, 0: 9 * 2 * width + width, 1000: 0}[options.label_dim]
  assert count - folded == {10: 55735299, 0: 56397827, 1000: 295899267}[options.label_dim]


@pytest.mark.parametrize(
  "file, name", [(song_unet, "ddpmpp-edm"), (dhariwal_unet, "adm-edm"), (edm2, "edm2")]
)
def test_arrays_that_do_not_fit_are_refused_in_one_sentence(file, name):
  outer, inner = edm.options(cases.notes(name))
  own = outer.own(arrays(name))
  first = next(key for key in own if key.endswith("_conv.weight"))
  with pytest.raises(UserError, match=f"1 missing: {first}; give the options") as error:
    file.convert({key: value for key, value in own.items() if key != first}, inner)
  assert "\n" not in str(error.value)
  with pytest.raises(UserError, match="2 unknown: more, other;"):
    file.convert(own | {"more": own[first], "other": own[first]}, inner)
  with pytest.raises(UserError, match=rf"1 that differ: {first} \(3, 3\) instead of \("):
    file.convert(own | {first: np.zeros((3, 3))}, inner)
  for key in [key for key in own if key.endswith("resample_filter")][:1]:
    with pytest.raises(UserError, match=f"1 that differ: {key} of other values"):
      file.convert(own | {key: 2 * own[key]}, inner)
  with pytest.raises(UserError, match=r"\d+ missing: [a-z0-9_.]+, [a-z0-9_.]+, [a-z0-9_.]+, \.\.\.; give"):
    file.convert({}, inner)


@pytest.mark.parametrize("changes, message", [
  ({"class_name": "Precond2"}, "'Precond2' is no preconditioner that is known here"),
  ({"init_kwargs": {"model_type": "DiT"}}, "'DiT' is no network of EDM that is known here"),
  ({"init_kwargs": {"widht": 3}}, "DhariwalUNet has no widht: its options are img_resolution"),
  ({"init_args": [32]}, "EDMPrecond has to be told img_channels"),
])  # fmt: skip
def test_snapshots_of_other_classes_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    edm.options({"class_name": "EDMPrecond", "init_args": [32, 3], "init_kwargs": {}} | changes)


@pytest.mark.parametrize("changes, message", [
  ({"channel_mult_noise": 2}, "those with channel_mult_noise=1 are"),
  ({"encoder_type": "none"}, "encoder_type='none' is not known here"),
  ({"resample_filter": (1, 2)}, "resample_filter="),
  ({"embedding_type": "zero"}, "those with embedding_type='positional' or 'fourier' are"),
])  # fmt: skip
def test_song_unets_that_nobody_published_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    song_unet.build(song_unet.SongUNet(32, 3, 3, **changes))


def test_a_song_unet_is_the_unet_of_the_library():
  """DDPM++ and NCSN++ as EDM trains them are configurations of `networks.UNet`."""
  assert song_unet.build(song_unet.SongUNet(32, 3, 3, channel_mult=(2, 2, 2))) == networks.UNet(
    width=128, channel_multipliers=(2, 2, 2), num_res_blocks=4, attention_resolutions=(16,), dropout=0.1,
    fir_kernel=(1, 1),
  )  # fmt: skip
