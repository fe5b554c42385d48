"""Scheduler configs of diffusers: their times, sigmas and steps, against what diffusers 0.42 did, recorded by
`make_diffusers_recorded.py`; and what is said of their faults."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from make_diffusers_recorded import CASES, FILE, LOGITS, MEANS, STDS, answer, posterior_mean
from solver_cases import marginal_moments, slope, table_moments

from diffusion import denoisers, guidance, oracles, processes, solvers
from diffusion.solvers.diffusers.defaults import DEFAULTS
from diffusion.solvers.diffusers.levels import betas_of
from diffusion.solvers.diffusers.options import read
from diffusion.solvers.diffusers.schedule import levels_of

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def _recorded():
  with np.load(FILE) as file:
    values, shapes = file["values"], json.loads(str(file["shapes"]))
  ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
  return {key: part.reshape(shape) for (key, shape), part in zip(shapes.items(), np.split(values, ends[:-1]))}


RECORDED = _recorded()


# Cases where float32 decides to which whole number one timestep is cut off: 998 for 999, once 913 for 912.
CUT = ["DPMSolverMultistep exponential", "DPMSolverMultistep beta", "DPMSolverMultistep karras, cosine"]
CUT += ["UniPCMultistep flow, karras"]

# Cases where float32 loses more than 1e-5 of a sample, in diffusers: a timestep cut to another number, the
# cosine table's 1 - abar, weights of high order as differences of logarithms.
LOSSY = [*CUT, "DDPM large, cosine", "DDIM trailing, eta", "EulerDiscrete log linear, sample"]
LOSSY += ["DEISMultistep flow", "DEISMultistep order 3", "UniPCMultistep no lower order"]


def config(scheduler, **options):
  return {"_class_name": f"{scheduler}Scheduler"} | options


def built(name, dtype):
  """(config, process, table) of a recorded case."""
  cls, options, steps, call = CASES[name]
  given = {"_class_name": cls} | options
  arguments = {key: value for key, value in call.items() if key != "begin"}
  return given, *solvers.from_diffusers(given, steps, dtype=dtype, **arguments)


def states_of(table, process, x, noise, bound=np.inf):
  """All points of a table [N+1, B, D] by its definition, in float64, on the mixture of the recorded cases,
  whose x0 stays within a bound."""
  leaves = (table.g, table.h, table.A, table.B, table.C, table.w, table.start)
  g, h, A, B, C, w, start = (np.asarray(leaf, np.float64) for leaf in leaves)
  slots = start[:, 0, None, None] * x
  states = [np.tensordot(w[0], slots, 1)]
  for i in range(len(g)):
    marginal = process.marginal(table.t[i])
    said = answer(table.view, states[-1], float(marginal.alpha), float(marginal.sigma)).clip(-bound, bound)
    kept = g[i] * states[-1] + h[i] * said
    fresh = C[i].sum(axis=-1)[:, None, None] * noise[i]
    slots = np.tensordot(A[i], slots, 1) + B[i][:, None, None] * kept + fresh
    states.append(np.tensordot(w[i + 1], slots, 1))
  return np.array(states)


def clipped_states(solver, process, x):
  """The same of DDIM that clips: the network's own noise beside a clipped x0."""
  states = [x]
  for t, signal, noise in zip(solver.t[:-1], solver.signal, solver.noise):
    m = process.marginal(t)
    x0, eps = (answer(view, states[-1], float(m.alpha), float(m.sigma)) for view in ("x0", "eps"))
    states.append(signal * x0.clip(-solver.bound, solver.bound) + noise * eps)
  return np.array(states)


