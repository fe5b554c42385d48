"""What a trained model is worth: metrics of samples, held-out loss, likelihood and pictures of a saved run.

run.py        the parts in their order: `evaluate_run`, `evaluate`
record.py     metrics.json, written as parts are ready, with what was left out and why
samples.py    samples of a run, and what they are worth beside data
held_out.py   loss and likelihood of held-out data
figures.py    pictures
words.py      the metrics for a person: `report`
protocol.py   the numbers that a published tool would give, by its conventions
sources.py    images of files and shards; run_images.py: of a run
explain.py    which conventions make two numbers differ

"""

from diffusion.commands.evaluation import figures, held_out, samples
from diffusion.commands.evaluation.held_out import (
  LOSS_PASSES,
  MOST_HELD_OUT,
  held_out_likelihood,
  held_out_loss,
)
from diffusion.commands.evaluation.run import evaluate, evaluate_run
from diffusion.commands.evaluation.samples import MOST_REAL
from diffusion.commands.evaluation.words import report

__all__ = [
  "LOSS_PASSES",
  "MOST_HELD_OUT",
  "MOST_REAL",
  "evaluate",
  "evaluate_run",
  "figures",
  "held_out",
  "held_out_likelihood",
  "held_out_loss",
  "report",
  "samples",
]
