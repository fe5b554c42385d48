"""What every solver promises about its program: calls counted, one trace, each sample on its own."""

import every_solver
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_solver import EVERY
from flax import struct
from solver_cases import pad

from diffusion import denoisers, oracles, processes, solvers
from diffusion.denoisers.contract import WithoutParameters

PROCESS = processes.vp_linear()
STEPS, BATCH = 4, 8
traces, calls = [], []


def network(params, x, t, cond):
  """Noise prediction for data ~ N(0, 1), times a parameter; counts its traces and its calls."""
  traces.append(x.shape)
  jax.debug.callback(lambda: calls.append(1))
  m = PROCESS.marginal(t)
  shift = 0.0 if cond is None else 0.1 * cond["label"].astype(x.dtype)[:, None]
  return params * m.sigma[:, None] * x + shift


def denoiser(scale=1.0):
  return denoisers.from_function(network, PROCESS, denoisers.eps(), jnp.float32(scale))


def inputs(seed=0, batch=BATCH):
  keys = jax.random.split(jax.random.key(seed), batch)
  return jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys), keys


def alike(name, **options):
  """A solver for STEPS steps; tables with the slots and noises of the widest, so that those of as many rows
  share a program."""
  solver = solvers.build(name, PROCESS, STEPS, **options)
  return (
    pad(solver, solver.num_steps) if isinstance(solver, solvers.Table) and solver.view == "x0" else solver
  )


@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_calls_traces_and_independence(name):
  entry = solvers.SOLVERS[name]
  solver = alike(name)
  assert solver.cost == solvers.build(name, PROCESS, STEPS).cost
  x, keys = inputs()
  cond = {"label": jnp.arange(BATCH)}
  run = lambda d, s, x, keys, cond: np.asarray(solvers.sample(d, s, x, keys=keys, cond=cond))
  out = run(denoiser(), solver, x, keys, cond)
  assert np.isfinite(out).all()

  # Exactly as many calls as the solver says.
  jax.effects_barrier()
  traces.clear(), calls.clear()
  again = run(denoiser(), solver, x, keys, cond)
  jax.effects_barrier()
  assert len(calls) == solver.cost
  np.testing.assert_array_equal(again, out)

  # New parameters, keys, classes and times: no new trace, another answer.
  other_grid = entry.grid(PROCESS.replace(t_max=0.9), STEPS)
  for args in (
    (denoiser(0.9), solver, x, keys, cond),
    (denoiser(), solver, x, keys, {"label": jnp.arange(BATCH) + 1}),
    (denoiser(), alike(name, grid=other_grid), x, keys, cond),
    (denoiser(), solver, x, inputs(5)[1], cond),
  ):
    changed = run(*args)
    assert np.abs(changed - out).max() > 1e-6 or (args[3] is not keys and not entry.stochastic)
  assert not traces

  # Bit for bit: permute the rows; replace the other rows by anything.
  assert entry.per_index
  order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
  moved = run(denoiser(), solver, x[order], keys[order], jax.tree.map(lambda leaf: leaf[order], cond))
  np.testing.assert_array_equal(moved, out[order])
  x2, keys2 = inputs(9)
  mixed = run(
    denoiser(),
    solver,
    x2.at[:3].set(100 * x[:3]).at[3:].set(x[3:]),
    jnp.concatenate([keys2[:3], keys[3:]]),
    cond,
  )
  np.testing.assert_array_equal(mixed[3:], out[3:])
  assert not traces

  # Another batch size: to rounding.
  part = run(denoiser(), solver, x[:3], keys[:3], jax.tree.map(lambda leaf: leaf[:3], cond))
  np.testing.assert_allclose(part, out[:3], rtol=1e-5, atol=1e-5)

  # Spread over eight devices: to rounding.
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  place = lambda tree: jax.device_put(
    tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  )
  spread = solvers.sample(denoiser(), solver, place(x), keys=place(keys), cond=place(cond))
  np.testing.assert_allclose(np.asarray(spread), out, rtol=1e-5, atol=1e-5)


OTHERS = [name for name in EVERY if name not in solvers.SOLVERS]