@pytest.mark.parametrize("name", CASES)
def test_times_sigmas_and_trajectories_are_those_of_diffusers(name):
  """Against diffusers run in float64, to rounding: 1e-11 of a state's size; sigmas and timesteps likewise.
  Its own float32 run has the same up to its rounding: sigmas within 3e-4 of relative error (the product of
  1,000 factors, and 1 - abar at the first rung), timesteps within one where float32 decides which whole
  number a timestep is cut to."""
  cls, options, steps, call = CASES[name]
  given, process, table = built(name, np.float64)
  found = levels_of(cls, read(given, {})[1], steps, call.get("mu"))
  fed, sigma = found.fed, found.sigma
  if "Heun" in cls:  # two evaluations a step but for the last
    fed = np.append(fed[:1], np.repeat(fed[1:], 2))
    sigma = np.concatenate([sigma[:1], np.repeat(sigma[1:-1], 2), sigma[-1:]])
  of = lambda key: RECORDED[f"{name}|{key}"]
  np.testing.assert_allclose(fed, of("timesteps"), rtol=1e-11, atol=1e-9)
  if of("sigmas").size:
    # With log-linear sigmas there is one more, which no step reaches.
    np.testing.assert_allclose(sigma, of("sigmas")[: len(sigma)], rtol=1e-11)
    np.testing.assert_allclose(sigma, of("float32 sigmas")[: len(sigma)], rtol=3e-4)
  off = np.abs(fed - of("float32 timesteps"))
  assert (off > 2e-3).sum() == (name in CUT) and off.max() <= 1

  x, noise = RECORDED["noise"][0] * float(process.prior_std), RECORDED["noise"][1:]
  bound = options.get("clip_sample_range", 1.0) if "denoiser_clips" in call else np.inf
  states = clipped_states(table, process, x) if "DDIM" in cls and table.views == ("x0", "eps") else None
  states = states_of(table, process, x, noise, bound) if states is None else states
  assert len(states) == table.cost + 1 and np.isfinite(states).all()
  size = np.abs(of("states")).max(axis=(1, 2), keepdims=True)
  np.testing.assert_allclose(states / size, of("states") / size, rtol=0, atol=1e-11)
  atol = 1e-3 if name in LOSSY else 1e-5
  np.testing.assert_allclose(states[-1] / size[-1], of("float32 sample") / size[-1], rtol=0, atol=atol)


# One of each rule without noise, on the library's own oracle and through its own executor.
SAMPLED = [
  "DDIM linspace, v", "DDIM clipped", "DDIM thresholding, v", "PNDM with the start", "EulerDiscrete "
  "karras", "EulerDiscrete trailing, zero snr, v",
  "HeunDiscrete karras, v", "LMSDiscrete linspace", "DPMSolverMultistep order 3, karras, 20 steps",
  "DPMSolverMultistep flow", "DPMSolverSinglestep order 3", "UniPCMultistep order 3, trailing, v",
  "DEISMultistep order 3", "EDMDPMSolverMultistep default", "FlowMatchEulerDiscrete shift",
]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_sampling_with_the_oracle_of_the_library_gives_the_same(name):
  """In float32 by `solvers.sample`, from a draw of the process's prior: 1e-5 of the size of a sample."""
  _, process, table = built(name, np.float32)
  denoiser = oracles.gaussian_mixture(process, np.exp(LOGITS), MEANS, STDS**2)
  x = jnp.asarray(RECORDED["noise"][0] * float(process.prior_std), jnp.float32)
  out = solvers.sample(denoiser, table, x)
  expected = RECORDED[f"{name}|states"][-1]
  np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_every_scheduler_is_recorded():
  assert {case[0] for case in CASES.values()} == set(DEFAULTS)


def same(one, other, slots=None):
  """Whether two tables have the same times and give the same points for the same network."""
  x, noise = RECORDED["noise"][0], RECORDED["noise"][1:]
  process = processes.vp_ladder(betas_of(SD | dict(num_train_timesteps=1000)))
  np.testing.assert_allclose(one.t, other.t, rtol=1e-12)
  a, b = (states_of(table, process, x, noise) for table in (one, other))
  np.testing.assert_allclose(a[1:], b[1:], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
  "scheduler, options, solver, arguments",
  [
    ("DPMSolverMultistep", dict(solver_order=1), "ddim", {}),
    ("DPMSolverMultistep", dict(solver_order=2, lower_order_final=False), "dpmpp_2m", {}),
    ("DPMSolverMultistep", dict(solver_order=2, solver_type="heun", lower_order_final=False), "res_2m", {}),
    ("UniPCMultistep", dict(solver_order=2), "unipc", dict(order=2, lower_order_final=True)),
    ("UniPCMultistep", dict(solver_order=3), "unipc", dict(order=3, lower_order_final=True)),
  ],
)
def test_where_the_rule_is_the_same_so_is_the_table(scheduler, options, solver, arguments):
  """On whole timesteps a scheduler is a solver of this library on the grid of its times, here for a network
  that answers x0."""
  given = config(scheduler, prediction_type="sample", timestep_spacing="trailing", **SD, **options)
  process, table = solvers.from_diffusers(given, 8, dtype=np.float64)
  same(table, solvers.build(solver, process, 8, grid=table.t, dtype=np.float64, **arguments))


