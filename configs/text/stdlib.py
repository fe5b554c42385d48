"""Characters of Python's own library: a masked model, or with `:autoregressive` one of the same size.

    python train.py --config=configs/text/stdlib.py --workdir=runs/stdlib
    python train.py --config=configs/text/stdlib.py:autoregressive --workdir=runs/stdlib_in_order
    python sample.py --workdir=runs/stdlib --prompt "def " --num=4

Ten million characters that every machine with Python has. Both are trained on the same windows by as many
updates of the same optimiser, and differ in what a place sees and in the loss: all that is not masked
(arXiv:2406.07524), or what comes before.

Measured with --config.training.steps=1500 (1.5 million characters, some five minutes of one core each; 256
held-out windows of the library of Python 3.11.7): at the most 3.22 ± 0.04 bits a character masked, and 2.17 ±
0.03 in order. So early in training a masked model is far behind: it learns from the masked half of the
tokens, and most of those stand among masks.
"""

from ml_collections import ConfigDict

LENGTH = 64
VALUES = 97  # the new line, printable ASCII, and one for all others


def get_config(form="masked"):
  if form not in ("masked", "autoregressive"):
    raise ValueError(f"there is no model '{form}' of text: there are masked, autoregressive")
  masked = form == "masked"
  config = dict(
    seed=0,
    data=dict(
      factory="data.text_files",
      patterns=("**/*.py",),
      root="stdlib",
      leave_out=(
        "site-packages/*",
        "dist-packages/*",
        "test/*",
        "*/test/*",
        "*/tests/*",
        "encodings/*",  # tables of numbers
        "_sysconfigdata*",  # what differs from machine to machine
        "config-*",
      ),
      length=LENGTH,
      held_out=0.05,
      sha256="",
    ),
    process=dict(factory="processes.masked", num_values=VALUES, shape=(LENGTH,)),
    denoiser=dict(factory="denoisers.logits"),
    network=dict(
      factory="networks.SequenceTransformer",
      num_values=VALUES,
      width=128,
      depth=4,
      num_heads=4,
      neighbours=4,
      time=False,
      causal=not masked,
    ),
    loss=dict(factory="losses.masked_cross_entropy", times=dict(factory="losses.low_discrepancy"))
    if masked
    else dict(factory="losses.next_token"),
    optimizer=dict(
      learning_rate=3e-3,
      schedule="cosine",
      warmup_steps=100,
      b1=0.9,
      b2=0.98,
      eps=1e-8,
      clip=0.0,
      weight_decay=0.0,
    ),
    training=dict(
      batch_size=16,
      steps=4000,
      ema_half_life_images=(2000,),
      ema_ramp=0.05,
      accumulate=1,
      log_every=50,
      checkpoint_every=500,
      keep=2,
      warm_start=None,
      layout="replicated",
    ),
    sampler=dict(solver="first_hitting", options=dict())
    if masked
    else dict(solver="block_by_block", options=dict(block=1)),
    evaluation=dict(num_samples=64, batch=64, seed=0, held_out=512),
  )
  return ConfigDict(config)
