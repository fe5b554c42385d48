"""Sinks: where a run's log lines, metrics and pictures go.

    config.training.sinks = (
      dict(factory="run.sinks.jsonl"),
      dict(factory="run.sinks.tensorboard"),
      dict(factory="run.sinks.wandb", project="digits"),
    )

Without the key it is the first two. One's own sink is any factory, by its dotted path, that returns a `Sink`.
The progress bar is no sink: it is there unless a command is told to be quiet.
"""

from diffusion.run.sinks.contract import Sink
from diffusion.run.sinks.event_files import tensorboard
from diffusion.run.sinks.json_lines import jsonl
from diffusion.run.sinks.several import Several, build, of_evaluation
from diffusion.run.sinks.weights_and_biases import wandb