ORDERS = [
  ("DDIM", dict(clip_sample=False), 1),
  ("PNDM", {}, 2),
  *[("DPMSolverMultistep", dict(solver_order=k), min(k, 2)) for k in (1, 2, 3)],
  ("DPMSolverMultistep", dict(solver_order=2, algorithm_type="sde-dpmsolver++", solver_type="heun"), 2),
  *[("DPMSolverSinglestep", dict(solver_order=k), k) for k in (1, 2, 3)],
  ("UniPCMultistep", dict(solver_order=1), 2),
  *[("DEISMultistep", dict(solver_order=k), k) for k in (1, 2)],
]


@pytest.mark.parametrize("scheduler, options, order", ORDERS)
def test_orders_are_those_that_are_claimed(scheduler, options, order):
  """On the exact moments of a Gaussian over a fine table, from noise to t = 1/4: multistep 'order 3' is of
  order 2, as the linter says. Slopes between 96 and 192 steps are within -0.3 and 0.6 of the order."""
  errors, count = [], 192 * 128
  fine = dict(num_train_timesteps=count, beta_start=0.1 / count, beta_end=8 / count)
  options = options | (
    dict(final_sigmas_type="sigma_min") if "DPM" in scheduler or "UniPC" in scheduler else {}
  )
  options = options | ({} if "Single" in scheduler else dict(timestep_spacing="trailing"))
  for n in (96, 192):
    process, table = solvers.from_diffusers(config(scheduler, **fine, **options), n, dtype=np.float64)
    rows = table.cost - n // 4
    first = {key: getattr(table, key)[: rows + 1] for key in ("t", "w")}
    first |= {key: getattr(table, key)[:rows] for key in ("g", "h", "A", "B", "C", "hook")}
    table = table.replace(**first)
    ends = [marginal_moments(process, 0.7, 0.25, t) for t in (table.t[0], table.t[-1])]
    out = table_moments(process, table, 0.7, 0.25, ends[0])
    errors.append(abs(out.mean - ends[1].mean) + abs(out.variance**0.5 - ends[1].variance ** 0.5))
  assert table.order == order and -0.3 < slope((96, 192), errors) - order < 0.6, errors


def test_the_last_level_under_a_shift_and_under_two():
  """The numbers that the linter names."""
  process, table = solvers.from_diffusers(config("FlowMatchEulerDiscrete", shift=3.0), 8, dtype=np.float64)
  assert table.t[-2] == pytest.approx(9 / 1008) and pytest.approx(0.00893, rel=1e-3) == 9 / 1008
  once = solvers.grids.flow_shift(process, 1000, shift=3.0, t_min=0.0)
  assert once[-2] == pytest.approx(3 / 1002) and pytest.approx(0.00299, rel=2e-3) == 3 / 1002


@pytest.mark.parametrize("fault", [dict(solver_type="bh1"), dict(lower_order_final=False)])
def test_unipc_ends_at_x0_where_diffusers_is_not_finite(fault):
  """A step to sigma = 0 has one finite limit: the x0 of its start, and that is what comes out."""
  given = config("UniPCMultistep", **SD, **fault)
  process, table = solvers.from_diffusers(given, 6, dtype=np.float64)
  states = states_of(table, process, RECORDED["noise"][0], RECORDED["noise"][1:])
  m = process.marginal(table.t[-2])
  expected = posterior_mean(states[-2], float(m.alpha), float(m.sigma))
  corrected = states[-1]
  assert np.abs(corrected - expected).max() < 1e-12


@pytest.mark.parametrize("n", [61, 103])
def test_trailing_steps_are_as_many_as_were_asked_for(n):
  """diffusers has one more, at timestep -1."""
  _process, table = solvers.from_diffusers(config("DDIM", clip_sample=False, timestep_spacing="trailing"), n)
  assert table.cost == n and table.t[0] == 1 and np.all(np.diff(table.t) < 0)
  assert table.t[-2] == np.float32(np.round(1000 / n) / 1000)


