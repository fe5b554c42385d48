"""Samplers as programs of JAX's own: what is open, what is fixed, and what is refused."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from diffusion import denoisers, export, processes, solvers
from diffusion.commands import export as command
from diffusion.config.errors import UserError
from diffusion.data import scaling

PROCESS = processes.edm(sigma_min=0.01, sigma_max=10.0)
SOLVER = solvers.heun(PROCESS, solvers.grids.karras(PROCESS, 40))
EXACT = np.sqrt((1 + 0.01**2) / (1 + 10.0**2))  # the flow of N(0, 1) scales noise by this
NOTES = dict(guided=None, decode=None, batch=3, notes={})


def unit(params, x, t, cond):
  """The denoiser of data ~ N(0, 1)."""
  return x / (1 + t[:, None] ** 2)


def sampler(function, solver=SOLVER):
  denoiser = denoisers.from_function(function, PROCESS, denoisers.x0())
  return denoiser, solver, (2,), export.inputs_of(solver, index=np.arange(4))


def written(path):
  """(program, inputs, words) of three files."""
  program = jax_export.deserialize(bytearray(path.with_suffix(".jax").read_bytes()))
  return program, dict(np.load(path.with_suffix(".npz"))), json.loads(path.with_suffix(".json").read_text())


def test_an_open_batch_gives_the_flow_in_closed_form(tmp_path):
  command.write(str(tmp_path / "open.jax"), *sampler(unit), **NOTES)
  program, inputs, words = written(tmp_path / "open")
  call = jax.jit(program.call)
  for rows in (1, 4, 7):
    x = call(inputs | dict(index=np.arange(rows, dtype=np.int32)))["x"]
    noise = PROCESS.prior(
      jax.vmap(lambda i: jax.random.split(jax.random.fold_in(jax.random.key(0), i), 2)[0])(jnp.arange(rows)),
      (2,),
    )
    np.testing.assert_allclose(x, EXACT * noise, rtol=0.005)
  assert words["batch"] == "any" and words["evaluations"] == SOLVER.cost
  assert sorted(path.name for path in tmp_path.iterdir()) == ["open.jax", "open.json", "open.npz"]


def test_a_network_that_counts_its_rows_gets_a_fixed_batch(tmp_path):
  counts = lambda params, x, t, cond: unit(params, x, t, cond) * (len(x) // int(x.shape[0]))
  said = command.write(str(tmp_path / "fixed"), *sampler(counts), **NOTES)
  program, inputs, words = written(tmp_path / "fixed")
  assert "and 3 samples a call" in said and words["batch"] == 3 and inputs["index"].tolist() == [0, 1, 2]
  assert jax.jit(program.call)(inputs)["x"].shape == (3, 2)


def test_a_call_back_into_python_is_refused_and_nothing_is_written(tmp_path):
  calls = lambda params, x, t, cond: jax.pure_callback(lambda x: x, x, x)
  with pytest.raises(UserError, match=r"--export: JAX does not put the solver heun.* take another solver"):
    command.write(str(tmp_path / "one"), *sampler(calls), **NOTES)
  assert not list(tmp_path.iterdir())


def test_data_in_double_precision_are_refused():
  dataset = types.SimpleNamespace(scaling=scaling.Standardize(1e9, 1.0, "float64"))
  opened = types.SimpleNamespace(parts=types.SimpleNamespace(dataset=dataset))
  with pytest.raises(UserError, match="stored in double precision"):
    command.decoding(opened)


def test_weights_that_no_file_holds_and_another_process_are_refused(monkeypatch):
  denoiser, solver, shape, inputs = sampler(unit)
  monkeypatch.setattr(export, "LARGEST", 2)
  with pytest.raises(ValueError, match="holds at most"):
    export.exported(denoiser.replace(params=jnp.zeros(3)), solver, shape, inputs)
  monkeypatch.undo()
  other = solvers.build("heun", processes.rectified_flow(), 4)
  with pytest.raises(ValueError, match=r"build the solver with denoiser\.process"):
    export.exported(denoiser, other, shape, inputs)


def test_half_precision_weights_stay_in_half_precision():
  denoiser, solver, shape, inputs = sampler(lambda params, x, t, cond: params[0].astype(x.dtype) * x)
  halves = denoiser.replace(params=jnp.arange(100_000).astype(jnp.bfloat16))
  program = export.exported(halves, solver, shape, inputs, platforms=("tpu",))
  assert 200_000 < len(program.serialize()) < 260_000 and program.platforms == ("tpu",)
