"""The One Billion Word Benchmark in BERT's word pieces: a masked model with the numbers of MDLM.

    python train.py --config=configs/text/lm1b.py --config.data.path=FOLDER --workdir=runs/lm1b

Or with `:autoregressive` one in order. arXiv:2406.07524 and the authors' own config: 12 blocks of 768
features, windows of 128 word pieces, a million updates of 512, a network that is not told the time. Reported:
a perplexity of at most 27.04, of sentences each filled up to 128; windows here are packed.
"""

from ml_collections import ConfigDict

LENGTH, VALUES, BATCH = 128, 30522, 512


def get_config(form="masked"):
  if form not in ("masked", "autoregressive"):
    raise ValueError(f"there is no model '{form}' of LM1B: there are masked, autoregressive")
  masked = form == "masked"
  return ConfigDict(
    dict(
      seed=0,
      data=dict(factory="data.lm1b", path="", vocabulary="", length=LENGTH, cache="", sha256=""),
      process=dict(factory="processes.masked", num_values=VALUES, shape=(LENGTH,)),
      network=dict(
        factory="networks.SequenceTransformer",
        num_values=VALUES,
        width=768,
        depth=12,
        num_heads=12,
        time=False,
        causal=not masked,
        tied=False,
        dropout=0.1,
        dtype="bfloat16",
      ),
      denoiser=dict(factory="denoisers.logits"),
      loss=dict(factory="losses.masked_cross_entropy", times=dict(factory="losses.low_discrepancy"))
      if masked
      else dict(factory="losses.next_token"),
      optimizer=dict(
        learning_rate=3e-4,
        schedule="constant",
        warmup_steps=2500,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        clip=1.0,
        weight_decay=0.0,
      ),
      training=dict(
        batch_size=BATCH,
        steps=1_000_000,
        ema_half_life_images=(6931 * BATCH,),  # a decay of 0.9999 a step
        ema_ramp=0.05,
        accumulate=1,
        log_every=100,
        checkpoint_every=10_000,
        keep=3,
        warm_start=None,
        layout="replicated",
      ),
      sampler=dict(solver="first_hitting", options=dict())
      if masked
      else dict(solver="block_by_block", options=dict(block=1)),
      evaluation=dict(num_samples=64, batch=64, seed=0, held_out=2048),
    )
  )