FAULTS = {
  "double shift": (config("FlowMatchEulerDiscrete", shift=3.0), 8, "0.00893 and not 0.00299"),
  "steps that leave the end out": (config("DDIM", clip_sample=False), 600, "starts at timestep 599 of 999"),
  "steps off": (config("DDIM", clip_sample=False, timestep_spacing="trailing"), 7, "142 timesteps on"),
  "one step too many": (config("EulerDiscrete", timestep_spacing="trailing"), 61, "62 timesteps for 61"),
  "one step at the wrong end": (config("EulerDiscrete"), 1, "evaluates timestep 0"),
  "repeated timesteps": (config("DPMSolverMultistep", use_karras_sigmas=True), 100, "repeat the one before"),
  "first repeated": (
    config("UniPCMultistep", use_karras_sigmas=True, sigma_max=30.0, **SD),
    8,
    "fails at the last step",
  ),
  "first cut off": (
    config("DPMSolverMultistep", use_karras_sigmas=True, beta_schedule="squaredcos_cap_v2"),
    8,
    "whether the first is 999 or 998, comes twice",
  ),
  "zero snr floored": (
    config("EulerDiscrete", rescale_betas_zero_snr=True, timestep_spacing="trailing"),
    10,
    "noise would fall towards the end",
  ),
  "no denoising": (config("DEISMultistep"), 10, "ends at sigma = 0.01 and not at 0"),
  "no denoising of DDIM": (
    config("DDIM", clip_sample=False, set_alpha_to_one=False),
    10,
    "ends at sigma = 0.01",
  ),
  "a step that does not move": (config("SASolver", use_karras_sigmas=True), 10, "moves nothing"),
  "NaN": (config("UniPCMultistep", solver_type="bh1"), 10, "NaN in diffusers"),
  "inf": (config("UniPCMultistep", lower_order_final=False), 10, "inf in diffusers"),
  "zero snr, eps": (
    config("EulerDiscrete", rescale_betas_zero_snr=True, timestep_spacing="trailing", **SD),
    10,
    "predicts v",
  ),
  "zero snr, eps, DDIM": (
    config("DDIM", rescale_betas_zero_snr=True, clip_sample=False),
    10,
    "no signal",
  ),
  "zero snr, leading": (
    config("DDIM", rescale_betas_zero_snr=True, clip_sample=False, prediction_type="v_prediction"),
    10,
    "pure noise and the run starts at 900",
  ),
  "flow start": (
    config("DPMSolverMultistep", use_flow_sigmas=True, prediction_type="flow_prediction"),
    10,
    "0.999",
  ),
  "flow and karras": (
    config(
      "DPMSolverMultistep", use_flow_sigmas=True, use_karras_sigmas=True, prediction_type="flow_prediction"
    ),
    10,
    "gives NaN",
  ),
  "one step": (config("FlowMatchEulerDiscrete", shift_terminal=0.1), 1, "gives NaN"),
  "order": (config("DPMSolverMultistep", solver_order=3), 10, "is of order 2"),
  "clipping": (config("DDPM"), 10, "static_threshold"),
  "thresholding": (config("DPMSolverMultistep", thresholding=True), 10, "whatever the quantile"),
  "calls": (config("PNDM"), 10, "10 steps are 19 evaluations"),
  "scale of noise": (config("EDMEuler"), 10, "80.0062"),
  "told another level": (config("EulerDiscrete", interpolation_type="log_linear"), 10, "the network is told"),
  "ignored": (config("PNDM", clip_sample=False), 10, "ignored"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_linter_says_what_is_wrong(fault):
  given, steps, said = FAULTS[fault]
  found = solvers.lint_diffusers(given, steps)
  assert any(said in sentence for sentence in found), found
  assert all(sentence.endswith(".") and "\n" not in sentence for sentence in found)


@pytest.mark.parametrize(
  "given",
  [
    config("DDIM", clip_sample=False, timestep_spacing="trailing"),
    config("EulerDiscrete", timestep_spacing="trailing"),
    config("DPMSolverMultistep", timestep_spacing="trailing", **SD),
    config("FlowMatchEulerDiscrete"),
    config("LCM"),
  ],
)
def test_the_linter_is_silent_where_nothing_is_wrong(given):
  assert solvers.lint_diffusers(given, 10) == []


@pytest.mark.parametrize(
  "given, arguments, said",
  [
    ({"_class_name": "DDIMSheduler"}, {}, "did you mean 'DDIMScheduler'"),
    ({}, {}, "_class_name is None"),
    (config("DDIM", clip_samples=False), {}, "did you mean 'clip_sample'"),
    (config("DDIM", beta_schedule="sigmoid"), {}, "cannot be expressed"),
    (config("DDIM"), dict(denoiser_clips=True), "as its solver here does"),
    (config("DDIM", thresholding=True, sample_max_value=2.0), {}, "by a quantile"),
    (config("DDPM"), {}, "denoiser_clips=True"),
    (config("DDPM", clip_sample=False, variance_type="learned_range"), {}, "variance_type='learned_range'"),
    (config("DDPM", clip_sample=False), dict(denoiser_clips=True), "does not clip"),
    (config("EulerDiscrete"), dict(eta=0.5), "eta=0.5"),
    (config("DDIM", clip_sample=False), dict(eta=1.5), r"lies in \[0, 1\]"),
    (config("FlowMatchEulerDiscrete", use_dynamic_shifting=True), {}, "needs mu"),
    (config("FlowMatchEulerDiscrete", invert_sigmas=True), {}, "invert_sigmas=True"),
    (config("DPMSolverMultistep", algorithm_type="dpmsolver"), {}, "final_sigmas_type='sigma_min'"),
    (config("UniPCMultistep", predict_x0=False), {}, "final_sigmas_type='sigma_min'"),
    (config("LMSDiscrete", use_karras_sigmas=True, use_beta_sigmas=True), {}, "leave one"),
    (config("DPMSolverMultistep", prediction_type="flow_prediction"), {}, "mixes two processes"),
    (config("DDIM", clip_sample=False, steps_offset=200), {}, "smaller steps_offset"),
    (
      config("DPMSolverMultistep", use_beta_sigmas=True, thresholding=True),
      dict(denoiser_clips=True),
      "whole timesteps",
    ),
    ("no/such/file.json", {}, "is no file"),
  ],
)
def test_what_cannot_be_expressed_is_one_sentence(given, arguments, said):
  with pytest.raises(ValueError, match=said) as caught:
    solvers.from_diffusers(given, 8, **arguments)
  assert "\n" not in str(caught.value)


def test_a_config_may_be_a_file_or_its_folder(tmp_path):
  path = tmp_path / "scheduler_config.json"
  given = config("DDIM", clip_sample=False, _diffusers_version="0.42.0")
  path.write_text(json.dumps(given))
  tables = [solvers.from_diffusers(source, 5)[1] for source in (path, tmp_path, str(path), given)]
  for table in tables[1:]:
    jax.tree.map(np.testing.assert_array_equal, table, tables[0])


def test_clipping_is_left_to_the_denoiser():
  """A DDPM run to the end without noise left lies within the bound that `static_threshold` keeps."""
  process, table = solvers.from_diffusers(config("DDPM", clip_sample_range=0.5), 20, denoiser_clips=True)
  oracle = oracles.gaussian_mixture(process, np.exp(LOGITS), MEANS, STDS**2)
  keys = jax.random.split(jax.random.key(0), 16)
  x = solvers.sample(guidance.static_threshold(0.5)(oracle), table, process.prior(keys, (2,)), keys=keys)
  assert (
    float(jnp.abs(x).max()) <= 0.5 + 1e-6 < float(jnp.abs(solvers.sample(oracle, table, x, keys=keys)).max())
  )


def test_the_denoiser_must_belong_to_the_process():
  _process, table = solvers.from_diffusers(config("EulerDiscrete"), 4)
  other = denoisers.from_function(lambda params, x, t, cond: x, processes.ddpm_ladder(), denoisers.eps())
  with pytest.raises(ValueError, match="build the solver with denoiser.process"):
    solvers.sample(other.replace(process=processes.vp_linear()), table, jnp.ones((2, 2)))
