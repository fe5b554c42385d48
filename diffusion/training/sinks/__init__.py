"""Sinks: where a run's log lines, metrics and pictures go.

    config.training.sinks = (
      dict(factory="training.sinks.jsonl"),
      dict(factory="training.sinks.tensorboard"),
      dict(factory="training.sinks.wandb", project="digits"),
    )

Without the key it is the first two. One's own sink is any factory, by its dotted path, that returns a `Sink`.
The progress bar is no sink: it is there unless a command is told to be quiet.
"""

from diffusion.training.sinks.contract import Sink
from diffusion.training.sinks.event_files import tensorboard
from diffusion.training.sinks.json_lines import jsonl
from diffusion.training.sinks.several import Several, build, of_evaluation
from diffusion.training.sinks.weights_and_biases import wandb
