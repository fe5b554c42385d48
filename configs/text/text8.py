"""text8 by characters, a masked model with the numbers of MD4, or with `:autoregressive` one in order.

    python train.py --config=configs/text/text8.py --config.data.path=text8 --workdir=runs/text8

arXiv:2406.04329, section 7 and the authors' own config: 12 blocks of 768 features, windows of 256 characters,
a million updates of 512. Reported of the test part: at the most 1.37 bits a character.
"""

from ml_collections import ConfigDict

LENGTH, VALUES, BATCH = 256, 27, 512


def get_config(form="masked"):
  if form not in ("masked", "autoregressive"):
    raise ValueError(f"there is no model '{form}' of text8: there are masked, autoregressive")
  masked = form == "masked"
  config = dict(
    seed=0,
    data=dict(factory="data.text8", path="", length=LENGTH, held_out="test", sha256=""),
    process=dict(factory="processes.masked", num_values=VALUES, shape=(LENGTH,)),
    network=dict(
      factory="networks.SequenceTransformer",
      num_values=VALUES,
      width=768,
      depth=12,
      num_heads=12,
      time=masked,
      causal=not masked,
      tied=False,
      dropout=0.05,
      dtype="bfloat16",
    ),
    denoiser=dict(factory="denoisers.logits"),
    loss=dict(factory="losses.masked_cross_entropy", times=dict(factory="losses.low_discrepancy"))
    if masked
    else dict(factory="losses.next_token"),
    optimizer=dict(
      learning_rate=5e-4,
      schedule="cosine",
      warmup_steps=2000,
      b1=0.9,
      b2=0.999,
      eps=1e-8,
      clip=1.0,
      weight_decay=0.03,
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
    evaluation=dict(num_samples=256, batch=64, seed=0, held_out=4096),
  )
  if masked:
    config["claim"] = dict(
      source="arXiv:2406.04329, table 2",
      metric="bits_per_character_bound",
      reported=1.37,
    )
  return ConfigDict(config)