@pytest.mark.parametrize("name", EVERY)
def test_a_solver_states_what_it_is(name):
  """Attributes of the contract, before anything runs."""
  case = EVERY[name]
  solver = case.build(STEPS)
  assert isinstance(solver.name, str) and solver.name and solver.order in (None, 1, 2, 3, 4)
  assert solver.loop in ("scan", "until_done") and solver.acts_on in (np.floating, np.integer)
  assert isinstance(solver.stochastic, bool) and int(solver.num_steps) > 0
  assert solver.cost == (solver.num_steps if solver.loop == "scan" else None)
  x, keys = case.start(inputs()[1]), inputs()[1]
  state = solver.begin(x, keys)
  asked, t, views = solver.ask(state, 0)
  assert (
    asked.shape == x.shape and asked.dtype == x.dtype and t.shape == x.shape[:1] and views == solver.views
  )
  if solver.times is not None:
    np.testing.assert_array_equal(t, np.full(BATCH, np.asarray(solver.times)[0], np.float32))


# Of those that jump, one of each loop and of each kind of question; the others are in the slow tier.
JUMPS = ("masked_ancestral", "first_hitting", "tau_leaping", "svdd, masked")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow)
    if EVERY[name].build(STEPS).acts_on is np.integer and name not in JUMPS
    else name
    for name in OTHERS
  ],
)
def test_calls_traces_and_independence_of_every_other_kind(name):
  """Calls counted by a callback equal `cost`, or what the slowest sample needed; new numbers trace nothing;
  each row is alone."""
  case = EVERY[name]
  solver = case.build(STEPS)
  _, keys = inputs(3)
  x = case.start(keys)
  run = lambda x, keys, denoiser=case.denoiser(): jax.tree.map(
    np.asarray, solvers.sample(denoiser, solver, x, keys=keys, evaluations=True)
  )
  run(x, keys)
  jax.effects_barrier()
  every_solver.traces.clear(), every_solver.calls.clear()
  out, count = run(x, keys)
  jax.effects_barrier()
  assert len(every_solver.calls) == count.max() and (solver.cost is None or set(count) == {solver.cost})

  other = case.start(inputs(5)[1])
  changed, _ = run(other, keys)
  assert jax.tree.leaves(changed)[0].dtype == x.dtype
  elsewhere, _ = run(x, keys, case.denoiser(0.5))
  assert any((a != b).any() for a, b in zip(jax.tree.leaves(elsewhere), jax.tree.leaves(out)))
  assert not every_solver.traces

  order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
  moved, _ = run(x[order], keys[order])
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[order]), moved, out)
  mixed, _ = run(x.at[:3].set(other[:3]), keys)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[3:], b[3:]), mixed, out)
  assert not every_solver.traces


@pytest.mark.parametrize(
  "name", ["ddim", "dpmpp_2m_sde", "predictor_corrector", "adaptive_sde", "masked_ancestral"]
)
def test_post_step_sees_the_prediction_that_finished_the_step(name):
  """Its x0, or logits, is what the denoiser says at the last point that was asked, which the sample's own
  path tells: here written into x."""
  case = EVERY[name]
  solver = case.build(STEPS)
  _, keys = inputs(3)
  x = case.start(keys)

  def write(x, t, keys, prediction):
    said = prediction.x0 if x.dtype == jnp.float32 else jnp.argmax(prediction.logits, axis=-1)
    return said.astype(x.dtype)

  views = ("x0",) if solver.acts_on is np.floating else ()
  out = solvers.sample(case.denoiser(), solver, x, keys=keys, post_step=write, views=views)
  if name == "ddim":  # by hand: each point is the prediction at the one before
    for t in solver.t[:-1]:
      x = case.denoiser()(x, jnp.full(BATCH, t), views=("x0",)).x0
    np.testing.assert_allclose(out, x, rtol=1e-5, atol=1e-6)
  elif name == "masked_ancestral":
    for t in solver.t[:-1]:
      x = jnp.argmax(case.denoiser()(x, jnp.full(BATCH, t), views=("logits",)).logits, axis=-1).astype(
        x.dtype
      )
    np.testing.assert_array_equal(out, x)
  assert bool(jnp.isfinite(out).all())


