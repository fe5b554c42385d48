"""What make_recorded_evaluation.py kept of the originals, by name."""

import json
import pathlib

import numpy as np


def records():
  """{name: numbers} of every record."""
  with np.load(pathlib.Path(__file__).with_name("recorded_evaluation.npz")) as file:
    numbers, index = file["numbers"], json.loads(str(file["index"]))
  found, at = {}, 0
  for name, size in index:
    found[name] = numbers[at : at + size]
    at += size
  assert at == len(numbers)
  return found
