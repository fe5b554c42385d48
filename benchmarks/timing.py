"""Fair timing on a shared, noisy machine: interleaved repeats, medians, ratios."""

import argparse
import json
import time

import jax
import numpy as np


def seconds(function):
  """Wall-clock seconds of one call, until its results are ready."""
  start = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - start


def interleaved(functions, repeats):
  """Times of each function, taken in turn so that a slow moment hits all of them.

  Args:
    functions: dict name -> function of no arguments.
    repeats: rounds; the order is reversed in every second one.

  Returns:
    dict name -> [repeats] seconds.
  """
  times = {name: [] for name in functions}
  for round_number in range(repeats):
    for name in list(functions)[:: 1 if round_number % 2 == 0 else -1]:
      times[name].append(seconds(functions[name]))
  return {name: np.asarray(values) for name, values in times.items()}


def ratio(times, ours, theirs):
  """Median of the per-round ratios, with the middle half as (low, high)."""
  ratios = times[ours] / times[theirs]
  return float(np.median(ratios)), (float(np.quantile(ratios, 0.25)), float(np.quantile(ratios, 0.75)))


def arguments(description):
  """The command line that every benchmark has."""
  parser = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--out", metavar="FILE", help="write the numbers as JSON")
  parser.add_argument(
    "--quick", action="store_true", help="fewer repeats: to see that it runs, not to believe the numbers"
  )
  return parser


def write(path, numbers):
  """Saves the numbers as JSON, with what they were measured on."""
  device = jax.devices()[0]
  numbers = numbers | {"jax": jax.__version__, "device": device.device_kind, "devices": jax.device_count()}
  if path:
    with open(path, "w") as file:
      json.dump(numbers, file, indent=2)
      file.write("\n")
    print(f"wrote {path}")