def test_a_state_may_be_a_pytree():
  """Two arrays of one batch run through a table as the same numbers in one array do."""

  @struct.dataclass
  class Split(WithoutParameters):
    process = PROCESS

    def __call__(self, x, t, cond=None, *, views, key=None, train=False):
      found = denoiser()(jnp.concatenate([x["a"], x["b"][:, None]], axis=1), t, views=views)
      return jax.tree.map(lambda leaf: {"a": leaf[:, :2], "b": leaf[:, 2]}, found)

  x, keys = inputs()
  whole, tree = x, {"a": x[:, :2], "b": x[:, 2]}
  for name in ("ddim", "unipc", "heun"):
    solver = solvers.build(name, PROCESS, STEPS)
    out, states = solvers.sample(Split(), solver, tree, trajectory=True)
    expected, path = solvers.sample(denoiser(), solver, whole, trajectory=True)
    np.testing.assert_allclose(
      jnp.concatenate([out["a"], out["b"][:, None]], 1), expected, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(states["b"], path[..., 2], rtol=1e-5, atol=1e-6)
  noisy = solvers.sample(Split(), solvers.build("ancestral", PROCESS, STEPS), tree, keys=keys)
  assert noisy["b"].shape == (BATCH,) and bool(jnp.isfinite(noisy["a"]).all())


@pytest.mark.parametrize(
  "name",
  ["dpmpp_2m", *(pytest.param(one, marks=pytest.mark.slow) for one in ("ancestral", "predictor_corrector"))],
)
def test_a_rematerialised_scan_has_the_same_values_and_gradients(name):
  """With 7 evaluations, which chunks of 3 do not divide, and with 9 or more, with the trajectory or not."""
  own = denoisers.from_function(silent, PROCESS, denoisers.eps(), jnp.float32(1.0))
  x, keys = inputs()
  for n in (7, 9):
    solver = solvers.build(name, PROCESS, n)

    def loss(scale, x, remat):
      out, states = solvers.sample(own.with_params(scale), solver, x, keys=keys, trajectory=True, remat=remat)
      return jnp.sum(out**2) + 0.1 * jnp.sum(states**2)

    values = [jax.value_and_grad(loss, (0, 1))(jnp.float32(0.9), x, remat) for remat in (False, True)]
    for a, b in zip(*map(jax.tree.leaves, values)):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def test_solvers_of_one_shape_share_one_program():
  """A name is not part of the program: DDIM, Euler and a fitted table of one slot run the same one."""
  grid = solvers.grids.uniform(PROCESS, 6)
  x, keys = inputs()
  first = solvers.ddim(PROCESS, grid)
  solvers.sample(denoiser(), first, x, keys=keys)
  traces.clear()
  solvers.sample(denoiser(), solvers.euler(PROCESS, grid), x, keys=keys)
  solvers.sample(denoiser(), first.replace(B=first.B * np.float32(0.9)), x, keys=keys)
  assert not traces


def test_guidance_scale_is_data():
  from diffusion import guidance

  x, _ = inputs()
  cond = {"label": jnp.arange(BATCH)}
  solver = solvers.build("dpmpp_2m", PROCESS, 5)
  outs = []
  for i, weight in enumerate((0.5, 1.5)):
    if i:
      traces.clear()
    outs.append(solvers.sample(guidance.classifier_free(weight)(denoiser()), solver, x, cond=cond))
  assert not traces and float(abs(outs[0] - outs[1]).max()) > 1e-4


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "predictor_corrector"])
def test_inside_a_users_own_vmap_shard_map_and_pmap(name):
  solver = solvers.build(name, PROCESS, STEPS)
  x, keys = inputs(1, 16)
  own = denoiser()
  run = lambda x, keys: solvers.sample(own, solver, x, keys=keys)
  expected = np.asarray(run(x, keys))
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  data = jax.sharding.PartitionSpec("data")
  quiet = denoisers.from_function(silent, PROCESS, denoisers.eps(), jnp.float32(1.0))
  run = lambda x, keys: solvers.sample(quiet, solver, x, keys=keys)
  close = lambda out: np.testing.assert_allclose(
    np.asarray(out).reshape(16, 3), expected, rtol=1e-5, atol=1e-5
  )
  close(jax.vmap(run)(x.reshape(4, 4, 3), keys.reshape(4, 4)))
  close(jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(data, data), out_specs=data))(x, keys))
  close(jax.pmap(run)(x.reshape(8, 2, 3), keys.reshape(8, 2)))


def silent(params, x, t, cond):
  """`network` without its counters, which do not vectorise."""
  return params * PROCESS.marginal(t).sigma[:, None] * x


def test_a_process_of_the_same_numbers_fits_wherever_they_are():
  """In float32 on a device, and cut short at either end; a table says so without being another program."""
  x, _ = inputs()
  table = solvers.build("ddim", PROCESS, STEPS)
  out = solvers.sample(denoiser(), table, x)
  traces.clear()
  for process in (PROCESS.replace(t_max=0.8), PROCESS.replace(t_min=0.01)):
    solvers.sample(denoiser(), solvers.build("ddim", process, STEPS), x)
  assert not traces
  on_device = denoisers.from_function(
    network, jax.tree.map(jnp.float32, PROCESS), denoisers.eps(), jnp.float32(1.0)
  )
  np.testing.assert_allclose(solvers.sample(on_device, table, x), out, rtol=1e-6)


def test_no_trajectory_unless_asked_for():
  """The scan carries the state and stacks nothing; asked for, the stack starts at the noise and ends at the
  sample."""
  x, _keys = inputs()
  solver = solvers.build("dpmpp_2m", PROCESS, 7)
  own = denoisers.from_function(silent, PROCESS, denoisers.eps(), jnp.float32(1.0))

  def stacked(trajectory):
    jaxpr = jax.make_jaxpr(lambda x: solvers.sample(own, solver, x, trajectory=trajectory))(x)
    (inner,) = [
      e
      for e in jaxpr.eqns
      if "jaxpr" in e.params and any(f.primitive.name == "scan" for f in e.params["jaxpr"].eqns)
    ]
    (scan,) = [e for e in inner.params["jaxpr"].eqns if e.primitive.name == "scan"]
    return sum(out.aval.shape[:1] == (solver.num_steps,) for out in scan.outvars)

  assert stacked(False) == 0 and stacked(True) == 1
  out, states = solvers.sample(own, solver, x, trajectory=True)
  assert states.shape == (8, *x.shape)
  np.testing.assert_array_equal(states[0], x)
  np.testing.assert_array_equal(states[-1], out)
  np.testing.assert_array_equal(out, solvers.sample(own, solver, x))


def test_memory_does_not_grow_with_the_number_of_steps():
  x, _ = inputs(0, 512)
  own = denoisers.from_function(silent, PROCESS, denoisers.eps(), jnp.float32(1.0))

  def temporary(n):
    run = jax.jit(lambda x, solver: solvers.sample(own, solver, x))
    return run.lower(x, solvers.build("ddim", PROCESS, n)).compile().memory_analysis().temp_size_in_bytes

  assert (
    temporary(100) - temporary(10) < 2 * 90 * 12 * 4
  )  # at most copies of the table itself, far below one state a step


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m_sde", "predictor_corrector"])
def test_each_sample_may_have_its_own_grid(name):
  grids = np.stack([solvers.grids.quadratic(PROCESS, STEPS, t_max=t) for t in (1.0, 0.8, 0.5)])
  x, keys = inputs(2, 3)
  own = denoisers.from_function(silent, PROCESS, denoisers.eps(), jnp.float32(1.0))
  together = solvers.sample(own, solvers.build(name, PROCESS, STEPS, grid=grids), x, keys=keys)
  for i, grid in enumerate(grids):
    alone = solvers.sample(
      own, solvers.build(name, PROCESS, STEPS, grid=grid), x[i : i + 1], keys=keys[i : i + 1]
    )
    np.testing.assert_allclose(together[i], alone[0], rtol=2e-6, atol=2e-6)


def test_state_is_float32_under_a_bfloat16_network():
  """The network sees and returns bfloat16; DDIM's own arithmetic keeps the digits."""
  process = processes.edm()
  oracle = oracles.atoms(process, [[0.7]])

  def rounded(params, x, t, cond):
    return oracle(x, t).x0.astype(jnp.bfloat16)

  own = denoisers.from_function(rounded, process, denoisers.x0())
  solver = solvers.build("heun", process, 10)
  x = 80 * jax.random.normal(jax.random.key(0), (4, 1))
  out = solvers.sample(own, solver, x)
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(out, jnp.bfloat16(0.7).astype(jnp.float32), rtol=1e-5)
  assert solvers.sample(own, solver, x.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("name", ["ddim", "euler", "heun"])
def test_post_step_changes_the_state_where_a_step_is_finished(name):
  """Moving x at a middle node equals starting the rest of the grid from the moved x; arrays in a Partial are
  data."""
  own = denoisers.from_function(silent, PROCESS, denoisers.eps(), jnp.float32(1.0))
  grid = solvers.grids.quadratic(PROCESS, 5)
  solver = solvers.build(name, PROCESS, 5, grid=grid)
  x, _keys = inputs()
  middle = np.float32(grid[2])

  def move(shift, x, t, keys, prediction):
    return jnp.where(t[:, None] == middle, x + shift, x)

  hook = lambda shift: jax.tree_util.Partial(move, jnp.float32(shift))
  head = solvers.build(name, PROCESS, 2, grid=grid[:3])
  tail = solvers.build(name, PROCESS, 3, grid=grid[2:])
  between = solvers.sample(own, head, x)
  for shift in (0.0, 0.3):
    expected = solvers.sample(own, tail, between + shift)
    np.testing.assert_allclose(
      solvers.sample(own, solver, x, post_step=hook(shift)), expected, rtol=1e-5, atol=1e-6
    )
  # A projection holds exactly at the end.
  known = lambda x, t, keys, prediction: jnp.where(jnp.arange(3)[None, :] == 1, 0.25, x)
  assert (np.asarray(solvers.sample(own, solver, x, post_step=known))[:, 1] == 0.25).all()


def test_batch_norm_of_the_corrector_couples_samples_and_is_the_papers():
  """Exempt from the per-index law; equal to the per-sample form where all samples are alike."""
  own = denoisers.from_function(silent, PROCESS, denoisers.eps(), jnp.float32(1.0))
  build = lambda norm: solvers.build("predictor_corrector", PROCESS, STEPS, norm=norm)
  x, keys = inputs()
  batch = np.asarray(solvers.sample(own, build("batch"), x, keys=keys))
  assert (
    np.abs(
      np.asarray(solvers.sample(own, build("batch"), x.at[0].multiply(10), keys=keys))[1:] - batch[1:]
    ).max()
    > 1e-4
  )
  same_x, same_keys = jnp.repeat(x[:1], BATCH, axis=0), jnp.stack([keys[0]] * BATCH)
  alike = [solvers.sample(own, build(norm), same_x, keys=same_keys) for norm in ("batch", "sample")]
  np.testing.assert_allclose(*alike, rtol=1e-6)


@pytest.mark.parametrize(
  "case, says",
  [
    (lambda d, x, k: solvers.sample(d, solvers.build("ancestral", PROCESS, 3), x), "give keys"),
    (
      lambda d, x, k: solvers.sample(d, solvers.build("ancestral", PROCESS, 3), x, keys=k[:2]),
      "one a sample",
    ),
    (
      lambda d, x, k: solvers.sample(d, solvers.build("ddim", PROCESS, 3), x, keys=jax.random.PRNGKey(0)),
      "typed keys",
    ),
    (
      lambda d, x, k: solvers.sample(d, solvers.build("ddim", processes.edm(), 3), x),
      "built for the process 'edm'",
    ),
    (
      lambda d, x, k: solvers.sample(d, solvers.build("ddim", processes.vp_linear(beta_max=5.0), 3), x),
      "alpha = 0.717568 at t = 0.5005.* 0.280477 there",
    ),
    (
      lambda d, x, k: solvers.sample(
        d, solvers.build("predictor_corrector", processes.vp_linear(beta_max=5.0), 3), x, keys=k
      ),
      "built for a process 'vp_linear'",
    ),
    (
      lambda d, x, k: solvers.sample(
        d, solvers.build("dpm_solver_adaptive", processes.vp_linear(beta_max=5.0)), x
      ),
      "built for a process 'vp_linear'",
    ),
    (
      lambda d, x, k: solvers.sample(
        d, solvers.build("euler_velocity", processes.from_process(processes.vp_linear()), 3), x
      ),
      "with first, and the denoiser's own 'vp_linear' is told by alpha, sigma",
    ),
    (
      lambda d, x, k: solvers.sample(
        denoisers.from_function(
          silent,
          processes.masked(4, (2,), t_min=0.0, schedule=processes.cosine_keep()),
          denoisers.logits(),
          1.0,
        ),
        solvers.build("masked_ancestral", processes.masked(4, (2,), t_min=0.0), 3),
        jnp.zeros((BATCH, 2), jnp.int32),
        keys=k,
      ),
      "with alpha = 0.5 at t = 0.5, and the denoiser's own 'masked' has 0.292893 there",
    ),
    (
      lambda d, x, k: solvers.sample(
        denoisers.from_function(silent, processes.linear(bridge=0.2), denoisers.velocity(), 1.0),
        solvers.build("heun_velocity", processes.linear(bridge=0.4), 3),
        x,
      ),
      "with variance = 0.1 at t = 0.5, and the denoiser's own 'linear' has 0.05 there",
    ),
    (
      lambda d, x, k: solvers.sample(
        denoisers.from_function(silent, processes.vp_cosine(), denoisers.eps(), 1.0),
        solvers.build("ddim", processes.vp_cosine(), 3),
        x,
      ),
      "no signal",
    ),
    (
      lambda d, x, k: solvers.sample(
        d, solvers.build("ddim", PROCESS, 2, grid=np.ones((3, 1)) * [1.0, 0.5, 0.1]), x
      ),
      "3 grids",
    ),
  ],
)
def test_what_does_not_fit_is_said_before_compiling(case, says):
  x, keys = inputs()
  traces.clear()
  with pytest.raises(ValueError, match=says):
    case(denoiser(), x, keys)
  assert not traces
